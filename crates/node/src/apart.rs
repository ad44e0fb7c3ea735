//! Some of the roles in this process, the others elsewhere: `lyra node`.
//!
//! | role | serves | needs |
//! |---|---|---|
//! | control | gRPC: registry of workers, functions, jobs, logs | stores |
//! | worker | gRPC: calls | control's addresses; its blobs, or control's |
//! | gateway | HTTP | control's addresses |
//! | scaler | nothing | control's addresses |
//! | workflow | gRPC: runs of workflows | control's addresses and stores |
//!
//! Roles that share a process speak with each other directly. The logs role runs with control, and so do workflows unless that
//! is left to processes of their own.

mod places;
mod quotas;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use lyra_fleet::{Connect, Fleet};
use lyra_gateway::{Ready, Status};
use lyra_kit::Tasks;
use lyra_store::{Access, DirLock, Shelf};
pub use lyra_wire::Role;
use lyra_wire::grpc::{
    self, RemoteAccounts, RemoteControl, RemoteLogs, RemoteQuotas, RemoteRegistry, RemoteWorker, Security,
};
use lyra_wire::{Accounts, Control, Logs, Operated, Quotas, Registry, Worker, Workflows};
use lyra_worker::{Agent, Identity};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub(crate) use self::places::open_blobs;
use self::places::{access, blobs_of_worker, check};
use crate::embedded::{Error, LAST_CALLS, ROUTES, listen};
use crate::joined::Joined;
use crate::resources::{InProcess, ThroughControl};
use crate::roles::{self, Kit};
use crate::security;
use crate::workflows;

/// The logs of this process, if they are kept here.
type OwnLogs = Option<Arc<lyra_logs::Service>>;

/// Longest wait for calls that a worker still has when it was told to end.
const DRAIN: Duration = Duration::from_secs(20);
/// Longest wait for background work to end.
const LAST: Duration = Duration::from_secs(2);
/// Longest wait for the first word of the registry. Without it a node starts all the same.
const REGISTRY: Duration = Duration::from_secs(3);

/// Settings of a node that runs some roles.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which.
    pub roles: BTreeSet<Role>,
    /// Settings of the roles, and where the gateway listens and data is kept.
    pub node: crate::Config,
    /// The node's name, which is its worker's.
    pub name: String,
    /// Where gRPC is served. Port 0: a free one. Loopback only, where there are no certificates.
    pub listen_grpc: SocketAddr,
    /// Where others reach this node, `HOST` or `HOST:PORT`; empty: where it listens.
    pub advertise: String,
    /// Where a node without a gateway serves health, readiness and metrics over HTTP, if it shall.
    pub status: Option<SocketAddr>,
    /// Addresses of the control processes, `HOST:PORT`; where control is one of the roles, those of the others.
    pub control: Vec<String>,
    /// `sqlite`, or where objects are kept.
    pub store: String,
    /// `sqlite`, or where jobs are kept.
    pub jobs: String,
    /// A directory, or where blobs are kept; empty: a directory in the data directory.
    pub blobs: String,
    /// Certificates of this node; without, roles speak plain text on one host.
    pub tls_dir: Option<PathBuf>,
    /// Keys and certificates for the stores.
    pub access: Access,
    /// How calls are spread over workers.
    pub fleet: lyra_fleet::Config,
    /// Isolation back ends that the worker offers; empty: all.
    pub isolation: Vec<String>,
    /// The scaler.
    pub scaler: lyra_scaler::Config,
}

/// Some roles in one process.
pub struct Node {
    serving: Vec<(Role, String)>,
    tasks: Tasks,
    grpc: Option<(TcpListener, grpc::RoutesBuilder)>,
    security: Security,
    control: Option<Arc<lyra_control::Service>>,
    workflow: Option<Arc<lyra_workflow::Service>>,
    /// Whom gateway and control ask for workflows.
    workflows: Option<Arc<dyn Workflows>>,
    logs: Option<Arc<lyra_logs::Service>>,
    worker: Option<(lyra_worker::Service, Agent)>,
    gateway: Option<(TcpListener, lyra_gateway::Service)>,
    scaler: Option<lyra_scaler::Service>,
    status: Option<(TcpListener, Status)>,
    status_url: Option<String>,
    /// Cancelled when callers of the worker shall begin no more calls.
    closing: CancellationToken,
    /// Keeps a second node out of the data directory for as long as this one runs, whatever its stores do.
    lock: Option<Arc<DirLock>>,
}

