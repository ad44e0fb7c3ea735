//! One sandboxed process: what it writes, whether it still runs, what its end means, and how it is put to sleep.
//!
//! What must hold: dropping an instance kills every process in its sandbox; an instance that has ended is known to have
//! within a moment, without being asked. How it is called is for [`super::handler`], [`super::native`] and
//! [`super::server`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lyra_types::{Code, Error, FunctionVersion, Network};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::Shared;
use super::egress::{self, Policy};
use super::launch::{Exit, Launcher, Plan, Process};
use super::output::Output;
use super::plan::PROXY_PORT;
use crate::{CallContext, CpuMeter, LogSink, Usage};

/// How long a process that has closed its connection may take to end by itself.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// A sandboxed process.
pub(super) struct Instance {
    process: Arc<Process>,
    output: Arc<Output>,
    ended: Arc<AtomicBool>,
    watcher: JoinHandle<()>,
    /// Serves its way out, if it has one.
    egress: Option<JoinHandle<()>>,
    /// It was frozen, or may have been.
    asleep: AtomicBool,
    /// Processor time at the end of the last call; `None` before the first.
    metered: Mutex<Option<Duration>>,
}

impl Instance {
    /// Starts a process, and with it the reading of what it writes. The sockets that it is called over come back too.
    pub(super) async fn spawn(
        launcher: &Launcher,
        plan: Plan,
    ) -> Result<(Instance, Vec<std::net::TcpListener>), Error> {
        let process = launcher.spawn(plan).await.map_err(|error| not_started(&error))?;
        Instance::watch(process, |_| {})
    }

    /// Takes over a process that an earlier Lyra has started. `earlier` is what it has written meanwhile, `lost` the bytes
    /// that came before that.
    pub(super) fn take_over(
        process: Process,
        earlier: &[Vec<u8>; 2],
        lost: u64,
    ) -> Result<(Instance, Vec<std::net::TcpListener>), Error> {
        let (instance, listeners) = Instance::watch(process, |output| output.was_written(earlier, lost))?;
        instance.asleep.store(true, Ordering::Relaxed);
        Ok((instance, listeners))
    }

    fn watch(
        mut process: Process,
        begin: impl FnOnce(&Output),
    ) -> Result<(Instance, Vec<std::net::TcpListener>), Error> {
        let listeners = std::mem::take(&mut process.listeners);
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let pipes = stdout.zip(stderr).ok_or_else(|| Error::internal("an instance came without its pipes"))?;
        let output = Output::new(pipes.0, pipes.1).map_err(|error| not_started(&error))?;
        begin(&output);
        let output = Arc::new(output);
        let (process, ended) = (Arc::new(process), Arc::new(AtomicBool::new(false)));
        let watcher = lyra_kit::tasks::spawn("instance", {
            let (process, output, ended) = (Arc::clone(&process), Arc::clone(&output), Arc::clone(&ended));
            async move {
                let exit = async {
                    process.wait().await;
                    ended.store(true, Ordering::Release);
                };
                tokio::join!(output.pump(), exit);
            }
        });
        let (asleep, metered) = (AtomicBool::new(false), Mutex::new(None));
        Ok((Instance { process, output, ended, watcher, egress: None, asleep, metered }, listeners))
    }

    /// The same with a way out, as far as the policy allows.
    pub(super) async fn spawn_with_egress(
        launcher: &Launcher,
        mut plan: Plan,
        policy: &Arc<Policy>,
    ) -> Result<(Instance, Vec<std::net::TcpListener>), Error> {
        plan.listen.push(PROXY_PORT);
        let (mut instance, mut listeners) = Instance::spawn(launcher, plan).await?;
        let proxy = listeners.pop();
        instance.let_out(proxy, policy)?;
        Ok((instance, listeners))
    }

    /// Serves its way out at a socket in its network.
    pub(super) fn let_out(&mut self, proxy: Option<std::net::TcpListener>, policy: &Arc<Policy>) -> Result<(), Error> {
        let proxy = listener(proxy)?;
        self.egress = Some(lyra_kit::tasks::spawn("egress", egress::serve(proxy, Arc::clone(policy))));
        Ok(())
    }

    /// Starts an instance of a version.
    pub(super) async fn spawn_for(
        shared: &Shared,
        version: &FunctionVersion,
        plan: Plan,
    ) -> Result<(Instance, Vec<std::net::TcpListener>), Error> {
        match version.network {
            Network::None => Instance::spawn(&shared.launcher, plan).await,
            Network::Egress => Instance::spawn_with_egress(&shared.launcher, plan, &shared.egress).await,
        }
    }

    /// The process.
    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// What it writes.
    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    /// Whether it still runs.
    pub(super) fn is_alive(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }

    /// From now on its output is that of the call with these `logs`. The first call of an instance that did not get ready takes why from
    /// `failed`, and gets all that was written until then: output comes by pipes of its own, perhaps later than the failure.
    pub(super) fn begin(&self, logs: &Arc<dyn LogSink>, failed: &mut Option<Error>) -> Result<(), Error> {
        self.output.begin(logs);
        let Some(error) = failed.take() else { return Ok(()) };
        self.output.drain();
        Err(error)
    }

    /// Ends all its processes.
    pub(super) fn kill(&self) {
        self.process.kill();
    }

