//! The worker's door: [`lyra_wire::Worker`] over queue, code, pool and back ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use lyra_isolation::{Code, CpuMeter, End, ImageKey, Isolation};
use lyra_kit::{Clock, Ids, Load, Tasks, telemetry};
use lyra_store::Blobs;
use lyra_types::function::VersionKey;
use lyra_types::invocation::{Report, Start};
use lyra_types::usage::{Hour, Usage as Used, UsageKey, UsageRow};
use lyra_types::{Error, FunctionVersion, InstanceId};
use lyra_wire::registry::InstanceReport;
use lyra_wire::worker::{
    Account, BackendStatus, Call, Drained, FunctionCalls, Health, HttpCall, HttpReply, InstanceCommand, InstanceStatus,
    Machine, Prepare, Prepared, Reply, Status,
};
use lyra_wire::{Control, Logs, Operated, Worker};
use tokio::time::Instant;

use crate::call::{self, Running};
use crate::call_log::CallLog;
use crate::characteristics::{Characteristics, Record};
use crate::config::Config;
use crate::health::Beat;
use crate::keep_alive::schedule::Window;
use crate::metrics::{Metrics, PoolMetrics};
use crate::pool::{Lease, Pool, Reason, Told};
use crate::queue::{Instances, Limits, LoadKind, Permit, Queue};
use crate::resources::gpu::{NoGpus, Source};
use crate::secrets::{LOOK, OfControl, Secrets, Vault};
use crate::sessions::{SessionDeps, SessionMetrics, Sessions};
use crate::start::Cordon;
use crate::templates::Templates;
use crate::usage::{self, Usage};

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
    pub(crate) characteristics: Arc<Characteristics>,
    pub(crate) templates: Arc<Templates>,
    pub(crate) pool: Pool,
    pub(crate) logs: Arc<dyn Logs>,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) metrics: Metrics,
    pub(crate) cordon: Arc<Cordon>,
    pub(crate) sessions: Sessions,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) watch_beat: Beat,
    pub(crate) sweep_beat: Beat,
    begin: tokio::time::Instant,
    /// Where what calls use is counted, if it is.
    usage: OnceLock<Arc<Usage>>,
    /// Whom that is told. Not held: in one process, control holds the worker.
    told: OnceLock<Weak<dyn Control>>,
    /// Work was done since freed memory was last given back.
    untrimmed: AtomicBool,
}

/// How often freed memory is looked after.
const SWEEP: Duration = Duration::from_secs(10);

