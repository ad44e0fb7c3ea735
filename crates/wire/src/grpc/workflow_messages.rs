//! The messages of the service of workflows, where they are not the types of the trait itself.

use std::time::Duration;

use lyra_types::api::Page;
use lyra_types::workflow::{Run, TraceToken, Workflow};
use lyra_types::{RunId, TenantName, WorkflowName};
use serde::{Deserialize, Serialize};

use crate::workflows::{
    Completion, NewPart, NewRun, NewWorkflow, RunCommand, RunQuery, Waiting, WorkflowMember, WorkflowProcess,
};

/// Workflows by name.
pub type WorkflowPage = Page<Workflow>;
/// Runs, newest first.
pub type RunPage = Page<Run>;

/// What [`crate::Workflows::deploy`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployWorkflow {
    /// Owner.
    pub tenant: TenantName,
    /// The workflow.
    pub workflow: NewWorkflow,
}

/// A workflow, or one version of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OfWorkflow {
    /// Owner.
    pub tenant: TenantName,
    /// Its name.
    pub name: WorkflowName,
    /// The version; the newest where none.
    pub version: Option<u64>,
}

/// What [`crate::Workflows::start`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRun {
    /// Owner.
    pub tenant: TenantName,
    /// The workflow.
    pub name: WorkflowName,
    /// The run.
    pub run: NewRun,
}

/// What [`crate::Workflows::start_part`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartPart {
    /// Owner.
    pub tenant: TenantName,
    /// The part.
    pub part: NewPart,
}

/// A run, and how long to wait for its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OfRun {
    /// Owner.
    pub tenant: TenantName,
    /// The run.
    pub id: RunId,
    /// Longest wait.
    pub wait: Duration,
}

/// A page of a tenant's runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunsOf {
    /// Owner.
    pub tenant: TenantName,
    /// Which page.
    pub query: RunQuery,
}

/// What [`crate::Workflows::command`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommandRun {
    /// Owner.
    pub tenant: TenantName,
    /// The run.
    pub id: RunId,
    /// What to do to it.
    pub command: RunCommand,
}

/// What [`crate::Workflows::trace`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TraceOf {
    /// Owner.
    pub tenant: TenantName,
    /// The run.
    pub id: RunId,
    /// Number of the first token.
    pub from: u64,
    /// Most tokens.
    pub limit: usize,
}

/// What [`crate::Workflows::trace`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tokens {
    /// In order.
    pub tokens: Vec<TraceToken>,
}

/// What [`crate::Workflows::waiting`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitingTasks {
    /// The tasks.
    pub tasks: Vec<Waiting>,
}

/// What [`crate::Workflows::clear`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cleared {
    /// Whether nothing is left.
    pub all: bool,
}

/// What [`crate::Workflows::complete`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompleteTask {
    /// What names the task.
    pub token: String,
    /// How it ended.
    pub completion: Completion,
}

/// What [`crate::Control::watch_workflows`] tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkflowProcesses {
    /// All that are seen.
    pub processes: Vec<WorkflowProcess>,
}

/// What [`crate::Workflows::members`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkflowMembers {
    /// The processes with what they have.
    pub members: Vec<WorkflowMember>,
}

/// What [`crate::Workflows::value`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ValueOf {
    /// The last part of its URL.
    pub token: String,
}

/// What [`crate::Workflows::value`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ValueText {
    /// JSON.
    #[serde(with = "crate::octets")]
    pub json: bytes::Bytes,
}
