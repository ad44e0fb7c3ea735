//! What the gateway asks of the workflow role.

use std::time::Duration;

use async_trait::async_trait;
use lyra_types::api::Page;
use lyra_types::workflow::{Run, RunStatus, TraceToken, Workflow, WorkflowVersion};
use lyra_types::{Result, RunId, TenantName, Timestamp, WorkflowName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::control::PageQuery;

/// A workflow to make, or a new version of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewWorkflow {
    /// Name.
    pub name: WorkflowName,
    /// AFCL, as YAML or JSON text.
    pub definition: String,
    /// The type mapping; `[]` where all types are Lyra's own.
    #[serde(default)]
    pub mappings: Value,
    /// When to start runs by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

/// When to start runs of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    pub input: Map<String, Value>,
}

/// What a schedule does when its last run has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// What was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// Name.
    pub name: WorkflowName,
    /// The version; the newest one's number where nothing has changed.
    pub version: u64,
    /// False when the newest version is just this already.
    pub created: bool,
    /// What is odd about the document, if anything: `line:column: text`.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// A run to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// One object with the workflow's inputs.
    #[serde(default)]
    pub input: Map<String, Value>,
    /// The caller's id: a second start with it and the same input is the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RunId>,
    /// The version; the newest where none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// What was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The run's id.
    pub id: RunId,
    /// False when the id was known and this is the run from then.
    pub created: bool,
}

/// Which runs to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunQuery {
    /// Only of this workflow.
    pub workflow: Option<WorkflowName>,
    /// Only with this status.
    pub status: Option<RunStatus>,
    /// Which page.
    pub page: PageQuery,
}

/// What to do to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunCommand {
    /// Begin no further task. Calls that run go on, and what they answer is kept.
    Pause,
    /// Go on.
    Resume,
    /// End it; calls that run are cancelled.
    Cancel,
    /// Take up a failed or cancelled run where it failed; what has succeeded is not done again.
    Redrive,
}

/// What an outside party says to a task that waits for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Run.
    pub run: RunId,
    /// Task with its place.
    pub task: String,
    /// What completes it: `POST /v1/callbacks/{token}`.
    pub token: String,
    /// Since when it waits.
    pub since: Timestamp,
    /// What it was given.
    pub input: Map<String, Value>,
}

/// The workflow role.
///
/// Every method is cancelled by dropping its future: a start may have happened then or not, and can be repeated with
/// the same id. Errors are those of the table, [`lyra_types::Code`].
#[async_trait]
pub trait Workflows: Send + Sync + 'static {
    /// Makes a workflow or a new version of it, after it was checked in full.
    async fn deploy(&self, tenant: &TenantName, workflow: NewWorkflow) -> Result<Made>;

    /// All workflows, by name.
    async fn workflows(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<Workflow>>;

    /// One version of a workflow, the newest where none is named.
    async fn workflow(&self, tenant: &TenantName, name: &WorkflowName, version: Option<u64>)
    -> Result<WorkflowVersion>;

    /// Deletes a workflow with its versions and schedule. Runs that have not ended go on; they hold their version.
    async fn delete_workflow(&self, tenant: &TenantName, name: &WorkflowName) -> Result<()>;

    /// Starts a run. It is durable when this returns.
    async fn start(&self, tenant: &TenantName, name: &WorkflowName, run: NewRun) -> Result<Started>;

    /// A run; waits up to `wait` for its end.
    async fn run(&self, tenant: &TenantName, id: &RunId, wait: Duration) -> Result<Run>;

    /// Runs, newest first.
    async fn runs(&self, tenant: &TenantName, query: RunQuery) -> Result<Page<Run>>;

    /// Does something to a run and returns it as it stands then.
    async fn command(&self, tenant: &TenantName, id: &RunId, command: RunCommand) -> Result<Run>;

    /// A page of a run's tokens, in order: up to `limit` of them from number `from`.
    async fn trace(&self, tenant: &TenantName, id: &RunId, from: u64, limit: usize) -> Result<Vec<TraceToken>>;

    /// Tasks that wait for an outside party.
    async fn waiting(&self, tenant: &TenantName, id: &RunId) -> Result<Vec<Waiting>>;

    /// Completes a task that waits. Repeating the same completion does nothing.
    async fn complete(&self, token: &str, completion: Completion) -> Result<()>;
}
