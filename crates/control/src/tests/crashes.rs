//! The life of jobs with crashes, under virtual time, from a seed.
//!
//! A process is a tokio runtime; a crash drops it with all that runs in it, at a moment that the seed picks: before or
//! after any call of the service to its record of jobs took effect, or at any moment of virtual time. The next process
//! starts on the same files. In the end every job that was accepted has ended exactly once, within its tries, and
//! none that was acknowledged is missing.

use std::collections::BTreeMap;

use lyra_store::Jobs;
use lyra_store::jobs::{
    Accepted, Counts, Filter, Held, JobsError, Lease, LeaseRequest, Leased, NewJob, Outcome, Retention,
};
use lyra_types::job::{Job, JobStatus};
use lyra_types::usage::{Usage, UsageBatch, UsageQuery, UsageSum};
use tokio::sync::Notify;

use super::*;

/// Hangs for ever at one call, before or after it took effect, and says so.
struct Crashing {
    inner: Arc<dyn Jobs>,
    calls_left: AtomicUsize,
    before: bool,
    crash: Arc<Notify>,
    ends: Arc<Mutex<BTreeMap<JobId, Vec<JobStatus>>>>,
}

impl Crashing {
    async fn pass<T>(&self, call: impl Future<Output = T>) -> T {
        let last =
            self.calls_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) == Ok(1);
        if last && self.before {
            return self.die().await;
        }
        let outcome = call.await;
        if last { self.die().await } else { outcome }
    }

    async fn die<T>(&self) -> T {
        self.crash.notify_one();
        std::future::pending().await
    }

    fn note<'a>(&self, jobs: impl IntoIterator<Item = &'a Job>) {
        for job in jobs.into_iter().filter(|job| job.status.is_final()) {
            self.ends.lock().entry(job.id).or_default().push(job.status);
        }
    }
}

