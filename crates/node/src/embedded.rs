//! All roles in one process over in-process clients, with the embedded store, jobs and blobs.
//!
//! What a data directory holds: `lock` (one process at a time), `secrets.key` (what seals secrets), `objects.db` (functions),
//! `jobs.db`, `runs.db`, `blobs/` (code, and in `values/` what workflows keep), `logs/`, `images/` (compiled code) and `process/`
//! (unpacked code), both made again when they are missing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use lyra_control::{Registry, RegistryConfig, SecretsConfig};
use lyra_isolation::process;
use lyra_isolation::wasm::EngineError;
use lyra_kit::Tasks;
pub use lyra_store::StoreError;
use lyra_store::{Blobs, DirLock, DirectoryBlobs, Shelf};
use lyra_types::Error as LyraError;
use lyra_wire::hooks::ThroughControl;
use lyra_wire::workers::{LOCAL, Sole};
use lyra_wire::{Accounts, Control, Logs, Operated, Worker};
use lyra_worker::{Agent, Identity};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::resources::InProcess;
use crate::roles::{self, Kit, control::Stores};
use crate::workflows::asks_who;

/// Longest wait for calls that still run when the gateway and the jobs have drained.
/// Longest wait for background work to end.
const LAST: Duration = Duration::from_secs(2);
pub(crate) const LAST_CALLS: Duration = Duration::from_secs(5);

/// Longest wait for the route table before the node says that it is ready.
pub(crate) const ROUTES: Duration = Duration::from_secs(10);

/// Settings of a node that runs all roles.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept. Made when it is missing.
    pub data_dir: PathBuf,
    /// A program that calls [`crate::child::run`] first, for work that is done in child processes (usually this
    /// program itself, `/proc/self/exe`); `None`: it is done in this process where it can be.
    pub helper: Option<PathBuf>,
    /// Where the gateway listens. Port 0: a free one.
    pub listen: SocketAddr,
    /// The gateway.
    pub gateway: lyra_gateway::Config,
    /// The control role.
    pub control: lyra_control::Config,
    /// The worker.
    pub worker: lyra_worker::Config,
    /// How functions run as processes.
    pub process: process::Settings,
    /// Where interpreters are looked for, in the form of `$PATH`, when the system has none in its usual place.
    pub path: String,
    /// The workflow role.
    pub workflow: lyra_workflow::Config,
    /// The logs role; its folder is always `logs` in the data directory.
    pub logs: lyra_logs::Config,
}

impl Config {
    /// The defaults, for a data directory and an address.
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> Config {
        let data_dir = data_dir.into();
        // Both drain at the same time, and the whole must end within 30 s.
        let mut worker = lyra_worker::Config::default();
        worker.characteristics.file = Some(data_dir.join("worker").join("characteristics"));
        let gateway = lyra_gateway::Config { drain: Duration::from_secs(20), ..lyra_gateway::Config::default() };
        Config {
            helper: None,
            gateway,
            listen,
            control: lyra_control::Config::default(),
            worker,
            process: process::Settings::default(),
            path: String::new(),
            workflow: lyra_workflow::Config::default(),
            logs: lyra_logs::Config::new(data_dir.join("logs")),
            data_dir,
        }
    }
}

