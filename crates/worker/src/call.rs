//! The life of one call: wait for a place, get an instance, run, give back, report.

use std::sync::Arc;
use std::time::Duration;

use lyra_isolation::{CallContext, CpuMeter, Sandbox};
use lyra_types::invocation::{Report, Start};
use lyra_types::log::Level;
use lyra_types::usage::Usage;
use lyra_types::{Code, Error, FunctionVersion, InstanceId, InvocationId};
use lyra_wire::worker::Account;
use tokio::time::Instant;

use crate::call_log::CallLog;
use crate::characteristics::Record;
use crate::error;
use crate::pool::{Grant, Instance, Lease, Pool};
use crate::queue::{Ask, Permit};
use crate::resources::Need;
use crate::service::Inner;
use crate::templates::key_of;

/// A call on its way. Dropping it before its end counts it as cancelled.
pub(crate) struct Call<'a> {
    worker: &'a Arc<Inner>,
    version: Arc<FunctionVersion>,
    record: Arc<Record>,
    pub(crate) report: Report,
    arrived: Instant,
    /// When the handler's time began.
    began: Option<Instant>,
    cpu: CpuMeter,
    account: Account,
    /// What the function is told of where the call stands.
    pub(crate) trace: Option<Arc<str>>,
    ended: bool,
}