#[async_trait]
impl Jobs for Crashing {
    async fn accept(&self, job: NewJob) -> Result<Accepted, JobsError> {
        self.pass(self.inner.accept(job)).await
    }
    async fn lease(&self, request: LeaseRequest) -> Result<Leased, JobsError> {
        let call = async {
            let leased = self.inner.lease(request).await?;
            self.note(&leased.ended);
            Ok(leased)
        };
        self.pass(call).await
    }
    async fn heartbeat(
        &self,
        owner: u64,
        leases: Vec<Lease>,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Vec<Held>, JobsError> {
        self.pass(self.inner.heartbeat(owner, leases, now, ttl)).await
    }
    async fn finish_with(&self, lease: Lease, now: Timestamp, outcome: Outcome, used: Usage) -> Result<Job, JobsError> {
        let call = async {
            let job = self.inner.finish_with(lease, now, outcome, used).await?;
            self.note([&job]);
            Ok(job)
        };
        self.pass(call).await
    }
    async fn add_usage(&self, batch: UsageBatch) -> Result<bool, JobsError> {
        self.pass(self.inner.add_usage(batch)).await
    }
    async fn usage(&self, query: UsageQuery) -> Result<Vec<UsageSum>, JobsError> {
        self.inner.usage(query).await
    }
    async fn cancel(&self, tenant: TenantName, id: JobId, now: Timestamp) -> Result<Job, JobsError> {
        self.pass(self.inner.cancel(tenant, id, now)).await
    }
    async fn queued(&self, tenant: TenantName, function: Option<FunctionName>, limit: u64) -> Result<u64, JobsError> {
        self.pass(self.inner.queued(tenant, function, limit)).await
    }
    async fn get(&self, tenant: TenantName, id: JobId, with_result: bool) -> Result<(Job, Option<Bytes>), JobsError> {
        self.inner.get(tenant, id, with_result).await
    }
    async fn list(&self, tenant: TenantName, filter: Filter) -> Result<Vec<Job>, JobsError> {
        self.inner.list(tenant, filter).await
    }
    async fn redrive(&self, tenant: TenantName, id: JobId, now: Timestamp) -> Result<Job, JobsError> {
        self.pass(self.inner.redrive(tenant, id, now)).await
    }
    async fn redrive_some(&self, tenant: TenantName, now: Timestamp, limit: usize) -> Result<u64, JobsError> {
        self.pass(self.inner.redrive_some(tenant, now, limit)).await
    }
    async fn purge(&self, tenant: TenantName, id: JobId) -> Result<(), JobsError> {
        self.pass(self.inner.purge(tenant, id)).await
    }
    async fn purge_some(&self, tenant: TenantName, limit: usize) -> Result<u64, JobsError> {
        self.pass(self.inner.purge_some(tenant, limit)).await
    }
    async fn delete_ended(&self, tenant: TenantName, jobs: Vec<JobId>) -> Result<u64, JobsError> {
        self.pass(self.inner.delete_ended(tenant, jobs)).await
    }
    async fn delete_unbegun(
        &self,
        tenant: TenantName,
        function: FunctionName,
        generation: u64,
        limit: usize,
    ) -> Result<u64, JobsError> {
        self.pass(self.inner.delete_unbegun(tenant, function, generation, limit)).await
    }
    async fn remove(&self, tenant: TenantName, id: JobId) -> Result<(), JobsError> {
        self.pass(self.inner.remove(tenant, id)).await
    }
    async fn pinned(&self, tenant: TenantName, function: FunctionName, generation: u64) -> Result<Vec<u64>, JobsError> {
        self.inner.pinned(tenant, function, generation).await
    }
    async fn recover(&self, owner: u64, now: Timestamp, limit: usize) -> Result<Vec<Job>, JobsError> {
        let call = async {
            let jobs = self.inner.recover(owner, now, limit).await?;
            self.note(&jobs);
            Ok(jobs)
        };
        self.pass(call).await
    }
    async fn owners(&self) -> Result<Vec<u64>, JobsError> {
        self.inner.owners().await
    }
    fn others(&self) -> Option<tokio::sync::broadcast::Receiver<lyra_store::jobs::Changed>> {
        None
    }
    async fn owed(&self, limit: usize) -> Result<Vec<lyra_store::jobs::Owed>, JobsError> {
        self.inner.owed(limit).await
    }
    async fn passed_on(&self, tenant: TenantName, id: JobId, finished_at: Timestamp) -> Result<(), JobsError> {
        self.pass(self.inner.passed_on(tenant, id, finished_at)).await
    }
    async fn sweep(&self, retention: Retention) -> Result<u64, JobsError> {
        self.inner.sweep(retention).await
    }
    async fn counts(&self) -> Result<Counts, JobsError> {
        self.inner.counts().await
    }
}

const EVENTS: [&str; 8] =
    ["ok", "throw,ok", "throw", "crash", "sleep:700", "sleep:45000", "busy,ok", "slow,sleep:20000,ok"];

/// One run from a seed: several processes one after the other, the last of which ends by itself.
struct Story {
    dir: tempfile::TempDir,
    draw: Random,
    now: Timestamp,
    acknowledged: BTreeMap<JobId, String>,
    ends: Arc<Mutex<BTreeMap<JobId, Vec<JobStatus>>>>,
    submitted: u32,
}

impl Story {
    fn draw(&self, below: u64) -> u64 {
        self.draw.u64() % below
    }

