//! Processes of the operating system as instances: the runtimes `python`, `nodejs`, `native` and `http`.
//!
//! [`launch`] makes sandboxes; the rest knows what runs in them. A deploy unpacks a package ([`package`]) and checks it
//! ([`check`]). An instance is called over frames by Lyra's own bootstraps ([`handler`], [`frames`]), over the AWS
//! Lambda Runtime API ([`native`], [`runtime_api`]), or over HTTP ([`server`]). For a session, a package's program is
//! started and not called ([`hosting`]).
//!
//! What always holds: a function's process sees its own package, the system's programs and libraries read-only, its own
//! `/tmp`, and nothing else; an instance serves one version; when an instance is dropped all its processes are killed.

mod cells;
mod check;
mod config;
mod driver;
pub mod egress;
mod frames;
mod handler;
mod hosting;
mod instance;
mod interpreter;
mod kept;
pub mod launch;
mod native;
mod output;
mod package;
mod plan;
mod runtime_api;
mod server;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use lyra_kit::Ids;
use lyra_types::api::{BackendStatus, RuntimeOffer, WaitingStatus};
use lyra_types::function::Contract;
use lyra_types::{Code as ErrorCode, Error, Runtime};
use tokio::sync::OnceCell;

use crate::session::places::Places;
use crate::session::ports::Cursor;
use crate::{Code, Hosted, ImageKey, Isolation, Template};
use cells::Cells;
use driver::Driver;
use handler::HandlerTemplate;
use interpreter::{Interpreter, Language};
use launch::{LaunchError, Launcher};
use native::NativeTemplate;
use package::{Entry, Package, Packages};
use server::ServerTemplate;

pub use config::{Config, Settings};
pub use driver::management_library;
pub use package::PackageError;

/// What the back end takes.
const RUNTIMES: [Runtime; 4] = [Runtime::Python, Runtime::Nodejs, Runtime::Native, Runtime::Http];

/// What runs Python functions.
const BOOTSTRAP_PY: &str = include_str!("bootstrap/bootstrap.py");

