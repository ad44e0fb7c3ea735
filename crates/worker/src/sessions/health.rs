//! Whether an instance is ready and lives: probes as Kubernetes defines them, or what takes their place.
//!
//! Where there is no readiness probe an instance is ready while its program is attached to the session service, if it
//! speaks with it; else once its first TCP port takes a connection; else at once. Until an instance is ready for the first
//! time it is asked more often than its probe says, so that it gets its session sooner. A hibernated instance is not asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use lyra_isolation::Hosted;
use lyra_kit::Clock;
use lyra_session::SessionHandle;
use lyra_types::resources::{HttpGetAction, PortRef, Probe, Protocol};
use lyra_wire::sessions::AppVersion;
use tokio::sync::watch;

use super::lines::Outlet;

/// First and longest time between two questions to an instance that has not been ready yet.
const EAGER: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(250));
/// Longest wait for the connection that takes the place of a readiness probe.
const CONNECT: Duration = Duration::from_secs(1);

/// What is known of an instance's health. All but `asleep` is written by [`Health::follow`].
pub(super) struct Health {
    pub(super) ready: watch::Sender<bool>,
    dead: watch::Sender<bool>,
    asleep: watch::Sender<bool>,
}

impl Health {
    pub(super) fn new(asleep: bool) -> Health {
        Health { ready: watch::Sender::new(false), dead: watch::Sender::new(false), asleep: watch::Sender::new(asleep) }
    }

    /// Waits until the instance is ready.
    pub(super) async fn until_ready(&self) {
        wait_for(&self.ready, true).await;
    }

    /// Waits until the instance is not ready.
    pub(super) async fn until_not_ready(&self) {
        wait_for(&self.ready, false).await;
    }

    /// Waits until the liveness probe has failed.
    pub(super) async fn until_dead(&self) {
        wait_for(&self.dead, true).await;
    }

    /// The instance is hibernated, or awake again.
    pub(super) fn sleep(&self, asleep: bool) {
        self.asleep.send_replace(asleep);
    }

    pub(super) fn is_asleep(&self) -> bool {
        *self.asleep.borrow()
    }

    /// Asks the instance again and again, until this is dropped.
    pub(super) async fn follow(
        &self,
        hosted: &dyn Hosted,
        service: Option<&SessionHandle>,
        app: &AppVersion,
        clock: &Clock,
    ) {
        let asking = Asking { health: self, hosted, app, clock };
        let readiness = async {
            match (&app.readiness, service) {
                (Some(probe), _) => asking.readiness(probe).await,
                (None, Some(service)) => asking.attachment(service).await,
                (None, None) => asking.first_port().await,
            }
        };
        let liveness = async {
            if let Some(probe) = &app.liveness {
                asking.liveness(probe).await;
            }
        };
        tokio::join!(readiness, liveness);
        std::future::pending::<()>().await;
    }
}

async fn wait_for(of: &watch::Sender<bool>, value: bool) {
    // The sender is borrowed: it does not go away.
    let _ = of.subscribe().wait_for(|now| *now == value).await;
}

struct Asking<'a> {
    health: &'a Health,
    hosted: &'a dyn Hosted,
    app: &'a AppVersion,
    clock: &'a Clock,
}

