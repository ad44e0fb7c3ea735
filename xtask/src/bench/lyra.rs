//! Lyra as a system under test: `lyra up` in a process of its own, with a data directory that a restart keeps.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use hyper::Method;
use serde_json::json;

use super::client::{Answer, Client};
use super::load::Request;
use super::process::{Server, free_address};

/// The handler that all JavaScript scenarios use: two numbers in, their sum out.
pub const ADD: &str = "export default (event) => ({ sum: event.a + event.b });";
/// Its event.
pub const EVENT: &str = r#"{"a":2,"b":3}"#;
/// Its result.
pub const SUM: &str = r#"{"sum":5}"#;

/// A data directory, gone when dropped.
pub struct Data {
    folder: tempfile::TempDir,
}

impl Data {
    /// An empty one.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new() -> anyhow::Result<Data> {
        Ok(Data { folder: tempfile::Builder::new().prefix("lyra-bench-").tempdir()? })
    }

    /// Starts Lyra on it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start(&self, lyra: &Path) -> anyhow::Result<Server> {
        let address = free_address()?;
        let mut command = Command::new(lyra);
        command.arg("up").arg("--data-dir").arg(self.folder.path().join("data"));
        command.args(["--listen", &address.to_string()]);
        Server::start_and_read(command, address, "lyra: ready on", &self.folder.path().join("log"))
    }

    /// Starts a control process on it and waits until it is ready. Its address is that of gRPC.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_control(&self, lyra: &Path) -> anyhow::Result<Server> {
        let address = free_address()?;
        let mut command = Command::new(lyra);
        command.args(["node", "--role", "control", "--name", "c1", "--data-dir"]).arg(self.folder.path().join("data"));
        command.args(["--listen-grpc", &address.to_string()]);
        Server::start_and_read(command, address, "lyra: control ready on", &self.folder.path().join("log"))
    }

    /// Space on disk, in MB.
    ///
    /// # Errors
    /// When `du` can't be run.
    pub fn disk_mb(&self) -> anyhow::Result<f64> {
        let output = Command::new("du").args(["-s", "--block-size=1000"]).arg(self.folder.path()).output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text.split_whitespace().next().context("du")?.parse::<f64>()? / 1e3)
    }
}

/// Builds the release program.
///
/// # Errors
/// When it can't be built.
pub fn build() -> anyhow::Result<PathBuf> {
    let root = crate::repository();
    let status = Command::new("cargo").args(["build", "--release", "-p", "lyra-cli"]).current_dir(root).status()?;
    anyhow::ensure!(status.success(), "lyra can't be built");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/lyra"))
}

/// Deploys JavaScript source.
///
/// # Errors
/// When it is refused.
pub async fn deploy_js(client: &mut Client, name: &str, source: &str, reuse: bool) -> anyhow::Result<Answer> {
    let body = json!({"runtime": "js", "code": {"source": source}, "reuse": reuse});
    client.send(Method::PUT, &format!("/v1/functions/{name}"), body.to_string()).await?.ok()
}

/// Deploys a WebAssembly file.
///
/// # Errors
/// When it is refused.
pub async fn deploy_wasm(client: &mut Client, name: &str, wasm: Vec<u8>) -> anyhow::Result<Answer> {
    let path = format!("/v1/functions/{name}/code");
    client.send_as(Method::PUT, &path, "application/wasm", wasm).await?.ok()
}

/// Calls a function with [`EVENT`].
///
/// # Errors
/// When it fails.
pub async fn invoke(client: &mut Client, name: &str) -> anyhow::Result<Answer> {
    client.send(Method::POST, &invoke_path(name), EVENT).await?.ok()
}

/// Path of a function's calls.
pub fn invoke_path(name: &str) -> String {
    format!("/v1/functions/{name}/invoke")
}

/// A call with [`EVENT`], for load.
pub fn invoke_request(name: &str) -> Request {
    Request { method: "POST", path: invoke_path(name), body: Some(EVENT.to_owned()) }
}

/// A request through the HTTP trigger, for load.
pub fn http_request(name: &str) -> Request {
    Request { method: "GET", path: format!("/fn/default/{name}/"), body: None }
}
