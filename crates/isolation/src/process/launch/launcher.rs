//! Starting the launcher's process or taking over one that waits, and asking it for sandboxes.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::abilities::{Abilities, FIRST_USER};
use super::connection::{Answer, Connection, Ends, Greeting, Hold, greeting};
use super::error::LaunchError;
use super::plan::Plan;
use super::process::{Parts, Process, exit_of};
use super::wire::{self, Kept, PROTOCOL, Request};
use super::{DOOR, members, system};
use crate::{Exit, Exposed};

/// Pause between looks at whether an earlier launcher has let go of the directory.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How the launcher works.
#[derive(Debug, Clone)]
pub struct Config {
    /// The program that calls [`super::serve`], and its arguments.
    pub helper: Vec<OsString>,
    /// A directory of this Lyra's own; made where it is missing. It keeps two Lyras apart and names the cgroups.
    pub directory: PathBuf,
    /// Use cgroups where there are any. Without, limits are watched and softer: for machines where they don't work.
    pub cgroups: bool,
    /// Ask the kernel to move processes between cgroups quickly, on the whole machine (`favordynmods` of cgroups(7)).
    pub favor_dynmods: bool,
    /// How long an answer may take.
    pub patience: Duration,
    /// How long lasting sandboxes go on without a Lyra before they are ended.
    pub orphan_grace: Duration,
}

impl Config {
    /// The usual settings: this very program started with the one argument `sandbox-launcher`.
    pub fn new(directory: impl Into<PathBuf>) -> Config {
        Config {
            helper: vec!["/proc/self/exe".into(), "sandbox-launcher".into()],
            directory: directory.into(),
            cgroups: true,
            favor_dynmods: true,
            patience: Duration::from_secs(10),
            orphan_grace: Duration::from_secs(120),
        }
    }
}

/// Starts sandboxed processes. Cheap to clone; the launcher's process ends with the last clone and the last
/// [`Process`]. When it has died, it is started again for the next sandbox.
#[derive(Clone)]
pub struct Launcher {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    abilities: Abilities,
    current: Mutex<Helper>,
    /// What an earlier Lyra has left and nobody has asked for.
    found: Mutex<Vec<Adopted>>,
    /// Held while the launcher's process is started again.
    starting: tokio::sync::Mutex<()>,
}

struct Helper {
    connection: Arc<Connection>,
    process: Option<Keeper>,
}

/// The launcher's process.
enum Keeper {
    /// It was started here.
    Child(Child),
    /// It was started by an earlier Lyra.
    Found { pid: u32, pidfd: OwnedFd },
}

impl Keeper {
    fn pid(&self) -> Option<u32> {
        match self {
            Keeper::Child(child) => child.id(),
            Keeper::Found { pid, .. } => Some(*pid),
        }
    }

    async fn end(self) {
        match self {
            // That it can't be waited for means that it is gone.
            Keeper::Child(mut child) => drop(child.wait().await),
            Keeper::Found { pidfd, .. } => {
                let Ok(pidfd) = system::watched(pidfd, tokio::io::Interest::READABLE) else { return };
                drop(pidfd.readable().await);
            }
        }
    }
}

/// A lasting sandbox that an earlier Lyra has left.
pub struct Adopted {
    /// The sandbox; it may have ended.
    pub process: Process,
    /// What it was started with by this name.
    pub label: String,
    /// What came of stdout and stderr while nobody read them: the last of it.
    pub earlier: [Vec<u8>; 2],
    /// Bytes that came before those and were dropped.
    pub lost: u64,
    /// Its ports that are reached on the node.
    pub exposed: Vec<Exposed>,
}