/// Longest wait for control to take the last that was counted.
const LAST_COUNT: Duration = Duration::from_secs(2);

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
        let characteristics = Characteristics::open(config.characteristics.clone(), deps.clock.clone());
        let templates = Arc::new(Templates::new(&config, deps.backends, deps.blobs));
        let pool = Pool::new(&config, deps.clock.clone(), deps.ids.clone(), gpus, PoolMetrics::new(&deps.metrics));
        let cordon = Arc::new(Cordon::default());
        let secrets = Arc::new(Secrets::new(deps.clock.clone()));
        let of_sessions = SessionDeps {
            templates: templates.clone(),
            pool: pool.clone(),
            cordon: cordon.clone(),
            logs: deps.logs.clone(),
            clock: deps.clock.clone(),
            ids: deps.ids.clone(),
            metrics: SessionMetrics::new(&deps.metrics),
            secrets: secrets.clone(),
            start_timeout: config.start_timeout,
        };
        let inner = Arc::new_cyclic(|inner| Inner {
            sessions: Sessions::new(config.sessions.clone(), of_sessions),
            queue: Queue::new(limits, &config.queue, Arc::new(Ready(inner.clone())), deps.clock.clone()),
            characteristics: Arc::new(characteristics),
            templates,
            pool,
            cordon,
            secrets,
            watch_beat: Beat::new("watch", config.watchdog * 3, deps.clock.instant()),
            sweep_beat: Beat::new("sweep", SWEEP * 3, deps.clock.instant()),
            begin: deps.clock.instant(),
            logs: deps.logs,
            clock: deps.clock,
            ids: deps.ids,
            metrics: Metrics::new(&deps.metrics),
            usage: OnceLock::new(),
            told: OnceLock::new(),
            untrimmed: AtomicBool::new(true),
            config,
        });
        let gauges = Arc::downgrade(&inner);
        deps.metrics.before_render(move || {
            if let Some(inner) = gauges.upgrade() {
                inner.metrics.refresh(&inner.counts());
                inner.metrics.refresh_backends(&inner.backends());
                inner.sessions.refresh_metrics();
            }
        });
        Service { inner, tasks: Tasks::new() }
    }

    /// What it holds now.
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// The same without functions, characteristics and machine, which take time to list.
    pub(crate) fn counts(&self) -> Status {
        self.inner.counts()
    }

    /// Whether it was told to take no more calls.
    pub(crate) fn is_cordoned(&self) -> bool {
        self.inner.cordon.is_set()
    }

    /// Its instances, in the order of their ids.
    pub fn instances(&self) -> Vec<InstanceStatus> {
        let mut instances = self.inner.pool.list();
        instances.extend(self.inner.sessions.instances());
        instances.sort_by_key(|instance| instance.id);
        instances
    }

    /// Its applications and their sessions.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    /// Changes whenever what [`Service::reports`] gives may have changed.
    pub(crate) fn changes(&self) -> u64 {
        self.inner.pool.changes()
    }

    /// Its instances, as control is told of them.
    pub(crate) fn reports(&self) -> Vec<InstanceReport> {
        self.inner.pool.reports()
    }

    /// From now on only [`Service::hold`] says which instances stay however long they are idle.
    pub(crate) fn be_directed(&self) {
        self.inner.pool.be_directed();
    }

    /// Holds instances of a version up from now on.
    pub(crate) fn hold(&self, version: &Arc<FunctionVersion>, told: Told) {
        self.inner.hold(version, told);
    }

    /// Holds nothing of a version up any more.
    pub(crate) fn release(&self, version: &VersionKey) {
        self.inner.pool.untell(version);
    }

    /// Starts the watch over the instances, the sweep of memory that was freed, the saving of estimates, and the adaption
    /// of the concurrency limit to the machine's load.
    pub fn start(&self) {
        let load = match self.inner.queue.adaptive().map(|adaptive| adaptive.load) {
            Some(LoadKind::Average) => Load::average(),
            _ => Load::pressure(),
        };
        self.start_under(load);
    }

    /// As [`Service::start`], with the load measured by `load`.
    pub fn start_under(&self, load: Load) {
        if let Some(adaptive) = self.inner.queue.adaptive() {
            let inner = self.inner.clone();
            self.tasks.every("worker-concurrency", adaptive.period, move || {
                inner.adapt(&load);
                std::future::ready(())
            });
        }
        if let Some(period) = self.inner.characteristics.save_every() {
            let inner = self.inner.clone();
            self.tasks.every("worker-characteristics", period, move || {
                let inner = inner.clone();
                async move { inner.save_characteristics().await }
            });
        }
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

    /// Takes no more calls, and waits up to `limit` for those that run; then all instances end, but for those of
    /// applications, which go on for the next process of this worker where they can. Says whether all calls had ended.
    pub fn shut_down(&self, limit: Duration) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            self.inner.queue.close();
            // While the task that tells it still holds it.
            let told = self.inner.told.get().and_then(Weak::upgrade);
            let ended = self.inner.calls_end(limit).await;
            let stopped = self.tasks.stop(Duration::from_secs(1)).await;
            self.inner.sessions.leave().await;
            drop(self.inner.pool.take_all(Reason::Drained));
            self.inner.save_characteristics().await;
            if let (Some(usage), Some(control)) = (self.inner.usage.get(), told) {
                // What can't be told now is told by the next process.
                let told = async {
                    // The first one tells what waits, the second what was counted since.
                    usage.flush(&control).await;
                    usage.flush(&control).await;
                };
                drop(tokio::time::timeout(LAST_COUNT, told).await);
            }
            stopped && ended
        })
    }

    /// Counts what calls use from now on. The first one counts.
    pub fn count_usage(&self, usage: Arc<Usage>) {
        let _ = self.inner.usage.set(usage);
    }

    /// Tells control what is counted, from now on.
    pub fn tell_usage(&self, control: Arc<dyn Control>) {
        if let Some(usage) = self.inner.usage.get() {
            usage.tell(Arc::clone(&control), &self.tasks);
            let _ = self.inner.told.set(Arc::downgrade(&control));
        }
    }

    /// Fetches secrets of functions there from now on, and looks after those that it has.
    pub fn fetch_secrets_from(&self, control: Arc<dyn Control>) {
        self.fetch_secrets_of(Arc::new(OfControl::new(&control)), control);
    }

    /// The same of anybody; `held` goes when this worker ends.
    pub fn fetch_secrets_of(&self, vault: Arc<dyn Vault>, held: impl Clone + Send + Sync + 'static) {
        self.inner.secrets.fetch_from(vault);
        let inner = self.inner.clone();
        self.tasks.every("worker-secrets", LOOK, move || {
            // Held by this task: nobody else may do so.
            let (inner, _held) = (inner.clone(), held.clone());
            async move { inner.look_at_secrets().await }
        });
    }

    /// What is known of each version from its calls.
    pub fn characteristics(&self) -> &Characteristics {
        &self.inner.characteristics
    }
}

