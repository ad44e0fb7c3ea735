//! Lyra as a system under test: `lyra up` in a process of its own, with a data directory that a restart keeps; or each role in one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use lyra_kit::Clock;
use serde_json::{Value, json};

use super::client::{Answer, Client};
use super::load::Request;
use super::process::{Server, free_address};

/// The handler that all JavaScript scenarios use: two numbers in, their sum out.
pub const ADD: &str = "export default (event) => ({ sum: event.a + event.b });";
/// Its event.
pub const EVENT: &str = r#"{"a":2,"b":3}"#;
/// Its result.
pub const SUM: &str = r#"{"sum":5}"#;

/// Longest wait until workers are known.
const REGISTERED: Duration = Duration::from_secs(20);

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
        self.start_role(lyra, "control", "control", address, &["--listen-grpc", &address.to_string()])
    }

    /// Starts a worker of this name and this control process. Its address is that of gRPC.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_worker(&self, lyra: &Path, name: &str, control: &Server) -> anyhow::Result<Server> {
        let address = free_address()?;
        let blobs = self.folder.path().join("control/blobs");
        let blobs = blobs.to_str().context("the folder's name is not UTF-8")?;
        let (control, listen) = (control.address.to_string(), address.to_string());
        let arguments = ["--control", &control, "--listen-grpc", &listen, "--blobs", blobs];
        self.start_role(lyra, "worker", name, address, &arguments)
    }

    /// Starts a gateway of this control process. Its address is that of HTTP.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_gateway(&self, lyra: &Path, control: &Server) -> anyhow::Result<Server> {
        let (address, grpc) = (free_address()?, free_address()?.to_string());
        let (control, listen) = (control.address.to_string(), address.to_string());
        let arguments = ["--control", &control, "--listen-grpc", &grpc, "--listen", &listen];
        self.start_role(lyra, "gateway", "gateway", address, &arguments)
    }

    fn start_role(
        &self,
        lyra: &Path,
        role: &str,
        name: &str,
        address: SocketAddr,
        more: &[&str],
    ) -> anyhow::Result<Server> {
        let mut command = Command::new(lyra);
        command.args(["node", "--role", role, "--name", name, "--data-dir"]).arg(self.folder.path().join(name));
        command.args(more);
        let log = self.folder.path().join(format!("{name}.log"));
        Server::start_and_read(command, address, &format!("lyra: {role} ready on"), &log)
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

/// Waits until the gateway knows so many workers.
///
/// # Errors
/// When it does not in time.
pub async fn until_workers(client: &mut Client, count: usize) -> anyhow::Result<()> {
    let began = Clock::system().instant();
    loop {
        let answer = client.send(Method::GET, "/v1/workers", "").await?.ok()?;
        let listed: Value = serde_json::from_slice(&answer.body)?;
        let known = listed["items"].as_array().map_or(0, Vec::len);
        if known >= count {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < REGISTERED, "{known} of {count} workers register");
        Clock::system().sleep(Duration::from_millis(50)).await;
    }
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