impl Node {
    /// Starts the roles. They answer once [`Node::run_until`] is polled.
    ///
    /// # Errors
    /// [`Error`], with nothing left running but what ends with this process.
    pub fn start(config: Config) -> BoxFuture<'static, Result<Node, Error>> {
        Box::pin(Node::begin(config))
    }

    async fn begin(config: Config) -> Result<Node, Error> {
        check(&config)?;
        let has = |role| config.roles.contains(&role);
        let (kit, tasks) = (Kit::system(), Tasks::new());
        let security = security::of(&config, &kit.clock)?;
        let access = if config.roles == BTreeSet::from([Role::Gateway]) { Access::default() } else { access(&config)? };
        let addresses = config.control.as_slice();

        let (mut routes, mut serving, closing) = (grpc::routes(), Vec::new(), CancellationToken::new());
        let grpc_listener = match has(Role::Control) || has(Role::Worker) || has(Role::Workflow) {
            true => Some(listen(config.listen_grpc).await?),
            false => None,
        };
        let grpc_address = grpc_listener.as_ref().map(|(_, address)| *address);
        let reached = security::reached(&config, grpc_address)?;

        let (logs, as_logs) = start_logs(&config, &security, &kit, &tasks)?;
        let (registry, as_registry) = registries(&config, &security, &kit, &tasks)?;

        let (mut worker, mut joined) = (None, None);
        if has(Role::Worker)
            && let Some(address) = grpc_address
        {
            let sessions = session_address(address, &reached).await;
            let service = start_worker(&config, sessions, &access, as_logs.clone(), &security, &kit).await?;
            let times = &config.node.worker;
            // For a place, for resources, for an instance to wake or to start.
            let longest_wait = times.queue_timeout + times.start_timeout * 2;
            grpc::add_worker(&mut routes, Arc::new(service.clone()), longest_wait, closing.clone());
            let counted = joined.insert(Joined::default());
            let identity = Identity { name: config.name.clone(), address: reached.clone() };
            let agent =
                start_agent(&config, identity, service.clone(), registry.as_ref(), counted, &security, &kit).await?;
            serving.push((Role::Worker, address.to_string()));
            worker = Some((service, agent));
        }

        // A worker alone has nothing to ask of other workers.
        let calls = has(Role::Control) || has(Role::Gateway) || has(Role::Workflow);
        let fleet = calls.then(|| start_fleet(&config, as_registry, &security, &kit, &tasks));
        let (mut control, mut workflow, mut workflows) = (None, None, None);
        if let (Some(registry), Some(fleet)) = (registry, &fleet) {
            let reached = reached.clone();
            let service = start_control(&config, &access, &registry, reached, fleet, as_logs.clone(), &kit).await?;
            add_control(&mut routes, &service, registry, as_logs.clone());
            serving.insert(0, (Role::Control, grpc_address.map(|address| address.to_string()).unwrap_or_default()));
            control = Some(service);
        }
        if let Some(fleet) = fleet.as_ref().filter(|_| workflows::run_here(&config)) {
            let of = control_of(control.as_ref(), addresses, &security)?;
            let of = (of, quotas_of(control.as_ref(), grpc_address, addresses, &security)?);
            let runs = Arc::new(workflows::start(&config, &access, of, fleet, &reached, &kit).await?);
            grpc::add_workflows(&mut routes, runs.clone());
            if has(Role::Workflow) {
                serving.push((Role::Workflow, grpc_address.map(|address| address.to_string()).unwrap_or_default()));
            }
            workflow = Some(runs);
        }
        if control.is_some() || workflow.is_some() || has(Role::Gateway) {
            let of = control_of(control.as_ref(), addresses, &security)?;
            let asked = workflows::asked(&config, workflow.as_ref(), of, grpc_address, &security, (&kit, &tasks))?;
            workflows::introduce(&config, &asked, control.as_ref(), workflow.as_ref(), &mut routes);
            workflows = Some(asked);
        }
        if let Some((worker, _)) = &worker {
            roles::worker::introduce(worker, control_of(control.as_ref(), addresses, &security)?);
        }
        let mut node = Node {
            serving,
            tasks,
            grpc: None,
            security,
            control,
            workflow,
            workflows,
            logs,
            worker,
            gateway: None,
            scaler: None,
            status: None,
            status_url: None,
            closing,
            lock: access.lock.clone(),
        };
        node.grpc = grpc_listener.map(|(listener, _)| (listener, routes));
        match fleet {
            Some(fleet) if has(Role::Gateway) => {
                let as_logs = match grpc_address.filter(|_| has(Role::Control) && !addresses.is_empty()) {
                    Some(own) => node.all_logs(own, addresses)?,
                    None => as_logs,
                };
                node.start_gateway(&config, fleet, as_logs, &kit).await?;
            }
            _ => node.start_status(&config, joined, &kit).await?,
        }
        if has(Role::Scaler) {
            node.start_scaler(&config, grpc_address, &kit).await?;
        }
        Ok(node)
    }

    /// The lines that every control process has; this one, at `own`, is asked like the others.
    fn all_logs(&self, own: SocketAddr, others: &[String]) -> Result<Arc<dyn Logs>, Error> {
        let all = [&[own.to_string()], others].concat();
        Ok(Arc::new(RemoteLogs::new(&all, &self.security, &self.tasks).map_err(Error::Refused)?))
    }

    /// Where gRPC is served.
    fn own_grpc(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Listens for those who ask how this process is, where that was asked for.
    async fn start_status(&mut self, config: &Config, joined: Option<Joined>, kit: &Kit) -> Result<(), Error> {
        let Some(address) = config.status else { return Ok(()) };
        let (gateway, metrics, clock) = (config.node.gateway.clone(), kit.metrics.clone(), kit.clock.clone());
        let status = Status::new(gateway, metrics, clock, ready(joined, self.control.clone()));
        status.check(address).map_err(Error::Refused)?;
        if let Some(resources) = self.control.as_ref().and_then(|control| control.resources()) {
            status.mount_resources(Arc::new(InProcess(resources)));
        }
        let (listener, address) = listen(address).await?;
        let url = format!("{}://{address}", config.node.gateway.scheme());
        (self.status, self.status_url) = (Some((listener, status)), Some(url));
        Ok(())
    }

    /// Where health, readiness and metrics are served, where that is not the gateway.
    pub fn status_url(&self) -> Option<&str> {
        self.status_url.as_deref()
    }

    async fn start_gateway(
        &mut self,
        config: &Config,
        fleet: Fleet,
        logs: Arc<dyn Logs>,
        kit: &Kit,
    ) -> Result<(), Error> {
        let (listener, address) = listen(config.node.listen).await?;
        let control = control_of(self.control.as_ref(), &config.control, &self.security)?;
        let accounts: Arc<dyn Accounts> = match &self.control {
            Some(control) => control.clone(),
            None => Arc::new(RemoteAccounts::new(&config.control, &self.security).map_err(Error::Refused)?),
        };
        let quotas = quotas_of(self.control.as_ref(), self.own_grpc(), &config.control, &self.security)?;
        let workers = Arc::new(fleet.clone());
        let as_worker: Arc<dyn Worker> = workers.clone();
        let resources = ThroughControl(Arc::clone(&control));
        let workflows = self.workflows.clone();
        let others = roles::gateway::Roles { control, accounts, quotas, worker: as_worker, workers, logs, workflows };
        let gateway = roles::gateway::new(config.node.gateway.clone(), others, kit);
        gateway.mount_resources(Arc::new(resources));
        gateway.check(address).map_err(Error::Refused)?;
        gateway.watch_routes();
        // Whoever it serves may wait for control; it says on `/readyz` that it is not ready.
        if !gateway.synced(ROUTES).await {
            tracing::warn!("control can't be reached yet: no function is known");
        }
        if !fleet.synced(REGISTRY).await {
            tracing::warn!("the registry can't be reached yet: no worker is known");
        }
        self.serving.push((Role::Gateway, format!("{}://{address}", config.node.gateway.scheme())));
        self.gateway = Some((listener, gateway));
        Ok(())
    }

    /// `grpc`: where control is reached, if it is one of the roles.
    async fn start_scaler(&mut self, config: &Config, grpc: Option<SocketAddr>, kit: &Kit) -> Result<(), Error> {
        let own = grpc.filter(|_| self.control.is_some()).map(|address| address.to_string());
        let parts = roles::scaler::Parts {
            control: control_of(self.control.as_ref(), &config.control, &self.security)?,
            controls: own.into_iter().chain(config.control.iter().cloned()).collect(),
            name: config.name.clone(),
            dir: config.node.data_dir.clone(),
            helper: config.node.helper.clone(),
        };
        let scaler = roles::scaler::start(config.scaler.clone(), parts, &self.security, kit).await?;
        self.serving.push((Role::Scaler, scaler.backend().to_owned()));
        self.scaler = Some(scaler);
        Ok(())
    }

    /// The roles, and where each is reached.
    pub fn serving(&self) -> &[(Role, String)] {
        &self.serving
    }

    /// Serves until `shutdown` is cancelled. Then the worker takes leave and lets its calls end, the gateway its
    /// requests, control gives back the jobs that did not end. Ends within 30 s.
    ///
    /// # Errors
    /// [`Error::Gateway`] when the gateway or gRPC fails by itself; the rest is stopped all the same.
    pub fn run_until(self, shutdown: CancellationToken) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let lock = self.lock;
            let Node {
                tasks, grpc, security, control, workflow, logs, worker, gateway, scaler, status, closing, ..
            } = self;
            tasks.spawn_cancellable("footprint", crate::footprint::keep_small());
            // Replies of calls that end meanwhile still have to go out, so gRPC is served to the end.
            let end = CancellationToken::new();
            if let Some((listener, routes)) = grpc {
                let (stop, failed) = (end.clone(), shutdown.clone());
                tasks.spawn("grpc", async move {
                    if let Err(error) = grpc::serve(listener, routes, &security, stop).await {
                        tracing::error!(%error, "gRPC is served no more");
                        failed.cancel();
                    }
                });
            }
            if let Some((listener, status)) = status {
                // To the end as well: a process that ends says so.
                let (stop, failed) = (end.clone(), shutdown.clone());
                tasks.spawn("status", async move {
                    if let Err(error) = status.serve(listener, stop).await {
                        tracing::error!(%error, "health and metrics are served no more");
                        failed.cancel();
                    }
                });
            }
            let serve = async {
                match gateway {
                    Some((listener, gateway)) => {
                        let outcome = gateway.serve(listener, shutdown.clone()).await;
                        shutdown.cancel();
                        outcome.map_err(Error::Gateway)
                    }
                    None => {
                        shutdown.cancelled().await;
                        Ok(())
                    }
                }
            };
            let stop_control = async {
                shutdown.cancelled().await;
                if let Some(workflow) = &workflow {
                    // Another process takes the runs up, or this one when it is back.
                    workflow.stop(LAST).await;
                }
                if let Some(control) = &control {
                    control.stop().await;
                }
            };
            let stop_scaler = async {
                shutdown.cancelled().await;
                if let Some(scaler) = &scaler {
                    scaler.stop().await;
                }
            };
            let stop_worker = async {
                shutdown.cancelled().await;
                if let Some((worker, agent)) = &worker {
                    agent.stop().await;
                    // A call that is on its way is refused, and goes to another worker.
                    let _ = worker.cordon().await;
                    closing.cancel();
                    if !worker.shut_down(if control.is_some() { DRAIN + LAST_CALLS } else { DRAIN }).await {
                        tracing::warn!("calls did not end in time and are broken off");
                    }
                }
            };
            let (served, (), (), ()) = tokio::join!(serve, stop_control, stop_worker, stop_scaler);
            end.cancel();
            tasks.stop(LAST).await;
            drop((control, workflow));
            if let Some(logs) = logs {
                logs.stop().await;
            }
            drop(lock);
            served
        })
    }
}