impl Asking<'_> {
    async fn readiness(&self, probe: &Probe) {
        self.clock.sleep(seconds(probe.initial_delay_seconds, 0)).await;
        let mut count = Count::new(probe, false);
        let (mut eager, mut was_ready) = (EAGER.0, false);
        loop {
            self.awake().await;
            let is_ready = count.take(self.ask(probe).await);
            self.health.ready.send_if_modified(|ready| std::mem::replace(ready, is_ready) != is_ready);
            was_ready |= is_ready;
            let period = seconds(probe.period_seconds, 1);
            if was_ready {
                self.clock.sleep(period).await;
            } else {
                self.clock.sleep(eager.min(period)).await;
                eager = (eager * 2).min(EAGER.1);
            }
        }
    }

    async fn liveness(&self, probe: &Probe) {
        self.clock.sleep(seconds(probe.initial_delay_seconds, 0)).await;
        let mut count = Count::new(probe, true);
        loop {
            self.awake().await;
            let answered = self.ask(probe).await;
            // One that was hibernated meanwhile could not answer.
            if !self.health.is_asleep() && !count.take(answered) {
                self.health.dead.send_replace(true);
                return;
            }
            self.clock.sleep(seconds(probe.period_seconds, 1)).await;
        }
    }

    async fn attachment(&self, service: &SessionHandle) {
        let mut attached = service.attached();
        loop {
            let is_attached = attached.borrow_and_update().is_some();
            self.health.ready.send_if_modified(|ready| std::mem::replace(ready, is_attached) != is_attached);
            if attached.changed().await.is_err() {
                return;
            }
        }
    }

    async fn first_port(&self) {
        let first = self.app.ports.iter().find(|port| port.protocol == Protocol::Tcp);
        if let Some(port) = first {
            self.awake().await;
            let mut wait = EAGER.0;
            while !tokio::time::timeout(CONNECT, self.hosted.listens(port.port)).await.unwrap_or(false) {
                self.clock.sleep(wait).await;
                wait = (wait * 2).min(EAGER.1);
            }
        }
        self.health.ready.send_replace(true);
    }

    async fn awake(&self) {
        wait_for(&self.health.asleep, false).await;
    }

    async fn ask(&self, probe: &Probe) -> bool {
        let answer = async {
            match (&probe.http_get, &probe.tcp_socket) {
                (Some(get), _) => self.get(get).await,
                (None, Some(tcp)) => match self.port(&tcp.port) {
                    Some(port) => self.hosted.listens(port).await,
                    None => false,
                },
                // Nothing is asked: nothing can fail.
                (None, None) => true,
            }
        };
        tokio::time::timeout(seconds(probe.timeout_seconds, 1), answer).await.unwrap_or(false)
    }

    fn port(&self, port: &PortRef) -> Option<u16> {
        match port {
            PortRef::Number(number) => Some(*number),
            PortRef::Name(name) => self.app.ports.iter().find(|port| port.name == *name).map(|port| port.port),
        }
    }

    /// Whether the answer's status is 200 to 399.
    async fn get(&self, get: &HttpGetAction) -> bool {
        let Some(port) = self.port(&get.port) else { return false };
        let mut request = http::Request::get(get.path.as_str())
            .header(http::header::HOST, format!("127.0.0.1:{port}"))
            .header(http::header::USER_AGENT, "lyra-probe")
            .header(http::header::CONNECTION, "close");
        for header in &get.http_headers {
            request = request.header(header.name.as_str(), header.value.as_str());
        }
        let Ok(request) = request.body(Empty::<Bytes>::new()) else { return false };
        let Ok(stream) = self.hosted.connect(port).await else { return false };
        let io = hyper_util::rt::TokioIo::new(stream);
        let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(io).await else { return false };
        let sending = sender.send_request(request);
        tokio::pin!(sending);
        tokio::select! {
            answer = &mut sending => is_well(&answer),
            // It may end as soon as the answer is there.
            _ = connection => is_well(&sending.await),
        }
    }
}

fn is_well<B>(answer: &hyper::Result<http::Response<B>>) -> bool {
    answer.as_ref().is_ok_and(|answer| (200..400).contains(&answer.status().as_u16()))
}

fn seconds(seconds: u32, least: u32) -> Duration {
    Duration::from_secs(u64::from(seconds.max(least)))
}

/// Answers one after the other, and what they amount to.
struct Count {
    is_well: bool,
    /// Answers in a row that say otherwise.
    against: u32,
    success: u32,
    failure: u32,
}

impl Count {
    fn new(probe: &Probe, is_well: bool) -> Count {
        let (success, failure) = (probe.success_threshold.max(1), probe.failure_threshold.max(1));
        Count { is_well, against: 0, success, failure }
    }

    /// Takes an answer; says how things stand with it.
    fn take(&mut self, answer: bool) -> bool {
        self.against = if answer == self.is_well { 0 } else { self.against + 1 };
        let threshold = if self.is_well { self.failure } else { self.success };
        if self.against >= threshold {
            (self.is_well, self.against) = (answer, 0);
        }
        self.is_well
    }
}

/// What an instance and the platform have with each other while it lives.
pub(super) struct Unit {
    pub(super) hosted: Arc<dyn Hosted>,
    pub(super) lines: Outlet,
    pub(super) service: Option<SessionHandle>,
    pub(super) health: Health,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_changes_its_mind_at_its_thresholds() {
        let probe = Probe { failure_threshold: 3, success_threshold: 2, ..Probe::default() };
        let mut count = Count::new(&probe, false);
        let answers = [true, false, true, true, false, false, true, false, false, false, true, true];
        let expected = [false, false, false, true, true, true, true, true, true, false, false, true];
        assert_eq!(answers.map(|answer| count.take(answer)), expected);
    }
}
