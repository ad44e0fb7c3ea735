//! What the gateway and the control role ask of a worker.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::function::Contract;
use lyra_types::invocation::Report;
use lyra_types::{Error, FunctionVersion, InvocationId, Result, Runtime};

use crate::Body;
pub use crate::instances::{
    BackendStatus, Check, Drained, GpuStatus, Health, Holdings, InstanceCounts, InstanceState, InstanceStatus, Machine,
    Resource,
};

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
#[derive(Debug, Clone)]
pub struct Prepare {
    /// What the code is written for.
    pub runtime: Runtime,
    /// The code: source text or a WebAssembly file.
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

/// What the worker found while it prepared the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// How the code is called.
    pub contract: Contract,
}

/// What a worker holds now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    /// Calls that run.
    pub running: usize,
    /// Calls that wait.
    pub queued: usize,
    /// Instances kept idle.
    pub idle_instances: usize,
    /// What its instances hold.
    pub holdings: Holdings,
    /// The machine and the back ends.
    pub machine: Machine,
}

/// A node that runs instances.
///
/// Every method is cancelled by dropping its future: a call that waits leaves the queue, a call that
/// runs is stopped and its instance is destroyed.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// Checks and compiles code, and keeps the outcome for the first call.
    ///
    /// # Errors
    /// [`lyra_types::Code::InvalidCode`] with line and column where the code can't be loaded;
    /// [`lyra_types::Code::InvalidField`] where an instance could never find its memory, processors or GPUs here.
    async fn prepare(&self, prepare: Prepare) -> Result<Prepared, Error>;

    /// Loads a version's code ahead of its first call and, where its instances are kept, starts them until
    /// `instances` are there. From then on the worker holds the version's `min_instances` up, and its pre-warm
    /// schedule; older versions of the function are held up no longer, unless they are called.
    ///
    /// # Errors
    /// When the code can't be loaded or there is no room.
    async fn prewarm(&self, version: Arc<FunctionVersion>, instances: u32) -> Result<(), Error>;

    /// Drops the loaded code and the idle instances of a version that was deleted; of all versions of the
    /// function where `version` is `None`.
    fn forget(&self, generation: u64, version: Option<u64>);

    /// Runs a call of a handler or a command to its end.
    async fn invoke(&self, call: Call) -> Reply;

    /// Runs a call of an `http` component up to the response's headers; the body streams after that.
    async fn serve(&self, call: HttpCall) -> HttpReply;

    /// What this worker holds now.
    fn status(&self) -> Status;

    /// Its instances, in the order of their ids.
    fn instances(&self) -> Vec<InstanceStatus>;

    /// Whether it works. Needs nothing from outside of the worker.
    async fn health(&self) -> Health;

    /// Takes no more calls and starts no more instances: both are refused with
    /// [`lyra_types::Code::Unavailable`]. What runs or waits goes on.
    fn cordon(&self);

    /// Takes calls again.
    fn uncordon(&self);

    /// Cordons, waits up to `limit` for calls to end, then ends the idle instances. It stays cordoned.
    async fn drain(&self, limit: Duration) -> Drained;

    /// Ends every idle instance and drops all loaded code; both come back when they are needed. Returns how many
    /// instances were ended.
    async fn clean(&self) -> usize;
}