impl Launcher {
    /// Starts the launcher's process, tries out a sandbox, and removes what an earlier run has left. Where the launcher of
    /// an earlier Lyra waits with lasting sandboxes, it is taken over with them: [`Launcher::adopt`].
    ///
    /// # Errors
    /// [`LaunchError::Unsupported`] where this machine lacks what sandboxes need, [`LaunchError::InUse`] when another Lyra
    /// works with the directory, [`LaunchError::Helper`] when the process can't be started.
    pub async fn start(config: Config) -> Result<Launcher, LaunchError> {
        let Up { helper, abilities, found } = start_helper(&config).await?;
        let (current, found) = (Mutex::new(helper), Mutex::new(found));
        let inner = Inner { config, abilities, current, found, starting: tokio::sync::Mutex::new(()) };
        Ok(Launcher { inner: Arc::new(inner) })
    }

    /// The labels of the lasting sandboxes that an earlier Lyra has left and nobody has asked for yet.
    pub fn left(&self) -> Vec<String> {
        self.inner.found.lock().iter().map(|found| found.label.clone()).collect()
    }

    /// The lasting sandboxes that an earlier Lyra has left, each once.
    pub fn adopt(&self) -> Vec<Adopted> {
        std::mem::take(&mut *self.inner.found.lock())
    }

    /// What this machine lets us do.
    pub fn abilities(&self) -> &Abilities {
        &self.inner.abilities
    }

    /// Starts a sandbox; returns once its program runs.
    ///
    /// # Errors
    /// [`LaunchError::InvalidPlan`] for what can't be meant, [`LaunchError::Refused`] with the step that failed,
    /// [`LaunchError::Late`], and [`LaunchError::Gone`] when the launcher has ended meanwhile.
    pub async fn spawn(&self, plan: Plan) -> Result<Process, LaunchError> {
        plan.validate()?;
        let connection = self.connection().await?;
        let (id, lasting) = (connection.number(), plan.lasting.is_some());
        let exit = connection.end_of(id);
        match connection.ask(id, &Request::Spawn { id, plan: Box::new(plan) }).await {
            Ok(Answer::Spawned { pid, hold, descriptors }) => {
                Process::new(Parts { id, pid, hold, descriptors, exit, connection, lasting })
            }
            Ok(_) => Err(LaunchError::Gone),
            Err(error) => {
                connection.forget(id);
                Err(error)
            }
        }
    }

    /// Gets a Python interpreter ready to be forked, so that the first sandbox with it need not wait for its start.
    ///
    /// # Errors
    /// Those of [`Launcher::spawn`].
    pub async fn warm(&self, interpreter: &Path, preload: &[String]) -> Result<(), LaunchError> {
        let connection = self.connection().await?;
        let id = connection.number();
        let (interpreter, preload) = (interpreter.to_owned(), preload.to_vec());
        connection.ask(id, &Request::Warm { id, interpreter, preload }).await.map(drop)
    }

    /// Interpreters that wait to be forked, and the bytes of memory that they hold. Reads a few files of the kernel.
    pub fn zygotes(&self) -> (usize, u64) {
        let launcher = self.inner.current.lock().process.as_ref().and_then(Keeper::pid);
        let Some(launcher) = launcher.and_then(|pid| i32::try_from(pid).ok()) else { return (0, 0) };
        // Its other children are the first processes of sandboxes, which bear names of ours.
        let is_zygote = |pid: &i32| members::name(*pid).is_some_and(|name| !name.starts_with("lyra-"));
        let zygotes: Vec<i32> = members::children(launcher).into_iter().filter(is_zygote).collect();
        (zygotes.len(), members::usage(&zygotes).memory)
    }

    /// Ends all sandboxes and the launcher's process, and waits until it has cleared up; false: not within `limit`.
    pub async fn stop(&self, limit: Duration) -> bool {
        let (connection, process) = self.let_go();
        let end = async {
            // Where that fails, the launcher is gone.
            let _gone = connection.tell_surely(&Request::End).await;
            connection.leave();
            if let Some(process) = process {
                process.end().await;
            }
        };
        tokio::time::timeout(limit, end).await.is_ok()
    }

    /// Lets the launcher go: it ends what does not last, and waits with the rest for the next Lyra. Returns when the
    /// launcher has ended for lack of anything that lasts, or `limit` is over.
    pub async fn leave(&self, limit: Duration) {
        for found in self.adopt() {
            found.process.leave();
        }
        let (connection, process) = self.let_go();
        connection.leave();
        if let Some(process) = process {
            let _waits = tokio::time::timeout(limit, process.end()).await;
        }
    }

