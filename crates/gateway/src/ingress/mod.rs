//! The way to sessions: by path and by host over HTTP, and over TCP and UDP ports of their own.
//!
//! A gateway learns of sessions by watch and carries to their nodes by itself; control is never on the way. What must hold: what
//! is carried to a session ends when the session does; everything is bounded, by session and in all; a request that may have been
//! processed is not sent again. Who may speak with a session is the session's own matter.

mod activity;
mod binding;
mod config;
mod follow;
mod metrics;
mod pipe;
mod pool;
mod ports;
pub(crate) mod proxy;
mod table;
mod target;
mod tcp;
mod udp;
mod upgrade;
mod watched;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lyra_kit::telemetry::prometheus::IntGauge;
use lyra_kit::{Clock, Random, Tasks, telemetry};
use lyra_types::{Code, Error, Result};
use lyra_wire::Control;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub(crate) use binding::key;
pub use config::IngressConfig;
pub(crate) use proxy::{Reached, Seen, serve};
pub(crate) use target::{SESSION_PATH, Target};

use binding::Bindings;
use follow::Follower;
use metrics::{IngressMetrics, Kind};
use ports::Ports;
use table::{Session, SessionTable};

/// How long what was cut gets to free what it holds.
const CUT_WAIT: Duration = Duration::from_secs(1);
/// Most connections to endpoints that are kept for a next request, over all sessions.
const MAX_WAITING: usize = 2_048;

/// What carries to sessions.
pub(crate) struct Ingress {
    config: IngressConfig,
    clock: Clock,
    random: Random,
    metrics: IngressMetrics,
    table: SessionTable,
    bindings: Bindings,
    /// Places for what is carried.
    places: Arc<Semaphore>,
    /// Places for connections that wait for their next request.
    waiting: Arc<Semaphore>,
    tasks: Tasks,
    /// No more connections are taken.
    closing: CancellationToken,
    /// All that is carried ends.
    cut: CancellationToken,
}

impl Ingress {
    pub(crate) fn new(
        config: IngressConfig,
        clock: Clock,
        random: Random,
        registry: &telemetry::Metrics,
    ) -> Arc<Ingress> {
        Arc::new(Ingress {
            places: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            metrics: IngressMetrics::new(registry),
            table: SessionTable::new(),
            bindings: Bindings::default(),
            tasks: Tasks::new(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            config,
            clock,
            random,
        })
    }

    /// Follows sessions, and listens on their ports at `listener` where the settings name no other address.
    pub(crate) fn follow(self: &Arc<Ingress>, control: Arc<dyn Control>, listener: IpAddr) {
        let address = self.config.enabled.then(|| self.config.address.unwrap_or(listener));
        let follower = Follower::new(Arc::clone(self), Ports::new(Arc::clone(self), address));
        let (ingress, told) = (Arc::clone(self), Arc::clone(&control));
        self.tasks.spawn_cancellable("watch sessions", async move { follower.follow(&*control).await });
        self.tasks.spawn_cancellable("tell uses of sessions", async move { ingress.tell_uses(&*told).await });
    }

    /// Takes no more, lets what is carried end by itself for a while, then cuts it.
    pub(crate) async fn stop(&self) {
        self.closing.cancel();
        self.table.clear_pools();
        if !self.tasks.stop(self.config.drain).await {
            self.cut.cancel();
            self.tasks.stop(CUT_WAIT).await;
        }
    }

    /// A place for one thing that is carried to a session.
    ///
    /// # Errors
    /// [`Code::Overloaded`] where session or gateway has none.
    fn enter(&self, session: &Arc<Session>, kind: Kind) -> Result<Place> {
        let full = |whose: &str| {
            Error::new(Code::Overloaded, format!("{whose} has as many connections as it may"))
                .with_retry_after(Duration::from_secs(1))
        };
        let Ok(in_session) = Arc::clone(&session.places).try_acquire_owned() else {
            self.metrics.session_full.inc();
            return Err(full("the session"));
        };
        let Ok(in_gateway) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.gateway_full.inc();
            return Err(full("the gateway"));
        };
        self.metrics.begun(kind).inc();
        if session.bound.load(Ordering::Relaxed) {
            self.bindings.touch(session);
        }
        Ok(Place { open: Open::new(self.metrics.open(kind)), _in_session: in_session, _in_gateway: in_gateway })
    }
}

/// A place that something takes while it is carried.
struct Place {
    open: Open,
    _in_session: OwnedSemaphorePermit,
    _in_gateway: OwnedSemaphorePermit,
}

impl Place {
    /// It is of another kind from now on.
    fn become_kind(&mut self, ingress: &Ingress, kind: Kind) {
        ingress.metrics.begun(kind).inc();
        self.open = Open::new(ingress.metrics.open(kind));
    }
}

/// One in a gauge, while it is there.
struct Open(IntGauge);

impl Open {
    fn new(gauge: &IntGauge) -> Open {
        gauge.inc();
        Open(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
