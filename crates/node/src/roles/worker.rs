//! The worker role, with the back ends for Wasm and for processes.

use std::path::Path;
use std::sync::Arc;

use lyra_isolation::Isolation;
use lyra_isolation::process::{self, Processes, Unavailable, launch};
use lyra_isolation::wasm::{self, Wasm};
use lyra_store::Blobs;
use lyra_wire::Logs;
use lyra_worker::{Config, Deps, Service};

use super::Kit;
use crate::embedded::Error;
use crate::machine;

/// Share of the machine's memory that instances may have together.
const MEMORY_SHARE: (u64, u64) = (3, 4);

/// Starts the back ends and a worker over them. Compiled images are kept in `images`, packages and what belongs to
/// sandboxes in `processes`. Interpreters are looked for in `path`, which has the form of `$PATH`.
pub(crate) async fn start(
    config: Config,
    images: &Path,
    processes: &Path,
    path: &str,
    blobs: Arc<dyn Blobs>,
    logs: Arc<dyn Logs>,
    kit: &Kit,
) -> Result<Service, Error> {
    let engine = wasm::Config {
        max_instances: config.max_running + config.max_idle_instances,
        memory_budget: machine::memory() / MEMORY_SHARE.1 * MEMORY_SHARE.0,
        ..wasm::Config::new(images)
    };
    let wasm = Wasm::new(&engine, kit.clock.clone(), kit.random.clone()).map_err(Error::Engine)?;
    let deps = Deps {
        backends: vec![Arc::new(wasm), start_processes(processes, path, kit).await],
        blobs,
        logs,
        clock: kit.clock.clone(),
        ids: kit.ids.clone(),
        metrics: kit.metrics.clone(),
    };
    let service = Service::new(config, deps);
    service.start();
    Ok(service)
}

/// The back end for processes; where the machine does not allow it, one that says so.
async fn start_processes(dir: &Path, path: &str, kit: &Kit) -> Arc<dyn Isolation> {
    let settings = process::Config {
        path: path.to_owned(),
        ..process::Config::new(dir, launch::Config::new(dir.join("launcher")))
    };
    match Processes::start(settings, kit.ids.clone()).await {
        Ok(processes) => Arc::new(processes),
        Err(error) => {
            let unavailable = Unavailable::new(&error);
            tracing::warn!(reason = unavailable.reason(), "no functions can run as processes");
            Arc::new(unavailable)
        }
    }
}