    fn let_go(&self) -> (Arc<Connection>, Option<Keeper>) {
        let mut current = self.inner.current.lock();
        (Arc::clone(&current.connection), current.process.take())
    }

    /// The connection, to a new process where the old one has died.
    async fn connection(&self) -> Result<Arc<Connection>, LaunchError> {
        let current = || {
            let current = self.inner.current.lock();
            (!current.connection.is_gone()).then(|| Arc::clone(&current.connection))
        };
        if let Some(connection) = current() {
            return Ok(connection);
        }
        let _one_at_a_time = self.inner.starting.lock().await;
        if let Some(connection) = current() {
            return Ok(connection);
        }
        // Should an earlier one wait with sandboxes of ours, everybody has been told already that they are gone.
        let Up { helper, .. } = start_helper(&self.inner.config).await?;
        let connection = Arc::clone(&helper.connection);
        *self.inner.current.lock() = helper;
        Ok(connection)
    }
}

/// A launcher that is up.
struct Up {
    helper: Helper,
    abilities: Abilities,
    found: Vec<Adopted>,
}

async fn start_helper(config: &Config) -> Result<Up, LaunchError> {
    let lock = match way_in(config).await? {
        WayIn::Waiting(up) => return Ok(*up),
        WayIn::Free(lock) => lock,
    };
    let failed = |error: io::Error| LaunchError::Helper(error.to_string());
    let (program, arguments) =
        config.helper.split_first().ok_or_else(|| LaunchError::Helper("no program is named".to_owned()))?;
    let (socket, its) = system::socket_pair().map_err(failed)?;
    let mut command = Command::new(program);
    // Its environment is seen by nobody, but need not hold Lyra's secrets either. It holds the lock, so that the next Lyra
    // waits until this one's launcher has cleared up.
    command.args(arguments).env_clear().stdin(Stdio::from(its)).stdout(Stdio::from(lock));
    let process = command.spawn().map_err(failed)?;
    drop(command);
    greet(&socket, config).map_err(failed)?;
    match greeting(&socket, config.patience).await {
        Greeting::Ready { abilities, next, .. } => {
            let connection = Connection::new(socket, next, Ends::new(), config.patience).map_err(failed)?;
            let helper = Helper { connection: Arc::new(connection), process: Some(Keeper::Child(process)) };
            Ok(Up { helper, abilities, found: Vec::new() })
        }
        Greeting::Unable(fault) => Err(LaunchError::Unsupported(fault.to_string())),
        Greeting::Silent => Err(LaunchError::Helper(format!("{} is not a launcher, or has ended", program.display()))),
    }
}

fn greet(socket: &OwnedFd, config: &Config) -> io::Result<()> {
    let directory = config.directory.canonicalize()?;
    let digest = Sha256::digest(directory.as_os_str().as_bytes());
    let name = hex::encode(&digest[..6]);
    let hello = Request::Hello {
        name,
        cgroups: config.cgroups,
        favor_dynmods: config.favor_dynmods,
        first_user: FIRST_USER,
        protocol: PROTOCOL,
        directory,
        orphan_grace: config.orphan_grace,
    };
    wire::send(socket.as_fd(), &wire::encode(&hello).unwrap_or_default(), &[])
}

/// How the directory can be worked with.
enum WayIn {
    /// A launcher waited there.
    Waiting(Box<Up>),
    /// Nobody is there; the lock of the directory.
    Free(OwnedFd),
}