impl Inner {
    /// Counts what a call used, where that is done.
    pub(crate) fn count_usage(&self, version: &FunctionVersion, user: Option<&str>, used: Used) {
        let Some(counted) = self.usage.get() else { return };
        let key = UsageKey {
            tenant: version.tenant.clone(),
            function: version.function.clone(),
            version: version.version,
            user: user.unwrap_or_default().to_owned(),
            hour: Hour::of(self.clock.now()),
        };
        counted.add(&UsageRow { key, usage: used });
    }

    async fn sweep(&self) {
        self.sweep_beat.beat(self.clock.instant());
        // Not while calls run: it would make them wait for the allocator.
        if self.queue.lengths().running == 0 && self.untrimmed.swap(false, Ordering::Relaxed) {
            drop(lyra_kit::tasks::blocking(lyra_kit::memory::trim).await);
        }
    }

    fn mark_untrimmed(&self) {
        // Reading first keeps the cache line shared while calls come on every core.
        if !self.untrimmed.load(Ordering::Relaxed) {
            self.untrimmed.store(true, Ordering::Relaxed);
        }
    }

    async fn save_characteristics(&self) {
        let characteristics = self.characteristics.clone();
        drop(lyra_kit::tasks::blocking(move || characteristics.save()).await);
    }

    fn adapt(&self, load: &Load) {
        match load.percent(self.clock.instant()) {
            Ok(Some(percent)) => drop(self.queue.adapt(percent)),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the load can't be read, the concurrency limit stays as it is"),
        }
    }

    /// Numbers only, which cost little.
    fn counts(&self) -> Status {
        let lengths = self.queue.lengths();
        let mut holdings = self.pool.holdings();
        // Most wait for processors before they come to the pool.
        holdings.cpu.waiting += lengths.cpu_waiting;
        Status {
            running: lengths.running,
            queued: lengths.held + lengths.eligible,
            idle_instances: self.pool.total(),
            held: lengths.held,
            eligible: lengths.eligible,
            bypassing: lengths.bypassing,
            concurrency_limit: lengths.limit,
            queue_policy: self.config.queue.policy.as_str().to_owned(),
            holdings,
            ..Status::default()
        }
    }

