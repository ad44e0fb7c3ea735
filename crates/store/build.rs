//! Generates the client of etcd's interface, in pure Rust: nobody who builds Lyra needs `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/etcd.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).build_transport(false).bytes(".").compile_fds(files)?;
    Ok(())
}