/// Takes over a launcher that waits in the directory, or locks it. The launcher of a Lyra that was killed has it for a
/// moment, until it has cleared up or waits for us.
async fn way_in(config: &Config) -> Result<WayIn, LaunchError> {
    let directory = &config.directory;
    let unusable = |error: io::Error| LaunchError::Helper(format!("{} can't be used: {error}", directory.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
    let file = File::create(directory.join("launcher.lock")).map_err(unusable)?;
    let place = File::open(directory).map_err(unusable)?;
    // By the descriptor, since the path may be longer than an address.
    let door = PathBuf::from(format!("/proc/self/fd/{}/{DOOR}", place.as_raw_fd()));
    let found = async {
        loop {
            if let Ok(socket) = system::connect_to(&door)
                && let Some(up) = take_over(socket, config).await?
            {
                return Ok(WayIn::Waiting(Box::new(up)));
            }
            if system::try_lock(&file).map_err(unusable)? {
                return Ok(WayIn::Free(file.into()));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    };
    let late = || LaunchError::InUse(directory.display().to_string());
    tokio::time::timeout(config.patience, found).await.map_err(|_| late())?
}

/// Takes over a launcher that waits; `None`: it does not let itself be taken over, and ends.
async fn take_over(socket: OwnedFd, config: &Config) -> Result<Option<Up>, LaunchError> {
    let failed = |error: io::Error| LaunchError::Helper(error.to_string());
    let Ok((pid, _)) = system::peer(socket.as_fd()) else { return Ok(None) };
    let Ok(pidfd) = system::pidfd_open(pid) else { return Ok(None) };
    if greet(&socket, config).is_err() {
        return Ok(None);
    }
    let (abilities, next, kept) = match greeting(&socket, config.patience).await {
        Greeting::Ready { abilities, next, kept } => (abilities, next, kept),
        Greeting::Unable(fault) => {
            tracing::warn!(%fault, "the sandboxes of an earlier Lyra can't be taken over, and are ended");
            let _gone = wire::encode(&Request::End).map(|end| wire::send(socket.as_fd(), &end, &[]));
            return Ok(None);
        }
        Greeting::Silent => return Ok(None),
    };
    let mut ends = Ends::new();
    let kept: Vec<_> = kept
        .into_iter()
        .map(|(kept, descriptors)| {
            let exit = kept.ended.map(|(status, out_of_memory)| exit_of(status, out_of_memory));
            let (sender, receiver) = watch::channel(exit);
            if exit.is_none() {
                ends.insert(kept.sandbox, sender);
            }
            (kept, descriptors, receiver)
        })
        .collect();
    let connection = Arc::new(Connection::new(socket, next, ends, config.patience).map_err(failed)?);
    let mut found = Vec::new();
    for (kept, descriptors, exit) in kept {
        let label = kept.label.clone();
        match adopted(kept, descriptors, exit, &connection) {
            Some(adopted) => found.push(adopted),
            None => tracing::warn!(label, "a sandbox of an earlier Lyra can't be taken over"),
        }
    }
    tracing::info!(pid, sandboxes = found.len(), "took over the sandboxes of an earlier Lyra");
    let process = Some(Keeper::Found { pid: u32::try_from(pid).unwrap_or(0), pidfd });
    Ok(Some(Up { helper: Helper { connection, process }, abilities, found }))
}

fn adopted(
    kept: Kept,
    descriptors: Vec<OwnedFd>,
    exit: watch::Receiver<Option<Exit>>,
    connection: &Arc<Connection>,
) -> Option<Adopted> {
    let mut descriptors = descriptors.into_iter();
    let hold = Hold { pidfd: descriptors.next()?, group: kept.group, left: AtomicBool::new(false) };
    let (stdout, stderr) = (descriptors.next()?, descriptors.next()?);
    let mut earlier = || {
        let mut bytes = Vec::new();
        File::from(descriptors.next()?).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    };
    let earlier = [earlier()?, earlier()?];
    let descriptors = [stdout, stderr].into_iter().chain(descriptors).collect();
    let (id, pid, connection) = (kept.sandbox, kept.pid, Arc::clone(connection));
    let process = Process::new(Parts { id, pid, hold, descriptors, exit, connection, lasting: true }).ok()?;
    Some(Adopted { process, label: kept.label, earlier, lost: kept.lost, exposed: kept.exposed })
}