/// This node's own logs, where control is one of its roles, and those that it writes to and asks.
fn start_logs(
    config: &Config,
    security: &Security,
    kit: &Kit,
    tasks: &Tasks,
) -> Result<(OwnLogs, Arc<dyn Logs>), Error> {
    if config.roles.contains(&Role::Control) {
        let logs = Arc::new(roles::logs::start(config.node.logs.clone(), kit)?);
        return Ok((Some(Arc::clone(&logs)), logs));
    }
    Ok((None, Arc::new(RemoteLogs::new(&config.control, security, tasks).map_err(Error::Refused)?)))
}

/// What others ask of control.
fn add_control(
    routes: &mut grpc::RoutesBuilder,
    service: &Arc<lyra_control::Service>,
    registry: lyra_control::Registry,
    logs: Arc<dyn Logs>,
) {
    grpc::add_control(routes, service.clone());
    grpc::add_accounts(routes, service.clone());
    grpc::add_quotas(routes, service.clone());
    grpc::add_registry(routes, Arc::new(registry));
    grpc::add_logs(routes, logs);
}

/// This node's own registry of workers, where control is one of its roles, and the one that it follows.
fn registries(
    config: &Config,
    security: &Security,
    kit: &Kit,
    tasks: &Tasks,
) -> Result<(Option<lyra_control::Registry>, Arc<dyn Registry>), Error> {
    if config.roles.contains(&Role::Control) {
        let (settings, process) = (config.node.control.registry, kit.random.u64());
        let registry = lyra_control::Registry::new(settings, process, kit.clock.clone(), tasks);
        return Ok((Some(registry.clone()), Arc::new(registry)));
    }
    Ok((None, Arc::new(RemoteRegistry::new(&config.control, security).map_err(Error::Refused)?)))
}