/// A place to run and an instance to run on. Dropped in this order: what was charged for the sandbox is given back when it is gone.
pub(crate) struct Running {
    pub(crate) sandbox: Box<dyn Sandbox>,
    /// What is charged for the instance; `None` where its engine's own budget governs it.
    pub(crate) lease: Option<Lease>,
    pub(crate) permit: Permit,
    pub(crate) instance: InstanceId,
    began: Instant,
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        worker: &'a Arc<Inner>,
        id: InvocationId,
        version: &Arc<FunctionVersion>,
        account: Account,
    ) -> Call<'a> {
        let report = Report::new(id, version.version);
        let arrived = worker.clock.instant();
        let record = worker.characteristics.arrived(version, arrived);
        let (version, cpu) = (version.clone(), CpuMeter::default());
        Call { worker, version, record, report, arrived, began: None, cpu, account, trace: None, ended: false }
    }

    /// Waits for a place and gets an instance.
    pub(crate) async fn begin(&mut self) -> Result<Running, Error> {
        self.worker.cordon.check()?;
        let permit = self.wait_for_place().await?;
        let grant = self.claim().await?;
        let admitted = self.worker.clock.instant();
        self.report.phases.queue = admitted - self.arrived;
        let (start, sandbox, lease, instance) = match grant {
            Some(Grant::Idle(idle)) => {
                let Instance { sandbox, lease, .. } = idle;
                let served = Pool::begin_call(&lease);
                self.report.reused = served > 0;
                let start = if served == 0 { Start::Prewarmed } else { Start::Warm };
                let id = lease.id();
                (start, sandbox, Some(lease), id)
            }
            other => {
                let lease = other.and_then(|grant| if let Grant::Start(lease) = grant { Some(lease) } else { None });
                tokio::time::timeout(self.worker.config.start_timeout, self.start(lease, admitted))
                    .await
                    .map_err(|_| error::start_too_slow(&self.version, &self.worker.config))??
            }
        };
        let began = self.worker.clock.instant();
        self.report.start = Some(start);
        self.report.instance = Some(instance);
        self.report.phases.start = began - admitted;
        self.began = Some(began);
        Ok(Running { sandbox, lease, permit, instance, began })
    }

    async fn wait_for_place(&self) -> Result<Permit, Error> {
        let (version, config) = (&self.version, &self.worker.config);
        let cpu = Need::of(version).map_or(0, |need| need.cpu);
        let ask = Ask { record: &self.record, concurrency: crate::concurrency(version), cpu, arrived: self.arrived };
        match tokio::time::timeout(config.queue_timeout, self.worker.queue.admit(ask)).await {
            Ok(Ok(permit)) => {
                self.worker.metrics.admitted(&permit);
                Ok(permit)
            }
            Ok(Err(refused)) => {
                self.worker.metrics.refused(Some(refused));
                Err(error::refused(refused, version, config))
            }
            Err(_) => {
                self.worker.metrics.refused(None);
                Err(error::waited_too_long(version, config))
            }
        }
    }

    /// Waits for an idle instance of the version or for the resources of a new one; `None` where the pool has no part in it.
    async fn claim(&self) -> Result<Option<Grant>, Error> {
        let (worker, version) = (self.worker, &self.version);
        let Some(need) = Need::of(version) else { return Ok(None) };
        loop {
            let now = worker.clock.instant();
            if let Some(idle) = worker.pool.take(key_of(version), now) {
                match self.serviceable(idle).await {
                    Some(idle) => return Ok(Some(Grant::Idle(idle))),
                    None => continue,
                }
            }
            if !worker.pool.holds(&need) {
                return Err(error::too_large(version));
            }
            let limit = worker.config.queue_timeout.saturating_sub(now - self.arrived);
            let grant = tokio::time::timeout(limit, worker.pool.claim(version, need, now))
                .await
                .map_err(|_| error::no_room(version, &worker.config))?
                .map_err(|_| error::closing())?;
            match grant {
                Grant::Idle(idle) => {
                    if let Some(idle) = self.serviceable(idle).await {
                        return Ok(Some(Grant::Idle(idle)));
                    }
                }
                grant @ (Grant::Start(_) | Grant::Room(_)) => return Ok(Some(grant)),
            }
        }
    }

    /// The instance, awake; `None` when it turns out to have died while it was idle.
    async fn serviceable(&self, mut idle: Instance) -> Option<Instance> {
        let pool = &self.worker.pool;
        let mut serves = idle.sandbox.is_reusable();
        if serves && idle.lease.hibernated {
            let woken = tokio::time::timeout(self.worker.config.start_timeout, idle.sandbox.wake()).await;
            serves = woken.unwrap_or(false);
            idle.lease.hibernated = !serves;
            pool.woke(serves);
        }
        if serves {
            return Some(idle);
        }
        pool.retire(&mut idle.lease, true);
        drop(lyra_kit::tasks::spawn("end-instance", async move { drop(idle) }));
        None
    }

    /// Starts an instance for this call; loads the code first where it must.
    async fn start(
        &self,
        lease: Option<Lease>,
        begun: Instant,
    ) -> Result<(Start, Box<dyn Sandbox>, Option<Lease>, InstanceId), Error> {
        let (worker, version) = (self.worker, &self.version);
        let (start, template) = match worker.templates.loaded(version).await {
            // An instance that is kept is meant to be there already; one made for this call alone costs microseconds.
            Some(template) if version.reuse => (Start::Cold, template),
            Some(template) => (Start::Warm, template),
            None => {
                worker.metrics.loaded(version.runtime);
                (Start::Cold, worker.templates.load(version).await?)
            }
        };
        let Some(lease) = lease else {
            let id = worker.ids.instance();
            return Ok((start, worker.start_sandbox(version, &*template, id, None).await?, None, id));
        };
        let Instance { sandbox, lease, .. } = worker.start_instance(version, &*template, lease, begun).await?;
        Pool::begin_call(&lease);
        worker.pool.serves(&lease);
        let id = lease.id();
        Ok((start, sandbox, Some(lease), id))
    }

    /// What the sandbox is told of this call, and where its log lines go.
    pub(crate) fn context(&self, running: &Running, timeout: Option<Duration>) -> (CallContext, Arc<CallLog>) {
        let worker = self.worker;
        let limit = self.version.timeout();
        let timeout = timeout.map_or(limit, |asked| asked.min(limit));
        let logs = Arc::new(CallLog::new(
            &worker.config,
            worker.logs.clone(),
            worker.clock.clone(),
            self.version.clone(),
            self.report.invocation,
            running.instance,
            worker.secrets.masks(&self.version),
        ));
        let context = CallContext {
            invocation: self.report.invocation,
            version: self.version.clone(),
            deadline: running.began + timeout,
            deadline_ms: (worker.clock.now() + timeout).millis(),
            logs: logs.clone(),
            max_result: worker.config.max_result,
            cpu: self.cpu.clone(),
            trace: self.trace.clone(),
        };
        (context, logs)
    }

    /// Marks the end of the handler's time.
    pub(crate) fn executed(&mut self, began: Instant) {
        self.report.phases.exec = self.worker.clock.instant() - began;
        self.report.cpu = self.cpu.total();
    }

    /// Counts the call, whose result has so many bytes, and gives its report out.
    pub(crate) fn end(mut self, error: Option<&Error>, bytes: usize) -> Report {
        self.ended = true;
        if !self.account.by_caller {
            let usage = Usage::of(&self.report, self.version.memory_mb, error.is_none(), bytes);
            self.worker.count_usage(&self.version, self.account.user.as_deref(), usage);
        }
        note(&self.record, &self.report, error);
        self.worker.metrics.ended(&self.version, &self.report, error);
        self.report.clone()
    }

    /// Leaves the counting to whoever waits for the rest of a streamed call.
    pub(crate) fn hand_over(mut self) -> (Report, CpuMeter) {
        self.ended = true;
        (self.report.clone(), self.cpu.clone())
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.ended {
            if let Some(began) = self.began {
                // Nobody else will hear of it.
                self.executed(began);
                let usage = Usage::of(&self.report, self.version.memory_mb, false, 0);
                self.worker.count_usage(&self.version, self.account.user.as_deref(), usage);
            }
            self.worker.metrics.count(&self.version, "cancelled", self.report.start);
            tracing::debug!(invocation = %self.report.invocation, version = %self.version.key(), "call cancelled");
        }
    }
}

