//! Makes the code of the protocol: calls from their .proto file, the other services from the list below. Neither needs
//! `protoc`.

use tonic_build::manual::{Builder, Method, Service};

/// Name of the route, then the Rust types of request and response, within `crate::grpc::messages`.
type Row = (&'static str, &'static str, &'static str);

const WORKER: &[Row] = &[
    ("Prepare", "Prepare", "Prepared"),
    ("Prewarm", "Prewarm", "Nothing"),
    ("Forget", "Forget", "Nothing"),
    ("Status", "Nothing", "Status"),
    ("Instances", "Nothing", "Instances"),
    ("Health", "Nothing", "Health"),
    ("Cordon", "Nothing", "Nothing"),
    ("Uncordon", "Nothing", "Nothing"),
    ("Drain", "Drain", "Drained"),
    ("Clean", "Nothing", "Cleaned"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["lyra/calls.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Builder::new().compile(&[service("Worker", WORKER)]);
    Ok(())
}

fn service(name: &str, rows: &[Row]) -> Service {
    let builder = Service::builder().name(name).package("lyra.v1");
    rows.iter().fold(builder, |builder, row| builder.method(method(row))).build()
}

fn method((route, input, output): &Row) -> Method {
    let path = |of: &str| format!("crate::grpc::messages::{of}");
    Method::builder()
        .name(snake(route))
        .route_name(route)
        .input_type(path(input))
        .output_type(path(output))
        .codec_path("crate::grpc::packed::Packed")
        .build()
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}
