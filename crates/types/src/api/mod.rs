//! Bodies of the public HTTP API, shared by the gateway and the client.

mod accounts;
mod control;
mod quotas;
mod scaler;
mod secrets;
mod usage;
mod worker;
pub mod workflows;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{FieldError, Thrown};
use crate::function::Contract;
use crate::job::JobStatus;
use crate::log::Level;
use crate::{
    Alias, Balancing, Code, Error, FunctionVersion, Network, Runtime, SecretUse, SessionBinding, SessionsRequest,
    Timestamp,
};

pub use accounts::{
    AuditView, IssuedView, LoginRequest, PasswordRequest, TenantRequest, TenantView, TokenRequest, TokenView,
    UserChange, UserRequest, UserView, WhoAmI,
};
pub use control::ControlView;
pub use quotas::{QuotaUse, QuotaView};
pub use scaler::{ScalerChange, ScalerDecision, ScalerLook, ScalerOrders, ScalerView};
pub use secrets::{ResealedView, SecretKeyView, SecretKeysView, SecretRequest, SecretView};
pub use usage::{UsageReport, UsageView};
pub use worker::{
    BackendStatus, CharacteristicsView, Check, CleanedView, Drained, EstimateView, GpuStatus, Health, InstanceView,
    PrewarmRequest, PrewarmedView, Resource, RuntimeOffer, WaitingStatus, WorkerView,
};

/// Body of `PUT /v1/functions/{name}`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// `js`, `wasm`, `python`, `nodejs`, `native`, `http` or `simulated`.
    pub runtime: String,
    /// Name of the export that is the handler (`js` only). Default: `default`, then `handler`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// The code, in exactly one form.
    pub code: CodeInput,
    /// Most memory of an instance, in MiB: 16 to 1024, default 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Processor time of an instance, in cores: 0.01 to 64, default 1. Not for `js` and `wasm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// GPUs of an instance. Default 0. Not for `js` and `wasm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// What an instance may reach: `none` (its own loopback, the default) or `egress`. Not for `js` and `wasm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Deadline of a call, in ms: 1 to 900,000, default 60,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets that instances are given, each as a variable or as a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// `auto`, or the name of a back end: `wasm`, `process`, `simulated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// Keep instances between calls. Default false for `js` and `wasm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<bool>,
    /// Calls that run at once, from 1; more wait. Default 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Which of several workers gets a call, by name: `round-robin`, `least-loaded`, `least-queued`, `least-memory`,
    /// `least-cpu`, `least-load-average`, `power-of-two`, `bounded-hash`, `ch-rlu` or `locality-first`. Default: as the
    /// gateway is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancing: Option<String>,
    /// An application whose sessions serve the calls, and where a call names its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionsRequest>,
    /// Instances kept even when idle (with `reuse`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_instances: Option<u32>,
    /// Most instances (with `reuse`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<u32>,
    /// Tries of a job: 1 to 100, default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Your own labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Move `live` to the new version. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote: Option<bool>,
}

/// Code, in exactly one of these forms.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CodeInput {
    /// Source text (`js`, `python`, `nodejs`), a script that begins with `#!` (`native`, `http`), or the parameters of a `simulated`
    /// function as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A WebAssembly file, base64 (`wasm`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wasm: Option<String>,
    /// A zip archive, base64: the package, or for `js` and `wasm` one that holds the one file that they take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zip: Option<String>,
    /// An OCI image reference (no runtime of this build takes one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// A function with the version that `live` calls go to (or the newest, where `live` points nowhere).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FunctionView {
    /// Name.
    pub name: String,
    /// Owner.
    pub tenant: String,
    /// Newest version (after a deploy: the one just made).
    pub version: u64,
    /// `ready`: the version is stored, checked, and can be called.
    pub state: String,
    /// Versions that `live` points at, with their weights.
    pub live: BTreeMap<u64, u32>,
    /// The settings of `version`.
    #[serde(flatten)]
    pub settings: Settings,
    /// When the function was first deployed.
    pub created_at: Timestamp,
    /// When `version` was deployed.
    pub updated_at: Timestamp,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VersionView {
    /// Function.
    pub name: String,
    /// Number, from 1.
    pub version: u64,
    /// `ready`.
    pub state: String,
    /// Aliases that point at it.
    pub aliases: Vec<String>,
    /// Its settings.
    #[serde(flatten)]
    pub settings: Settings,
    /// When it was deployed.
    pub created_at: Timestamp,
}

/// Settings of a version, with every default filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Settings {
    /// What the code is written for.
    pub runtime: Runtime,
    /// How it is called.
    pub contract: Contract,
    /// Name of the export that is the handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// Most memory of an instance, in MiB.
    pub memory_mb: u32,
    /// Processor time of an instance, in cores.
    pub cpus: f64,
    /// GPUs of an instance.
    pub gpus: u32,
    /// What an instance may reach.
    pub network: Network,
    /// Deadline of a call, in ms.
    pub timeout_ms: u64,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Secrets that instances are given, each as a variable or as a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// Isolation back end.
    pub isolation: String,
    /// Instances are kept between calls.
    pub reuse: bool,
    /// Calls that run at once.
    pub concurrency: u32,
    /// Which of several workers gets a call; absent: as the gateway is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancing: Option<Balancing>,
    /// Sessions that serve its calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<SessionBinding>,
    /// Instances kept even when idle.
    pub min_instances: u32,
    /// Most instances.
    pub max_instances: u32,
    /// Tries of a job.
    pub max_attempts: u32,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Hex SHA-256 of the code.
    pub code_sha256: String,
    /// Size of the code, in bytes.
    pub code_size: u64,
}