/// Why a node could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory is in use, or its files can't be read or written.
    #[error("the store can't be opened: {0}")]
    Store(#[source] StoreError),
    /// The log files can't be opened.
    #[error("the logs can't be opened: {0}")]
    Logs(#[source] lyra_types::Error),
    /// The Wasm engine doesn't run on this machine.
    #[error("the Wasm engine can't be started: {0}")]
    Engine(#[source] EngineError),
    /// What the worker remembers of itself can't be read.
    #[error("the worker can't be started: {0}")]
    Node(String),
    /// What is stored can't be read.
    #[error("the control role can't be started: {0}")]
    Control(#[source] lyra_types::Error),
    /// The runs of workflows can't be taken up.
    #[error("the workflow role can't be started: {0}")]
    Workflow(#[source] lyra_types::Error),
    /// The address is not one that may be listened on.
    #[error("{0}")]
    Refused(#[source] lyra_types::Error),
    /// The address is taken, or not one of this machine.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The route table did not become complete.
    #[error("the route table was not complete within {} s", ROUTES.as_secs())]
    Routes,
    /// The gateway ended by itself.
    #[error("the gateway failed: {0}")]
    Gateway(#[source] lyra_types::Error),
}

/// All roles in one process.
pub struct Node {
    address: SocketAddr,
    scheme: &'static str,
    listener: TcpListener,
    gateway: lyra_gateway::Service,
    control: Arc<lyra_control::Service>,
    workflow: lyra_workflow::Service,
    rest: Rest,
}

/// What gateway and control need.
struct Rest {
    worker: lyra_worker::Service,
    agent: Agent,
    logs: Arc<lyra_logs::Service>,
    stores: Stores,
    runs: Arc<lyra_store::SqliteRuns>,
    tasks: Tasks,
}

/// Secrets are sealed by a key that is made where nobody names one.
fn with_key_file(mut control: lyra_control::Config, dir: &Path) -> lyra_control::Config {
    if control.secrets.key_file.is_none() {
        control.secrets = SecretsConfig { key_file: Some(dir.join("secrets.key")), make_key: true };
    }
    control
}

impl Node {
    /// Starts every role. The node answers requests once [`Node::run_until`] is polled.
    ///
    /// # Errors
    /// [`Error`], with nothing left running.
    pub fn start(config: Config) -> BoxFuture<'static, Result<Node, Error>> {
        Box::pin(Node::begin(config))
    }

    async fn begin(config: Config) -> Result<Node, Error> {
        let (kit, dir) = (Kit::system(), &config.data_dir);
        let (default_quota, config_of_control) = (config.control.quota.clone(), with_key_file(config.control, dir));
        let lock = Arc::new(DirLock::acquire(dir).map_err(Error::Store)?);
        let (listener, address) = listen(config.listen).await?;
        let logs = Arc::new(roles::logs::start(config.logs.clone(), &kit)?);
        let as_logs: Arc<dyn Logs> = logs.clone();
        let blobs: Arc<dyn Blobs> = Arc::new(DirectoryBlobs::open(&dir.join("blobs")).map_err(Error::Store)?);
        let places = roles::worker::Places {
            images: dir.join("images"),
            processes: dir.join("process"),
            helper: config.helper.clone(),
            path: config.path.clone(),
            isolation: Vec::new(),
            process: config.process.clone(),
            usage: dir.join("usage"),
        };
        let worker = roles::worker::start(config.worker, &places, blobs.clone(), as_logs.clone(), &kit).await?;
        let operated: Arc<dyn Operated> = Arc::new(worker.clone());
        let as_worker: Arc<dyn Worker> = operated.clone();
        let workers = Arc::new(Sole(operated));
        let stores = Stores::open(dir, &lock)?;
        let (runs, tasks) = (roles::workflow::open(dir, &lock)?, Tasks::new());
        let values = DirectoryBlobs::open_shelf(&dir.join("blobs"), Shelf::Values).map_err(Error::Store)?;
        // The one worker is here from the start: there is nobody to wait for.
        let settings = RegistryConfig { settle: Duration::ZERO, ..config_of_control.registry };
        let registry = Registry::new(settings, kit.random.u64(), kit.clock.clone(), &tasks);
        let own: Arc<dyn lyra_wire::Registry> = Arc::new(registry.clone());
        let identity = Identity { name: LOCAL.to_owned(), address: String::new() };
        let nowhere = |_: &str| Err(LyraError::internal("this platform is one process"));
        // Before control, which so knows the worker when it places for the first time.
        let agent =
            roles::worker::start_agent(identity, worker.clone(), dir, Some(own), vec![], Box::new(nowhere), &kit)
                .await?;
        let control = roles::control::start(
            config_of_control,
            &stores,
            blobs,
            as_worker.clone(),
            as_logs.clone(),
            registry,
            &kit,
        );
        let control = match control.await {
            Ok(control) => Arc::new(control),
            Err(error) => {
                agent.stop().await;
                return Err(error);
            }
        };
        let as_control: Arc<dyn Control> = control.clone();
        let parts = roles::workflow::Parts {
            objects: stores.objects(),
            runs: runs.clone(),
            blobs: Arc::new(values),
            control: as_control.clone(),
            quotas: control.clone(),
            default_quota,
            ends: Arc::new(ThroughControl(control.clone())),
            worker: as_worker.clone(),
            public_only: asks_who(&config.gateway),
            alone: true,
            identity: roles::workflow::local(),
        };
        let workflow = match roles::workflow::start(config.workflow, parts, &kit).await {
            Ok(workflow) => workflow,
            Err(error) => {
                control.stop().await;
                agent.stop().await;
                return Err(error);
            }
        };
        control.set_workflows(Arc::new(workflow.clone()));
        roles::worker::introduce(&worker, as_control.clone());
        let accounts: Arc<dyn Accounts> = control.clone();
        let others = roles::gateway::Roles {
            control: as_control,
            accounts,
            quotas: control.clone(),
            worker: as_worker,
            workers,
            logs: as_logs,
            workflows: Some(Arc::new(workflow.clone())),
        };
        let (scheme, gateway) = (config.gateway.scheme(), roles::gateway::new(config.gateway, others, &kit));
        if let Some(resources) = control.resources() {
            gateway.mount_resources(Arc::new(InProcess(resources)));
        }
        let rest = Rest { worker, agent, logs, stores, runs, tasks };
        let node = Node { address, scheme, listener, gateway, control, workflow, rest };
        match node.get_ready().await {
            Ok(()) => Ok(node),
            Err(error) => {
                node.workflow.stop(LAST).await;
                node.control.stop().await;
                node.rest.stop().await;
                Err(error)
            }
        }
    }

    async fn get_ready(&self) -> Result<(), Error> {
        self.gateway.check(self.address).map_err(Error::Refused)?;
        self.gateway.watch_routes();
        if self.gateway.synced(ROUTES).await { Ok(()) } else { Err(Error::Routes) }
    }

    /// Where the gateway listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Serves until `shutdown` is cancelled, then drains: takes no more requests, lets calls and jobs end within their
    /// limits, gives jobs back that did not, and closes every file. Ends within 30 s.
    ///
    /// # Errors
    /// [`Error::Gateway`] when the gateway fails by itself; the rest is stopped all the same.
    pub fn run_until(self, shutdown: CancellationToken) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let Node { listener, gateway, control, workflow, rest, .. } = self;
            rest.tasks.spawn_cancellable("footprint", crate::footprint::keep_small());
            let stop_control = async {
                shutdown.cancelled().await;
                // Runs end their calls first, which would else fail because of what stops below them.
                workflow.stop(LAST).await;
                control.stop().await;
            };
            let serve = async {
                let outcome = gateway.serve(listener, shutdown.clone()).await;
                shutdown.cancel();
                outcome
            };
            let (served, ()) = tokio::join!(serve, stop_control);
            rest.stop().await;
            served.map_err(Error::Gateway)
        })
    }
}

impl Rest {
    /// Ends what calls and jobs were running on, once nobody asks for more.
    async fn stop(&self) {
        self.agent.stop().await;
        if !self.worker.shut_down(LAST_CALLS).await {
            tracing::warn!("calls did not end in time and are broken off");
        }
        self.tasks.stop(LAST).await;
        self.runs.close().await;
        self.stores.close().await;
        self.logs.stop().await;
    }
}

pub(crate) async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
