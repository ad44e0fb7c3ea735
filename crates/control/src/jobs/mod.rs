//! Jobs: accepted durably, dispatched to the worker, retried, ended once in the record.
//!
//! # Which errors are retried
//! - The function's own, that another try may not have: `function_error`, `timeout`, `out_of_memory`,
//!   `instance_crashed`; and `internal`. Each try counts; between them the back-off doubles.
//! - No capacity (`overloaded`, `limit_reached`, `unavailable`) and calls that the worker itself gave up
//!   (`cancelled`): the try did not happen, so it does not count, and another comes soon.
//! - All others end the job at once as `failed`: a result that is too large or invalid, code that can't be loaded, a
//!   version that is gone. Another try would end the same way.
//!
//! On its last try a job ends as `failed` or `timed_out` where one try was all it had, else as `dead`.

mod dispatcher;
mod outcome;
mod parts;
mod running;
mod waiters;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lyra_fleet::quota::Meters;
use lyra_kit::{Clock, Ids, Random, Tasks};
use lyra_store::Jobs as Store;
use lyra_store::JobsError;
use lyra_store::jobs::{Filter, Idempotency, MostQueued, NewJob, Retention};
use lyra_types::api::Page;
use lyra_types::function::label;
use lyra_types::job::{Job, JobStatus};
use lyra_types::quota::QuotaKey;
use lyra_types::usage::{UsageBatch, UsageQuery, UsageSum};
use lyra_types::{Code, Error, JobId, Result, TenantName, Timestamp};
use lyra_wire::Worker;
use lyra_wire::control::{Finished, JobQuery, Submit, Submitted};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::classic::Numbers;
use crate::config::JobsConfig;
use crate::deliveries::{Directory, Subject};
use crate::functions::Table;
use crate::leader::{Leader, Term};
use crate::metrics::Metrics;
use crate::quotas::Quotas;
use running::{Running, Stop};
use waiters::Waiters;

/// Longest idempotency key, in bytes.
const MAX_KEY: usize = 255;
/// Jobs changed by one request to the store where there may be many.
const CHUNK: usize = 500;
/// How often the counts by status are read for the metrics.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// How often the leader looks for jobs of processes that are gone, beside when it hears of one that goes.
const LOOK_FOR_LOST: Duration = Duration::from_secs(30);
/// What a process did last may be seen a moment after it is gone.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long jobs that were told to stop may take to record it, at shutdown.
const LET_GO: Duration = Duration::from_secs(5);

/// Owner of jobs.
pub(crate) struct Jobs {
    store: Arc<dyn Store>,
    worker: Arc<dyn Worker>,
    table: Arc<Table>,
    clock: Clock,
    random: Random,
    ids: Ids,
    /// Ids of the jobs of classic functions.
    numbers: Arc<Numbers>,
    quotas: Arc<Quotas>,
    /// What tries may take, of quotas that are shared with gateways.
    meters: Meters,
    metrics: Arc<Metrics>,
    config: JobsConfig,
    /// Who this process is to the store.
    owner: u64,
    /// Who hears of what.
    directory: Arc<Directory>,
    /// Set when a job has ended here.
    ends: Arc<Notify>,
    /// There may be something to lease.
    wake: Notify,
    running: Running,
    /// When jobs were last leased, and what time it was then.
    looked: Mutex<Option<(Instant, Timestamp)>>,
    /// Whose job was leased last.
    served: Mutex<Option<TenantName>>,
    waiters: Waiters,
    /// Jobs that waited when they were last counted.
    queued: AtomicU64,
    /// Tries that run, also those of a term that is over.
    tries: Tasks,
}

impl Jobs {
    pub(crate) fn new(
        config: JobsConfig,
        deps: &crate::Deps,
        owner: u64,
        table: Arc<Table>,
        numbers: Arc<Numbers>,
        (quotas, directory): (Arc<Quotas>, Arc<Directory>),
        metrics: Arc<Metrics>,
    ) -> Jobs {
        // Jobs make nobody wait: they are held back.
        let meters = Meters::new(deps.clock.clone(), deps.random.u64(), true, metrics.quota_held.clone());
        Jobs {
            quotas,
            meters,
            store: Arc::clone(&deps.jobs),
            worker: Arc::clone(&deps.worker),
            table,
            clock: deps.clock.clone(),
            random: deps.random.clone(),
            ids: Ids::new(deps.clock.clone(), deps.random.clone()),
            numbers,
            metrics,
            owner,
            directory,
            ends: Arc::default(),
            wake: Notify::new(),
            running: Running::default(),
            looked: Mutex::new(None),
            served: Mutex::new(None),
            waiters: Waiters::new(config.max_waiters),
            queued: AtomicU64::new(0),
            tries: Tasks::new(),
            config,
        }
    }

