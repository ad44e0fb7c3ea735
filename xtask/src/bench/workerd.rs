//! The peer `workerd`: the open JavaScript runtime of Cloudflare Workers, with the same handler.

use std::path::Path;
use std::process::Command;

use super::load::Request;
use super::lyra::EVENT;
use super::process::{Server, free_address};

const WORKER: &str = "export default {
  async fetch(request) {
    const event = await request.json();
    return Response.json({ sum: event.a + event.b });
  },
};
";

/// Starts it with the handler that Lyra runs. `folder` gets its configuration.
///
/// # Errors
/// When it does not start.
pub fn start(program: &Path, folder: &Path) -> anyhow::Result<Server> {
    let address = free_address()?;
    std::fs::write(folder.join("worker.js"), WORKER)?;
    let config = format!(
        "using Workerd = import \"/workerd/workerd.capnp\";
const config :Workerd.Config = (
  services = [(name = \"main\", worker = .worker)],
  sockets = [(name = \"http\", address = \"{address}\", http = (), service = \"main\")]
);
const worker :Workerd.Worker = (
  modules = [(name = \"worker\", esModule = embed \"worker.js\")],
  compatibilityDate = \"2026-01-01\"
);
"
    );
    std::fs::write(folder.join("config.capnp"), config)?;
    let mut command = Command::new(program);
    command.arg("serve").arg(folder.join("config.capnp"));
    Server::start_and_connect(command, address, &folder.join("workerd.log"))
}

/// The same call that Lyra gets.
pub fn request() -> Request {
    Request { method: "POST", path: "/".to_owned(), body: Some(EVENT.to_owned()) }
}
