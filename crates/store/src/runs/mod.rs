//! The durable record of workflow runs: made once by id, a journal for each, one owner at a time.
//!
//! What must hold, for every implementation:
//! - A run and the first batch of its journal are on disk when [`Runs::create`] returns; so is each batch when
//!   [`Runs::append`] returns. Batches are read back in the order in which they were written, none twice.
//! - A run has one owner at a time. Each change of owner has a higher fence, and only the holder of the newest one can
//!   append: a batch of another is refused as a whole.
//! - A batch is numbered. One that is already there is not written again, so a writer that does not know whether its
//!   batch was written may repeat it.
//! - An end is for ever, but for [`Runs::reopen`].
//! - A run that was made with a notice is *owed* from the very write that ends it, until [`Runs::passed_on`]; no sweep forgets it
//!   before.
//!
//! What stands in a batch, and in a run's summary, is for the caller to say. Time is always handed in.

mod nats;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::workflow::RunStatus;
use lyra_types::{Code, Error, RunId, TenantName, Timestamp, WorkflowName};

pub use crate::nats::NatsSettings;
pub use nats::NatsRuns;
pub use sqlite::SqliteRuns;

use crate::StoreError;

/// A run to make.
#[derive(Debug, Clone)]
pub struct NewRunRecord {
    /// Owner of the workflow.
    pub tenant: TenantName,
    /// Its id.
    pub id: RunId,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// The pinned version.
    pub version: u64,
    /// What the id stands for: a hash of workflow and input. A second run with the same id and another hash is refused.
    pub fingerprint: [u8; 32],
    /// Now.
    pub now: Timestamp,
    /// Who runs it: a number drawn anew at each start of a process.
    pub owner: u64,
    /// All that the engine needs to begin, opaque here.
    pub head: Bytes,
    /// First batch of its journal.
    pub batch: Bytes,
    /// What lists show of it, opaque here.
    pub summary: Bytes,
    /// What its owner wants to happen when it has ended, opaque here.
    pub notice: Option<Arc<str>>,
    /// Most runs of the tenant that may not have ended, this one among them.
    pub most_live: Option<u32>,
}

/// Outcome of [`Runs::create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatedRun {
    /// It was made; the fence to append with.
    New {
        /// The fence.
        fence: u64,
    },
    /// It was there already, with the same fingerprint.
    Known,
}

/// A run as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// Owner of the workflow.
    pub tenant: TenantName,
    /// Its id.
    pub id: RunId,
    /// Its workflow.
    pub workflow: WorkflowName,
    /// The pinned version.
    pub version: u64,
    /// Where it stands.
    pub status: RunStatus,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What the engine said of it last.
    pub summary: Bytes,
    /// Order among all runs of the store: later ones have higher numbers.
    pub order: u64,
}

/// A run that was taken over, with all that is needed to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct TakenRun {
    /// The run.
    pub record: RunRecord,
    /// The fence to append with.
    pub fence: u64,
    /// What it was made with.
    pub head: Bytes,
    /// Its journal.
    pub batches: Vec<Bytes>,
    /// Why the journal can't be read, where the store is there and what it has is damaged; nothing of it is handed over
    /// then.
    pub damage: Option<String>,
}

/// A run that has ended, which somebody wants to hear of.
#[derive(Debug, Clone, PartialEq)]
pub struct OwedRun {
    /// The run, as it has ended.
    pub record: RunRecord,
    /// Its [`NewRunRecord::notice`].
    pub notice: String,
}

/// A batch to write.
#[derive(Debug, Clone)]
pub struct Append {
    /// Owner of the workflow.
    pub tenant: TenantName,
    /// The run.
    pub id: RunId,
    /// The writer's fence.
    pub fence: u64,
    /// Number of the batch: how many stand before it.
    pub number: u64,
    /// The batch; nothing is written where it is empty.
    pub batch: Bytes,
    /// The run's new place, if it has one.
    pub update: Option<RunUpdate>,
}

/// A run's new place.
#[derive(Debug, Clone)]
pub struct RunUpdate {
    /// Where it stands now.
    pub status: RunStatus,
    /// When it ended; none while it has not.
    pub ended_at: Option<Timestamp>,
    /// What lists show of it.
    pub summary: Bytes,
    /// Its output, where it has one.
    pub output: Option<Bytes>,
}

