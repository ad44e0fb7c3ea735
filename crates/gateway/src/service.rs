//! The gateway service: what its parts share, and its life from start to drain.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use futures::future::BoxFuture;
use http::Request;
use hyper::body::Incoming;
use lyra_fleet::RouteTable;
use lyra_fleet::quota::Meters;
use lyra_kit::telemetry;
use lyra_kit::{Clock, Ids, Random, Tasks};
use lyra_types::{Error, Result};
use lyra_wire::{Accounts, Control, Logs, Quotas, Worker, Workers, Workflows};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::access::audit::AuditLog;
use crate::access::grants::Grants;
use crate::access::oidc::Oidc;
use crate::auth::{Guard, Keyring};
use crate::body::BodyMemory;
use crate::classic::Classic;
use crate::config::Config;
use crate::dispatch;
use crate::ingress::{Ingress, SESSION_PATH};
use crate::listen::{self, Answers};
use crate::metrics::{Metrics, RouteMetrics};
use crate::resources::{Mounted, ResourceServer};
use crate::rest::job_events;
use crate::routes;
use crate::tls::Certificates;

/// How often the number of routes is put into the metrics.
const GAUGE_PERIOD: Duration = Duration::from_secs(5);
/// How long connections that are broken off get to free what they hold.
const CUT_WAIT: Duration = Duration::from_secs(1);

/// What the gateway works with.
#[derive(Clone)]
pub struct Deps {
    /// Registry of functions and owner of jobs.
    pub control: Arc<dyn Control>,
    /// Tenants, users, tokens and the audit log.
    pub accounts: Arc<dyn Accounts>,
    /// Quotas, and this gateway's shares of them.
    pub quotas: Arc<dyn Quotas>,
    /// Runs calls, wherever.
    pub worker: Arc<dyn Worker>,
    /// The workers one by one, for operators.
    pub workers: Arc<dyn Workers>,
    /// Shows lines of functions.
    pub logs: Arc<dyn Logs>,
    /// Compositions of functions, and their runs; none where no workflow role is known.
    pub workflows: Option<Arc<dyn Workflows>>,
    /// Time.
    pub clock: Clock,
    /// Ids of invocations.
    pub ids: Ids,
    /// Chance, for weighted aliases.
    pub random: Random,
    /// What `/metrics` shows.
    pub metrics: telemetry::Metrics,
}

/// What every route can use.
pub(crate) struct App {
    pub config: Config,
    pub control: Arc<dyn Control>,
    pub accounts: Arc<dyn Accounts>,
    pub quotas: Arc<dyn Quotas>,
    /// What this gateway may let in.
    pub meters: Meters,
    pub grants: Arc<Grants>,
    pub audit: Arc<AuditLog>,
    pub worker: Arc<dyn Worker>,
    pub workers: Arc<dyn Workers>,
    pub logs: Arc<dyn Logs>,
    pub workflows: Option<Arc<dyn Workflows>>,
    pub clock: Clock,
    pub ids: Ids,
    pub random: Random,
    pub registry: telemetry::Metrics,
    pub metrics: Metrics,
    pub table: RouteTable,
    pub ingress: Arc<Ingress>,
    pub body_memory: BodyMemory,
    /// Places of those who follow a job.
    pub job_followers: Arc<Semaphore>,
    /// Cancelled when the gateway is to stop: long waits and streams end.
    pub stopping: CancellationToken,
}

/// The gateway.
#[derive(Clone)]
pub struct Service {
    entry: Arc<Entry>,
    tasks: Tasks,
    watching: Arc<AtomicBool>,
    following: Arc<AtomicBool>,
}

/// Where requests come in.
pub(crate) struct Entry {
    pub app: Arc<App>,
    pub router: Router,
    pub triggers: RouteMetrics,
    pub sessions: RouteMetrics,
    /// The classic routes.
    pub classic: Classic,
    /// The Kubernetes-style API, once there is one.
    pub resources: Mounted,
}

impl Answers for Entry {
    fn config(&self) -> &Config {
        &self.app.config
    }

    fn clock(&self) -> &Clock {
        &self.app.clock
    }

    fn metrics(&self) -> &Metrics {
        &self.app.metrics
    }

    async fn answer(self: &Arc<Self>, guard: &Guard, peer: SocketAddr, request: Request<Incoming>) -> Response {
        dispatch::handle(self, guard, peer, request).await
    }
}

impl Service {
    /// Puts a gateway together. It does nothing until [`Service::serve`].
    pub fn new(config: Config, deps: Deps) -> Service {
        let metrics = Metrics::new(&deps.metrics);
        let (clock, random) = (deps.clock.clone(), deps.random.clone());
        let ingress = Ingress::new(config.ingress.clone(), clock, random, &deps.metrics);
        let app = Arc::new(App {
            table: RouteTable::new(deps.clock.clone()),
            ingress,
            body_memory: BodyMemory::new(config.body_memory_bytes),
            job_followers: Arc::new(Semaphore::new(job_events::MOST)),
            stopping: CancellationToken::new(),
            control: deps.control,
            accounts: deps.accounts,
            quotas: deps.quotas,
            meters: Meters::new(deps.clock.clone(), deps.random.u64(), false, metrics.quota_refused.clone()),
            grants: Arc::new(Grants::new(deps.clock.clone(), config.tokens_stale_after)),
            audit: Arc::new(AuditLog::new(deps.clock.clone(), metrics.audit_lost.clone())),
            worker: deps.worker,
            workers: deps.workers,
            logs: deps.logs,
            workflows: deps.workflows,
            clock: deps.clock,
            ids: deps.ids,
            random: deps.random,
            registry: deps.metrics,
            metrics,
            config,
        });
        let triggers = app.metrics.route(routes::TRIGGER_PATH, "ANY");
        let sessions = app.metrics.route(SESSION_PATH, "ANY");
        let resources = Mounted::new(&app.metrics);
        let classic = Classic::new(&app.config, &app.clock, &app.metrics);
        let router = routes::router(&app);
        let entry = Arc::new(Entry { app, router, triggers, sessions, classic, resources });
        Service { entry, tasks: Tasks::new(), watching: Arc::default(), following: Arc::default() }
    }

