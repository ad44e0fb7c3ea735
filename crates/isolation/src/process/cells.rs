//! Stem cells: interpreters that are started, in their sandboxes, before it is known which function they will run.
//!
//! A cold function takes one, which gets the function's code, limits and environment, and is replaced in the background.
//! What must hold: a cell becomes one instance of one version, once; nothing of a function reaches a cell before its
//! assignment; there are none before the first function of their language was asked for, and never more than configured; an ordinary
//! user has none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lyra_kit::Ids;
use lyra_types::Error;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Config;
use super::frames::Frames;
use super::instance::{Instance, never_ready};
use super::interpreter::{Interpreter, Language};
use super::launch::{Launcher, Plan, Privilege, Program};
use super::plan::{API_PORT, Ground, SUPPORT, base_env};

/// Quiet time before a cell that was taken is replaced: its taker needs the processor more.
const PAUSE: Duration = Duration::from_millis(20);

/// Wait after a cell could not be started.
const RETRY: Duration = Duration::from_secs(5);

/// A started interpreter that waits for its assignment.
pub(super) struct Cell {
    pub(super) instance: Instance,
    pub(super) frames: Frames,
}

/// The cells of one language.
pub(super) struct Cells {
    shared: Arc<Shared>,
    filler: tokio::task::JoinHandle<()>,
}

struct Shared {
    launcher: Launcher,
    config: Config,
    interpreter: Interpreter,
    support: std::path::PathBuf,
    ids: Ids,
    /// How many wait.
    most: usize,
    ready: Mutex<VecDeque<Cell>>,
    /// A function of the language was asked for.
    wanted: AtomicBool,
    taken: Notify,
}

impl Cells {
    pub(super) fn new(
        launcher: &Launcher,
        config: &Config,
        interpreter: Interpreter,
        support: &std::path::Path,
        ids: &Ids,
    ) -> Cells {
        let shared = Arc::new(Shared {
            launcher: launcher.clone(),
            config: config.clone(),
            interpreter,
            support: support.to_owned(),
            ids: ids.clone(),
            // An ordinary user can't mount anything into a sandbox that runs, so cells could not be given their code.
            most: if launcher.abilities().privilege == Privilege::Root { config.settings.cells } else { 0 },
            ready: Mutex::default(),
            wanted: AtomicBool::new(false),
            taken: Notify::new(),
        });
        let filler = lyra_kit::tasks::spawn("stem-cells", fill(Arc::clone(&shared)));
        Cells { shared, filler }
    }

    /// The interpreter.
    pub(super) fn interpreter(&self) -> &Interpreter {
        &self.shared.interpreter
    }

    /// Says that a function of this language is about to be called.
    pub(super) fn want(&self) {
        if !self.shared.wanted.swap(true, Ordering::Relaxed) {
            self.shared.taken.notify_one();
        }
    }

    /// A cell that waits, if there is one.
    pub(super) fn take(&self) -> Option<Cell> {
        self.want();
        let cell = loop {
            match self.shared.ready.lock().pop_front() {
                Some(cell) if cell.instance.is_alive() && cell.frames.is_quiet() => break Some(cell),
                Some(_) => {}
                None => break None,
            }
        };
        self.shared.taken.notify_one();
        cell
    }

    /// Cells that wait, and the bytes that they hold.
    pub(super) fn waiting(&self) -> (usize, u64) {
        let ready = self.shared.ready.lock();
        (ready.len(), ready.iter().map(|cell| cell.instance.usage().memory).sum())
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        self.filler.abort();
    }
}

async fn fill(shared: Arc<Shared>) {
    loop {
        shared.taken.notified().await;
        if shared.interpreter.language == Language::Python
            && let Err(error) = shared.launcher.warm(&shared.interpreter.program, &preload()).await
        {
            tracing::warn!(%error, "no Python interpreter can be kept for forks");
        }
        // Whoever takes cells one after the other is not held up by their replacement.
        while tokio::time::timeout(PAUSE, shared.taken.notified()).await.is_ok() {}
        while shared.ready.lock().len() < shared.most {
            let ground =
                Ground { config: &shared.config, support: &shared.support, interpreters: vec![&shared.interpreter] };
            let program = program(&shared.interpreter, true);
            let plan = ground.plan(shared.ids.instance(), None, program, base_env());
            match spawn(&shared, plan).await {
                Ok(cell) => shared.ready.lock().push_back(cell),
                Err(error) => {
                    tracing::warn!(%error, "a stem cell could not be started");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// Modules of Python that functions commonly import, and those that the bootstrap does.
const PRELOAD: [&str; 20] = [
    "asyncio",
    "base64",
    "collections",
    "dataclasses",
    "datetime",
    "decimal",
    "functools",
    "hashlib",
    "importlib",
    "inspect",
    "itertools",
    "json",
    "logging",
    "os",
    "random",
    "re",
    "socket",
    "traceback",
    "typing",
    "uuid",
];

/// What runs in a cell. `forked`: a Python interpreter may be a fork of one that is up already.
pub(super) fn program(interpreter: &Interpreter, forked: bool) -> Program {
    let path = interpreter.program.display().to_string();
    let address = format!("127.0.0.1:{API_PORT}");
    match interpreter.language {
        Language::Python if forked => Program::Python {
            interpreter: interpreter.program.clone(),
            preload: preload(),
            script: super::BOOTSTRAP_PY.to_owned(),
            arguments: vec![address],
        },
        Language::Python => vec![path, "-BSs".to_owned(), format!("{SUPPORT}/bootstrap.py"), address].into(),
        Language::Node => vec![path, "--no-warnings".to_owned(), format!("{SUPPORT}/bootstrap.mjs"), address].into(),
    }
}

fn preload() -> Vec<String> {
    PRELOAD.map(str::to_owned).to_vec()
}

/// Starts a cell.
async fn spawn(shared: &Shared, plan: Plan) -> Result<Cell, Error> {
    let plan = Plan { listen: vec![API_PORT], ..plan };
    let memory_mb = u32::try_from(plan.limits.memory_bytes >> 20).unwrap_or(u32::MAX);
    let spawned = Instance::spawn(&shared.launcher, plan).await?;
    connect(spawned, memory_mb, shared.config.settings.init_timeout).await
}

/// Waits until the bootstrap of a started interpreter has connected.
pub(super) async fn connect(
    (instance, listeners): (Instance, Vec<std::net::TcpListener>),
    memory_mb: u32,
    limit: Duration,
) -> Result<Cell, Error> {
    let listener = super::instance::listener(listeners.into_iter().next())?;
    let broken = |error: std::io::Error| Error::internal(format!("an instance's socket can't be used: {error}"));
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(limit, listener.accept()) => accepted,
        exit = instance.process().wait() => {
            instance.output().drain();
            let mut error = super::instance::of_exit(exit, memory_mb);
            if let Some(line) = instance.output().last_early_line() {
                error.detail = format!("{}; it said: {line}", error.detail);
            }
            return Err(error);
        }
    };
    let (stream, _) = accepted.map_err(|_| never_ready(limit, "its interpreter did not start"))?.map_err(broken)?;
    Ok(Cell { instance, frames: Frames::new(stream).map_err(broken)? })
}