/// Which runs to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFilter {
    /// Only of this workflow.
    pub workflow: Option<WorkflowName>,
    /// Only with this status.
    pub status: Option<RunStatus>,
    /// Only those made before this one, by [`RunRecord::order`].
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// Why something could not be done to a run.
#[derive(Debug, thiserror::Error)]
pub enum RunsError {
    /// There is no such run.
    #[error("run \"{0}\" does not exist")]
    NotFound(RunId),
    /// Another owner has the run.
    #[error("run \"{0}\" has another owner now")]
    Fenced(RunId),
    /// The id was used before for something else.
    #[error("run \"{0}\" exists with another workflow or input; choose another id")]
    Mismatch(RunId),
    /// As many runs of the tenant have not ended as may.
    #[error("{0} runs of the tenant have not ended, which is the limit")]
    Full(u32),
    /// A batch is missing before this one.
    #[error("batch {number} of run \"{id}\" was written before the one that it follows")]
    Gap {
        /// The run.
        id: RunId,
        /// The batch.
        number: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<RunsError> for Error {
    fn from(error: RunsError) -> Error {
        let detail = error.to_string();
        match error {
            RunsError::NotFound(_) => Error::new(Code::NotFound, detail),
            RunsError::Fenced(_) => Error::new(Code::Unavailable, detail),
            RunsError::Mismatch(_) => Error::new(Code::IdempotencyMismatch, detail),
            RunsError::Full(_) => Error::new(Code::LimitReached, detail).with_retry_after(Duration::from_secs(1)),
            RunsError::Gap { .. } => Error::internal(detail),
            RunsError::Store(error) => error.into(),
        }
    }
}

/// Keeps runs.
#[async_trait]
pub trait Runs: Send + Sync + 'static {
    /// Makes a run, or finds the one with that id.
    ///
    /// # Errors
    /// [`RunsError::Mismatch`] when the id stands for something else; [`RunsError::Full`] where it would be one more than
    /// [`NewRunRecord::most_live`]. Of several processes each may let one more in that it has not heard of.
    async fn create(&self, run: NewRunRecord) -> Result<CreatedRun, RunsError>;

    /// Writes a batch and the run's new place, in one.
    ///
    /// # Errors
    /// [`RunsError::Fenced`], with nothing written.
    async fn append(&self, append: Append) -> Result<(), RunsError>;

    /// A run as it is recorded, with its output where it has one and `with_output`.
    async fn get(
        &self,
        tenant: TenantName,
        id: RunId,
        with_output: bool,
    ) -> Result<(RunRecord, Option<Bytes>), RunsError>;

    /// What a run was made with, and its journal.
    async fn journal(&self, tenant: TenantName, id: RunId) -> Result<(Bytes, Vec<Bytes>), RunsError>;

    /// How many runs of a tenant have not ended; counted up to `most`.
    async fn live(&self, tenant: TenantName, most: u64) -> Result<u64, RunsError>;

    /// Runs of a tenant, newest first.
    async fn list(&self, tenant: TenantName, filter: RunFilter) -> Result<Vec<RunRecord>, RunsError>;

    /// Says that `owner` lives, until `now + ttl`.
    async fn renew(&self, owner: u64, now: Timestamp, ttl: Duration) -> Result<(), RunsError>;

    /// Takes over up to `limit` runs that have not ended and whose owner lives no more; all but `owner`'s own when
    /// `alone`.
    async fn take(&self, owner: u64, now: Timestamp, alone: bool, limit: usize) -> Result<Vec<TakenRun>, RunsError>;

    /// Takes up a run that has ended; its place is `running` again.
    async fn reopen(&self, tenant: TenantName, id: RunId, owner: u64) -> Result<TakenRun, RunsError>;

    /// Up to `limit` runs with a notice, of any tenant, that have ended since their end was last
    /// [passed on](Runs::passed_on).
    async fn owed(&self, limit: usize) -> Result<Vec<OwedRun>, RunsError>;

    /// The end of this time was passed on. Nothing happens where the run has none of that time.
    async fn passed_on(&self, tenant: TenantName, id: RunId, ended_at: Timestamp) -> Result<(), RunsError>;

    /// Up to `limit` runs that ended before this time and are owed no more.
    async fn ended(&self, before: Timestamp, limit: usize) -> Result<Vec<(TenantName, RunId)>, RunsError>;

    /// Forgets a run, with all it holds, if it ended before this time; says whether it did.
    async fn forget(&self, tenant: TenantName, id: RunId, ended_before: Timestamp) -> Result<bool, RunsError>;

    /// Up to `limit` runs of all tenants whose order is above `after`, oldest first.
    async fn all(&self, after: u64, limit: usize) -> Result<Vec<RunRecord>, RunsError>;

    /// Forgets the results that are kept for a tenant.
    async fn forget_memos(&self, tenant: TenantName) -> Result<(), RunsError>;

    /// Forgets up to `limit` runs that ended before this time, with all they hold, and what processes that were killed
    /// have left; returns how many runs.
    async fn sweep(&self, ended_before: Timestamp, limit: usize) -> Result<u64, RunsError>;

    /// How many runs have each status, of all tenants, in the order of [`RunStatus::ALL`].
    async fn counts(&self) -> Result<[u64; RunStatus::ALL.len()], RunsError>;

    /// A result that was kept under `key`.
    async fn memo(&self, tenant: TenantName, key: [u8; 32], now: Timestamp) -> Result<Option<Bytes>, RunsError>;

    /// Keeps a result.
    async fn keep_memo(
        &self,
        tenant: TenantName,
        key: [u8; 32],
        result: Bytes,
        until: Timestamp,
    ) -> Result<(), RunsError>;
}

/// Place of the status in [`RunStatus::ALL`]; also how it is stored.
fn status_number(status: RunStatus) -> usize {
    RunStatus::ALL.iter().position(|known| *known == status).expect("ALL holds every status")
}