/// This node's own control, else that at the addresses.
fn control_of(
    own: Option<&Arc<lyra_control::Service>>,
    addresses: &[String],
    security: &Security,
) -> Result<Arc<dyn Control>, Error> {
    Ok(match own {
        Some(control) => control.clone(),
        None => Arc::new(RemoteControl::new(addresses, security).map_err(Error::Refused)?),
    })
}

/// Who gives shares of quotas: of several control processes the one that leads. A node with control finds it by what they keep in their
/// store, unless it was told of others. `grpc`: where that of this node is reached, if it has one.
fn quotas_of(
    own: Option<&Arc<lyra_control::Service>>,
    grpc: Option<SocketAddr>,
    others: &[String],
    security: &Security,
) -> Result<Arc<dyn Quotas>, Error> {
    let here = match (own, grpc) {
        (Some(own), _) if others.is_empty() => {
            return Ok(Arc::new(quotas::OfLeader::new(own.clone(), security.clone())));
        }
        (Some(_), Some(grpc)) => vec![grpc.to_string()],
        _ => Vec::new(),
    };
    let all = [here.as_slice(), others].concat();
    Ok(Arc::new(RemoteQuotas::new(&all, security).map_err(Error::Refused)?))
}

/// Whether a node without a gateway does its work. Its control has read functions and jobs before anything is served; where
/// it is one of several, it is as ready as the others.
fn ready(joined: Option<Joined>, control: Option<Arc<lyra_control::Service>>) -> Box<Ready> {
    Box::new(move || match (&joined, &control) {
        (Some(joined), _) if joined.count() == 0 => Err("no control process has let the worker join".to_owned()),
        (_, Some(control)) => Ok(match control.epoch() {
            Some(epoch) => format!("ready, leads with epoch {epoch}"),
            None => "ready, stands by".to_owned(),
        }),
        _ => Ok("ready".to_owned()),
    })
}

