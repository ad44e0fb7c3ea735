//! What a process without a gateway says of itself over HTTP: health, readiness, metrics, version. By the rules of the gateway's
//! own listener: tokens of operators beyond loopback, bounded connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Request;
use hyper::body::Incoming;
use lyra_kit::{Clock, Tasks, telemetry};
use lyra_types::{Code, Error, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::auth::{Guard, Keyring};
use crate::config::Config;
use crate::listen::{self, Answers};
use crate::metrics::{Measure, Metrics};
use crate::problem::{self, Fault};
use crate::resources::{self, Mounted, ResourceServer};
use crate::rest::{Answer, meta};
use crate::tls::Certificates;

/// Longest wait for open requests at the end: nothing here takes long.
const DRAIN: Duration = Duration::from_secs(1);

/// Says whether the process is ready: how, for people, or why not.
pub type Ready = dyn Fn() -> Result<String, String> + Send + Sync;

/// Serves `/healthz`, `/readyz`, `/metrics` and `/version`, and the Kubernetes-style API where there is one.
pub struct Status {
    entry: Arc<Entry>,
}

struct Entry {
    config: Config,
    keyring: Arc<Keyring>,
    clock: Clock,
    metrics: Metrics,
    router: Router,
    resources: Mounted,
}

/// What the routes can use.
struct Shown {
    registry: telemetry::Metrics,
    ready: Box<Ready>,
}

impl Status {
    /// Puts it together; `config` gives tokens and the limits of connections.
    pub fn new(config: Config, registry: telemetry::Metrics, clock: Clock, ready: Box<Ready>) -> Status {
        let metrics = Metrics::new(&registry);
        let measure =
            |path: &'static str| Measure { metrics: Arc::new(metrics.route(path, "GET")), clock: clock.clone() };
        let router = Router::new()
            .route("/healthz", get(meta::healthz).layer(measure("/healthz")))
            .route("/readyz", get(readyz).layer(measure("/readyz")))
            .route("/metrics", get(shown_metrics).layer(measure("/metrics")))
            .route("/version", get(meta::version).layer(measure("/version")))
            .fallback(not_found)
            .with_state(Arc::new(Shown { registry, ready }));
        let resources = Mounted::new(&metrics);
        // Tokens that control keeps are known to gateways; here operators ask.
        let operators = config.tokens.clone();
        let keyring = Keyring::new(operators, None, None, clock.clone(), metrics.clone(), Duration::ZERO);
        Status { entry: Arc::new(Entry { config, keyring: Arc::new(keyring), clock, metrics, router, resources }) }
    }

    /// Has the Kubernetes-style API served on this listener too. The first one counts.
    pub fn mount_resources(&self, server: Arc<dyn ResourceServer>) {
        self.entry.resources.mount(server);
    }

    /// Says whether a listener at `address` would be served, before it is bound.
    ///
    /// # Errors
    /// [`Code::InvalidField`] when the address can be reached from other machines and there are no tokens, or the certificate can't be used.
    pub fn check(&self, address: SocketAddr) -> Result<()> {
        self.certificates()?;
        Guard::of(address, &self.entry.keyring, None).map(drop)
    }

    fn certificates(&self) -> Result<Option<Certificates>> {
        Certificates::open(&self.entry.config, &self.entry.clock, &self.entry.metrics)
    }

    /// Serves until `shutdown` is cancelled.
    ///
    /// # Errors
    /// As [`Status::check`]; [`Code::Internal`] when the listener has no address.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> Result<()> {
        let address =
            listener.local_addr().map_err(|error| Error::internal(format!("the listener has no address: {error}")))?;
        let (guard, certificates) = (Guard::of(address, &self.entry.keyring, None)?, self.certificates()?);
        let (connections, cut) = (Tasks::new(), CancellationToken::new());
        listen::accept(&self.entry, guard, listener, certificates, &connections, &shutdown, &cut).await;
        if !connections.stop(DRAIN).await {
            cut.cancel();
            connections.stop(DRAIN).await;
        }
        Ok(())
    }
}

impl Answers for Entry {
    fn config(&self) -> &Config {
        &self.config
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    async fn answer(self: &Arc<Self>, guard: &Guard, _: SocketAddr, request: Request<Incoming>) -> Response {
        let (parts, body) = request.into_parts();
        let identity = match guard.check(&parts).await {
            Ok(identity) => identity,
            Err(error) => return resources::refusal(&parts, &error),
        };
        let request = Request::from_parts(parts, Body::new(body));
        let request = match self.resources.answer(&self.clock, &identity, None, request).await {
            Ok(response) => return response,
            Err(request) => request,
        };
        match self.router.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

async fn readyz(State(shown): State<Arc<Shown>>) -> Answer {
    match (shown.ready)() {
        Ok(how) => Ok(format!("{how}\n").into_response()),
        Err(why_not) => {
            Err(Fault::from(Error::new(Code::Unavailable, why_not).with_retry_after(Duration::from_secs(1))))
        }
    }
}

async fn shown_metrics(State(shown): State<Arc<Shown>>) -> Response {
    meta::rendered(&shown.registry)
}

async fn not_found() -> Response {
    let detail = "this process runs no gateway: it has /healthz, /readyz, /metrics and /version only";
    problem::respond(&Error::new(Code::NotFound, detail))
}
