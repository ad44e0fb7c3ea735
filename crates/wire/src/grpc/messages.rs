//! The messages of the services, where they are not the types of the traits themselves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_types::api::{AliasRequest, DeployRequest, Page};
use lyra_types::function::Digest;
use lyra_types::quota::Quota;
use lyra_types::usage::UsageSum;
use lyra_types::{
    Alias, AliasName, FunctionName, FunctionVersion, InstanceId, JobId, Role, SecretName, TenantName, TokenId,
};
use serde::{Deserialize, Serialize};

pub use super::workflow_messages::{
    Cleared, CommandRun, CompleteTask, DeployWorkflow, OfRun, OfWorkflow, RunPage, RunsOf, StartPart, StartRun, Tokens,
    TraceOf, ValueOf, ValueText, WaitingTasks, WorkflowMembers, WorkflowPage, WorkflowProcesses,
};
pub use crate::accounts::{
    AuditEvent, AuditQuery, GrantEvent, Issued, Login, NewPassword, NewToken, NewUser, Tenant, Token, TokenQuery, User,
    UserKey,
};
pub use crate::classic::{ClassicAnswer, ClassicRequest};
use crate::control::{Changed, ControlProcess, Deployed, JobQuery, Precondition, RawCode, RouteEvent};
pub use crate::control::{Finished, PageQuery, Route, Submit, Submitted};
pub use crate::hooks::{HookAnswer, HookRequest, RunEndAsk};
pub use crate::logs::Query;
pub use crate::quotas::{Claim, Shares};
pub use crate::registry::{FromNode, MemberEvent, ToNode};
pub use crate::resources::{ResourceAnswer, ResourceRequest};
pub use crate::scaler::{ScalerAnswer, ScalerStatus, ScalerTurn};
pub use crate::secrets::{PutSecret, Resealed, SealingKey, SecretInfo, SecretKey, SecretPut, SecretValue};
pub use crate::sessions::{SessionEvent, SessionRoute};
pub use crate::worker::{Drained, Health, InstanceCommand, InstanceStatus, Prepare, Prepared, Status};
pub use crate::workflows::{Made, Started, WorkflowUse};

pub use lyra_types::api::QuotaView;
pub use lyra_types::api::ScalerChange;
pub use lyra_types::job::Job;
pub use lyra_types::log::LogLine;
pub use lyra_types::quota::QuotaKey;
pub use lyra_types::usage::{UsageBatch, UsageQuery};
pub use lyra_types::workflow::{Run, WorkflowVersion};

/// What a deploy gives.
pub type ChangedFunction = Changed<Deployed>;
/// What a change of an alias gives.
pub type ChangedAlias = Changed<Alias>;
/// What a removal gives.
pub type Removed = Changed<()>;
/// Functions by name.
pub type RoutePage = Page<Arc<Route>>;
/// Jobs, newest first.
pub type JobPage = Page<Job>;

/// What is known of secrets, by name.
pub type SecretPage = Page<SecretInfo>;

/// What a change of a tenant gives.
pub type ChangedTenant = Changed<Tenant>;
/// Tenants by name.
pub type TenantPage = Page<Tenant>;
/// What a change of a user gives.
pub type ChangedUser = Changed<User>;
/// Users by name.
pub type UserPage = Page<User>;
/// What a new token gives.
pub type ChangedToken = Changed<Issued>;
/// Tokens, oldest first.
pub type TokenPage = Page<Token>;
/// Quotas, by whose they are.
pub type QuotaPage = Page<QuotaView>;
/// The audit log, newest first.
pub type AuditPage = Page<AuditEvent>;

/// Where there is nothing to say.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Nothing;

/// What [`crate::Worker::prewarm`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prewarm {
    /// The version.
    pub version: Arc<FunctionVersion>,
    /// How many.
    pub instances: u32,
}

/// What [`crate::Worker::forget`] takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Forget {
    /// See [`FunctionVersion::generation`].
    pub generation: u64,
    /// One version, or all.
    pub version: Option<u64>,
}

/// What [`crate::Worker::instances`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Instances {
    /// In the order of their ids.
    pub instances: Vec<InstanceStatus>,
}

/// What [`crate::Control::reach_session`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReachSession {
    /// Owner.
    pub tenant: TenantName,
    /// The application's name.
    pub application: String,
    /// What tells the session from others of the application.
    pub key: String,
    /// Longest wait for it to be open.
    pub wait: Duration,
}

/// What [`crate::Control::touch_sessions`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TouchSessions {
    /// Owners and identities.
    pub sessions: Vec<(TenantName, String)>,
}

/// What [`crate::Control::processes`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Processes {
    /// By name.
    pub processes: Vec<ControlProcess>,
}

