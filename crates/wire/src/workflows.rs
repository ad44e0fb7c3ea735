//! What the gateway asks of the workflow role.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::api::Page;
pub use lyra_types::api::workflows::{
    Completion, Made, NewPart, NewRun, NewWorkflow, Overlap, Schedule, ScheduledRun, Started, Waiting, WorkflowSchedule,
};
use lyra_types::workflow::{Run, RunStatus, TraceToken, Workflow, WorkflowVersion};
use lyra_types::{Code, Error, Result, RunId, TenantName, Timestamp, WorkflowName};
use serde::{Deserialize, Serialize};

use crate::Role;
use crate::control::PageQuery;

/// What the keys of all processes that run workflows start with, in the store of objects: each has one there, with itself as
/// JSON, for as long as it lives.
pub const PROCESSES: &str = "workflow-processes/";

/// A process that runs workflows, as it says of itself where others look for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowProcess {
    /// Its name, for people.
    pub name: String,
    /// Where others reach it, `HOST:PORT`; empty where it does not know: at the addresses of control then.
    pub address: String,
    /// The role that its certificate has to be for: `workflow`, or `control` where control runs workflows.
    pub role: Role,
    /// The owner of its runs.
    pub owner: u64,
    /// When it was started.
    pub since: Timestamp,
    /// It ends, and takes nothing more.
    #[serde(default)]
    pub leaving: bool,
}

/// A process that runs workflows, with what it has now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowMember {
    /// The process.
    pub process: WorkflowProcess,
    /// What it has; none where it did not answer.
    pub load: Option<WorkflowLoad>,
}

/// What a process has of workflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkflowLoad {
    /// Runs that it owns and that are under way.
    pub runs: u64,
    /// Runs that it owns and that can't go on.
    pub stuck: u64,
    /// Tries of tasks that are under way.
    pub calls: u64,
}

/// What a tenant has of workflows, as far as quotas count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkflowUse {
    /// Workflows that are stored.
    pub workflows: u64,
    /// Runs that have not ended, those of sub-workflows among them.
    pub runs: u64,
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

/// The tenant and the run that a token of a callback speaks of, `cb_TENANT~RUN~…`: true where it has completed a task.
pub fn callback_run(token: &str) -> Option<(TenantName, RunId)> {
    let mut parts = token.strip_prefix("cb_")?.split('~');
    Some((TenantName::new(parts.next()?).ok()?, RunId::new(parts.next()?).ok()?))
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

    /// Starts a run of a part of another Lyra's workflow, or finds the one with its id. It is durable when this returns.
    async fn start_part(&self, tenant: &TenantName, part: NewPart) -> Result<Started>;

    /// A run; waits up to `wait` for its end.
    async fn run(&self, tenant: &TenantName, id: &RunId, wait: Duration) -> Result<Run>;

    /// Runs, newest first.
    async fn runs(&self, tenant: &TenantName, query: RunQuery) -> Result<Page<Run>>;

    /// Does something to a run and returns it as it stands then.
    async fn command(&self, tenant: &TenantName, id: &RunId, command: RunCommand) -> Result<Run>;

    /// Deletes a run that has ended, with its history and all that it holds.
    ///
    /// # Errors
    /// [`Code::NotFound`]; [`Code::Conflict`] while it, or the run that it is a part of, has not ended; [`Code::Unavailable`] while
    /// somebody has to be told of its end.
    async fn delete_run(&self, tenant: &TenantName, id: &RunId) -> Result<()>;

    /// A page of a run's tokens, in order: up to `limit` of them from number `from`.
    async fn trace(&self, tenant: &TenantName, id: &RunId, from: u64, limit: usize) -> Result<Vec<TraceToken>>;

    /// Tasks that wait for an outside party.
    async fn waiting(&self, tenant: &TenantName, id: &RunId) -> Result<Vec<Waiting>>;

    /// What counts against the quotas of a tenant.
    async fn usage(&self, tenant: &TenantName) -> Result<WorkflowUse>;

    /// Ends and forgets everything that a tenant has here: workflows, schedules, runs, kept results. True once nothing is
    /// left of it; until then it is to be asked again.
    async fn clear(&self, tenant: &TenantName) -> Result<bool>;

    /// The JSON that a URL of a value leads to, by the last part of its path.
    ///
    /// # Errors
    /// [`lyra_types::Code::NotFound`] for what is none, has expired, or went with its run.
    async fn value(&self, token: &str) -> Result<Bytes>;

    /// Completes a task that waits. Repeating the same completion does nothing.
    async fn complete(&self, token: &str, completion: Completion) -> Result<()>;

    /// The processes that run workflows, by name, with what each has.
    async fn members(&self) -> Result<Vec<WorkflowMember>> {
        Err(Error::new(Code::Unavailable, "this workflow role does not know its processes"))
    }
}
