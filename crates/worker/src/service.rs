//! The worker's door: [`lyra_wire::Worker`] over queue, code, pool and back ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use lyra_isolation::{Code, End, ImageKey, Isolation};
use lyra_kit::{Clock, Ids, Tasks, telemetry};
use lyra_store::Blobs;
use lyra_types::invocation::Report;
use lyra_types::{Error, FunctionVersion};
use lyra_wire::worker::{
    BackendStatus, Call, Drained, Health, HttpCall, HttpReply, InstanceStatus, Machine, Prepare, Prepared, Reply,
    Status,
};
use lyra_wire::{Logs, Worker};

use crate::call::{self, Running};
use crate::call_log::CallLog;
use crate::config::Config;
use crate::health::Beat;
use crate::keep_alive::schedule::Window;
use crate::metrics::{Metrics, PoolMetrics};
use crate::pool::{Lease, Pool, Reason};
use crate::queue::{Limits, Permit, Queue};
use crate::resources::gpu::{NoGpus, Source};
use crate::start::Cordon;
use crate::templates::Templates;

/// What a worker is made of.
pub struct Deps {
    /// Isolation back ends, the preferred one first.
    pub backends: Vec<Arc<dyn Isolation>>,
    /// Where code comes from.
    pub blobs: Arc<dyn Blobs>,
    /// Where log lines go.
    pub logs: Arc<dyn Logs>,
    /// Time.
    pub clock: Clock,
    /// Ids of instances.
    pub ids: Ids,
    /// Where metrics are registered.
    pub metrics: telemetry::Metrics,
}

/// A worker. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
    tasks: Tasks,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) queue: Queue,
    pub(crate) templates: Templates,
    pub(crate) pool: Pool,
    pub(crate) logs: Arc<dyn Logs>,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) metrics: Metrics,
    pub(crate) cordon: Cordon,
    pub(crate) watch_beat: Beat,
    pub(crate) sweep_beat: Beat,
    begin: tokio::time::Instant,
    /// Work was done since freed memory was last given back.
    untrimmed: AtomicBool,
}

/// How often freed memory is looked after.
const SWEEP: Duration = Duration::from_secs(10);

impl Service {
    /// A worker that takes calls at once; [`Service::start`] adds its background work.
    pub fn new(config: Config, deps: Deps) -> Service {
        Service::with_gpus(config, deps, Arc::new(NoGpus))
    }

    /// The same, with GPUs to give out.
    pub fn with_gpus(config: Config, deps: Deps, gpus: Arc<dyn Source>) -> Service {
        let limits = Limits {
            running: config.max_running,
            queued: config.max_queued,
            queued_per_function: config.max_queued_per_function,
        };
        let inner = Arc::new(Inner {
            queue: Queue::new(limits),
            templates: Templates::new(&config, deps.backends, deps.blobs),
            pool: Pool::new(&config, deps.clock.clone(), deps.ids.clone(), gpus, PoolMetrics::new(&deps.metrics)),
            cordon: Cordon::default(),
            watch_beat: Beat::new("watch", config.watchdog * 3, deps.clock.instant()),
            sweep_beat: Beat::new("sweep", SWEEP * 3, deps.clock.instant()),
            begin: deps.clock.instant(),
            logs: deps.logs,
            clock: deps.clock,
            ids: deps.ids,
            metrics: Metrics::new(&deps.metrics),
            untrimmed: AtomicBool::new(true),
            config,
        });
        let gauges = Arc::downgrade(&inner);
        deps.metrics.before_render(move || {
            if let Some(inner) = gauges.upgrade() {
                inner.metrics.refresh(&inner.status());
            }
        });
        Service { inner, tasks: Tasks::new() }
    }

    /// Starts the watch over the instances and the sweep of memory that was freed.
    pub fn start(&self) {
        let inner = self.inner.clone();
        // Twice in a period, so that whatever one round leaves out, the period does not.
        self.tasks.every("worker-watch", (inner.config.watchdog / 2).max(Duration::from_millis(1)), move || {
            let inner = inner.clone();
            async move { inner.watch().await }
        });
        let inner = self.inner.clone();
        self.tasks.every("worker-sweep", SWEEP, move || {
            let inner = inner.clone();
            async move { inner.sweep().await }
        });
    }

