//! The worker role, with its isolation back ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lyra_isolation::Isolation;
use lyra_isolation::process::{self, Processes, Unavailable, launch};
use lyra_isolation::simulated::Simulated;
use lyra_isolation::wasm::{self, Wasm};
use lyra_store::Blobs;
use lyra_wire::{Control, Logs, Registry};
use lyra_worker::resources::gpu::Nvidia;
use lyra_worker::usage::Usage;
use lyra_worker::{Agent, AgentDeps, Config, Deps, Identity, NodeStore, Reach, Service};

use super::Kit;
use crate::child;
use crate::embedded::Error;
use crate::machine;

/// Share of the machine's memory that instances may have together, with the interpreters that wait for them.
const MEMORY_SHARE: (u64, u64) = (3, 4);

/// Most of that memory that waiting interpreters may take, as its divisor; on small machines fewer of them wait.
const WAITING_SHARE: u64 = 4;

/// What a worker needs of the file system.
pub(crate) struct Places {
    /// Where compiled images are kept.
    pub(crate) images: PathBuf,
    /// Where packages, and what belongs to sandboxes, are kept.
    pub(crate) processes: PathBuf,
    /// The program for child processes.
    pub(crate) helper: Option<PathBuf>,
    /// Where interpreters are looked for, in the form of `$PATH`.
    pub(crate) path: String,
    /// How functions run as processes.
    pub(crate) process: process::Settings,
    /// Names of the back ends to offer; empty: all.
    pub(crate) isolation: Vec<String>,
    /// Where what calls use is counted until control has it.
    pub(crate) usage: PathBuf,
}

/// Starts the back ends and a worker over them.
pub(crate) async fn start(
    mut config: Config,
    places: &Places,
    blobs: Arc<dyn Blobs>,
    logs: Arc<dyn Logs>,
    kit: &Kit,
) -> Result<Service, Error> {
    let memory = machine::memory() / MEMORY_SHARE.1 * MEMORY_SHARE.0;
    let process = places.process.clone().within(memory / WAITING_SHARE);
    if process.cells < places.process.cells {
        let (wanted, kept) = (places.process.cells, process.cells);
        tracing::info!(wanted, kept, "fewer interpreters wait for functions than asked for: memory is short");
    }
    // What waits is there beside all instances; who names the memory of instances has taken that into account.
    config.resources.memory.get_or_insert_with(|| memory.saturating_sub(process.reserved_memory()));
    config.resources.cpu_millis.get_or_insert_with(|| machine::cores() * 1_000);
    let engine = wasm::Config {
        max_instances: config.max_running + config.max_idle_instances,
        memory_budget: memory,
        compiler: places.helper.as_ref().map(|program| vec![program.into(), child::WASM_COMPILER.into()]),
        ..wasm::Config::new(&places.images)
    };
    let wasm = Wasm::new(&engine, kit.clock.clone(), kit.random.clone()).map_err(Error::Engine)?;
    let simulated = Simulated::new(kit.clock.clone(), kit.random.clone());
    let mut backends: Vec<Arc<dyn Isolation>> = vec![Arc::new(wasm)];
    if offers(places, "process") {
        backends.push(start_processes(places, process, kit).await);
    }
    backends.push(Arc::new(simulated));
    backends.retain(|backend| offers(places, backend.name()));
    let deps =
        Deps { backends, blobs, logs, clock: kit.clock.clone(), ids: kit.ids.clone(), metrics: kit.metrics.clone() };
    let library = process::management_library(&places.process.driver_root);
    let service = Service::with_gpus(config, deps, Arc::new(Nvidia::load_library(library.as_deref())));
    let (dir, clock, random) = (places.usage.clone(), kit.clock.clone(), kit.random.clone());
    let opened = lyra_kit::tasks::blocking(move || Usage::open(&dir, clock, &random)).await;
    let usage = opened.map_err(|_| Error::Node("the process ends".to_owned()))?;
    service.count_usage(Arc::new(usage.map_err(|error| Error::Node(error.to_string()))?));
    service.start();
    Ok(service)
}

/// Starts what speaks with control for the worker, which remembers itself in `dir`.
pub(crate) async fn start_agent(
    identity: Identity,
    worker: Service,
    dir: &Path,
    own: Option<Arc<dyn Registry>>,
    seeds: Vec<String>,
    reach: Box<Reach>,
    kit: &Kit,
) -> Result<Agent, Error> {
    let (path, fresh) = (dir.join("node.db"), kit.random.u64());
    let opened = lyra_kit::tasks::blocking(move || NodeStore::open(&path, fresh)).await;
    let store = opened.map_err(|_| Error::Node("the process ends".to_owned()))?;
    let store = store.map_err(|error| Error::Node(error.to_string()))?;
    let (clock, random) = (kit.clock.clone(), kit.random.clone());
    Ok(Agent::start(identity, AgentDeps { worker, store, own, seeds, reach, clock, random }).await)
}

/// Tells a worker its control: who counts what calls used, and keeps secrets.
pub(crate) fn introduce(worker: &Service, control: Arc<dyn Control>) {
    worker.tell_usage(Arc::clone(&control));
    worker.fetch_secrets_from(control);
}

fn offers(places: &Places, backend: &str) -> bool {
    places.isolation.is_empty() || places.isolation.iter().any(|name| name == backend)
}

/// The back end for processes; where the machine does not allow it, one that says so.
async fn start_processes(places: &Places, settings: process::Settings, kit: &Kit) -> Arc<dyn Isolation> {
    if !settings.enabled {
        return Arc::new(Unavailable::because("its operator has switched processes off (the setting process.enabled)"));
    }
    let mut launcher = launch::Config::new(places.processes.join("launcher"));
    launcher.cgroups = settings.cgroups;
    launcher.favor_dynmods = settings.favor_dynmods;
    if let Some(program) = &places.helper {
        launcher.helper = vec![program.into(), child::SANDBOX_LAUNCHER.into()];
    }
    let config = process::Config::new(&places.processes, launcher);
    let config = process::Config { path: places.path.clone(), settings, ..config };
    match Processes::start(config, kit.ids.clone()).await {
        Ok(processes) => Arc::new(processes),
        Err(error) => {
            let unavailable = Unavailable::new(&error);
            tracing::warn!(reason = unavailable.reason(), "no functions can run as processes");
            Arc::new(unavailable)
        }
    }
}
