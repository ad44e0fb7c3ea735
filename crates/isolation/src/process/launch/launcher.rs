//! Starting the launcher's process, and asking it for sandboxes.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::process::{Child, Command};

use super::abilities::{Abilities, FIRST_USER};
use super::connection::{Answer, Connection, first_reply};
use super::error::LaunchError;
use super::plan::Plan;
use super::process::{Parts, Process};
use super::wire::{self, Reply, Request};
use super::{members, system};

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
    /// How long an answer may take.
    pub patience: Duration,
}

impl Config {
    /// The usual settings: this very program started with the one argument `sandbox-launcher`.
    pub fn new(directory: impl Into<PathBuf>) -> Config {
        Config {
            helper: vec!["/proc/self/exe".into(), "sandbox-launcher".into()],
            directory: directory.into(),
            cgroups: true,
            patience: Duration::from_secs(10),
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
    /// Held while the launcher's process is started again.
    starting: tokio::sync::Mutex<()>,
}

struct Helper {
    connection: Arc<Connection>,
    process: Option<Child>,
}

impl Launcher {
    /// Starts the launcher's process, tries out a sandbox, and removes what an earlier run has left.
    ///
    /// # Errors
    /// [`LaunchError::Unsupported`] where this machine lacks what sandboxes need, [`LaunchError::InUse`] when another Lyra
    /// works with the directory, [`LaunchError::Helper`] when the process can't be started.
    pub async fn start(config: Config) -> Result<Launcher, LaunchError> {
        let (helper, abilities) = start_helper(&config).await?;
        let current = Mutex::new(helper);
        let inner = Inner { config, abilities, current, starting: tokio::sync::Mutex::new(()) };
        Ok(Launcher { inner: Arc::new(inner) })
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
        let id = connection.number();
        let exit = connection.end_of(id);
        match connection.ask(id, &Request::Spawn { id, plan: Box::new(plan) }).await {
            Ok(Answer::Spawned { pid, hold, descriptors }) => {
                Process::new(Parts { id, pid, hold, descriptors, exit, connection })
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
        let launcher = self.inner.current.lock().process.as_ref().and_then(Child::id);
        let Some(launcher) = launcher.and_then(|pid| i32::try_from(pid).ok()) else { return (0, 0) };
        // Its other children are the first processes of sandboxes, which bear names of ours.
        let is_zygote = |pid: &i32| members::name(*pid).is_some_and(|name| !name.starts_with("lyra-"));
        let zygotes: Vec<i32> = members::children(launcher).into_iter().filter(is_zygote).collect();
        (zygotes.len(), members::usage(&zygotes).memory)
    }

    /// Ends all sandboxes and the launcher's process, and waits until it has cleared up; false: not within `limit`.
    pub async fn stop(&self, limit: Duration) -> bool {
        let process = {
            let mut current = self.inner.current.lock();
            current.connection.leave();
            current.process.take()
        };
        match process {
            Some(mut process) => matches!(tokio::time::timeout(limit, process.wait()).await, Ok(Ok(_))),
            None => true,
        }
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
        let (helper, _) = start_helper(&self.inner.config).await?;
        let connection = Arc::clone(&helper.connection);
        *self.inner.current.lock() = helper;
        Ok(connection)
    }
}

async fn start_helper(config: &Config) -> Result<(Helper, Abilities), LaunchError> {
    let failed = |error: io::Error| LaunchError::Helper(error.to_string());
    let (program, arguments) =
        config.helper.split_first().ok_or_else(|| LaunchError::Helper("no program is named".to_owned()))?;
    let lock = lock(&config.directory, config.patience).await?;
    let (socket, its) = system::socket_pair().map_err(failed)?;
    let mut command = Command::new(program);
    // Its environment is seen by nobody, but need not hold Lyra's secrets either. The lock is held by both, so that the
    // next Lyra waits until this one's launcher has cleared up.
    command.args(arguments).env_clear().stdin(Stdio::from(its)).stdout(Stdio::from(lock));
    let process = command.spawn().map_err(failed)?;
    drop(command);
    greet(&socket, config).map_err(failed)?;
    match first_reply(&socket, config.patience).await {
        Some(Reply::Ready(abilities)) => {
            let connection = Arc::new(Connection::new(socket, config.patience).map_err(failed)?);
            Ok((Helper { connection, process: Some(process) }, abilities))
        }
        Some(Reply::Unable(fault)) => Err(LaunchError::Unsupported(fault.to_string())),
        _ => Err(LaunchError::Helper(format!("{} is not a launcher, or has ended", program.display()))),
    }
}

fn greet(socket: &OwnedFd, config: &Config) -> io::Result<()> {
    let directory = config.directory.canonicalize()?;
    let digest = Sha256::digest(directory.as_os_str().as_bytes());
    let name = hex::encode(&digest[..6]);
    let hello = Request::Hello { name, cgroups: config.cgroups, first_user: FIRST_USER };
    wire::send(socket.as_fd(), &wire::encode(&hello).unwrap_or_default(), &[])
}

/// Locks the directory. The launcher of a Lyra that was killed keeps it for a moment, until it has cleared up.
async fn lock(directory: &Path, patience: Duration) -> Result<OwnedFd, LaunchError> {
    let unusable = |error: io::Error| LaunchError::Helper(format!("{} can't be used: {error}", directory.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
    let file = File::create(directory.join("launcher.lock")).map_err(unusable)?;
    let taken = async {
        while !system::try_lock(&file)? {
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Ok(())
    };
    match tokio::time::timeout(patience, taken).await {
        Ok(Ok(())) => Ok(file.into()),
        Ok(Err(error)) => Err(unusable(error)),
        Err(_) => Err(LaunchError::InUse(directory.display().to_string())),
    }
}
