//! The one Wasmtime engine of the process: settings, epoch ticks, and what all guests share.
//!
//! What must hold: slots of the pool are clean when they are handed out (so `pagemap_scan` only where no page can
//! be swapped out, see [`Config`]); an idle process is not woken by ticks; the ticker's thread ends with the last
//! clone of the engine. It knows nothing of JavaScript or components.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use wasmtime::{Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::governor::Budget;
use super::images::{ImageError, Images};

/// How long a guest runs before it gives way to others.
pub const SLICE: Duration = Duration::from_millis(1);

/// Slices without a guest after which the ticker parks itself.
const IDLE_TICKS: u32 = 50;

/// Most core instances, and most tables, of one component (large toolchains make about twenty).
const CORE_INSTANCES_PER_COMPONENT: u32 = 40;

/// Most linear memories of one component.
const MEMORIES_PER_COMPONENT: u32 = 4;

/// Settings of the Wasm back end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// Where compiled images are kept. Only this process may write there.
    pub images_dir: PathBuf,
    /// Most live instances.
    pub max_instances: usize,
    /// Most memory of one instance, in bytes.
    pub max_memory: usize,
    /// Most memory of all instances together, in bytes: linear memories and tables, touched or not.
    pub memory_budget: u64,
    /// Bytes of a dropped instance's memory that stay mapped (and are wiped) for the next one in its place.
    pub keep_resident: usize,
    /// Unused places that stay mapped.
    pub warm_slots: u32,
    /// Guests that may compute at once after their first slices; `None`: one for each core.
    pub cpus: Option<usize>,
    /// The program, with its first arguments, that calls [`super::compiler::run`] with the arguments that follow;
    /// `None`: code is compiled in this process.
    pub compiler: Option<Vec<OsString>>,
}

impl Config {
    /// The defaults, with the images in `images_dir`.
    pub fn new(images_dir: impl Into<PathBuf>) -> Config {
        Config {
            images_dir: images_dir.into(),
            max_instances: 1_000,
            max_memory: 1 << 30,
            memory_budget: 8 << 30,
            keep_resident: 1 << 20,
            warm_slots: 64,
            cpus: None,
            compiler: None,
        }
    }
}

