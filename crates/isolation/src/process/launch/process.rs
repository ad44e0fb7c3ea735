//! A running sandbox.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

use super::cgroup::{CpuClock, usage_or};
use super::connection::{Answer, Connection, Hold};
use super::error::LaunchError;
use super::plan::{Limits, is_plain};
use super::spawner::Bounds;
use super::wire::Request;
use super::{members, system};
use crate::{Exit, Exposed, Traffic, Usage};

/// How long the processes of a sandbox may take to stop where they stand.
const FREEZING: Duration = Duration::from_secs(2);
const FREEZING_PAUSE: Duration = Duration::from_millis(1);

/// From the status that `wait` gives.
pub(super) fn exit_of(status: i32, out_of_memory: bool) -> Exit {
    let exited = libc::WIFEXITED(status);
    let code = exited.then(|| libc::WEXITSTATUS(status));
    let signal = (!exited).then(|| libc::WTERMSIG(status));
    Exit { code, signal, out_of_memory: out_of_memory && code != Some(0) }
}

/// A running sandbox. Dropping it ends all its processes; the launcher clears up.
pub struct Process {
    /// Number, outside, of the sandbox's first process: Lyra's own, parent of the program.
    pub pid: u32,
    /// What the program writes. Whoever takes it must read it, or drop it: a full pipe makes the program wait.
    pub stdout: Option<Receiver>,
    /// What the program writes to its standard error; as `stdout`.
    pub stderr: Option<Receiver>,
    /// Sockets that listen in the sandbox's network, in the order of the plan; non-blocking.
    pub listeners: Vec<TcpListener>,
    id: u64,
    hold: Arc<Hold>,
    exit: watch::Receiver<Option<Exit>>,
    connection: Arc<Connection>,
    lasting: bool,
    /// Opened by who first asks for it.
    clock: OnceLock<Option<CpuClock>>,
}

/// What a process is put together from.
pub(super) struct Parts {
    pub(super) id: u64,
    pub(super) pid: u32,
    pub(super) hold: Hold,
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) exit: watch::Receiver<Option<Exit>>,
    pub(super) connection: Arc<Connection>,
    pub(super) lasting: bool,
}

impl Process {
    pub(super) fn new(parts: Parts) -> Result<Process, LaunchError> {
        let mut descriptors = parts.descriptors.into_iter();
        let mut pipe = || {
            let end = descriptors.next().ok_or(LaunchError::Gone)?;
            Receiver::from_owned_fd(end).map_err(|error| LaunchError::failed("reading a sandbox's output", &error))
        };
        let (stdout, stderr) = (Some(pipe()?), Some(pipe()?));
        Ok(Process {
            pid: parts.pid,
            stdout,
            stderr,
            listeners: descriptors.map(TcpListener::from).collect(),
            id: parts.id,
            hold: Arc::new(parts.hold),
            exit: parts.exit,
            connection: parts.connection,
            lasting: parts.lasting,
            clock: OnceLock::new(),
        })
    }

