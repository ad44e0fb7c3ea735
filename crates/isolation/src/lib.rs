//! Sandboxes: how a version's code becomes an instance, and how an instance is called.
//!
//! Three steps, each a trait. [`Isolation::prepare`] checks and compiles code once, at deploy time, into an
//! *image* that the back end keeps on disk. [`Isolation::load`] turns an image into a [`Template`]: code in
//! memory, ready to start instances. [`Template::start`] makes a [`Sandbox`]: one instance that serves one
//! call at a time.
//!
//! What always holds: a sandbox has no authority but what a call hands in; a call ends by its deadline; memory
//! stays under the version's limit; dropping a sandbox, or the future of a call, frees all it held.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::api::{BackendStatus, RuntimeOffer};
use lyra_types::function::{Contract, Digest, ResultForm};
use lyra_types::log::Level;
use lyra_types::{Error, FunctionVersion, InstanceId, InvocationId, Runtime};
use tokio::time::Instant;

pub mod grant;
pub mod process;
pub mod session;
pub mod simulated;
pub mod wasm;

pub use grant::{Given, Gpu, Grant};
pub use session::{Exit, Exposed, Files, Hosted, Hosting, Port, Protocol, SECRETS, Traffic};

/// An error of a body that streams.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that streams.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// Code to be prepared.
#[derive(Debug, Clone)]
pub struct Code {
    /// What it is, and what the image depends on.
    pub key: ImageKey,
    /// Source text or a WebAssembly file.
    pub bytes: Bytes,
    /// Instances shall be kept between calls.
    pub reuse: bool,
}

/// All that an image depends on; two versions with the same key share an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageKey {
    /// What the code is written for.
    pub runtime: Runtime,
    /// SHA-256 of the code.
    pub digest: Digest,
    /// Name of the handler, where one was asked for.
    pub handler: Option<String>,
    /// Most memory of an instance, in MiB: code that can't be evaluated within it is refused.
    pub memory_mb: u32,
    /// How results leave, which decides how a `js` source is read.
    pub result: ResultForm,
}

impl ImageKey {
    /// The key of a version's image.
    pub fn of(version: &FunctionVersion) -> ImageKey {
        ImageKey {
            runtime: version.runtime,
            digest: version.code.clone(),
            handler: version.handler.clone(),
            memory_mb: version.memory_mb,
            result: ResultForm::of(&version.labels),
        }
    }
}

/// A runtime of a back end: what runs it, or what is missing.
fn offer(runtime: Runtime, found: Result<String, String>) -> RuntimeOffer {
    let available = found.is_ok();
    RuntimeOffer { runtime, available, detail: found.unwrap_or_else(|missing| missing), auto: false }
}

/// A kind of sandbox.
#[async_trait]
pub trait Isolation: Send + Sync + 'static {
    /// Name in configuration and status: `wasm`, …
    fn name(&self) -> &'static str;

    /// Runtimes that it takes.
    fn runtimes(&self) -> &'static [Runtime];

    /// What it has on this machine, and what it keeps ahead of calls. Must return at once; which back end `auto` means is
    /// for the worker to say.
    fn status(&self) -> BackendStatus {
        let offer = |runtime: &Runtime| offer(*runtime, Ok(String::new()));
        let offers = self.runtimes().iter().map(offer).collect();
        let (name, runtimes) = (self.name().to_owned(), self.runtimes().to_vec());
        BackendStatus { name, runtimes, offers, ..BackendStatus::default() }
    }

    /// Checks and compiles code and keeps the image. Idempotent.
    ///
    /// # Errors
    /// [`lyra_types::Code::InvalidCode`] with line and column when the code can't be loaded.
    async fn prepare(&self, code: &Code) -> Result<Contract, Error>;

    /// Loads an image into memory; `None` when there is none (then [`Isolation::prepare`] makes it).
    ///
    /// # Errors
    /// [`lyra_types::Code::Internal`] when the image can't be read.
    async fn load(&self, key: &ImageKey) -> Result<Option<Arc<dyn Template>>, Error>;

    /// The instances that a former worker has left, each once; what nobody wants is to be dropped, which ends it. They
    /// may have ended meanwhile. To be called once the worker is ready to take them, and before it starts any.
    async fn adopt(&self) -> Vec<Box<dyn Hosted>> {
        Vec::new()
    }
}