/// Where sessions are reached on this machine: where the worker itself is.
async fn session_address(listens: SocketAddr, reached: &str) -> IpAddr {
    if !listens.ip().is_unspecified() {
        return listens.ip();
    }
    match tokio::net::lookup_host(reached).await.ok().and_then(|mut addresses| addresses.next()) {
        Some(address) => address.ip(),
        None => {
            tracing::warn!(reached, "this name has no address: sessions are reached on this machine only");
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        }
    }
}

async fn start_worker(
    config: &Config,
    sessions: IpAddr,
    access: &Access,
    logs: Arc<dyn Logs>,
    security: &Security,
    kit: &Kit,
) -> Result<lyra_worker::Service, Error> {
    let dir: &PathBuf = &config.node.data_dir;
    let places = roles::worker::Places {
        images: dir.join("images"),
        processes: dir.join("process"),
        helper: config.node.helper.clone(),
        path: config.node.path.clone(),
        process: config.node.process.clone(),
        isolation: config.isolation.clone(),
        usage: dir.join("usage"),
    };
    let blobs = blobs_of_worker(config, access, security).await?;
    let mut worker = config.node.worker.clone();
    worker.sessions.address.get_or_insert(sessions);
    roles::worker::start(worker, &places, blobs, logs, kit).await
}