    /// Has the Kubernetes-style API served on this gateway's listener too. The first one counts.
    pub fn mount_resources(&self, server: Arc<dyn ResourceServer>) {
        self.entry.resources.mount(server);
    }

    /// Says whether a listener at `address` would be served, before it is bound.
    ///
    /// # Errors
    /// [`lyra_types::Code::InvalidField`] when the address can be reached from other machines and there are no tokens, or the certificate
    /// can't be used.
    pub fn check(&self, address: SocketAddr) -> Result<()> {
        self.certificates()?;
        self.guard(address).map(drop)
    }

    fn certificates(&self) -> Result<Option<Certificates>> {
        let app = &self.entry.app;
        Certificates::open(&app.config, &app.clock, &app.metrics)
    }

    fn guard(&self, address: SocketAddr) -> Result<Guard> {
        let app = &self.entry.app;
        let (config, clock) = (&app.config, &app.clock);
        let oidc = Oidc::new(&config.oidc, clock.clone())?;
        let (operators, grants) = (config.tokens.clone(), Some(Arc::clone(&app.grants)));
        let keyring = Keyring::new(operators, grants, oidc, clock.clone(), app.metrics.clone(), config.route_wait);
        Guard::of(address, &Arc::new(keyring), config.domain.as_deref())
    }

    /// Serves until `shutdown` is cancelled, then lets open requests end, [`Config::drain`] at most.
    ///
    /// # Errors
    /// As [`Service::check`]; [`lyra_types::Code::Internal`] when the listener has no address.
    pub fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let address = listener
                .local_addr()
                .map_err(|error| Error::internal(format!("the listener has no address: {error}")))?;
            let (guard, certificates) = (self.guard(address)?, self.certificates()?);
            self.watch_routes();
            self.watch_sessions(address.ip());
            let connections = Tasks::new();
            let cut = CancellationToken::new();
            tracing::info!(%address, "gateway serves");
            listen::accept(&self.entry, guard, listener, certificates, &connections, &shutdown, &cut).await;
            tracing::info!(%address, "gateway drains");
            self.entry.app.stopping.cancel();
            let requests = async {
                if !connections.stop(self.entry.app.config.drain).await {
                    tracing::warn!(%address, "requests did not end in time and are broken off");
                    cut.cancel();
                    connections.stop(CUT_WAIT).await;
                }
            };
            tokio::join!(requests, self.entry.app.ingress.stop());
            self.tasks.stop(Duration::from_secs(1)).await;
            Ok(())
        })
    }

    /// Starts to learn the route table and tokens, once. [`Service::serve`] does so itself; a caller that wants the table
    /// to be there before the listener is calls this.
    pub fn watch_routes(&self) {
        if self.watching.swap(true, Ordering::AcqRel) {
            return;
        }
        let app = Arc::clone(&self.entry.app);
        self.tasks.spawn_cancellable("watch routes", async move {
            app.table.follow(&*app.control, &app.random).await;
        });
        let app = Arc::clone(&self.entry.app);
        self.tasks.spawn_cancellable("watch tokens", async move {
            app.grants.follow(&*app.accounts, &app.random).await;
        });
        let app = Arc::clone(&self.entry.app);
        self.tasks.spawn_cancellable("claim shares", async move {
            let share = |claim| app.quotas.share(claim);
            app.meters.follow(share, || std::future::ready(HashMap::new())).await;
        });
        let app = Arc::clone(&self.entry.app);
        self.tasks.spawn_cancellable("audit log", async move { app.audit.run(&app.accounts).await });
        let app = Arc::clone(&self.entry.app);
        self.tasks.every("count routes", GAUGE_PERIOD, move || {
            app.metrics.routes.set(i64::try_from(app.table.len()).unwrap_or(i64::MAX));
            app.metrics.grants.set(i64::try_from(app.grants.len()).unwrap_or(i64::MAX));
            let age = app.grants.age().map_or(-1, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
            app.metrics.grants_age.set(age);
            std::future::ready(())
        });
    }

    /// Starts to follow sessions and to listen on their ports, once. Ports are those of the listener that is served first.
    fn watch_sessions(&self, listener: IpAddr) {
        if !self.following.swap(true, Ordering::AcqRel) {
            self.entry.app.ingress.follow(Arc::clone(&self.entry.app.control), listener);
        }
    }

    /// Waits until the route table is complete, `limit` at most. Says whether it is.
    pub async fn synced(&self, limit: Duration) -> bool {
        self.entry.app.table.wait_for(0, limit).await
    }
}
