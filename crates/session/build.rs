//! Generates messages and service of the session protocol, in pure Rust: nobody who builds Lyra needs `protoc`. The messages
//! are also what the JSON form is read into and written from.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["lyra/session/v1/session.proto"], ["proto"])?;
    let mut builder = tonic_prost_build::configure().build_transport(false).btree_map(".").bytes(".");
    let package = ".lyra.session.v1";
    for message in ["Configuration", "OpenSession", "Session", "CloseSession", "Ping", "Welcome", "Resync", "Ack"] {
        builder = builder.message_attribute(format!("{package}.{message}"), "#[derive(serde::Serialize)]");
    }
    for message in ["SessionState", "Clients", "Hello", "Pong"] {
        let attributes = "#[derive(serde::Deserialize)] #[serde(default, deny_unknown_fields)]";
        builder = builder.message_attribute(format!("{package}.{message}"), attributes);
    }
    builder
        .field_attribute(format!("{package}.SessionState.phase"), "#[serde(with = \"crate::json::phase\")]")
        .field_attribute(format!("{package}.OpenSession.data"), "#[serde(with = \"crate::json::data\")]")
        .compile_fds(files)?;
    Ok(())
}