/// Why the back end can't be used on this machine.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The directory of packages can't be used.
    #[error(transparent)]
    Packages(#[from] PackageError),
    /// No instance could be started with these settings.
    #[error("the setting process.{0}")]
    Settings(String),
    /// What instances are started with can't be written.
    #[error("the bootstraps can't be written to {path}")]
    Support {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The launcher can't be started.
    #[error("the sandbox launcher can't be started")]
    Launch(#[source] LaunchError),
}

/// The process back end.
pub struct Processes {
    shared: Arc<Shared>,
}

/// What all templates of the back end share.
struct Shared {
    config: Config,
    launcher: Launcher,
    packages: Packages,
    /// Where the files of sessions are.
    places: Places,
    /// Looked for when they are first needed: asking one for its version takes as long as starting it.
    python: OnceCell<Result<Arc<Cells>, Error>>,
    node: OnceCell<Result<Arc<Cells>, Error>>,
    /// Where the bootstraps are.
    support: PathBuf,
    /// What instances with `network: egress` may reach.
    egress: Arc<egress::Policy>,
    /// Looked for when the first instance has a GPU.
    driver: OnceLock<Driver>,
    /// Where ports of the node are looked for.
    ports: Cursor,
    ids: Ids,
}

impl Shared {
    fn driver(&self) -> &Driver {
        self.driver.get_or_init(|| Driver::find(&self.config.settings.driver_root))
    }

    fn configured(&self, language: Language) -> Option<&Path> {
        let settings = &self.config.settings;
        match language {
            Language::Python => settings.python.as_deref(),
            Language::Node => settings.node.as_deref(),
        }
    }

    /// The interpreters that there are, for programs that are started by one.
    async fn interpreters(&self) -> Vec<Interpreter> {
        let (python, node) = tokio::join!(self.cells(Language::Python), self.cells(Language::Node));
        [python, node].into_iter().flatten().map(|cells| cells.interpreter().clone()).collect()
    }

    /// The stem cells of a language, or what to install.
    async fn cells(&self, language: Language) -> Result<&Arc<Cells>, Error> {
        let cell = match language {
            Language::Python => &self.python,
            Language::Node => &self.node,
        };
        let found = cell.get_or_init(|| async {
            let interpreter = interpreter::find(language, self.configured(language), &self.config.path).await?;
            tracing::info!(program = %interpreter.program.display(), version = interpreter.version, "interpreter found");
            Ok(Arc::new(Cells::new(&self.launcher, &self.config, interpreter, &self.support, &self.ids)))
        });
        found.await.as_ref().map_err(Clone::clone)
    }
}

impl Processes {
    /// Starts the launcher and looks for interpreters.
    ///
    /// # Errors
    /// [`ProcessError`] when this machine can't sandbox processes, or the directory can't be written.
    pub async fn start(mut config: Config, ids: Ids) -> Result<Processes, ProcessError> {
        config.settings.check().map_err(ProcessError::Settings)?;
        config.launch.orphan_grace = config.settings.orphan_grace;
        // What sandboxes are made of is named by whole paths.
        for dir in [&mut config.dir, &mut config.launch.directory] {
            *dir = std::path::absolute(&*dir).map_err(|source| ProcessError::Support { path: dir.clone(), source })?;
        }
        let packages = Packages::open(&config.dir.join("packages"))?;
        let support = config.dir.join("support");
        write_support(&support).map_err(|source| ProcessError::Support { path: support.clone(), source })?;
        let launcher = Launcher::start(config.launch.clone()).await.map_err(ProcessError::Launch)?;
        let (python, node, driver) = (OnceCell::new(), OnceCell::new(), OnceLock::new());
        let egress = Arc::new(config.settings.egress.clone());
        let (dir, left) = (config.dir.clone(), launcher.left());
        let swept = lyra_kit::tasks::blocking(move || {
            let places = Places::new(&dir);
            // Of no use to anybody, and a start does not fail for it.
            hosting::sweep(&places, &left);
            places
        });
        let places = swept.await.unwrap_or_else(|_| Places::new(&config.dir));
        let ports = Cursor::default();
        let shared = Shared { config, launcher, packages, places, python, node, support, egress, driver, ports, ids };
        Ok(Processes { shared: Arc::new(shared) })
    }

    /// The launcher, for what it can do on this machine.
    pub fn launcher(&self) -> &Launcher {
        &self.shared.launcher
    }

    /// What waits for functions.
    pub fn waiting(&self) -> Waiting {
        let all = [&self.shared.python, &self.shared.node].into_iter().filter_map(|cells| cells.get()?.as_ref().ok());
        let (cells, cells_memory) =
            all.map(|cells| cells.waiting()).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let (zygotes, zygotes_memory) = self.shared.launcher.zygotes();
        Waiting { cells, cells_memory, zygotes, zygotes_memory }
    }

    /// What runs a language here, as far as is known; what is not known yet is looked for.
    fn offer(&self, runtime: Runtime, language: Language) -> RuntimeOffer {
        let known = match language {
            Language::Python => self.shared.python.get(),
            Language::Node => self.shared.node.get(),
        };
        let found = match known {
            Some(Ok(cells)) => {
                let Interpreter { program, version, .. } = cells.interpreter();
                Ok(format!("{} {version}", program.display()))
            }
            Some(Err(error)) => Err(error.detail.clone()),
            None => {
                let shared = Arc::clone(&self.shared);
                lyra_kit::tasks::spawn("interpreter", async move { drop(shared.cells(language).await.map(drop)) });
                let configured = self.shared.configured(language);
                let found = interpreter::look(language, configured, &self.shared.config.path);
                found.map(|program| program.display().to_string())
            }
        };
        crate::offer(runtime, found)
    }

    async fn template(&self, key: &ImageKey, package: Package) -> Result<Arc<dyn Template>, Error> {
        let shared = Arc::clone(&self.shared);
        match (package.entry.clone(), Language::of(key.runtime)) {
            (Entry::Handler { file, function }, Some(language)) => {
                let cells = Arc::clone(self.shared.cells(language).await?);
                cells.want();
                Ok(Arc::new(HandlerTemplate { shared, cells, package, file, function }))
            }
            (Entry::Bootstrap, _) => Ok(Arc::new(NativeTemplate { shared, package })),
            (Entry::Server { program }, _) => Ok(Arc::new(ServerTemplate { shared, package, program })),
            (Entry::Handler { .. }, None) => {
                Err(Error::internal(format!("a package of {} has a handler", key.runtime)))
            }
        }
    }
}

/// What is kept started ahead of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Sandboxed interpreters that become instances.
    pub cells: usize,
    /// Bytes of memory that those hold.
    pub cells_memory: u64,
    /// Interpreters that are forked.
    pub zygotes: usize,
    /// Bytes of memory that those hold; their forks share most of it with them.
    pub zygotes_memory: u64,
}

/// Writes what instances are started with, in one step, so that instances of another process are not disturbed.
fn write_support(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let mut dirs = std::fs::DirBuilder::new();
    dirs.recursive(true).mode(0o755).create(dir)?;
    let files: [(&str, &str); 5] = [
        ("bootstrap.py", BOOTSTRAP_PY),
        ("bootstrap.mjs", include_str!("bootstrap/bootstrap.mjs")),
        ("rehearsal.cjs", include_str!("bootstrap/rehearsal.cjs")),
        ("check.py", include_str!("bootstrap/check.py")),
        ("check.mjs", include_str!("bootstrap/check.mjs")),
    ];
    for (name, text) in files {
        let new = dir.join(format!("{name}.new"));
        std::fs::write(&new, text)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644))?;
        std::fs::rename(new, dir.join(name))?;
    }
    Ok(())
}

