//! What the gateway and the control role ask of a worker.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::function::Contract;
use lyra_types::invocation::Report;
use lyra_types::{Error, FunctionName, FunctionVersion, InstanceId, InvocationId, Result, Runtime, TenantName};
use serde::{Deserialize, Serialize};

use crate::Body;
pub use crate::instances::{
    BackendStatus, Check, Drained, GpuStatus, Health, Holdings, InstanceCommand, InstanceCounts, InstanceState,
    InstanceStatus, Machine, Resource,
};

/// Who counts what a call uses, and for whom.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// Who called; `None` where that is not known.
    pub user: Option<Arc<str>>,
    /// The caller counts it once it has the answer. A call that is given up before is counted by the worker, as all others are.
    pub by_caller: bool,
}

/// A call with an event.
#[derive(Debug, Clone)]
pub struct Call {
    /// Id of the invocation.
    pub id: InvocationId,
    /// The version to run.
    pub version: Arc<FunctionVersion>,
    /// The event: valid JSON for handlers, any bytes for commands.
    pub event: Bytes,
    /// Most time in the handler; the version's own where `None`. Never more than the version's own.
    pub timeout: Option<Duration>,
    /// Who counts what it uses.
    pub account: Account,
    /// The W3C trace context that it stands in, for the function to pass on; `None` where nobody gave one.
    pub trace: Option<Arc<str>>,
}

/// Answer to a [`Call`].
#[derive(Debug)]
pub struct Reply {
    /// How it went.
    pub report: Report,
    /// The result (JSON for handlers), or why there is none.
    pub outcome: Result<Bytes>,
}

/// A call with an HTTP request, for the contract `http`.
#[derive(Debug)]
pub struct HttpCall {
    /// Id of the invocation.
    pub id: InvocationId,
    /// The version to run.
    pub version: Arc<FunctionVersion>,
    /// The request; its URI is absolute (scheme and authority as the client sent them).
    pub request: http::Request<Body>,
    /// Who called; `None` where that is not known.
    pub user: Option<Arc<str>>,
}

/// Answer to an [`HttpCall`]. Dropping the response's body cancels the invocation.
#[derive(Debug)]
pub struct HttpReply {
    /// How it went until the response's headers.
    pub report: Report,
    /// The response, or why there is none.
    pub outcome: Result<http::Response<Body>>,
}

/// Code to be checked and compiled at deploy time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prepare {
    /// What the code is written for.
    pub runtime: Runtime,
    /// The code: source text or a WebAssembly file.
    #[serde(with = "crate::octets")]
    pub code: Bytes,
    /// The handler's name, where one was asked for.
    pub handler: Option<String>,
    /// Isolation back end that was asked for.
    pub isolation: String,
    /// Whether instances shall be kept between calls.
    pub reuse: bool,
    /// Most memory of an instance, in MiB.
    pub memory_mb: u32,
    /// Processor time of an instance, in thousandths of a core.
    pub cpu_millis: u32,
    /// GPUs of an instance.
    pub gpus: u32,
    /// The version's labels; those that begin with `lyra.dev/` tell the worker something.
    pub labels: std::collections::BTreeMap<String, String>,
}

impl Prepare {
    /// What is asked for `version`, whose code this is.
    pub fn of(version: &FunctionVersion, code: Bytes) -> Prepare {
        Prepare {
            runtime: version.runtime,
            code,
            handler: version.handler.clone(),
            isolation: version.isolation.clone(),
            reuse: version.reuse,
            memory_mb: version.memory_mb,
            cpu_millis: version.cpu_millis,
            gpus: version.gpus,
            labels: version.labels.clone(),
        }
    }
}

/// What the worker found while it prepared the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// How the code is called.
    pub contract: Contract,
}

/// What a worker holds now.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Calls that run.
    pub running: usize,
    /// Calls that wait.
    pub queued: usize,
    /// Instances kept idle.
    pub idle_instances: usize,
    /// Of `queued`: those that wait for the concurrency limit of their function.
    pub held: usize,
    /// Of `queued`: those that wait for the worker's concurrency limit.
    pub eligible: usize,
    /// Of `running`: those let past the worker's concurrency limit, being short.
    pub bypassing: usize,
    /// Calls that the worker lets run at once now.
    pub concurrency_limit: usize,
    /// The queue's policy.
    pub queue_policy: String,
    /// Functions with calls that run or wait.
    pub functions: Vec<FunctionCalls>,
    /// What is known of each version from its calls.
    pub characteristics: Vec<Characteristics>,
    /// What its instances hold.
    pub holdings: Holdings,
    /// The machine and the back ends.
    pub machine: Machine,
}