impl From<&FunctionVersion> for Settings {
    fn from(v: &FunctionVersion) -> Settings {
        Settings {
            runtime: v.runtime,
            contract: v.contract,
            handler: v.handler.clone(),
            memory_mb: v.memory_mb,
            cpus: f64::from(v.cpu_millis) / 1e3,
            gpus: v.gpus,
            network: v.network,
            timeout_ms: v.timeout_ms,
            env: v.env.clone(),
            secrets: v.secrets.clone(),
            isolation: v.isolation.clone(),
            reuse: v.reuse,
            concurrency: v.concurrency,
            balancing: v.balancing,
            sessions: v.sessions.clone(),
            min_instances: v.min_instances,
            max_instances: v.max_instances,
            max_attempts: v.max_attempts,
            labels: v.labels.clone(),
            code_sha256: v.code.0.clone(),
            code_size: v.code_size,
        }
    }
}

/// Body of `PUT …/aliases/{alias}`: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AliasRequest {
    /// Version → weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<BTreeMap<u64, u32>>,
    /// All calls to this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// An alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AliasView {
    /// Name.
    pub name: String,
    /// Function.
    pub function: String,
    /// Version → weight.
    pub weights: BTreeMap<u64, u32>,
    /// The version, where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl AliasView {
    /// The view of `alias` of `function`.
    pub fn of(function: &str, alias: &Alias) -> AliasView {
        let mut versions = alias.weights.keys();
        let version = versions.next().copied().filter(|_| versions.next().is_none());
        AliasView {
            name: alias.name.to_string(),
            function: function.to_owned(),
            weights: alias.weights.clone(),
            version,
            updated_at: alias.updated_at,
        }
    }
}

/// Answer to an accepted job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobAccepted {
    /// The job.
    pub id: String,
    /// Where it stands.
    pub status: JobStatus,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// Id.
    pub id: String,
    /// Function.
    pub function: String,
    /// Version, pinned when the job was accepted.
    pub version: u64,
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
    /// When the next try may begin.
    pub next_attempt_at: Option<Timestamp>,
    /// The last try's invocation: `lyra logs NAME --invocation ID` shows what it wrote.
    pub invocation: Option<String>,
    /// The last try's error.
    pub error: Option<JobError>,
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobError {
    /// The code, as in problem documents.
    pub code: String,
    /// What went wrong.
    pub detail: String,
    /// What the function threw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Thrown>,
    /// Of a batch that failed in part: the records that are left, `records[3]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl From<&Error> for JobError {
    fn from(error: &Error) -> JobError {
        let (code, detail, thrown) = (error.code.to_string(), error.detail.clone(), error.thrown.clone());
        JobError { code, detail, error: thrown, errors: error.errors.clone() }
    }
}

impl From<&crate::job::Job> for JobView {
    fn from(job: &crate::job::Job) -> JobView {
        JobView {
            id: job.id.to_string(),
            function: job.function.to_string(),
            version: job.version,
            status: job.status,
            attempts: job.attempts,
            max_attempts: job.max_attempts,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            next_attempt_at: job.next_attempt_at,
            invocation: job.invocation.map(|id| id.to_string()),
            error: job.error.as_ref().map(JobError::from),
        }
    }
}

/// A line in `GET …/logs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogView {
    /// When it was written.
    pub time: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// The text.
    pub message: String,
    /// The call that wrote it. Lines of instances of applications belong to no call: theirs is the same for all of an instance.
    pub invocation: String,
    /// Version that ran.
    pub version: u64,
    /// Instance that ran it.
    pub instance: Option<String>,
    /// Of a line that an instance of an application wrote: the function that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Of a line that an instance of an application wrote: the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// The session that the instance had then, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Identity of that session: another one of the same name has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_uid: Option<String>,
}

impl From<&crate::log::LogLine> for LogView {
    fn from(line: &crate::log::LogLine) -> LogView {
        LogView {
            time: line.time,
            level: line.level,
            message: line.message.clone(),
            invocation: line.invocation.to_string(),
            version: line.version,
            instance: line.instance.map(|id| id.to_string()),
            function: line.hosted.is_some().then(|| line.function.to_string()),
            application: line.application().map(str::to_owned),
            session: line.session().map(|session| session.name.clone()),
            session_uid: line.session().map(|session| session.uid.clone()),
        }
    }
}

/// A page of a list. Ask again with `?cursor=next` for the one after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Cursor of the next page; null on the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The same page with each item changed by `f`.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next: self.next }
    }
}

/// `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `https://lyra.dev/errors/{code}`: names the kind of problem; documented in `docs/reference/errors.md`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the code means.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What went wrong here.
    pub detail: String,
    /// The code, for programs.
    pub code: String,
    /// Fields at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// What the function threw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Thrown>,
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Problem {
        let row = error.code.row();
        Problem {
            kind: format!("https://lyra.dev/errors/{}", error.code),
            title: row.title.to_owned(),
            status: row.http,
            detail: error.detail.clone(),
            code: error.code.to_string(),
            errors: error.errors.clone(),
            error: error.thrown.clone(),
        }
    }
}

impl Problem {
    /// The error that this document tells of; an unknown code becomes [`Code::Internal`].
    pub fn into_error(self) -> Error {
        Error {
            code: Code::parse(&self.code).unwrap_or(Code::Internal),
            detail: self.detail,
            errors: self.errors,
            retry_after: None,
            thrown: self.error,
        }
    }
}
