//! The peer `wasmtime serve`, with the same component, compiled beforehand as Lyra's is at deploy.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::load::Request;
use super::process::{Server, free_address};

/// The component that both serve.
///
/// # Errors
/// When the file is not there.
pub fn component() -> anyhow::Result<Vec<u8>> {
    let path = crate::repository().join("examples/wasm-http-hello/hello.wasm");
    std::fs::read(&path).with_context(|| format!("read {}", path.display()))
}

/// Compiles `wasm` into `folder`.
///
/// # Errors
/// When it can't be compiled.
pub fn compile(program: &Path, wasm: &[u8], folder: &Path) -> anyhow::Result<PathBuf> {
    let (from, to) = (folder.join("component.wasm"), folder.join("component.cwasm"));
    std::fs::write(&from, wasm)?;
    let output = Command::new(program).arg("compile").arg(&from).arg("-o").arg(&to).output()?;
    anyhow::ensure!(output.status.success(), "wasmtime compile: {}", String::from_utf8_lossy(&output.stderr));
    Ok(to)
}

/// Starts it on what [`compile`] made.
///
/// # Errors
/// When it does not start.
pub fn start(program: &Path, compiled: &Path, folder: &Path) -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut command = Command::new(program);
    command.args(["serve", "--allow-precompiled", "-S", "cli", "--addr", &address.to_string()]).arg(compiled);
    Server::start_and_connect(command, address, &folder.join("wasmtime.log"))
}

/// The same call that Lyra gets.
pub fn request() -> Request {
    Request { method: "GET", path: "/".to_owned(), body: None }
}
