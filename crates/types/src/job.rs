//! Jobs: invocations that were accepted durably and run later.

use serde::{Deserialize, Serialize};

use crate::{Error, FunctionName, InvocationId, JobId, TenantName, Timestamp};

/// Where a job stands.
///
/// `queued → running → succeeded | failed | timed_out | cancelled | dead`; `running → queued` on a
/// retry. `dead`: failed or timed out on its last try and kept in the dead-letter list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Waits for its first or its next try.
    Queued,
    /// Leased to a worker.
    Running,
    /// Ended with a result.
    Succeeded,
    /// Ended with an error that no retry would mend, or with `max_attempts` 1.
    Failed,
    /// Its only try passed the deadline.
    TimedOut,
    /// Cancelled by its owner.
    Cancelled,
    /// All tries of several failed; in the dead-letter list.
    Dead,
}

impl JobStatus {
    /// Every status.
    pub const ALL: [JobStatus; 7] = [
        JobStatus::Queued,
        JobStatus::Running,
        JobStatus::Succeeded,
        JobStatus::Failed,
        JobStatus::TimedOut,
        JobStatus::Cancelled,
        JobStatus::Dead,
    ];

    /// The word in JSON, in queries and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobStatus::Queued => "queued",
            JobStatus::Running => "running",
            JobStatus::Succeeded => "succeeded",
            JobStatus::Failed => "failed",
            JobStatus::TimedOut => "timed_out",
            JobStatus::Cancelled => "cancelled",
            JobStatus::Dead => "dead",
        }
    }

    /// The status of that word.
    pub fn parse(text: &str) -> Option<JobStatus> {
        JobStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether the job will not change any more by itself.
    pub const fn is_final(self) -> bool {
        !matches!(self, JobStatus::Queued | JobStatus::Running)
    }
}

impl std::fmt::Display for JobStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A job as it is recorded, without its event and result (those can be megabytes).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Id.
    pub id: JobId,
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// The version, pinned when the job was accepted.
    pub version: u64,
    /// See [`crate::FunctionVersion::generation`].
    pub generation: u64,
    /// Where it stands.
    pub status: JobStatus,
    /// Tries begun so far.
    pub attempts: u32,
    /// Most tries.
    pub max_attempts: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the last try began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When the next try may begin, while it is queued.
    pub next_attempt_at: Option<Timestamp>,
    /// The last try's invocation, for its logs.
    pub invocation: Option<InvocationId>,
    /// The last try's error.
    pub error: Option<Error>,
    /// Whether a cancellation was asked for and the running try is still being stopped.
    pub cancel_requested: bool,
}