    /// The back ends, with what the isolation `auto` means for each runtime.
    fn backends(&self) -> Vec<BackendStatus> {
        let mut all: Vec<BackendStatus> = self.templates.backends().iter().map(|backend| backend.status()).collect();
        let mut taken = Vec::new();
        for offer in all.iter_mut().flat_map(|backend| &mut backend.offers) {
            offer.auto = !taken.contains(&offer.runtime);
            taken.push(offer.runtime);
        }
        all
    }

    fn status(&self) -> Status {
        let characteristics = self.characteristics.view();
        let mut functions = Vec::new();
        for (generation, calls) in self.queue.functions() {
            if let Some(of) = characteristics.iter().find(|of| of.generation == generation) {
                functions.push(FunctionCalls {
                    tenant: of.tenant.clone(),
                    function: of.function.clone(),
                    generation,
                    running: calls.running,
                    held: calls.held,
                    eligible: calls.eligible,
                });
            }
        }
        let machine = Machine {
            uptime: self.clock.instant().saturating_duration_since(self.begin),
            load: lyra_kit::load::averages(),
            cordoned: self.cordon.is_set(),
            backends: self.backends(),
        };
        Status { functions, characteristics, machine, ..self.counts() }
    }
}

/// Tells the queue what the pool has.
struct Ready(Weak<Inner>);

impl Instances for Ready {
    fn ready(&self, version: &Record) -> Start {
        let Some(worker) = self.0.upgrade() else { return Start::Cold };
        match version.reuse() {
            true => worker.pool.next_start(version.key()),
            false if worker.templates.is_loaded(version.key()) => Start::Warm,
            false => Start::Cold,
        }
    }

    fn processors(&self) -> Option<u64> {
        self.0.upgrade()?.pool.processors()
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
            result: lyra_types::function::ResultForm::of(&prepare.labels),
        };
        self.inner.mark_untrimmed();
        let contract = backend.prepare(&Code { key, bytes: prepare.code, reuse: prepare.reuse }).await?;
        Ok(Prepared { contract })
    }

    async fn prewarm(&self, version: Arc<FunctionVersion>, instances: u32) -> Result<(), Error> {
        self.inner.prewarm(version, instances).await
    }

    async fn forget(&self, generation: u64, version: Option<u64>) -> Result<(), Error> {
        self.inner.templates.forget(generation, version);
        self.inner.pool.forget(generation, version);
        self.inner.characteristics.forget(generation, version);
        self.inner.secrets.forget(generation, version);
        Ok(())
    }

    async fn invoke(&self, request: Call) -> Reply {
        let inner = &self.inner;
        inner.mark_untrimmed();
        let mut call = call::Call::new(inner, request.id, &request.version, request.account);
        call.trace = request.trace;
        let mut running = match call.begin().await {
            Ok(running) => running,
            Err(error) => return Reply { report: call.end(Some(&error), 0), outcome: Err(error) },
        };
        let (context, logs) = call.context(&running, request.timeout);
        let outcome = running.sandbox.call(context, request.event).await.map_err(|error| logs.masked(error));
        call.executed(running.began());
        if let Err(error) = &outcome {
            call::log_failure(&logs, error);
        }
        let report = call.end(outcome.as_ref().err(), outcome.as_ref().map_or(0, Bytes::len));
        let Running { sandbox, lease, permit, .. } = running;
        call::give_back(inner, &request.version, sandbox, lease, permit);
        Reply { report, outcome }
    }

    async fn serve(&self, request: HttpCall) -> HttpReply {
        let inner = &self.inner;
        let account = Account { user: request.user.clone(), by_caller: false };
        let mut call = call::Call::new(inner, request.id, &request.version, account);
        let running = match call.begin().await {
            Ok(running) => running,
            Err(error) => return HttpReply { report: call.end(Some(&error), 0), outcome: Err(error) },
        };
        let (context, logs) = call.context(&running, None);
        let began = running.began();
        let Running { sandbox, lease, permit, .. } = running;
        let served_outcome = sandbox.serve(context, request.request).await.map_err(|error| logs.masked(error));
        call.executed(began);
        match served_outcome {
            Ok(answer) => {
                let (report, cpu) = call.hand_over();
                let (response, sent) = usage::counted(answer.response);
                let rest = Rest {
                    user: request.user,
                    cpu,
                    sent,
                    worker: inner.clone(),
                    version: request.version,
                    report: report.clone(),
                    began,
                    logs,
                    lease,
                    permit,
                };
                let mut end = answer.end;
                if let Some(end) = (&mut end).now_or_never() {
                    rest.end(end);
                } else {
                    lyra_kit::tasks::spawn("streamed-call", async move { rest.end(end.await) });
                }
                HttpReply { report, outcome: Ok(response) }
            }
            Err(error) => {
                call::log_failure(&logs, &error);
                call::lost(inner, &request.version, lease);
                HttpReply { report: call.end(Some(&error), 0), outcome: Err(error) }
            }
        }
    }
}