#[async_trait]
impl Isolation for Processes {
    fn name(&self) -> &'static str {
        "process"
    }

    fn runtimes(&self) -> &'static [Runtime] {
        &RUNTIMES
    }

    fn status(&self) -> BackendStatus {
        let offer = |runtime: &Runtime| match Language::of(*runtime) {
            Some(language) => self.offer(*runtime, language),
            None => crate::offer(*runtime, Ok(String::new())),
        };
        let Waiting { cells, cells_memory, zygotes, zygotes_memory } = self.waiting();
        let waiting = |kind: &str, count, memory| WaitingStatus { kind: kind.to_owned(), count, memory };
        BackendStatus {
            name: self.name().to_owned(),
            runtimes: RUNTIMES.to_vec(),
            unavailable: None,
            offers: RUNTIMES.iter().map(offer).collect(),
            abilities: self.shared.launcher.abilities().described(),
            waiting: vec![waiting("cells", cells, cells_memory), waiting("zygotes", zygotes, zygotes_memory)],
            reserved: self.shared.config.settings.reserved_memory(),
        }
    }

    async fn prepare(&self, code: &Code) -> Result<Contract, Error> {
        let contract = match code.key.runtime {
            Runtime::Http => Contract::Http,
            _ => Contract::Handler,
        };
        if let Some(language) = Language::of(code.key.runtime) {
            self.shared.cells(language).await?.want();
        }
        let find = |shared: &Shared, key: &ImageKey| shared.packages.find(key).ok().flatten();
        let unpack = {
            let (shared, code) = (Arc::clone(&self.shared), code.clone());
            move || match find(&shared, &code.key) {
                Some(_) => Ok(None),
                None => shared.packages.unpack(&code.key, &code.bytes).map(Some),
            }
        };
        let Some(unpacked) = lyra_kit::tasks::blocking(unpack).await.map_err(|_| broken_off())?? else {
            return Ok(contract);
        };
        let entry = check::entry(&self.shared, &code.key, &unpacked).await?;
        lyra_kit::tasks::blocking(move || unpacked.keep(&entry)).await.map_err(|_| broken_off())??;
        Ok(contract)
    }

    async fn load(&self, key: &ImageKey) -> Result<Option<Arc<dyn Template>>, Error> {
        let (shared, wanted) = (Arc::clone(&self.shared), key.clone());
        let found = lyra_kit::tasks::blocking(move || shared.packages.find(&wanted)).await.map_err(|_| broken_off())?;
        let found = found.map_err(|error| {
            tracing::error!(%error, "a package can't be read");
            Error::internal("the package can't be read on this worker")
        })?;
        match found {
            Some(package) => self.template(key, package).await.map(Some),
            None => Ok(None),
        }
    }

    async fn adopt(&self) -> Vec<Box<dyn Hosted>> {
        hosting::adopt(&self.shared)
    }
}

/// The back end of a machine that can't sandbox processes: refuses each deploy, and says why.
#[derive(Debug)]
pub struct Unavailable {
    reason: String,
}

impl Unavailable {
    /// For a reason.
    pub fn because(reason: impl Into<String>) -> Unavailable {
        Unavailable { reason: reason.into() }
    }

    /// For the reason that the back end could not be started.
    pub fn new(error: &ProcessError) -> Unavailable {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        Unavailable { reason }
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    fn error(&self, runtime: Runtime) -> Error {
        let reason = &self.reason;
        Error::field(ErrorCode::InvalidField, "runtime", format!("this worker can't run {runtime} functions: {reason}"))
    }
}

#[async_trait]
impl Isolation for Unavailable {
    fn name(&self) -> &'static str {
        "process"
    }

    fn runtimes(&self) -> &'static [Runtime] {
        &RUNTIMES
    }

    fn status(&self) -> BackendStatus {
        BackendStatus {
            name: self.name().to_owned(),
            runtimes: RUNTIMES.to_vec(),
            unavailable: Some(self.reason.clone()),
            offers: RUNTIMES.iter().map(|runtime| crate::offer(*runtime, Err(self.reason.clone()))).collect(),
            ..BackendStatus::default()
        }
    }

    async fn prepare(&self, code: &Code) -> Result<Contract, Error> {
        Err(self.error(code.key.runtime))
    }

    async fn load(&self, key: &ImageKey) -> Result<Option<Arc<dyn Template>>, Error> {
        Err(self.error(key.runtime))
    }
}

fn broken_off() -> Error {
    Error::internal("the work on a package was broken off")
}
