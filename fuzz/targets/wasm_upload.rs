//! Fuzzes `PUT /v1/functions/{name}/code` with WebAssembly.
#![no_main]

libfuzzer_sys::fuzz_target!(|wasm: &[u8]| lyra_fuzz::wasm_upload(wasm));