    /// Follows what other processes do to jobs, and looks after the tries that run here.
    pub(crate) async fn start(self: &Arc<Self>, tasks: &Tasks) {
        self.count().await;
        let this = Arc::clone(self);
        tasks.spawn_cancellable("follow-jobs", async move { this.follow_others().await });
        let every = |name, period, work: fn(Arc<Jobs>) -> futures::future::BoxFuture<'static, ()>| {
            let this = Arc::clone(self);
            tasks.every(name, period, move || work(Arc::clone(&this)));
        };
        every("heartbeat-jobs", self.config.heartbeat, |this| Box::pin(async move { this.heartbeat().await }));
        every("count-jobs", COUNT_EVERY, |this| Box::pin(async move { this.count().await }));
    }

    /// What the leader does: ends the leases of processes that are gone, dispatches, forgets old jobs. Returns soon after
    /// the term is over; what runs then goes on.
    pub(crate) async fn lead(self: &Arc<Self>, leader: &Leader, term: &Term) {
        self.recover(leader).await;
        let mut processes = leader.listed();
        let recover = async {
            loop {
                if let Ok(Ok(())) = tokio::time::timeout(LOOK_FOR_LOST, processes.changed()).await {
                    self.recover(leader).await;
                    self.clock.sleep(LAST_WORDS).await;
                }
                self.recover(leader).await;
            }
        };
        let sweep = async {
            loop {
                self.sweep().await;
                self.clock.sleep(self.config.sweep_every).await;
            }
        };
        let share = |claim| std::future::ready(self.quotas.share(claim));
        let claim = self.meters.follow(share, || self.held_back());
        tokio::join!(
            Arc::clone(self).dispatch(term.over.clone()),
            term.over.run_until_cancelled(claim),
            term.over.run_until_cancelled(recover),
            term.over.run_until_cancelled(sweep),
        );
    }

    /// Jobs that wait under each quota, as many as could run.
    async fn held_back(&self) -> HashMap<QuotaKey, u64> {
        let most = self.config.max_in_flight as u64;
        let mut waiting = HashMap::new();
        for key in self.meters.of_places() {
            match self.store.queued(key.tenant.clone(), key.function.clone(), most).await {
                Ok(count) => drop(waiting.insert(key, count)),
                Err(error) => {
                    tracing::warn!(%error, "jobs that wait can't be counted");
                    break;
                }
            }
        }
        waiting
    }

    /// Lets what runs end within the drain limit, and gives the rest back. Nothing is dispatched any more when it is called.
    pub(crate) async fn stop(&self) {
        if !self.tries.stop(self.config.drain).await {
            let given_back = self.running.stop_all(Stop::Drain);
            tracing::info!(given_back, "running jobs are given back");
            if !self.tries.stop(LET_GO).await {
                tracing::warn!("some jobs could not be given back; their leases will run out");
            }
        }
    }

    async fn recover(&self, leader: &Leader) {
        match self.try_recover(leader).await {
            Ok(0) => {}
            Ok(lost) => tracing::warn!(lost, "jobs that a process ran which is gone"),
            Err(error) => tracing::warn!(%error, "jobs of processes that are gone can't be taken from them yet"),
        }
    }

    async fn try_recover(&self, leader: &Leader) -> Result<usize> {
        // In this order: who begins to run jobs in between was seen before.
        let owners = self.store.owners().await?;
        let alive = leader.alive().await?;
        let mut lost = 0;
        for gone in owners.into_iter().filter(|owner| !alive.contains(owner)) {
            loop {
                let jobs = self.store.recover(gone, self.clock.now(), CHUNK).await?;
                for job in &jobs {
                    self.ended(job);
                }
                lost += jobs.len();
                if jobs.len() < CHUNK {
                    break;
                }
            }
        }
        if lost > 0 {
            self.wake.notify_one();
        }
        Ok(lost)
    }

    /// Hears of what other processes do to jobs, for ever.
    async fn follow_others(&self) {
        let Some(mut others) = self.store.others() else { return };
        loop {
            match others.recv().await {
                Ok(job) if job.status.is_final() => self.waiters.notify(job.id),
                Ok(job) if job.cancel_requested => self.running.stop(job.id, Stop::Cancel).await,
                Ok(job) if job.status == JobStatus::Queued => self.wake.notify_one(),
                Ok(_) => {}
                // Some were missed: all look for themselves. Cancellations are found with the next heartbeat.
                Err(RecvError::Lagged(_)) => {
                    self.waiters.notify_all();
                    self.wake.notify_one();
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    pub(crate) async fn submit(&self, submit: Submit) -> Result<Submitted> {
        self.submit_after(submit, 0).await
    }

    /// Set when a job has ended here.
    pub(crate) fn ends(&self) -> Arc<Notify> {
        Arc::clone(&self.ends)
    }

    /// As [`Jobs::submit`], for a job that `depth` deliveries led to.
    pub(crate) async fn submit_after(&self, submit: Submit, depth: u32) -> Result<Submitted> {
        if self.queued.load(Ordering::Relaxed) >= self.config.max_queued {
            let detail = format!("{} jobs wait already, the most that may", self.config.max_queued);
            return Err(Error::new(Code::Overloaded, detail).with_retry_after(COUNT_EVERY));
        }
        let now = self.clock.now();
        let idempotency = match submit.idempotency_key {
            Some(key) if key.is_empty() || key.len() > MAX_KEY => {
                let reason = format!("must have 1 to {MAX_KEY} characters");
                return Err(Error::field(Code::InvalidField, "Idempotency-Key", reason));
            }
            Some(key) => Some(Idempotency {
                key,
                request: Sha256::digest(&submit.event).into(),
                expires_at: now + self.config.keep_keys,
            }),
            None => None,
        };
        let version = &submit.version;
        let (of_tenant, of_function) = self.quotas.queued_jobs(&version.tenant, &version.function);
        let most_queued = MostQueued { of_tenant, of_function };
        let own = submit.destinations.as_deref();
        let of = Subject::Function(version.function.clone());
        let notice = self.directory.notice(&version.tenant, &of, own, depth)?;
        let id = match version.labels.contains_key(label::CLASSIC) {
            true => self.numbers.job(&version.tenant).await?,
            false => None,
        };
        let job = NewJob {
            id: id.or(submit.id).unwrap_or_else(|| self.ids.job()),
            tenant: version.tenant.clone(),
            function: version.function.clone(),
            version: version.version,
            generation: version.generation,
            max_attempts: version.max_attempts,
            event: submit.event,
            idempotency,
            user: submit.user,
            most_queued,
            notice,
            now,
        };
        let accepted = self.store.accept(job).await?;
        if accepted.created {
            self.metrics.jobs_accepted.inc();
            self.meters.claim_soon();
            self.wake.notify_one();
        }
        // One that was handed in twice is new to whoever did so.
        let created = accepted.created || submit.id == Some(accepted.id);
        Ok(Submitted { id: accepted.id, status: accepted.status, created })
    }

    /// For how long a second submission under a key is the same job, at least.
    pub(crate) fn remembers(&self) -> Duration {
        self.config.keep_keys.min(self.config.keep_finished)
    }

    /// Takes what a worker has counted.
    pub(crate) async fn record_usage(&self, batch: UsageBatch) -> Result<()> {
        if !self.store.add_usage(batch).await? {
            tracing::debug!("a worker has told again what calls used");
        }
        Ok(())
    }

    /// What was used, added up.
    pub(crate) async fn usage(&self, query: UsageQuery) -> Result<Vec<UsageSum>> {
        Ok(self.store.usage(query).await?)
    }

    pub(crate) async fn get(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<Finished> {
        let job = self.wait_for_end(tenant, id, wait).await?;
        if job.status != JobStatus::Succeeded {
            return Ok(Finished { job, result: None });
        }
        let (job, result) = self.store.get(tenant.clone(), id, true).await?;
        Ok(Finished { job, result })
    }

    /// The job when it has ended or `wait` has passed.
    async fn wait_for_end(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<Job> {
        let (job, _) = self.store.get(tenant.clone(), id, false).await?;
        if job.status.is_final() || wait.is_zero() {
            return Ok(job);
        }
        let Some(waiter) = self.waiters.register(id) else { return Ok(job) };
        let deadline = self.clock.instant() + wait.min(self.config.max_wait);
        loop {
            let ended = waiter.ended();
            tokio::pin!(ended);
            // From here on an end is noticed, so none can fall between the look and the wait.
            ended.as_mut().enable();
            let (job, _) = self.store.get(tenant.clone(), id, false).await?;
            if job.status.is_final() {
                return Ok(job);
            }
            if tokio::time::timeout_at(deadline, ended).await.is_err() {
                return Ok(self.store.get(tenant.clone(), id, false).await?.0);
            }
        }
    }

    pub(crate) async fn list(&self, tenant: &TenantName, query: JobQuery) -> Result<Page<Job>> {
        let limit = crate::functions::page_limit(query.limit);
        let bad = |_| Error::field(Code::BadRequest, "cursor", "is not one that a list gave");
        let before = query.cursor.as_deref().map(str::parse::<JobId>).transpose().map_err(bad)?;
        let filter = Filter { function: query.function, status: query.status, before, limit: limit + 1 };
        let mut items = self.store.list(tenant.clone(), filter).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|job| job.id.to_string());
        Ok(Page { items, next })
    }

    pub(crate) async fn cancel(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<Job> {
        let job = self.store.cancel(tenant.clone(), id, self.clock.now()).await?;
        if job.status.is_final() {
            // Also where it had ended before: who waits looks for itself.
            if job.status == JobStatus::Cancelled && job.finished_at.is_some() {
                self.waiters.notify(id);
            }
            return Ok(job);
        }
        // If it runs here, it stops now; elsewhere, at the next heartbeat.
        self.running.stop(id, Stop::Cancel).await;
        self.wait_for_end(tenant, id, wait).await
    }

    /// Stops a job that runs, then removes it from the record.
    pub(crate) async fn remove(&self, tenant: &TenantName, id: JobId, wait: Duration) -> Result<bool> {
        match self.store.remove(tenant.clone(), id).await {
            Err(JobsError::Runs(_)) => {}
            Ok(()) => return Ok(true),
            Err(JobsError::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        match self.cancel(tenant, id, wait).await {
            Ok(_) => {}
            Err(error) if error.code == Code::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        match self.store.remove(tenant.clone(), id).await {
            Ok(()) => Ok(true),
            Err(JobsError::NotFound(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn redrive(&self, tenant: &TenantName, id: JobId) -> Result<Job> {
        let job = self.store.redrive(tenant.clone(), id, self.clock.now()).await?;
        self.wake.notify_one();
        Ok(job)
    }

    pub(crate) async fn redrive_all(&self, tenant: &TenantName) -> Result<u64> {
        let mut total = 0;
        loop {
            let redriven = self.store.redrive_some(tenant.clone(), self.clock.now(), CHUNK).await?;
            total += redriven;
            self.wake.notify_one();
            if redriven < CHUNK as u64 {
                return Ok(total);
            }
        }
    }

    pub(crate) async fn purge(&self, tenant: &TenantName, id: Option<JobId>) -> Result<u64> {
        if let Some(id) = id {
            self.store.purge(tenant.clone(), id).await?;
            return Ok(1);
        }
        let mut total = 0;
        loop {
            let purged = self.store.purge_some(tenant.clone(), CHUNK).await?;
            total += purged;
            if purged < CHUNK as u64 {
                return Ok(total);
            }
        }
    }

    async fn sweep(&self) {
        loop {
            let now = self.clock.now();
            let retention = Retention {
                finished_before: now - self.config.keep_finished,
                dead_before: now - self.config.keep_dead,
                now,
                limit: CHUNK,
            };
            match self.store.sweep(retention).await {
                Ok(0) => return,
                Ok(swept) => tracing::debug!(swept, "old jobs forgotten"),
                Err(error) => return tracing::warn!(%error, "old jobs can't be forgotten"),
            }
        }
    }

    async fn count(&self) {
        match self.store.counts().await {
            Ok(counts) => {
                for status in JobStatus::ALL {
                    let count = i64::try_from(counts.of(status)).unwrap_or(i64::MAX);
                    self.metrics.jobs.with_label_values(&[status.as_str()]).set(count);
                }
                self.queued.store(counts.of(JobStatus::Queued), Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(%error, "jobs can't be counted"),
        }
    }

    /// Tells those who wait, if the job has ended.
    fn ended(&self, job: &Job) {
        if job.status.is_final() {
            self.metrics.job_ended(job.status);
            self.waiters.notify(job.id);
            self.ends.notify_one();
        }
    }
}