    /// Takes no more calls, and waits up to `limit` for those that run; then all instances end. Says whether all calls had
    /// ended.
    pub async fn shut_down(&self, limit: Duration) -> bool {
        self.inner.queue.close();
        let ended = tokio::time::timeout(limit, async {
            while self.inner.queue.len().0 > 0 {
                self.inner.clock.sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .is_ok();
        let stopped = self.tasks.stop(Duration::from_secs(1)).await;
        drop(self.inner.pool.take_all(Reason::Drained));
        stopped && ended
    }
}

impl Inner {
    async fn sweep(&self) {
        self.sweep_beat.beat(self.clock.instant());
        // Not while calls run: it would make them wait for the allocator.
        if self.queue.len().0 == 0 && self.untrimmed.swap(false, Ordering::Relaxed) {
            drop(lyra_kit::tasks::blocking(lyra_kit::memory::trim).await);
        }
    }

    fn mark_untrimmed(&self) {
        // Reading first keeps the cache line shared while calls come on every core.
        if !self.untrimmed.load(Ordering::Relaxed) {
            self.untrimmed.store(true, Ordering::Relaxed);
        }
    }

    fn status(&self) -> Status {
        let (running, queued) = self.queue.len();
        let backends = self
            .templates
            .backends()
            .iter()
            .map(|backend| BackendStatus { name: backend.name().to_owned(), runtimes: backend.runtimes().to_vec() });
        let machine = Machine {
            uptime: self.clock.instant().saturating_duration_since(self.begin),
            load: load_averages(),
            cordoned: self.cordon.is_set(),
            backends: backends.collect(),
        };
        Status { running, queued, idle_instances: self.pool.total(), holdings: self.pool.holdings(), machine }
    }
}

#[async_trait]
impl Worker for Service {
    async fn prepare(&self, prepare: Prepare) -> Result<Prepared, Error> {
        let backend = self.inner.templates.backend(prepare.runtime, &prepare.isolation)?;
        self.inner.pool.check(&prepare)?;
        Window::of(&prepare.labels)?;
        let key = ImageKey {
            runtime: prepare.runtime,
            digest: lyra_store::blobs::digest(&prepare.code),
            handler: prepare.handler,
            memory_mb: prepare.memory_mb,
        };
        self.inner.mark_untrimmed();
        let contract = backend.prepare(&Code { key, bytes: prepare.code, reuse: prepare.reuse }).await?;
        Ok(Prepared { contract })
    }

    async fn prewarm(&self, version: Arc<FunctionVersion>, instances: u32) -> Result<(), Error> {
        self.inner.prewarm(version, instances).await
    }

    fn forget(&self, generation: u64, version: Option<u64>) {
        self.inner.templates.forget(generation, version);
        self.inner.pool.forget(generation, version);
    }

    async fn invoke(&self, request: Call) -> Reply {
        let inner = &self.inner;
        inner.mark_untrimmed();
        let mut call = call::Call::new(inner, request.id, &request.version);
        let mut running = match call.begin().await {
            Ok(running) => running,
            Err(error) => return Reply { report: call.end(Some(&error)), outcome: Err(error) },
        };
        let (context, logs) = call.context(&running, request.timeout);
        let outcome = running.sandbox.call(context, request.event).await;
        call.executed(running.began());
        if let Err(error) = &outcome {
            call::log_failure(&logs, error);
        }
        let report = call.end(outcome.as_ref().err());
        let Running { sandbox, lease, permit, .. } = running;
        call::give_back(inner, &request.version, sandbox, lease, permit);
        Reply { report, outcome }
    }

    async fn serve(&self, request: HttpCall) -> HttpReply {
        let inner = &self.inner;
        let mut call = call::Call::new(inner, request.id, &request.version);
        let running = match call.begin().await {
            Ok(running) => running,
            Err(error) => return HttpReply { report: call.end(Some(&error)), outcome: Err(error) },
        };
        let (context, logs) = call.context(&running, None);
        let began = running.began();
        let Running { sandbox, lease, permit, .. } = running;
        let served_outcome = sandbox.serve(context, request.request).await;
        call.executed(began);
        match served_outcome {
            Ok(answer) => {
                let report = call.hand_over();
                let (worker, version) = (inner.clone(), request.version);
                let rest = Rest { worker, version, report: report.clone(), logs, lease, permit };
                let mut end = answer.end;
                if let Some(end) = (&mut end).now_or_never() {
                    rest.end(end);
                } else {
                    lyra_kit::tasks::spawn("streamed-call", async move { rest.end(end.await) });
                }
                HttpReply { report, outcome: Ok(answer.response) }
            }
            Err(error) => {
                call::log_failure(&logs, &error);
                HttpReply { report: call.end(Some(&error)), outcome: Err(error) }
            }
        }
    }

    fn status(&self) -> Status {
        self.inner.status()
    }

    fn instances(&self) -> Vec<InstanceStatus> {
        self.inner.pool.list()
    }

    async fn health(&self) -> Health {
        self.inner.check_up()
    }

    fn cordon(&self) {
        self.inner.cordon.set(true);
    }

    fn uncordon(&self) {
        self.inner.cordon.set(false);
    }

    async fn drain(&self, limit: Duration) -> Drained {
        self.inner.drain(limit).await
    }

    async fn clean(&self) -> usize {
        self.inner.clean().await
    }
}

/// The machine's load averages; `None` where the system doesn't tell.
fn load_averages() -> Option<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut numbers = text.split_whitespace().map(|word| word.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

/// What is left of a streamed call after its headers. It holds the call's place until the instance has ended.
struct Rest {
    worker: Arc<Inner>,
    version: Arc<FunctionVersion>,
    report: Report,
    logs: Arc<CallLog>,
    lease: Option<Lease>,
    permit: Permit,
}

impl Rest {
    fn end(self, end: End) {
        if let Err(error) = &end.outcome {
            call::log_failure(&self.logs, error);
        }
        self.worker.metrics.ended(&self.version, &self.report, end.outcome.as_ref().err());
        if let Some(sandbox) = end.sandbox {
            call::give_back(&self.worker, &self.version, sandbox, self.lease, self.permit);
        }
    }
}
