//! The dispatcher: leases due jobs while there is room, runs each on the worker, records how it ended. Whose jobs it is given is
//! the store's to choose, by what each tenant and function runs here.
//!
//! It sleeps until a job is accepted or ends, or until the store says that something becomes due; it never polls.
//! What runs here was leased by this process and is prolonged by heartbeats; the outcome is recorded under the lease's
//! fence, so a try whose lease was lost can't win against a later one. Only the leading process dispatches.

use std::sync::Arc;
use std::time::Duration;

use lyra_fleet::quota::{Called, Pass};
use lyra_store::JobsError;
use lyra_store::jobs::{Held, LeaseRequest, Leased, LeasedJob, Outcome};
use lyra_types::function::{ResultForm, VersionKey};
use lyra_types::job::{Job, JobStatus};
use lyra_types::usage::Usage;
use lyra_types::{Code, Error, Timestamp};
use lyra_wire::quotas::PERIOD;
use lyra_wire::worker::{Account, Call};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Jobs;
use super::outcome::{gone, is_functions_own, outcome};
use super::parts::Left;
use super::running::Stop;

/// Wait before the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest sleep; a due time that the clock's jump hid is found after it.
const LONGEST: Duration = Duration::from_secs(60);

impl Jobs {
    /// Dispatches until told to stop.
    pub(super) async fn dispatch(self: Arc<Self>, stopping: CancellationToken) {
        loop {
            let room = self.config.max_in_flight.saturating_sub(self.running.len());
            let mut sleep = LONGEST;
            if room > 0 {
                match self.lease(room).await {
                    // Under quotas those that had room may stand before others that have: these come with the next look.
                    Ok((leased, _)) if leased > 0 && !self.meters.is_empty() && !stopping.is_cancelled() => continue,
                    // Every place was filled, or more may have become due meanwhile: the end of a try wakes this.
                    Ok((_, next)) => sleep = next.map_or(LONGEST, |at| self.until(at)),
                    Err(error) => {
                        tracing::warn!(%error, "jobs can't be leased");
                        sleep = AGAIN;
                    }
                }
            }
            if !self.meters.is_empty() {
                // What is held back may have room when shares change.
                sleep = sleep.min(PERIOD);
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = self.wake.notified() => {}
                () = self.clock.sleep(sleep) => {}
            }
        }
    }

    fn until(&self, at: Timestamp) -> Duration {
        // A millisecond more, the grain of stored times, so that what is waited for is due when this ends.
        (at.since(self.clock.now()) + Duration::from_millis(1)).min(LONGEST)
    }

    /// Leases up to `room` jobs and starts them; returns how many, and when to look again.
    async fn lease(self: &Arc<Self>, room: usize) -> Result<(usize, Option<Timestamp>), JobsError> {
        let _adding = self.running.leasing().await;
        if self.clock_jumped() {
            // By the new time the leases of all tries that run here may be over: they are prolonged before anybody looks.
            self.heartbeat().await;
        }
        let request = LeaseRequest {
            owner: self.owner,
            now: self.clock.now(),
            ttl: self.config.lease_ttl,
            invocations: (0..room).map(|_| self.ids.invocation()).collect(),
            max_bytes: self.config.max_leased_bytes,
            per_function: self.config.max_in_flight_per_function,
            running: self.running.by_function(),
            rooms: self.meters.rooms(),
            after: self.served.lock().clone(),
        };
        let Leased { jobs, ended, next } = self.store.lease(request).await?;
        if let Some(last) = jobs.last() {
            *self.served.lock() = Some(last.job.tenant.clone());
        }
        for job in &ended {
            self.ended(job);
        }
        let mut started = 0;
        for leased in jobs {
            let pass = match self.pass(&leased.job) {
                Ok(pass) => pass,
                // The rooms do not tell how much memory each takes.
                Err(_) => {
                    self.give_back(&leased).await;
                    continue;
                }
            };
            started += 1;
            let stop = self.running.add(leased.lease(), leased.job.function.clone());
            self.metrics.in_flight.inc();
            let this = Arc::clone(self);
            self.tries.spawn("run-job", async move { this.run(leased, stop, pass).await });
        }
        Ok((started, next))
    }

    /// Whether the clock has moved on by more than time has, since the last look.
    fn clock_jumped(&self) -> bool {
        let (now, wall) = (self.clock.instant(), self.clock.now());
        let last = self.looked.lock().replace((now, wall));
        last.is_some_and(|(then, was)| wall.since(was) > (now - then) + self.config.lease_ttl / 4)
    }

    /// Takes a place under the quotas for a try.
    fn pass(&self, job: &Job) -> lyra_types::Result<Pass> {
        let memory_mb = self.table.version(&key(job)).map_or(0, |version| version.memory_mb);
        self.meters.try_now(Called { tenant: &job.tenant, function: Some(&job.function), memory_mb })
    }