/// Calls of a function, of all its versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCalls {
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// See [`FunctionVersion::generation`].
    pub generation: u64,
    /// Calls that run.
    pub running: usize,
    /// Calls that wait for the function's own concurrency limit.
    pub held: usize,
    /// Calls that wait for the worker's concurrency limit.
    pub eligible: usize,
}

/// What a worker knows of a version from its calls. A quantity that was never measured is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Characteristics {
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// See [`FunctionVersion::generation`].
    pub generation: u64,
    /// Number of the version.
    pub version: u64,
    /// Calls that reached an instance.
    pub calls: u64,
    /// Time to get an instance that had to be started.
    pub cold: Option<Estimate>,
    /// Time to get an instance that was started ahead.
    pub prewarmed: Option<Estimate>,
    /// Time to get an instance that was there.
    pub warm: Option<Estimate>,
    /// Time in the handler.
    pub exec: Option<Estimate>,
    /// Time from arrival to answer.
    pub end_to_end: Option<Estimate>,
    /// Time between two arrivals.
    pub inter_arrival: Option<Estimate>,
    /// Memory of an instance, in bytes.
    pub memory: Option<u64>,
}

/// A time as it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Measurements.
    pub samples: u64,
    /// Their average, the latest weighing most.
    pub average: Duration,
    /// The middle one of the last 16.
    pub recent_median: Duration,
    /// The longest of the last 16.
    pub recent_max: Duration,
}

/// A node that runs instances.
///
/// Every method is cancelled by dropping its future: a call that waits leaves the queue, a call that
/// runs is stopped and its instance is destroyed. Every method may fail with
/// [`lyra_types::Code::Unavailable`] where the worker is another process and can't be reached.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// Checks and compiles code, and keeps the outcome for the first call.
    ///
    /// # Errors
    /// [`lyra_types::Code::InvalidCode`] with line and column where the code can't be loaded;
    /// [`lyra_types::Code::InvalidField`] where an instance could never find its memory, processors or GPUs here.
    async fn prepare(&self, prepare: Prepare) -> Result<Prepared, Error>;

    /// Loads a version's code ahead of its first call and, where its instances are kept, starts them until `instances` are
    /// there. How many of them are held up from then on is for control to say; a worker that control tells nothing
    /// holds up what the newest version asks for.
    ///
    /// # Errors
    /// When the code can't be loaded or there is no room.
    async fn prewarm(&self, version: Arc<FunctionVersion>, instances: u32) -> Result<(), Error>;

    /// Drops the loaded code and the idle instances of a version that was deleted; of all versions of the
    /// function where `version` is `None`.
    async fn forget(&self, generation: u64, version: Option<u64>) -> Result<()>;

    /// Runs a call of a handler or a command to its end.
    async fn invoke(&self, call: Call) -> Reply;

    /// Runs a call of an `http` component up to the response's headers; the body streams after that.
    async fn serve(&self, call: HttpCall) -> HttpReply;
}

/// What operators ask of a worker, one at a time.
#[async_trait]
pub trait Operated: Worker {
    /// What this worker holds now.
    async fn status(&self) -> Result<Status>;

    /// Its instances, in the order of their ids.
    async fn instances(&self) -> Result<Vec<InstanceStatus>>;

    /// Whether it works. Needs nothing from outside of the worker.
    async fn health(&self) -> Result<Health>;

    /// Takes no more calls and starts no more instances: both are refused with
    /// [`lyra_types::Code::Unavailable`]. What runs or waits goes on.
    async fn cordon(&self) -> Result<()>;

    /// Takes calls again.
    async fn uncordon(&self) -> Result<()>;

    /// Cordons, waits up to `limit` for calls to end, then ends the idle instances. It stays cordoned.
    async fn drain(&self, limit: Duration) -> Result<Drained>;

    /// Ends, hibernates or wakes one idle instance.
    ///
    /// # Errors
    /// [`lyra_types::Code::NotFound`]; [`lyra_types::Code::Conflict`] while it is not idle, or where its kind can't be
    /// hibernated; [`lyra_types::Code::Overloaded`] where there is no memory for it to be awake.
    async fn instruct(&self, instance: InstanceId, command: InstanceCommand) -> Result<()>;

    /// Ends every idle instance and drops all loaded code; both come back when they are needed. Returns how many
    /// instances were ended.
    async fn clean(&self) -> Result<usize>;
}
