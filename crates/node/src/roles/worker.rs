//! The worker role, with its isolation back ends.

use std::path::Path;
use std::sync::Arc;

use lyra_isolation::simulated::Simulated;
use lyra_isolation::wasm::{self, Wasm};
use lyra_store::Blobs;
use lyra_wire::Logs;
use lyra_worker::resources::gpu::Nvidia;
use lyra_worker::{Config, Deps, Service};

use super::Kit;
use crate::child;
use crate::embedded::Error;
use crate::machine;

/// Share of the machine's memory that instances may have together.
const MEMORY_SHARE: (u64, u64) = (3, 4);

/// Processors are charged so many times over where nothing else is configured: most calls wait for others most of the time.
const CPU_FACTOR: f64 = 32.0;

/// Starts the back ends and a worker over them. Compiled images are kept in `images`; `helper` is the program for
/// child processes.
pub(crate) fn start(
    mut config: Config,
    images: &Path,
    helper: Option<&Path>,
    blobs: Arc<dyn Blobs>,
    logs: Arc<dyn Logs>,
    kit: &Kit,
) -> Result<Service, Error> {
    let memory = machine::memory() / MEMORY_SHARE.1 * MEMORY_SHARE.0;
    config.resources.memory.get_or_insert(memory);
    if config.resources.cpu_millis.is_none() {
        config.resources.cpu_millis = Some(machine::cores() * 1_000);
        config.resources.cpu_factor = CPU_FACTOR;
    }
    let engine = wasm::Config {
        max_instances: config.max_running + config.max_idle_instances,
        memory_budget: memory,
        compiler: helper.map(|program| vec![program.into(), child::WASM_COMPILER.into()]),
        ..wasm::Config::new(images)
    };
    let wasm = Wasm::new(&engine, kit.clock.clone(), kit.random.clone()).map_err(Error::Engine)?;
    let simulated = Simulated::new(kit.clock.clone(), kit.random.clone());
    let deps = Deps {
        backends: vec![Arc::new(wasm), Arc::new(simulated)],
        blobs,
        logs,
        clock: kit.clock.clone(),
        ids: kit.ids.clone(),
        metrics: kit.metrics.clone(),
    };
    let service = Service::with_gpus(config, deps, Arc::new(Nvidia::load_library()));
    service.start();
    Ok(service)
}