    /// Lets one process live; `dies`: it crashes at some moment, else it runs until all jobs have ended.
    fn process(&mut self, dies: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let calls = if dies { usize::try_from(1 + self.draw(60)).unwrap() } else { usize::MAX };
        let longest = Duration::from_millis(1 + self.draw(90_000));
        let crash = Arc::new(Notify::new());
        let seen = Arc::new(Mutex::new(Vec::new()));
        runtime.block_on(async {
            let clock = Clock::simulated(self.now);
            let acknowledged = Arc::clone(&seen);
            let life = async {
                let wrap = |inner| {
                    let calls_left = AtomicUsize::new(calls);
                    let (crash, ends) = (Arc::clone(&crash), Arc::clone(&self.ends));
                    let before = self.draw(2) == 0;
                    Arc::new(Crashing { inner, calls_left, before, crash, ends }) as Arc<dyn Jobs>
                };
                let config = Config::default();
                let site = Site::start_at(self.dir.path(), config, self.now, self.draw.u64(), wrap).await;
                self.live(&site, dies, &acknowledged).await;
            };
            tokio::select! {
                biased;
                () = crash.notified() => {}
                () = clock.sleep(longest), if dies => {}
                () = Box::pin(life) => {}
            }
            seen.lock().push((None, clock.now()));
        });
        // Every task is dropped where it stands. What SQLite is writing at this moment it ends, or not at all.
        drop(runtime);
        for (job, at) in seen.lock().drain(..) {
            self.now = at;
            if let Some((id, event)) = job {
                self.acknowledged.insert(id, event);
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "what was acknowledged, and the time then")]
    async fn live(&self, site: &Site, dies: bool, acknowledged: &Mutex<Vec<(Option<(JobId, String)>, Timestamp)>>) {
        if site.service.function(&tenant(), &name("f")).await.is_err() {
            site.deploy("f", |_| ()).await;
            site.deploy("once", |request| request.max_attempts = Some(1)).await;
        }
        let mut ids = Vec::new();
        for n in 0..self.draw(12) {
            let event = EVENTS[usize::try_from(self.draw(EVENTS.len() as u64)).unwrap()];
            let event = format!("{event}#{}-{n}", self.submitted);
            let function = if self.draw(3) == 0 { "once" } else { "f" };
            let id = site.submit(function, &event).await;
            acknowledged.lock().push((Some((id, event)), self.now));
            ids.push(id);
            if self.draw(4) == 0 {
                site.worker.clock.sleep(Duration::from_millis(self.draw(3_000))).await;
            }
            if self.draw(5) == 0 {
                let id = ids[usize::try_from(self.draw(ids.len() as u64)).unwrap()];
                drop(site.service.cancel_job(&tenant(), id, Duration::ZERO).await);
            }
        }
        if dies {
            return site.worker.clock.sleep(Duration::from_secs(3_600)).await;
        }
        // Unacknowledged ones that were accepted all the same end too.
        let all = Filter { limit: 100_000, ..Filter::default() };
        for job in site.jobs.list(tenant(), all).await.unwrap() {
            site.service.job(&tenant(), job.id, Duration::from_secs(300)).await.unwrap();
        }
        site.service.stop().await;
    }

    fn check(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let jobs = SqliteJobs::open(&self.dir.path().join("jobs.db"), None).unwrap();
            let all = jobs.list(tenant(), Filter { limit: 100_000, ..Filter::default() }).await.unwrap();
            for job in &all {
                assert!(job.status.is_final(), "{} of {:?} is {}", job.id, self.acknowledged.get(&job.id), job.status);
                assert!(job.attempts <= job.max_attempts, "{job:?}");
                assert!(job.attempts > 0 || job.status == JobStatus::Cancelled, "{job:?}");
            }
            for (id, event) in &self.acknowledged {
                assert!(all.iter().any(|job| job.id == *id), "{id} ({event}) was acknowledged and is gone");
            }
            for (id, ends) in self.ends.lock().iter() {
                let job = all.iter().find(|job| job.id == *id).unwrap();
                assert_eq!(*ends, [job.status], "{id} ended once, and as it is recorded");
            }
        });
    }
}

#[test]
fn every_accepted_job_ends_exactly_once_whatever_crashes() {
    for seed in 0..60u64 {
        let told = std::panic::catch_unwind(|| {
            let mut story = Story {
                dir: tempfile::tempdir().unwrap(),
                draw: Random::seeded(seed),
                now: start_of_time(),
                acknowledged: BTreeMap::new(),
                ends: Arc::default(),
                submitted: 0,
            };
            for process in 0..=4 {
                story.submitted = process;
                story.process(process < 4);
            }
            story.check();
        });
        assert!(told.is_ok(), "the story of seed {seed} went wrong; its cause stands above");
    }
}