#[async_trait]
impl Operated for Service {
    async fn status(&self) -> Result<Status, Error> {
        Ok(Service::status(self))
    }

    async fn instances(&self) -> Result<Vec<InstanceStatus>, Error> {
        Ok(Service::instances(self))
    }

    async fn health(&self) -> Result<Health, Error> {
        Ok(self.inner.check_up())
    }

    async fn cordon(&self) -> Result<(), Error> {
        self.inner.cordon.set(true);
        Ok(())
    }

    async fn uncordon(&self) -> Result<(), Error> {
        self.inner.cordon.set(false);
        self.inner.sessions.resume();
        Ok(())
    }

    async fn drain(&self, limit: Duration) -> Result<Drained, Error> {
        Ok(self.inner.drain(limit).await)
    }

    async fn instruct(&self, instance: InstanceId, command: InstanceCommand) -> Result<(), Error> {
        if self.inner.sessions.has(instance) {
            return self.inner.sessions.instruct(instance, command).await;
        }
        match command {
            InstanceCommand::Terminate => self.inner.terminate(instance).await,
            InstanceCommand::Hibernate => self.inner.hibernate_one(instance).await,
            InstanceCommand::Activate => self.inner.wake_one(instance).await,
        }
    }

    async fn clean(&self) -> Result<usize, Error> {
        Ok(self.inner.clean().await)
    }
}

/// What is left of a streamed call after its headers. It holds the call's place until the instance has ended.
struct Rest {
    user: Option<Arc<str>>,
    cpu: CpuMeter,
    /// Bytes of the body that went out.
    sent: Arc<AtomicU64>,
    worker: Arc<Inner>,
    version: Arc<FunctionVersion>,
    report: Report,
    began: Instant,
    logs: Arc<CallLog>,
    lease: Option<Lease>,
    permit: Permit,
}

impl Rest {
    fn end(self, end: End) {
        if let Err(error) = &end.outcome {
            call::log_failure(&self.logs, error);
        }
        let error = end.outcome.as_ref().err();
        self.worker.metrics.ended(&self.version, &self.report, error);
        // The place is held to the end of the stream: that is what the next call is expected to take.
        let mut whole = self.report.clone();
        whole.phases.exec = self.worker.clock.instant() - self.began;
        whole.cpu = self.cpu.total();
        let sent = usize::try_from(self.sent.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let used = Used::of(&whole, self.version.memory_mb, error.is_none(), sent);
        self.worker.count_usage(&self.version, self.user.as_deref(), used);
        call::note(&self.worker.characteristics.of(&self.version), &whole, error);
        match end.sandbox {
            Some(sandbox) => call::give_back(&self.worker, &self.version, sandbox, self.lease, self.permit),
            None => call::lost(&self.worker, &self.version, self.lease),
        }
    }
}
