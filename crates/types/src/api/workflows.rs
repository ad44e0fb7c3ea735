//! Bodies of the routes of workflows and runs.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::delivery::DestinationsRequest;
use crate::{RunId, Timestamp, WorkflowName};

/// A workflow to make, or a new version of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWorkflow {
    /// Name.
    #[schema(value_type = String)]
    pub name: WorkflowName,
    /// AFCL, as YAML or JSON text.
    pub definition: String,
    /// The type mapping; `[]` where all types are Lyra's own.
    #[serde(default)]
    pub mappings: Value,
    /// When to start runs by itself. Left out, the schedule stays as it is; `null` removes it.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Schedule>)]
    pub schedule: Option<Option<Schedule>>,
}

/// A member that is there, be it `null`.
fn given<'de, D, T>(from: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(from).map(Some)
}

/// When to start runs of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Five or six fields, `[second] minute hour day month weekday`.
    pub cron: String,
    /// IANA time zone; UTC where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What to do when the last run has not ended.
    #[serde(default)]
    pub overlap: Overlap,
    /// Input of each run.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub input: Map<String, Value>,
}

/// What a schedule does when its last run has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Leaves this firing out.
    #[default]
    Skip,
    /// Starts another one beside it.
    Allow,
    /// Cancels it and starts the new one.
    Replace,
}

/// The schedule of a workflow, as it stands. Its runs are of the newest version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkflowSchedule {
    /// Five or six fields, `[second] minute hour day month weekday`.
    pub cron: String,
    /// IANA time zone; UTC where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// What it does when the last run has not ended.
    pub overlap: Overlap,
    /// Input of each run.
    #[schema(value_type = Object)]
    pub input: Map<String, Value>,
    /// When the next run starts; none where there is no such time any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// The last run that it started; none where it has started none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<ScheduledRun>,
}

/// A run that a schedule started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScheduledRun {
    /// The run's id.
    #[schema(value_type = String)]
    pub run: RunId,
    /// The time that it was started for; not there of runs from before an upgrade of Lyra.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Made {
    /// Name.
    #[schema(value_type = String)]
    pub name: WorkflowName,
    /// The version; the newest one's number where nothing has changed.
    pub version: u64,
    /// False when the newest version is just this already.
    pub created: bool,
    /// What is odd about the document, if anything: `line:column: text`; about the type mapping: `mappings…: text`.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A run to start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// One object with the workflow's inputs.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub input: Map<String, Value>,
    /// The caller's id: a second start with it and the same input is the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub id: Option<RunId>,
    /// The version; the newest where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Longest time of the run in milliseconds; it fails with the cause `timeout` then. Never more than the operator gives any
    /// run (`workflow.run_timeout`). A redrive gives it that time anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The W3C trace context that the run's spans stand in; where none, that of the header `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Who hears of its end, in place of the workflow's own destinations; the header `Lyra-Destinations` says the same. A URL
    /// needs a secret here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destinations: Option<Box<DestinationsRequest>>,
    /// Who is charged for the calls of its tasks. Gateways say so; nobody else may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub user: Option<Arc<str>>,
}

/// A part of another Lyra's workflow, to be run here; only what crosses the cut's edges comes with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPart {
    /// The other Lyra's id for it: a second request with it is the same run.
    #[schema(value_type = String)]
    pub id: RunId,
    /// The part's enactment graph.
    #[schema(value_type = Object)]
    pub graph: Value,
    /// The type mapping.
    #[serde(default)]
    pub mappings: Value,
    /// Values of the edges that lead into the part.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub input: Map<String, Value>,
    /// How many runs stand around the run that this is a part of: how deep runs nest is bounded over all Lyras together.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub depth: u32,
    /// The W3C trace context that the run's spans stand in; where none, that of the header `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Who is charged for the calls of its tasks. Gateways say so; nobody else may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub user: Option<Arc<str>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_zero(depth: &u32) -> bool {
    *depth == 0
}

/// What was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Started {
    /// The run's id.
    #[schema(value_type = String)]
    pub id: RunId,
    /// False when the id was known and this is the run from then.
    pub created: bool,
}

/// What an outside party says to a task that waits for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Completion {
    /// The task's output.
    Output(Map<String, Value>),
    /// The task has failed.
    Error {
        /// A word for programs.
        code: String,
        /// A sentence for people.
        message: String,
    },
}

/// A task that waits for an outside party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Waiting {
    /// Run.
    #[schema(value_type = String)]
    pub run: RunId,
    /// Task with its place.
    pub task: String,
    /// What completes it: `POST /v1/callbacks/{token}`. Shown to those who may invoke, since it is all that is needed for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Since when it waits.
    pub since: Timestamp,
    /// What it was given.
    #[schema(value_type = Object)]
    pub input: Map<String, Value>,
}

/// A process that runs workflows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkflowMemberView {
    /// Name.
    pub name: String,
    /// Where other roles reach it; none where it is part of a platform in one process, or does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `workflow`; `control` where the control role runs workflows.
    pub role: String,
    /// `ready`; `leaving`: it ends, and others take its runs; `unreachable`: it does not answer, and others take its runs when
    /// its lease has ended.
    pub state: String,
    /// Runs under way that it owns; none where it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u64>,
    /// Runs that it owns and that can't go on, because their journal or workflow can't be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<u64>,
    /// Tries of tasks under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// When it was started.
    pub since: Timestamp,
}