/// Code in memory, ready to start instances.
#[async_trait]
pub trait Template: Send + Sync + 'static {
    /// How instances are called.
    fn contract(&self) -> Contract;

    /// Bytes that it holds in memory, roughly; a cache weighs it by this.
    fn weight(&self) -> usize;

    /// Starts an instance.
    ///
    /// # Errors
    /// [`lyra_types::Code::Overloaded`] when there is no room for one more now.
    async fn start(&self, id: InstanceId, version: &Arc<FunctionVersion>) -> Result<Box<dyn Sandbox>, Error>;

    /// Starts an instance that was granted devices or secrets. Called in place of [`Template::start`] where there are any.
    ///
    /// # Errors
    /// As [`Template::start`]; [`lyra_types::Code::InvalidField`] where this kind of instance can't have devices, or secrets.
    async fn start_with(
        &self,
        id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
    ) -> Result<Box<dyn Sandbox>, Error> {
        if grant.secrets.is_some() {
            let reason = format!("instances of runtime {} can't be given secrets", version.runtime);
            return Err(Error::field(lyra_types::Code::InvalidField, "secrets", reason));
        }
        if grant.gpus.is_empty() {
            return self.start(id, version).await;
        }
        let reason = format!("instances of runtime {} can't use GPUs", version.runtime);
        Err(Error::field(lyra_types::Code::InvalidField, "gpus", reason))
    }

    /// Starts an instance for a session: the package's program, which is not called but serves its own ports. Returns as
    /// soon as the program runs; when it is ready is for the worker to find out.
    ///
    /// # Errors
    /// [`lyra_types::Code::InvalidField`] where this back end has no sessions, or for a hosting that can't be;
    /// [`lyra_types::Code::Internal`] when it can't be started. Nothing is left then.
    async fn host(
        &self,
        id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
        hosting: Hosting,
    ) -> Result<Box<dyn Hosted>, Error> {
        let _ = (id, grant, hosting);
        Err(session::unsupported(version.runtime))
    }
}

/// Takes a function's log lines. Must return at once.
pub trait LogSink: Send + Sync + 'static {
    /// Takes one line (without its end). The back end has cut it to [`MAX_LOG_LINE`].
    fn line(&self, level: Level, message: &str);
}

/// Longest log line, in bytes; the rest of a longer one is cut off.
pub const MAX_LOG_LINE: usize = 16 << 10;

/// What one call hands to the sandbox.
#[derive(Clone)]
pub struct CallContext {
    /// The call.
    pub invocation: InvocationId,
    /// The version that runs.
    pub version: Arc<FunctionVersion>,
    /// When the call must have ended.
    pub deadline: Instant,
    /// The same in ms since the Unix epoch, as functions see it.
    pub deadline_ms: i64,
    /// Where log lines go.
    pub logs: Arc<dyn LogSink>,
    /// Largest result, in bytes.
    pub max_result: usize,
    /// Takes the processor time of the call.
    pub cpu: CpuMeter,
    /// The W3C trace context that the call stands in, as the function sees it.
    pub trace: Option<Arc<str>>,
}

/// Adds up the processor time of a call, also of one that is given up before it ends.
#[derive(Debug, Clone, Default)]
pub struct CpuMeter(Arc<AtomicU64>);

impl CpuMeter {
    /// More was used.
    pub fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What was used so far.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// One instance. Serves one call at a time.
#[async_trait]
pub trait Sandbox: Send + 'static {
    /// Runs a handler or a command with an event; returns its result (JSON for handlers).
    ///
    /// Errors have the codes `function_error` (with what was thrown), `timeout`, `out_of_memory`,
    /// `instance_crashed`, `result_too_large`, `invalid_result`, or `internal`.
    async fn call(&mut self, context: CallContext, event: Bytes) -> Result<Bytes, Error>;

    /// Hands an HTTP request to an `http` component and returns its response as soon as its headers are there.
    ///
    /// The instance goes on while the body streams, until the deadline; dropping the body stops it.
    async fn serve(self: Box<Self>, context: CallContext, request: http::Request<Body>) -> Result<Served, Error>;

    /// Whether another call of the same version may be made: false after any failure that could have
    /// left the instance in a bad state, and once an idle instance has died.
    fn is_reusable(&self) -> bool;

    /// What the instance holds now.
    fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Asks an idle instance whether it still serves; false: it is to be replaced.
    async fn probe(&mut self) -> bool {
        self.is_reusable()
    }

    /// Stops an idle instance where it stands and gives its memory back as far as it can. [`Sandbox::wake`] undoes it.
    /// False: this kind of instance can't, and goes on as it was.
    async fn hibernate(&mut self) -> bool {
        false
    }

    /// Lets a hibernated instance go on. False: it is lost.
    async fn wake(&mut self) -> bool {
        true
    }

    /// Ends an idle instance: asks it first, and kills it when it has not gone by `limit`. Dropping kills at once.
    async fn stop(self: Box<Self>, limit: Duration) {
        let _ = limit;
    }
}

/// What an instance holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of memory.
    pub memory: u64,
    /// Processor time since its start.
    pub cpu: Duration,
}

/// Answer of [`Sandbox::serve`].
pub struct Served {
    /// The response; its body streams.
    pub response: http::Response<Body>,
    /// Resolves when the instance has ended its work: how it went, and the instance when it may serve again.
    pub end: futures::future::BoxFuture<'static, End>,
}

/// How a streamed call ended.
pub struct End {
    /// `Err` when the instance failed after it had sent its headers.
    pub outcome: Result<(), Error>,
    /// The instance, when it may serve again.
    pub sandbox: Option<Box<dyn Sandbox>>,
}

/// Time left until `deadline`.
pub fn remaining(deadline: Instant, now: Instant) -> Duration {
    deadline.saturating_duration_since(now)
}
