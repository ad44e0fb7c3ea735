//! Workflows and their runs, as users see them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::workflows::WorkflowSchedule;
use crate::{Code, Error, TenantName, Timestamp, WorkflowName};

/// Id of a run: `run_` and a ULID where Lyra makes it, or what the caller chose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// Longest id, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Checks an id: letters, digits, `_`, `-` and `.`, up to [`RunId::MAX_LEN`].
    ///
    /// # Errors
    /// [`Code::InvalidName`].
    pub fn new(text: &str) -> Result<RunId, Error> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if text.is_empty() || text.len() > RunId::MAX_LEN || !text.bytes().all(fits) {
            let shown: String = text.chars().take(80).collect();
            let detail = format!(
                "\"{}\" can't be the id of a run: use 1 to {} letters, digits, '_', '-' or '.'",
                shown.escape_debug(),
                RunId::MAX_LEN
            );
            return Err(Error::field(Code::InvalidName, "id", detail));
        }
        Ok(RunId(text.to_owned()))
    }

    /// An id that sorts by time, from milliseconds since the epoch and 80 random bits.
    pub fn from_parts(millis: u64, random: u128) -> RunId {
        RunId(format!("run_{}", ulid::Ulid::from_parts(millis, random).to_string().to_ascii_lowercase()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The time that Lyra made the id at, in milliseconds since the epoch; none where the caller chose it.
    pub fn millis(&self) -> Option<u64> {
        let ulid = ulid::Ulid::from_string(self.0.strip_prefix("run_")?).ok()?;
        Some(ulid.timestamp_ms())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RunId {
    type Error = Error;
    fn try_from(text: String) -> Result<RunId, Error> {
        RunId::new(&text)
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Tasks run, or wait for a time, an event or a place.
    Running,
    /// No further task is begun until it is resumed.
    Paused,
    /// Ended with an output.
    Succeeded,
    /// Ended because a task failed for good, or a limit was reached.
    Failed,
    /// Ended by its owner.
    Cancelled,
}

impl RunStatus {
    /// Every status.
    pub const ALL: [RunStatus; 5] =
        [RunStatus::Running, RunStatus::Paused, RunStatus::Succeeded, RunStatus::Failed, RunStatus::Cancelled];

    /// The word in JSON, in queries and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            RunStatus::Running => "running",
            RunStatus::Paused => "paused",
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
        }
    }

    /// The status of that word.
    pub fn parse(text: &str) -> Option<RunStatus> {
        RunStatus::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether the run will not change any more by itself.
    pub const fn is_final(self) -> bool {
        !matches!(self, RunStatus::Running | RunStatus::Paused)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A workflow as it is listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Workflow {
    /// Name, unique in its tenant.
    #[schema(value_type = String)]
    pub name: WorkflowName,
    /// Newest version; a run without a version takes this one.
    pub version: u64,
    /// When the newest version was made.
    pub created_at: Timestamp,
    /// When it starts runs by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<WorkflowSchedule>,
}

/// One version of a workflow, with its texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WorkflowVersion {
    /// Name of the workflow.
    #[schema(value_type = String)]
    pub name: WorkflowName,
    /// Number, from 1.
    pub version: u64,
    /// The document, as it was handed in.
    pub definition: String,
    /// The type mapping, as it was handed in.
    pub mappings: Value,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the workflow starts runs by itself; not there where a certain version was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<WorkflowSchedule>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Run {
    /// Id, unique in the tenant.
    #[schema(value_type = String)]
    pub id: RunId,
    /// Owner.
    #[schema(value_type = String)]
    pub tenant: TenantName,
    /// Workflow.
    #[schema(value_type = String)]
    pub workflow: WorkflowName,
    /// Version, pinned when the run was started.
    pub version: u64,
    /// Where it stands.
    pub status: RunStatus,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Its output, once it has succeeded; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub output: Option<Map<String, Value>>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// How far it is; of a run that has ended, how far it came.
    pub tasks: TaskCounts,
    /// The run and task whose sub-workflow this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Schedule that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The W3C trace context of whoever started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Why nothing moves, though it has not ended: its journal or its workflow can't be read. It is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
}

/// Function tasks of a run, by where they stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TaskCounts {
    /// Ended well.
    pub succeeded: u64,
    /// Called now, or waiting for a place, a time, an event or their next try.
    pub active: u64,
    /// Tries that failed.
    pub failed_attempts: u64,
}

/// What started a sub-workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Parent {
    /// The run.
    #[schema(value_type = String)]
    pub run: RunId,
    /// The task in it, with its path.
    pub task: String,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunError {
    /// The task that failed, with its place: `resize[3]`; none where the run as a whole failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Tries of that task.
    pub attempts: u32,
    /// Why the last try failed.
    pub cause: Cause,
    /// Why each try failed, oldest first, the last few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
}

/// Why one try of a task failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Cause {
    /// A word for programs: an error code of Lyra, `http_503`, `connection_failed`, `invalid_response`, …
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Name of the error that the function threw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The resource that was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// A token of a run's trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TraceToken {
    /// Place in the trace, from 0.
    pub seq: u64,
    /// `T` transmission, `S` scheduling, `E` enactment, `F` transformation, `X` extraction; `R` a try that failed and
    /// goes back to scheduling; `P` paused, `C` continued, `Q` the run's end.
    pub step: String,
    /// The datum of a T token, else the task.
    pub node: String,
    /// Which instance: indices of the loops around it, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<u32>,
    /// When.
    pub time: Timestamp,
    /// Which try, from 1, of E, X and R.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Resources that were chosen (E), or the one that answered (X, R).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Why (R, Q).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// The error of a run id that does not exist.
pub fn no_such_run(id: &RunId) -> Error {
    Error::new(Code::NotFound, format!("run \"{id}\" does not exist"))
}
