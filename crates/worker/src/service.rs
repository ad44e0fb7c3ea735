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
use lyra_wire::worker::{Call, HttpCall, HttpReply, Prepare, Prepared, Reply, Status};
use lyra_wire::{Logs, Worker};

use crate::call::{self, Running};
use crate::call_log::CallLog;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::pool::{Idle, Pool};
use crate::queue::{Limits, Permit, Queue};
use crate::templates::{Templates, key_of};

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
    /// Work was done since freed memory was last given back.
    untrimmed: AtomicBool,
}

/// How often idle instances and freed memory are looked after.
const SWEEP: Duration = Duration::from_secs(10);

impl Service {
    /// A worker that takes calls at once; [`Service::start`] adds its background work.
    pub fn new(config: Config, deps: Deps) -> Service {
        let limits = Limits {
            running: config.max_running,
            queued: config.max_queued,
            queued_per_function: config.max_queued_per_function,
        };
        let inner = Arc::new(Inner {
            queue: Queue::new(limits),
            templates: Templates::new(&config, deps.backends, deps.blobs),
            pool: Pool::new(&config),
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

    /// Starts the sweep of idle instances and of memory that was freed.
    pub fn start(&self) {
        let inner = self.inner.clone();
        self.tasks.every("worker-sweep", SWEEP, move || {
            let inner = inner.clone();
            async move { inner.sweep().await }
        });
    }

    /// Takes no more calls, and waits up to `limit` for those that run. Says whether all have ended.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.inner.queue.close();
        let ended = tokio::time::timeout(limit, async {
            while self.inner.queue.len().0 > 0 {
                self.inner.clock.sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .is_ok();
        self.tasks.stop(Duration::from_secs(1)).await && ended
    }
}

impl Inner {
    async fn sweep(&self) {
        self.pool.sweep(self.clock.instant());
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
        Status { running, queued, idle_instances: self.pool.total() }
    }
}

#[async_trait]
impl Worker for Service {
    async fn prepare(&self, prepare: Prepare) -> Result<Prepared, Error> {
        let backend = self.inner.templates.backend(prepare.runtime, &prepare.isolation)?;
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
        let inner = &self.inner;
        let template = inner.templates.load(&version).await?;
        if !version.reuse {
            return Ok(());
        }
        while inner.pool.count(key_of(&version)) < instances as usize {
            let id = inner.ids.instance();
            let sandbox = template.start(id, &version).await?;
            let idle = Idle { id, sandbox, served: 0 };
            inner.pool.put(key_of(&version), idle, version.min_instances as usize, inner.clock.instant());
            if inner.pool.total() >= inner.config.max_idle_instances {
                break;
            }
        }
        Ok(())
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
        let Running { permit, sandbox, instance, served, .. } = running;
        call::give_back(inner, &request.version, Idle { id: instance, sandbox, served: served + 1 }, permit);
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
        let Running { permit, sandbox, instance, served, .. } = running;
        let served_outcome = sandbox.serve(context, request.request).await;
        call.executed(began);
        match served_outcome {
            Ok(answer) => {
                let report = call.hand_over();
                let rest =
                    Rest { worker: inner.clone(), version: request.version, report: report.clone(), logs, permit };
                let mut end = answer.end;
                if let Some(end) = (&mut end).now_or_never() {
                    rest.end(end, instance, served + 1);
                } else {
                    lyra_kit::tasks::spawn("streamed-call", async move { rest.end(end.await, instance, served + 1) });
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
}

/// What is left of a streamed call after its headers. It holds the call's place until the instance has ended.
struct Rest {
    worker: Arc<Inner>,
    version: Arc<FunctionVersion>,
    report: Report,
    logs: Arc<CallLog>,
    permit: Permit,
}

impl Rest {
    fn end(self, end: End, instance: lyra_types::InstanceId, served: u64) {
        if let Err(error) = &end.outcome {
            call::log_failure(&self.logs, error);
        }
        self.worker.metrics.ended(&self.version, &self.report, end.outcome.as_ref().err());
        if let Some(sandbox) = end.sandbox {
            call::give_back(&self.worker, &self.version, Idle { id: instance, sandbox, served }, self.permit);
        }
    }
}