    /// Waits until all processes of the sandbox and its cgroup are gone. Any number may wait, at any time.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or_else(Exit::killed),
            Err(_) => Exit::killed(),
        }
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Ends all processes of the sandbox at once.
    pub fn kill(&self) {
        self.hold.kill();
    }

    /// Sends the program a signal: `SIGTERM` asks it to end.
    pub fn signal(&self, signal: i32) {
        self.connection.tell(&Request::Signal { sandbox: self.id, signal });
    }

    /// What the sandbox holds and has used, all its processes together. Reads a few files of the kernel.
    pub fn usage(&self) -> Usage {
        let first = i32::try_from(self.pid).unwrap_or(i32::MAX);
        usage_or(&self.hold.group, || members::usage(&members::descendants(&[first])))
    }

    /// Processor time of all its processes since its start. Reads one file of the kernel, where groups can be counted,
    /// and keeps it open.
    pub fn processor_time(&self) -> Duration {
        let clock = self.clock.get_or_init(|| self.hold.group.clock());
        clock.as_ref().and_then(CpuClock::read).unwrap_or_else(|| self.usage().cpu)
    }

    /// Stops all processes of the sandbox where they stand.
    ///
    /// # Errors
    /// [`LaunchError::Late`] when they don't stop; they go on then.
    pub async fn freeze(&self) -> Result<(), LaunchError> {
        if !self.set_frozen(true).await? {
            return Ok(());
        }
        let stopped = async {
            while !self.hold.group.is_frozen() {
                tokio::time::sleep(FREEZING_PAUSE).await;
            }
        };
        if tokio::time::timeout(FREEZING, stopped).await.is_err() {
            self.set_frozen(false).await?;
            return Err(LaunchError::Late(FREEZING));
        }
        Ok(())
    }

    /// Lets the processes go on.
    ///
    /// # Errors
    /// [`LaunchError::Refused`] when the kernel does not let them.
    pub async fn thaw(&self) -> Result<(), LaunchError> {
        self.set_frozen(false).await.map(drop)
    }

    /// Asks the kernel to take back what memory it can. Without swap that is no more than what it can read again from
    /// files.
    pub async fn reclaim(&self) {
        let hold = Arc::clone(&self.hold);
        let _as_far_as_possible = lyra_kit::tasks::blocking(move || hold.group.reclaim()).await;
    }

    /// Mounts a file or directory, read-only, into the running sandbox. The target must exist there already, for example
    /// as one of [`super::Plan::mount_points`].
    ///
    /// # Errors
    /// [`LaunchError::Refused`] when either place can't be used.
    pub async fn bind(&self, source: &Path, target: &Path) -> Result<(), LaunchError> {
        if !source.is_absolute() || !is_plain(target) {
            return Err(LaunchError::InvalidPlan("a mount needs absolute paths".to_owned()));
        }
        let (id, source, target) = (self.connection.number(), source.to_owned(), target.to_owned());
        let request = Request::Bind { id, sandbox: self.id, source, target };
        self.connection.ask(id, &request).await.map(drop)
    }

    /// Has what comes in at sockets of the node carried to ports of the sandbox, on the other side of a process of its
    /// own: TCP connections and datagrams go on when Lyra's process has ended. A socket for each port: one that listens,
    /// or a bound one for UDP.
    ///
    /// # Errors
    /// [`LaunchError::Refused`] when the sandbox has ended, or has ports exposed already.
    pub async fn expose(&self, ports: Vec<Exposed>, sockets: &[OwnedFd], bounds: Bounds) -> Result<(), LaunchError> {
        let id = self.connection.number();
        let request = Request::Expose { id, sandbox: self.id, ports, bounds };
        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        self.connection.ask_with(id, &request, &sockets).await.map(drop)
    }

    /// Undoes [`Process::expose`] and cuts what has come in. The sockets are closed when this returns.
    ///
    /// # Errors
    /// [`LaunchError::Late`] and [`LaunchError::Gone`].
    pub async fn hide(&self) -> Result<(), LaunchError> {
        let id = self.connection.number();
        self.connection.ask(id, &Request::Hide { id, sandbox: self.id }).await.map(drop)
    }

    /// What has gone over the exposed ports.
    ///
    /// # Errors
    /// [`LaunchError::Late`] and [`LaunchError::Gone`].
    pub async fn traffic(&self) -> Result<Traffic, LaunchError> {
        let id = self.connection.number();
        match self.connection.ask(id, &Request::Count { id, sandbox: self.id }).await? {
            Answer::Carried(traffic) => Ok(traffic),
            Answer::Spawned { .. } | Answer::Done(_) | Answer::Failed(_) => Err(LaunchError::Gone),
        }
    }

    /// Lets a lasting sandbox go on when this is dropped, for the next Lyra to take over.
    pub fn leave(&self) {
        self.hold.left.store(self.lasting, Ordering::Relaxed);
    }

    /// Ends all processes of the sandbox at once, as dropping this does: of no interest to any later Lyra.
    pub fn discard(&self) {
        self.forget();
        self.kill();
    }

    fn forget(&self) {
        if self.lasting && self.exit().is_none() {
            self.connection.tell(&Request::Forget { sandbox: self.id });
        }
    }

    /// Whether it goes on when this is dropped.
    pub fn is_left(&self) -> bool {
        self.hold.left.load(Ordering::Relaxed)
    }

    /// Sends the program a signal as [`Process::signal`] does, and waits until there is room for the message.
    ///
    /// # Errors
    /// [`LaunchError::Late`] and [`LaunchError::Gone`].
    pub async fn signal_surely(&self, signal: i32) -> Result<(), LaunchError> {
        self.connection.tell_surely(&Request::Signal { sandbox: self.id, signal }).await
    }

    /// Changes the limits of the whole sandbox: memory, processor time and processes. Those of each process stay.
    ///
    /// # Errors
    /// [`LaunchError::Refused`], for example when more memory is held than shall be allowed.
    pub async fn set_limits(&self, limits: Limits) -> Result<(), LaunchError> {
        let id = self.connection.number();
        self.connection.ask(id, &Request::Limits { id, sandbox: self.id, limits }).await.map(drop)
    }

    /// A TCP socket in the sandbox's own network, to connect to the program's ports; non-blocking. `six`: for IPv6.
    ///
    /// # Errors
    /// [`LaunchError::Refused`] when the sandbox has ended.
    pub async fn socket(&self, six: bool) -> Result<OwnedFd, LaunchError> {
        let id = self.connection.number();
        match self.connection.ask(id, &Request::Socket { id, sandbox: self.id, six }).await? {
            Answer::Done(mut descriptors) => descriptors.pop().ok_or(LaunchError::Gone),
            Answer::Spawned { .. } | Answer::Carried(_) | Answer::Failed(_) => Err(LaunchError::Gone),
        }
    }

    /// True: the kernel was asked and reports when it is done. False: done.
    async fn set_frozen(&self, frozen: bool) -> Result<bool, LaunchError> {
        let (hold, first) = (Arc::clone(&self.hold), i32::try_from(self.pid).unwrap_or(i32::MAX));
        let done = lyra_kit::tasks::blocking(move || match hold.group.set_frozen(frozen)? {
            true => Ok(true),
            false => signal_all(first, if frozen { libc::SIGSTOP } else { libc::SIGCONT }).map(|()| false),
        });
        let done = done.await.map_err(|_| LaunchError::Gone)?;
        done.map_err(|error: io::Error| LaunchError::failed("stopping a sandbox where it stands", &error))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_left() {
            self.forget();
        }
    }
}

/// Stops or continues the processes below the first, which itself must go on to notice the end of the launcher.
fn signal_all(first: i32, signal: i32) -> io::Result<()> {
    let mut before = 0;
    loop {
        let processes: Vec<i32> = members::descendants(&[first]).into_iter().filter(|pid| *pid != first).collect();
        processes.iter().for_each(|pid| drop(system::kill(*pid, signal)));
        // One that was forked meanwhile is found in the next round; a stopped one forks no more.
        if signal != libc::SIGSTOP || processes.len() <= before {
            return Ok(());
        }
        before = processes.len();
    }
}