    /// Puts a job back that finds no place under a quota; that is no try.
    async fn give_back(&self, leased: &LeasedJob) {
        self.metrics.quota_held.with_label_values(&["memory_mb"]).inc();
        let now = self.clock.now();
        self.record(&leased.lease(), Outcome::Released { run_at: now + PERIOD, error: None }, Usage::default()).await;
    }

    /// Runs a try; it counts against quotas until `pass` is dropped.
    async fn run(&self, leased: LeasedJob, stop: oneshot::Receiver<Stop>, pass: Pass) {
        let lease = leased.lease();
        let begun = self.clock.now();
        if leased.fence == 1 {
            self.metrics.job_wait.observe(begun.since(leased.job.created_at).as_secs_f64());
        }
        let start = self.clock.instant();
        let ended = self.attempt(leased, stop).await;
        self.metrics.job_run.observe(start.elapsed().as_secs_f64());
        if let Some((outcome, used)) = ended {
            self.record(&lease, outcome, used).await;
        }
        self.running.remove(&lease);
        self.metrics.in_flight.dec();
        drop(pass);
        self.wake.notify_one();
    }

    /// Runs the try; `None` when nothing is to be recorded. What a try used that is stopped here is counted by its worker.
    async fn attempt(&self, leased: LeasedJob, stop: oneshot::Receiver<Stop>) -> Option<(Outcome, Usage)> {
        let unused = |outcome| Some((outcome, Usage::default()));
        let LeasedJob { job, event: whole, .. } = leased;
        let left = Left::of(job.error.as_ref());
        let event = left.event(&whole);
        let Some(version) = self.table.version(&key(&job)) else { return unused(gone(&job)) };
        let id = job.invocation.unwrap_or_else(|| self.ids.invocation());
        let texts = ResultForm::of(&version.labels).is_text();
        let memory_mb = version.memory_mb;
        let account = Account { user: None, by_caller: true };
        let call = Call { id, version, event, timeout: None, account, trace: None };
        let reply = tokio::select! {
            biased;
            why = stop => return match why {
                Ok(Stop::Cancel) => {
                    let error = Error::new(Code::Cancelled, "the job was cancelled by its owner while it ran");
                    unused(Outcome::Ended(JobStatus::Cancelled, error))
                }
                Ok(Stop::Drain) => unused(Outcome::Released { run_at: self.clock.now(), error: None }),
                Ok(Stop::Lost) | Err(_) => None,
            },
            reply = self.worker.invoke(call) => reply,
        };
        let bytes = reply.outcome.as_ref().map_or(0, bytes::Bytes::len);
        let used = Usage::of(&reply.report, memory_mb, reply.outcome.is_ok(), bytes);
        let mut job = job;
        if texts && reply.outcome.as_ref().is_err_and(|error| is_functions_own(error.code)) {
            // What it throws is its result: another try would have another one.
            job.max_attempts = 1;
        }
        let ended = left.judge(&whole, reply.outcome);
        let outcome = outcome(&job, ended, self.clock.now(), &self.config, &self.random);
        if let Outcome::Retry { error, .. } = &outcome {
            self.metrics.job_retries.with_label_values(&[error.code.as_str()]).inc();
        }
        Some((outcome, used))
    }

    /// Records how a try ended; asks again while the store fails, for as long as the lease can hold.
    async fn record(&self, lease: &lyra_store::jobs::Lease, outcome: Outcome, used: Usage) {
        let give_up = self.clock.instant() + self.config.lease_ttl;
        loop {
            match self.store.finish_with(lease.clone(), self.clock.now(), outcome.clone(), used).await {
                Ok(job) => return self.ended(&job),
                Err(JobsError::Store(error)) if self.clock.instant() < give_up => {
                    tracing::warn!(%error, job = %lease.id, "the end of a job can't be recorded yet");
                    self.clock.sleep(AGAIN).await;
                }
                // The lease was lost, or the job is gone: another try has its own end.
                Err(error) => return tracing::warn!(%error, job = %lease.id, "the end of a try was not recorded"),
            }
        }
    }

    /// Prolongs the leases of all tries, and stops those that lost theirs or whose owners want them cancelled.
    pub(super) async fn heartbeat(&self) {
        let leases = self.running.leases();
        if leases.is_empty() {
            return;
        }
        let held = self.store.heartbeat(self.owner, leases.clone(), self.clock.now(), self.config.lease_ttl).await;
        match held {
            Ok(held) => {
                for (lease, held) in leases.iter().zip(held) {
                    match held {
                        Held::Yes => {}
                        Held::CancelRequested => self.running.stop_lease(lease, Stop::Cancel),
                        Held::No => self.running.stop_lease(lease, Stop::Lost),
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "leases can't be prolonged"),
        }
    }
}

/// The version that a job is pinned to.
fn key(job: &Job) -> VersionKey {
    let Job { generation, version, .. } = *job;
    VersionKey { tenant: job.tenant.clone(), function: job.function.clone(), generation, version }
}
