//! The durable record of jobs: accepted, leased, ended once.
//!
//! What must hold, for every implementation:
//! - A job is on disk when [`Jobs::accept`] returns, and stays until it is swept or purged.
//! - A job is leased to one owner at a time. Each lease has a fence, a number that grows with every lease of that
//!   job; only the holder of the newest one can say how the try ended, and only once.
//! - A try whose lease ran out, or whose owner is gone, counts as a try.
//! - An end is for ever: only [`Jobs::redrive`] takes a dead job back.
//! - A job that was accepted with a notice is *owed* from the very change that ends it, until [`Jobs::passed_on`]; it is not
//!   forgotten before.
//!
//! Time is always handed in: nothing here reads a clock. What an error means, when to retry and how often is for
//! the caller to say.

mod life;
mod nats;
mod sqlite;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::job::{Job, JobStatus};
use lyra_types::quota::{LimitKind, QuotaKey};
use lyra_types::usage::{Usage, UsageBatch, UsageQuery, UsageSum};
use lyra_types::{Code, Error, FunctionName, InvocationId, JobId, TenantName, Timestamp};
use tokio::sync::broadcast;

pub use nats::{NatsJobs, NatsSettings};
pub use sqlite::SqliteJobs;

use crate::StoreError;

/// A job to accept.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id, made by the caller.
    pub id: JobId,
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// The pinned version.
    pub version: u64,
    /// The function's generation; below 2^63.
    pub generation: u64,
    /// Most tries, from 1.
    pub max_attempts: u32,
    /// The event.
    pub event: Bytes,
    /// The caller's key, with what it stands for.
    pub idempotency: Option<Idempotency>,
    /// Who called; `None` where that is not known.
    pub user: Option<Arc<str>>,
    /// How many may wait, this one among them.
    pub most_queued: MostQueued,
    /// What its owner wants to happen when it has ended, in words that are not the store's.
    pub notice: Option<Arc<str>>,
    /// Now.
    pub now: Timestamp,
}

/// How many jobs may wait; `None`: any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MostQueued {
    /// Of the tenant.
    pub of_tenant: Option<u64>,
    /// Of the function.
    pub of_function: Option<u64>,
}

impl MostQueued {
    /// Whether any number may.
    pub fn is_any(self) -> bool {
        self == MostQueued::default()
    }
}

/// A caller's key, good for one function of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key.
    pub key: String,
    /// SHA-256 of the request without the version: a retry after a deploy is still the same request.
    pub request: [u8; 32],
    /// Until when the key is remembered.
    pub expires_at: Timestamp,
}

/// Outcome of [`Jobs::accept`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The job.
    pub id: JobId,
    /// Where it stands.
    pub status: JobStatus,
    /// False when the key was known and this is the job from then.
    pub created: bool,
}

/// What a dispatcher asks for.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// Who takes the jobs: a number drawn anew at each start of a process.
    pub owner: u64,
    /// Now.
    pub now: Timestamp,
    /// How long the leases hold without a heartbeat.
    pub ttl: Duration,
    /// One id for each job that can be taken: the invocation of its next try.
    pub invocations: Vec<InvocationId>,
    /// Most bytes of events, so that large ones do not fill the memory; one job is always given.
    pub max_bytes: usize,
    /// Most jobs of one function at once, so that one with slow calls does not hold up the others.
    pub per_function: usize,
    /// How many jobs of each function the dispatcher runs now.
    pub running: HashMap<(TenantName, FunctionName), usize>,
    /// How many more jobs of these tenants and functions may be given; of others any number.
    pub rooms: Vec<(QuotaKey, u64)>,
    /// Whose job was given last: among tenants that hold as many, the turn goes on behind this one.
    pub after: Option<TenantName>,
}

/// Outcome of [`Jobs::lease`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Leased {
    /// The jobs, in the order in which their turn came: of tenants, and then of functions of a tenant, who runs the fewest comes
    /// first; jobs of one function come by their due time.
    pub jobs: Vec<LeasedJob>,
    /// Jobs that ended because their last lease ran out.
    pub ended: Vec<Job>,
    /// When to ask again, if no job is accepted and none ends before: the next due time that is not past, of jobs with no other of
    /// their function before them that is due, or the next end of a lease; at once where large events were kept back.
    pub next: Option<Timestamp>,
}

/// A leased job.
#[derive(Debug, Clone, PartialEq)]
pub struct LeasedJob {
    /// The job, with this try counted in `attempts`.
    pub job: Job,
    /// Its event.
    pub event: Bytes,
    /// The lease's fence.
    pub fence: u64,
}

impl LeasedJob {
    /// The lease.
    pub fn lease(&self) -> Lease {
        Lease { tenant: self.job.tenant.clone(), id: self.job.id, fence: self.fence }
    }
}

/// A lease of a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Owner of the job.
    pub tenant: TenantName,
    /// The job.
    pub id: JobId,
    /// Which of its leases.
    pub fence: u64,
}

