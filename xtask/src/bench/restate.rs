//! The peer of durable runs: Restate's server, with a service in Node.js whose handler makes one durable step or ten.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use lyra_kit::Clock;
use serde_json::json;

use super::client::Client;
use super::load::Request;
use super::process::{Server, free_address};

/// Tries to make its service known; it needs a while until it has a leader.
const TRIES: usize = 60;

/// The server, and the service that it calls.
pub struct Restate {
    /// What is measured.
    pub server: Server,
    _service: Server,
}

/// Starts both and makes the service known.
///
/// # Errors
/// When one of them does not start.
pub async fn start(program: &Path, modules: &Path, folder: &Path) -> anyhow::Result<Restate> {
    let service = serve(modules, folder)?;
    let (ingress, admin, node) = (free_address()?, free_address()?, free_address()?);
    let mut command = Command::new(program);
    command.current_dir(folder).arg("--base-dir").arg(folder.join("restate-data"));
    command.env("RESTATE_INGRESS__BIND_ADDRESS", ingress.to_string());
    command.env("RESTATE_ADMIN__BIND_ADDRESS", admin.to_string());
    command.env("RESTATE_BIND_ADDRESS", node.to_string());
    command.env("RESTATE_ADVERTISED_ADDRESS", format!("http://{node}"));
    command.env("RESTATE_DISABLE_TELEMETRY", "true").env("DO_NOT_TRACK", "1");
    let server = Server::start_and_connect(command, ingress, &folder.join("restate.log"))?;
    register(admin, service.address).await?;
    Ok(Restate { server, _service: service })
}

fn serve(modules: &Path, folder: &Path) -> anyhow::Result<Server> {
    let address = free_address()?;
    let script = folder.join("service.mjs");
    let text = format!(
        "import {{ createRequire }} from 'node:module';
const require = createRequire({modules:?} + '/');
const restate = require('@restatedev/restate-sdk');
const steps = (count) => async (ctx, event) => {{
  let sum = event.a;
  for (let n = 0; n < count; n++) sum = await ctx.run(`step ${{n}}`, () => sum + event.b);
  return {{ sum }};
}};
const service = restate.service({{ name: 'steps', handlers: {{ one: steps(1), ten: steps(10) }} }});
restate.endpoint().bind(service).listen({port});
",
        modules = modules.to_string_lossy(),
        port = address.port()
    );
    std::fs::write(&script, text)?;
    let mut command = Command::new("node");
    command.arg(&script);
    Server::start_and_connect(command, address, &folder.join("service.log"))
}

async fn register(admin: SocketAddr, service: SocketAddr) -> anyhow::Result<()> {
    let body = json!({ "uri": format!("http://{service}"), "force": true }).to_string();
    for _ in 0..TRIES {
        let asked = async {
            let mut client = Client::connect(admin).await?;
            client.send(Method::POST, "/deployments", body.clone()).await?.ok()
        };
        if asked.await.is_ok() {
            return Ok(());
        }
        Clock::system().sleep(Duration::from_millis(500)).await;
    }
    anyhow::bail!("Restate does not take the service on")
}

/// A call of a handler, `one` or `ten`.
pub fn request(handler: &str) -> Request {
    let path = format!("/steps/{handler}");
    Request { method: "POST", path, body: Some(super::lyra::EVENT.to_owned()) }
}

/// Where npm puts what this needs, and the server's program in it.
pub struct Installed {
    /// The server.
    pub program: PathBuf,
    /// The folder that `node_modules` is in.
    pub modules: PathBuf,
}

/// Finds the server's program among the packages in `folder`.
///
/// # Errors
/// When there is none for this machine.
pub fn find(folder: &Path) -> anyhow::Result<Installed> {
    let packages = folder.join("node_modules/@restatedev");
    let mut entries = std::fs::read_dir(&packages)?.flatten();
    let program = entries.find_map(|entry| {
        let name = entry.file_name();
        let fits = name.to_string_lossy().starts_with("restate-server-");
        Some(entry.path().join("bin/restate-server")).filter(|program| fits && program.exists())
    });
    let program = program.context("the npm package @restatedev/restate-server has no program for this machine")?;
    Ok(Installed { program, modules: folder.to_path_buf() })
}