impl Running {
    pub(crate) fn began(&self) -> Instant {
        self.began
    }
}

/// Puts the instance back where it may serve again; else frees it, and then its place.
pub(crate) fn give_back(
    worker: &Inner,
    version: &FunctionVersion,
    sandbox: Box<dyn Sandbox>,
    lease: Option<Lease>,
    permit: Permit,
) {
    let lease = match lease {
        Some(lease) if version.reuse && sandbox.is_reusable() => {
            let now = worker.clock.instant();
            worker.pool.put(Instance { sandbox, lease }, now);
            return;
        }
        Some(mut lease) => {
            worker.pool.retire(&mut lease, version.reuse);
            Some(lease)
        }
        None => None,
    };
    // Wiping an instance's memory takes as long as a short call: the answer goes out first.
    lyra_kit::tasks::spawn("free-instance", async move {
        drop(sandbox);
        drop(lease);
        drop(permit);
    });
}

/// What a call held whose instance is gone already.
pub(crate) fn lost(worker: &Inner, version: &FunctionVersion, lease: Option<Lease>) {
    if let Some(mut lease) = lease {
        worker.pool.retire(&mut lease, version.reuse);
    }
}

/// Notes what the call took, for those that decide by it.
pub(crate) fn note(record: &Record, report: &Report, error: Option<&Error>) {
    if let Some(start) = report.start {
        // What a crash or a fault of the platform took says nothing about the next call.
        let ran = error.is_none_or(|error| matches!(error.code, Code::FunctionError | Code::Timeout));
        record.ended(start, &report.phases, ran);
    }
}

/// Writes what went wrong in the function to the function's log.
pub(crate) fn log_failure(logs: &CallLog, error: &Error) {
    let text = match &error.thrown {
        Some(thrown) if !thrown.stack.is_empty() => {
            format!("uncaught {}: {}\n{}", thrown.name, thrown.message, thrown.stack.trim_end())
        }
        Some(thrown) => format!("uncaught {}: {}", thrown.name, thrown.message),
        None => error.detail.clone(),
    };
    logs.write(Level::Error, text);
}