/// What a heartbeat finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The lease holds on.
    Yes,
    /// The lease holds on, and the job's owner wants it stopped.
    CancelRequested,
    /// The lease is lost: stop, nothing of this try will be recorded.
    No,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The job succeeded with this result.
    Succeeded(Bytes),
    /// The job ended with this status and error.
    Ended(JobStatus, Error),
    /// The try failed and there will be another.
    Retry {
        /// When.
        run_at: Timestamp,
        /// Why it failed.
        error: Error,
    },
    /// The try did not begin, or was given up for no fault of the job's: it does not count.
    Released {
        /// When the next one may begin.
        run_at: Timestamp,
        /// Why, if there is something to say.
        error: Option<Error>,
    },
}

/// Which jobs to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Only of this function.
    pub function: Option<FunctionName>,
    /// Only with this status.
    pub status: Option<JobStatus>,
    /// Only those accepted before this one.
    pub before: Option<JobId>,
    /// At most so many.
    pub limit: usize,
}

/// Which ended jobs to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Those that ended before this time, but not the dead.
    pub finished_before: Timestamp,
    /// Dead ones that ended before this time.
    pub dead_before: Timestamp,
    /// Idempotency keys that expired before this time.
    pub now: Timestamp,
    /// At most so many of each.
    pub limit: usize,
}

/// Why something could not be done to a job.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// There is no such job.
    #[error("job {0} does not exist")]
    NotFound(JobId),
    /// The lease is not the job's newest, or the job has ended.
    #[error("the lease {fence} of job {id} is lost")]
    Stale {
        /// The job.
        id: JobId,
        /// The lease.
        fence: u64,
    },
    /// The idempotency key was used before with another request.
    #[error("the idempotency key was used before with another request")]
    IdempotencyMismatch,
    /// The job's status does not allow it.
    #[error("job {id} is {status}, not dead")]
    NotDead {
        /// The job.
        id: JobId,
        /// Where it stands.
        status: JobStatus,
    },
    /// So many jobs wait that no further one may.
    #[error("{key} has {most} jobs that wait, the most that may")]
    QueueFull {
        /// Whose they are.
        key: QuotaKey,
        /// The limit.
        most: u64,
    },
    /// The job runs, which does not allow it.
    #[error("job {0} runs")]
    Runs(JobId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<JobsError> for Error {
    fn from(error: JobsError) -> Error {
        let detail = error.to_string();
        match error {
            JobsError::NotFound(_) => Error::new(Code::NotFound, detail),
            JobsError::Stale { .. } | JobsError::NotDead { .. } | JobsError::Runs(_) => {
                Error::new(Code::Conflict, detail)
            }
            JobsError::IdempotencyMismatch => Error::new(
                Code::IdempotencyMismatch,
                "this Idempotency-Key was used in the last 24 hours with another body; use a new key for a new request",
            ),
            JobsError::QueueFull { key, most } => {
                LimitKind::QueuedJobs.refusal(&key, most, format!("{most} wait"), Duration::from_secs(1))
            }
            JobsError::Store(error) => error.into(),
        }
    }
}

/// Jobs by status, over all tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts([u64; JobStatus::ALL.len()]);

impl Counts {
    /// Jobs of this status.
    pub fn of(&self, status: JobStatus) -> u64 {
        self.0[status_number(status)]
    }
}

/// Place of the status in [`JobStatus::ALL`]; also how it is stored.
fn status_number(status: JobStatus) -> usize {
    JobStatus::ALL.iter().position(|known| *known == status).expect("ALL holds every status")
}

/// A job that another process has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// The job.
    pub id: JobId,
    /// Where it stands now.
    pub status: JobStatus,
    /// Its owner wants it cancelled.
    pub cancel_requested: bool,
}

/// A job that has ended, and whose owner wanted to hear of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Owed {
    /// The job.
    pub job: Job,
    /// Its [`NewJob::notice`].
    pub notice: String,
}