    /// Waits for its end, and ends it if it takes too long.
    pub(super) async fn last_breath(&self) -> Option<Exit> {
        if let Ok(exit) = tokio::time::timeout(LAST_BREATH, self.process.wait()).await {
            self.output.drain();
            return Some(exit);
        }
        self.kill();
        let _ = tokio::time::timeout(LAST_BREATH, self.process.wait()).await;
        self.output.drain();
        None
    }

    /// What it means that an instance could not be talked to any more. It has ended when this returns.
    pub(super) async fn failure(&self, memory_mb: u32) -> Error {
        match self.last_breath().await {
            Some(exit) => of_exit(exit, memory_mb),
            None => Error::new(
                Code::InstanceCrashed,
                "the instance closed its connection to the runtime interface before it answered, and was ended",
            ),
        }
    }

    /// The error for a call that was not answered by its deadline; the instance is ended.
    pub(super) fn timed_out(&self, context: &CallContext) -> Error {
        self.kill();
        self.output.drain();
        let limit = context.version.timeout_ms;
        Error::new(Code::Timeout, format!("the function did not end before its deadline ({limit} ms after it began)"))
    }

    /// What it holds.
    pub(super) fn usage(&self) -> Usage {
        self.process.usage()
    }

    /// A call begins. Only before the first one the time so far is looked at: between calls an instance hardly uses any.
    pub(super) fn begin_metering(&self) {
        self.metered.lock().get_or_insert_with(|| self.process.processor_time());
    }

    /// A call has ended: gives the processor time since the last one to `meter`.
    pub(super) fn meter(&self, meter: &CpuMeter) {
        let now = self.process.processor_time();
        let before = self.metered.lock().replace(now).unwrap_or(now);
        meter.add(now.saturating_sub(before));
    }

    /// Freezes it, and gives its memory back as far as the machine can.
    pub(super) async fn hibernate(&self) -> bool {
        if !self.is_alive() {
            return false;
        }
        match self.process.freeze().await {
            Ok(()) => {
                self.asleep.store(true, Ordering::Relaxed);
                self.process.reclaim().await;
                true
            }
            Err(error) => {
                tracing::warn!(pid = self.process.pid, %error, "an instance can't be hibernated");
                false
            }
        }
    }

    /// Lets it go on.
    pub(super) async fn wake(&self) -> bool {
        if !self.asleep.swap(false, Ordering::Relaxed) {
            return self.is_alive();
        }
        if let Err(error) = self.process.thaw().await {
            tracing::warn!(pid = self.process.pid, %error, "a hibernated instance is lost");
            self.kill();
            return false;
        }
        self.is_alive()
    }

    /// Asks its program to end, as `SIGTERM` does, and kills it when it has not gone by `limit`.
    pub(super) async fn stop(&self, limit: Duration) {
        self.process.signal(libc::SIGTERM);
        self.gone(limit).await;
    }

    /// Waits until it has gone by itself, up to `limit`; then it is killed.
    pub(super) async fn gone(&self, limit: Duration) {
        if tokio::time::timeout(limit, self.process.wait()).await.is_err() {
            self.kill();
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.process.is_left() {
            // Its watcher holds it for a moment more.
            self.process.discard();
        }
        // It holds the process too, whose end frees the sandbox.
        self.watcher.abort();
        if let Some(egress) = &self.egress {
            egress.abort();
        }
    }
}

/// A socket that an instance is called over.
pub(super) fn listener(socket: Option<std::net::TcpListener>) -> Result<tokio::net::TcpListener, Error> {
    let socket = socket.ok_or_else(|| Error::internal("an instance came without its socket"))?;
    socket
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(socket))
        .map_err(|error| Error::internal(format!("an instance's socket can't be used: {error}")))
}

fn not_started(error: &dyn std::error::Error) -> Error {
    let mut causes = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        causes = format!("{causes}: {cause}");
        source = cause.source();
    }
    tracing::error!(error = causes, "an instance could not be started");
    Error::internal("this worker could not start an instance; its log says why")
}

/// What the end of an instance in the middle of a call means.
pub(super) fn of_exit(exit: Exit, memory_mb: u32) -> Error {
    if exit.out_of_memory {
        return Error::new(Code::OutOfMemory, format!("the function needs more than its {memory_mb} MiB of memory"));
    }
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by {}", signal_name(signal)),
        (None, None) => "ended".to_owned(),
    };
    Error::new(Code::InstanceCrashed, format!("the instance crashed: its process {how} before it answered"))
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGILL => "SIGILL",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS (a system call that sandboxes don't have)",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXFSZ => "SIGXFSZ (a file larger than allowed)",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// The error for a result of more than `limit` bytes.
pub(super) fn result_too_large(limit: usize) -> Error {
    Error::new(Code::ResultTooLarge, format!("the result is larger than its limit of {limit} bytes"))
}

/// The error for an instance that did not get ready in time.
pub(super) fn never_ready(limit: Duration, waited_for: &str) -> Error {
    Error::new(Code::Timeout, format!("the instance did not get ready in {} s: {waited_for}", limit.as_secs_f64()))
}

/// The error for a call of an instance that has failed before.
pub(super) fn gone() -> Error {
    Error::internal("an instance was called after it had failed")
}

/// What functions are called in the interfaces that know Amazon's resource names.
pub(super) fn resource_name(version: &FunctionVersion) -> String {
    format!("arn:lyra:lambda:local:{}:function:{}:{}", version.tenant, version.function, version.version)
}