/// What [`crate::Worker::drain`] takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Drain {
    /// Longest wait.
    pub limit: Duration,
}

/// What [`crate::Operated::instruct`] takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Instruct {
    /// The instance.
    pub instance: InstanceId,
    /// What to do to it.
    pub command: InstanceCommand,
}

/// What [`crate::Worker::clean`] gives.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cleaned {
    /// Instances that were ended.
    pub ended: usize,
}

/// What [`crate::Control::deploy`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deploy {
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// What is asked for.
    pub request: DeployRequest,
    /// What it depends on.
    pub precondition: Precondition,
}

/// What [`crate::Control::deploy_code`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployCode {
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// The code.
    pub code: RawCode,
    /// What it depends on.
    pub precondition: Precondition,
}

/// A function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OfFunction {
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
}

/// A tenant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OfTenant {
    /// Which.
    pub tenant: TenantName,
}

/// A page of a tenant's functions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PageOf {
    /// Owner.
    pub tenant: TenantName,
    /// Which page.
    pub page: PageQuery,
}

/// What [`crate::Control::put_alias`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PutAlias {
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// Alias.
    pub alias: AliasName,
    /// Where it shall point.
    pub request: AliasRequest,
}

/// An alias of a function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OfAlias {
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// Alias.
    pub alias: AliasName,
}

/// One item of [`crate::Control::watch_routes`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouteChange {
    /// The store's revision.
    pub revision: u64,
    /// What changed.
    pub event: RouteEvent,
}

/// A job, and how long to wait for its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OfJob {
    /// Owner.
    pub tenant: TenantName,
    /// Job.
    pub id: JobId,
    /// Longest wait.
    pub wait: Duration,
}

/// A page of a tenant's jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobsOf {
    /// Owner.
    pub tenant: TenantName,
    /// Which page.
    pub query: JobQuery,
}

/// What [`crate::Control::purge_dead`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Purge {
    /// Owner.
    pub tenant: TenantName,
    /// One job, or all that are dead.
    pub id: Option<JobId>,
}

/// How many.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Count {
    /// So many.
    pub count: u64,
}

/// What [`crate::Control::usage`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UsageSums {
    /// In the order of what they are of.
    pub sums: Vec<UsageSum>,
}

/// What [`crate::Control::remove_job`] gives.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct WasThere {
    /// There was one.
    pub was_there: bool,
}

/// What [`crate::Logs::query`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lines {
    /// Oldest first.
    pub lines: Vec<LogLine>,
}

/// What [`crate::Accounts::delete_tenant`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteTenant {
    /// Which.
    pub tenant: TenantName,
    /// With all that it has.
    pub force: bool,
}

/// What [`crate::Accounts::set_role`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetRole {
    /// Whose.
    pub user: UserKey,
    /// The new one.
    pub role: Role,
}

/// A token, by id.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct OfToken {
    /// Which.
    pub id: TokenId,
}

/// One item of [`crate::Accounts::watch_grants`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GrantChange {
    /// The store's revision.
    pub revision: u64,
    /// What changed.
    pub event: GrantEvent,
}

/// What [`crate::Accounts::record`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditEvents {
    /// In the order that they happened.
    pub events: Vec<AuditEvent>,
}

/// What [`crate::Quotas::set_quota`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetQuota {
    /// Whose.
    pub key: QuotaKey,
    /// The new one.
    pub quota: Quota,
}

/// What [`crate::Control::delete_secret`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteSecret {
    /// Which.
    pub key: SecretKey,
    /// Also where functions are given it.
    pub force: bool,
}

/// What [`crate::Control::fetch_secrets`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FetchSecrets {
    /// Owner.
    pub tenant: TenantName,
    /// Which.
    pub names: Vec<SecretName>,
}

/// What [`crate::Control::fetch_secrets`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecretValues {
    /// In the order that was asked for.
    pub values: Vec<SecretValue>,
}

/// What [`crate::Control::secret_stamps`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecretKeys {
    /// Which.
    pub keys: Vec<SecretKey>,
}

/// What [`crate::Control::secret_stamps`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stamps {
    /// In the order that was asked for.
    pub stamps: Vec<Option<u64>>,
}

/// What [`crate::Control::fetch_code`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OfCode {
    /// Which.
    pub digest: Digest,
}

/// A piece of what [`crate::Control::fetch_code`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CodePiece {
    /// What comes after the pieces before it.
    #[serde(with = "crate::octets")]
    pub bytes: Bytes,
}

/// What [`crate::Control::run_ends`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunNotice {
    /// What a new run shall carry.
    pub notice: Option<String>,
}

/// What [`crate::Control::sealing_keys`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealingKeys {
    /// Those of the key file first.
    pub keys: Vec<SealingKey>,
}
