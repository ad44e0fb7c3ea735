//! What the tests begin with: a server, commands, a function.

use std::path::PathBuf;

use anyhow::Result;
use lyra_testkit::{Cli, Lyra, Options};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_lyra");

/// Returns what it is given.
pub const ECHO: &str = "export default (event) => event\n";

/// Throws what it is told to.
pub const THROWS: &str =
    "export default (event) => { console.error('about to fail'); throw new TypeError(event.say) }\n";

/// The folder of the whole project.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A server with fresh data.
pub async fn server() -> Result<Lyra> {
    Lyra::start_with(Options { binary: Some(BINARY.into()), ..Options::default() }).await
}

/// Commands with no server.
pub fn alone() -> Cli {
    Cli::new(BINARY)
}

/// A server with the JavaScript function `name`.
pub async fn server_with(name: &str, source: &str) -> Result<Lyra> {
    let lyra = server().await?;
    deploy(&lyra, name, source, &[]).await?;
    Ok(lyra)
}

/// Deploys a JavaScript function and gives what the command printed.
pub async fn deploy(lyra: &Lyra, name: &str, source: &str, flags: &[&str]) -> Result<String> {
    let file = format!("{name}.js");
    std::fs::write(lyra.scratch().join(&file), source)?;
    lyra.cli([&["deploy", &file], flags].concat()).await?.ok()
}