/// Keeps jobs.
#[async_trait]
pub trait Jobs: Send + Sync + 'static {
    /// Accepts a job. It is durable when this returns. One with an id that was accepted before is that job, as it stands now, and is
    /// not made again; the rest of it must be the same. [`NewJob::most_queued`] is held exactly by this process, and as far as it has
    /// heard of what others accept; a job that was accepted before is not counted again.
    ///
    /// # Errors
    /// [`JobsError::QueueFull`], with nothing stored.
    async fn accept(&self, job: NewJob) -> Result<Accepted, JobsError>;

    /// Leases due jobs, shared fairly between tenants. Leases that have run out are dealt with first: their tries count as failed.
    async fn lease(&self, request: LeaseRequest) -> Result<Leased, JobsError>;

    /// Prolongs leases of `owner`; answers in the order of `leases`.
    async fn heartbeat(
        &self,
        owner: u64,
        leases: Vec<Lease>,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Vec<Held>, JobsError>;

    /// Records how a leased try ended, and what it `used`, both or neither; returns the job as it stands now. A job whose
    /// cancellation was asked for is cancelled instead of retried or released.
    ///
    /// # Errors
    /// [`JobsError::Stale`] when the lease is lost: nothing is recorded.
    async fn finish_with(&self, lease: Lease, now: Timestamp, outcome: Outcome, used: Usage) -> Result<Job, JobsError>;

    /// As [`Jobs::finish_with`], for a try that used nothing.
    async fn finish(&self, lease: Lease, now: Timestamp, outcome: Outcome) -> Result<Job, JobsError> {
        self.finish_with(lease, now, outcome, Usage::default()).await
    }

    /// Counts what a worker says that calls used, once, however often it says so; returns whether this was the first time.
    async fn add_usage(&self, batch: UsageBatch) -> Result<bool, JobsError>;

    /// What was used, added up as the query says.
    async fn usage(&self, query: UsageQuery) -> Result<Vec<UsageSum>, JobsError>;

    /// Cancels a queued job at once; marks a running one, whose holder hears of it at its next heartbeat. A job
    /// that has ended stays as it is. Returns the job as it stands now.
    async fn cancel(&self, tenant: TenantName, id: JobId, now: Timestamp) -> Result<Job, JobsError>;

    /// Jobs that wait, of a tenant or of one of its functions; counted up to `limit`.
    async fn queued(&self, tenant: TenantName, function: Option<FunctionName>, limit: u64) -> Result<u64, JobsError>;

    /// A job, with its result if it has succeeded and `with_result`.
    async fn get(&self, tenant: TenantName, id: JobId, with_result: bool) -> Result<(Job, Option<Bytes>), JobsError>;

    /// Jobs, newest first.
    async fn list(&self, tenant: TenantName, filter: Filter) -> Result<Vec<Job>, JobsError>;

    /// Puts a dead job back in the queue with its tries counted from zero.
    async fn redrive(&self, tenant: TenantName, id: JobId, now: Timestamp) -> Result<Job, JobsError>;

    /// Redrives up to `limit` dead jobs; returns how many.
    async fn redrive_some(&self, tenant: TenantName, now: Timestamp, limit: usize) -> Result<u64, JobsError>;

    /// Deletes a dead job.
    async fn purge(&self, tenant: TenantName, id: JobId) -> Result<(), JobsError>;

    /// Deletes up to `limit` dead jobs; returns how many.
    async fn purge_some(&self, tenant: TenantName, limit: usize) -> Result<u64, JobsError>;

    /// Deletes those of these jobs that have ended, the dead among them; returns how many.
    async fn delete_ended(&self, tenant: TenantName, jobs: Vec<JobId>) -> Result<u64, JobsError>;

    /// Deletes a job that does not run, whatever its status.
    ///
    /// # Errors
    /// [`JobsError::NotFound`]; [`JobsError::Runs`] while it runs.
    async fn remove(&self, tenant: TenantName, id: JobId) -> Result<(), JobsError>;

    /// Deletes up to `limit` jobs of a function that have never begun; returns how many.
    async fn delete_unbegun(
        &self,
        tenant: TenantName,
        function: FunctionName,
        generation: u64,
        limit: usize,
    ) -> Result<u64, JobsError>;

    /// Versions of a function that a job which has not ended, or a dead one that could be redriven, is pinned to.
    async fn pinned(&self, tenant: TenantName, function: FunctionName, generation: u64) -> Result<Vec<u64>, JobsError>;

    /// Those who hold leases now.
    async fn owners(&self) -> Result<Vec<u64>, JobsError>;

    /// Ends the leases of this owner, which is known to be gone, as if they had run out; up to `limit`. Returns the jobs
    /// as they stand now.
    async fn recover(&self, owner: u64, now: Timestamp, limit: usize) -> Result<Vec<Job>, JobsError>;

    /// Up to `limit` jobs with a notice, of any tenant, that have ended since their end was last [passed on](Jobs::passed_on).
    async fn owed(&self, limit: usize) -> Result<Vec<Owed>, JobsError>;

    /// The end of this job at `finished_at` was passed on. Where it has another end by now, or is gone, this changes nothing.
    async fn passed_on(&self, tenant: TenantName, id: JobId, finished_at: Timestamp) -> Result<(), JobsError>;

    /// Forgets old ended jobs that are not owed, and expired keys; returns how many jobs.
    async fn sweep(&self, retention: Retention) -> Result<u64, JobsError>;

    /// Jobs by status. Cheap.
    async fn counts(&self) -> Result<Counts, JobsError>;

    /// Jobs that other processes change, from now on, and now and then one that this one changed; `None` where no other
    /// process can. Who falls behind is told so, and has missed some.
    fn others(&self) -> Option<broadcast::Receiver<Changed>>;
}