/// Has the worker talk with the control process of this node, if it has one, and with those at the addresses in the settings.
async fn start_agent(
    config: &Config,
    identity: Identity,
    worker: lyra_worker::Service,
    own: Option<&lyra_control::Registry>,
    joined: &Joined,
    security: &Security,
    kit: &Kit,
) -> Result<Agent, Error> {
    let own = own.map(|registry| joined.listening(Arc::new(registry.clone())));
    let (security, joined) = (security.clone(), joined.clone());
    let reach = move |address: &str| {
        let registry = RemoteRegistry::new(&[address.to_owned()], &security)?;
        Ok(joined.listening(Arc::new(registry)))
    };
    // What is wrong with an address is said at once.
    for seed in &config.control {
        reach(seed).map_err(Error::Refused)?;
    }
    let (dir, seeds) = (&config.node.data_dir, config.control.clone());
    roles::worker::start_agent(identity, worker, dir, own, seeds, Box::new(reach), kit).await
}

async fn start_control(
    config: &Config,
    access: &Access,
    registry: &lyra_control::Registry,
    address: String,
    fleet: &Fleet,
    logs: Arc<dyn Logs>,
    kit: &Kit,
) -> Result<Arc<lyra_control::Service>, Error> {
    let deps = lyra_control::Deps {
        objects: lyra_store::open_objects(&config.store, access).await.map_err(Error::Store)?,
        jobs: lyra_store::open_jobs(&config.jobs, access).await.map_err(Error::Store)?,
        blobs: open_blobs(config, access, Shelf::Code).await?,
        worker: Arc::new(fleet.clone()),
        logs,
        clock: kit.clock.clone(),
        random: kit.random.clone(),
        metrics: kit.metrics.clone(),
        name: config.name.clone(),
        registry: registry.clone(),
        address,
    };
    let service = Arc::new(lyra_control::Service::new(config.node.control.clone(), deps));
    service.expect_workflows();
    service.start().await.map_err(Error::Control)?;
    Ok(service)
}

/// Follows the workers that `registry` knows.
fn start_fleet(config: &Config, registry: Arc<dyn Registry>, security: &Security, kit: &Kit, tasks: &Tasks) -> Fleet {
    let (connect, clock, random) = (connect(kit, security), kit.clock.clone(), kit.random.clone());
    let fleet = Fleet::new(config.fleet, registry, connect, clock, random, tasks);
    fleet.measure(&kit.metrics);
    fleet
}

/// How the fleet reaches workers.
fn connect(kit: &Kit, security: &Security) -> Box<Connect> {
    let (clock, security) = (kit.clock.clone(), security.clone());
    Box::new(move |name, address| {
        Ok(Arc::new(RemoteWorker::new(name, address, &security, clock.clone())?) as Arc<dyn Operated>)
    })
}