/// Why the engine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The settings don't fit this machine (address space, processor).
    #[error("the Wasm engine can't be configured")]
    Configure(#[source] wasmtime::Error),
    /// The directory of images can't be used.
    #[error(transparent)]
    Images(#[from] ImageError),
    /// A thread can't be started.
    #[error("a thread of the Wasm engine can't be started")]
    Thread(#[source] std::io::Error),
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    wasmtime: wasmtime::Engine,
    images: Images,
    budget: Arc<Budget>,
    cpus: Arc<Semaphore>,
    live: AtomicUsize,
    ticker: Arc<Ticker>,
    thread: std::thread::Thread,
    config: Config,
}

impl Engine {
    /// Makes the engine and starts its ticker.
    ///
    /// # Errors
    /// [`EngineError`] when the address space is too small, or the directory can't be written.
    pub fn new(config: &Config) -> Result<Engine, EngineError> {
        let wasmtime = wasmtime::Engine::new(&settings(config)).map_err(EngineError::Configure)?;
        let images = Images::open(&config.images_dir, &wasmtime)?;
        let ticker = Arc::new(Ticker::default());
        let thread = ticker.start(&wasmtime).map_err(EngineError::Thread)?;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let cpus = config.cpus.unwrap_or_else(cores).max(1);
        Ok(Engine {
            shared: Arc::new(Shared {
                wasmtime,
                images,
                budget: Arc::new(Budget::new(config.memory_budget)),
                cpus: Arc::new(Semaphore::new(cpus)),
                live: AtomicUsize::new(0),
                ticker,
                thread,
                config: config.clone(),
            }),
        })
    }

    /// Wasmtime's engine.
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.shared.wasmtime
    }

    /// The store of compiled images.
    pub fn images(&self) -> &Images {
        &self.shared.images
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Bytes of memory that all live instances are charged with.
    pub fn memory_in_use(&self) -> u64 {
        self.shared.budget.used()
    }

    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.shared.budget
    }

    pub(super) fn cpus(&self) -> &Arc<Semaphore> {
        &self.shared.cpus
    }

    /// Takes one of the places for instances; false when there is none.
    pub(super) fn take_place(&self) -> bool {
        let taken = self.shared.live.fetch_add(1, Ordering::Relaxed) < self.shared.config.max_instances;
        if !taken {
            self.give_place_back();
        }
        taken
    }

    /// Gives a place back that was taken.
    pub(super) fn give_place_back(&self) {
        self.shared.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// Live instances.
    pub fn live(&self) -> usize {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// Ticks since the engine was made; they stand still while no guest runs.
    pub(super) fn ticks(&self) -> u64 {
        self.shared.ticker.ticks.load(Ordering::Relaxed)
    }

    /// Says that a guest is about to run, so that the ticker must tick. Called whenever a guest is resumed and
    /// on every slice, so a guest that goes on running keeps the ticker awake.
    #[inline]
    pub(super) fn stay_awake(&self) {
        let ticker = &self.shared.ticker;
        // The common case reads one shared cache line and writes none.
        if !ticker.active.load(Ordering::Relaxed) {
            ticker.active.store(true, Ordering::SeqCst);
            if ticker.parked.load(Ordering::SeqCst) {
                self.shared.thread.unpark();
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.ticker.stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Moves the epoch on while guests run.
#[derive(Default)]
struct Ticker {
    /// A guest ran since the last tick.
    active: AtomicBool,
    /// The thread sleeps until it is woken.
    parked: AtomicBool,
    stopped: AtomicBool,
    ticks: AtomicU64,
}

impl Ticker {
    fn start(self: &Arc<Ticker>, engine: &wasmtime::Engine) -> std::io::Result<std::thread::Thread> {
        let (ticker, engine) = (Arc::clone(self), engine.clone());
        let handle = std::thread::Builder::new().name("wasm-epoch".into()).spawn(move || ticker.run(&engine))?;
        Ok(handle.thread().clone())
    }

    fn run(&self, engine: &wasmtime::Engine) {
        let mut idle = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            lyra_kit::clock::block_for(SLICE);
            self.ticks.fetch_add(1, Ordering::Relaxed);
            engine.increment_epoch();
            idle = if self.active.swap(false, Ordering::SeqCst) { 0 } else { idle + 1 };
            if idle >= IDLE_TICKS {
                self.parked.store(true, Ordering::SeqCst);
                // Whoever set `active` before it could see `parked` is seen here; whoever sets it later unparks.
                while !self.active.load(Ordering::SeqCst) && !self.stopped.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                self.parked.store(false, Ordering::SeqCst);
                idle = 0;
            }
        }
    }
}

fn settings(config: &Config) -> wasmtime::Config {
    let instances = u32::try_from(config.max_instances).unwrap_or(u32::MAX).clamp(1, 100_000);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_component_instances(instances)
        .total_memories(instances.saturating_mul(2))
        .total_tables(instances.saturating_mul(8))
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_tables_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_memories_per_module(1)
        .max_tables_per_module(8)
        .table_elements(20_000)
        .max_memory_size(config.max_memory)
        .linear_memory_keep_resident(config.keep_resident)
        .table_keep_resident(64 << 10)
        .max_unused_warm_slots(config.warm_slots)
        .pagemap_scan(pagemap_scan());
    let mut settings = wasmtime::Config::new();
    settings
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_init_cow(true)
        .epoch_interruption(true)
        .wasm_component_model(true)
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(WASM_STACK + HOST_STACK);
    settings
}

/// An engine that compiles as the one with `config` does, and runs nothing.
///
/// # Errors
/// When the settings don't fit this machine.
pub(super) fn compiling(config: &Config) -> wasmtime::Result<wasmtime::Engine> {
    // Room for one instance: a pool of many takes more address space than a compiler may have.
    wasmtime::Engine::new(&settings(&Config { max_instances: 1, ..config.clone() }))
}

/// Stack of a guest, in bytes.
pub(super) const WASM_STACK: usize = 4 << 20;

/// What host functions that a guest calls have of the stack, in bytes.
const HOST_STACK: usize = 1 << 19;

/// Resetting only the pages that were written makes a fresh instance several times cheaper and keeps the cores out
/// of each other's way. But the scan does not see pages that were swapped out, which would then show up in the next
/// instance: so it is used only where there is no swap.
fn pagemap_scan() -> Enabled {
    let swap_free = std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| no_swap(&swaps));
    if swap_free && PoolingAllocationConfig::is_pagemap_scan_available() {
        return Enabled::Yes;
    }
    tracing::info!(
        swap_free,
        "instances start slower: the kernel can't tell which pages were written, or there is swap"
    );
    Enabled::No
}

/// Whether a `/proc/swaps` lists nothing below its heading.
fn no_swap(swaps: &str) -> bool {
    swaps.lines().skip(1).all(|line| line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> (tempfile::TempDir, Engine) {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = Engine::new(&Config::new(dir.path())).expect("an engine");
        (dir, engine)
    }

    #[test]
    fn swap_is_seen() {
        assert!(no_swap("Filename\tType\tSize\tUsed\tPriority\n"));
        assert!(no_swap(""));
        assert!(!no_swap("Filename\tType\tSize\tUsed\tPriority\n/dev/zram0 partition 8000 0 100\n"));
    }

    #[test]
    fn the_ticker_parks_when_nothing_runs_and_wakes_when_something_does() {
        let (_dir, engine) = engine();
        let ticker = &engine.shared.ticker;
        for _ in 0..3 {
            while !ticker.parked.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let before = engine.ticks();
            engine.stay_awake();
            while engine.ticks() == before {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn the_ticker_ends_with_the_engine() {
        let (_dir, engine) = engine();
        let ticker = Arc::downgrade(&engine.shared.ticker);
        drop(engine);
        while ticker.upgrade().is_some() {
            std::thread::yield_now();
        }
    }
}
