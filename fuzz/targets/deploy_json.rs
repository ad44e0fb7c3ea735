//! Fuzzes the body of `PUT /v1/functions/{name}`.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| lyra_fuzz::deploy_json(body));
