//! Datagrams to UDP ports of sessions: a socket for each client, so that the session can tell them apart and answer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::net::UdpSocket;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::activity::Activity;
use super::metrics::Kind;
use super::pipe::{is_not_now, with_scratch};
use super::table::Session;
use super::{Ingress, Place};

/// Datagrams taken before others get their turn.
const BURST: usize = 64;

/// A client that has sent something.
struct Client {
    socket: Arc<UdpSocket>,
    activity: Arc<Activity>,
    /// Ends the task that carries the session's answers.
    _answers: DropGuard,
}

/// Carries for one port until it is dropped.
pub(super) async fn relay(ingress: &Arc<Ingress>, session: &Arc<Session>, index: usize, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let limit = ingress.config.udp_idle_timeout;
    let mut sweep = tokio::time::interval((limit / 4).max(Duration::from_millis(10)));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = sweep.tick() => clients.retain(|_, client| client.activity.quiet() < limit),
            ready = socket.readable() => {
                if let Err(error) = ready {
                    tracing::warn!(%error, "the UDP port of a session failed");
                    return;
                }
                for _ in 0..BURST {
                    if !pass_on(ingress, session, index, &socket, &mut clients) {
                        break;
                    }
                }
                tokio::task::coop::consume_budget().await;
            }
        }
    }
}

/// Passes one datagram on to the session. Says whether there may be more.
fn pass_on(
    ingress: &Arc<Ingress>,
    session: &Arc<Session>,
    index: usize,
    socket: &Arc<UdpSocket>,
    clients: &mut HashMap<SocketAddr, Client>,
) -> bool {
    with_scratch(|scratch| {
        let (length, from) = match socket.try_recv_from(scratch) {
            Ok(received) => received,
            // Anything else is told of a datagram that was sent before, and is over with that.
            Err(error) => return !is_not_now(&error),
        };
        let client = match clients.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => match Client::new(ingress, session, index, socket, from) {
                Some(client) => new.insert(client),
                None => {
                    ingress.metrics.dropped.inc();
                    return true;
                }
            },
        };
        client.activity.stamp();
        // A first error may be told of a datagram that was sent before.
        let datagram = &scratch[..length];
        match send(&client.socket, datagram).or_else(|_| send(&client.socket, datagram)) {
            Ok(_) => ingress.metrics.carried(Kind::Udp).up.inc_by(length as u64),
            Err(_) => ingress.metrics.dropped.inc(),
        }
        true
    })
}

/// Sends at once or not at all. Not by tokio, which takes a new socket for one that can't be written to until it has waited for
/// it once: the first datagrams of each client would be lost.
fn send(socket: &UdpSocket, datagram: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, datagram, SendFlags::NOSIGNAL)?)
}

impl Client {
    /// `None` where there is no place for one more, or no socket.
    fn new(
        ingress: &Arc<Ingress>,
        session: &Arc<Session>,
        index: usize,
        port: &Arc<UdpSocket>,
        address: SocketAddr,
    ) -> Option<Client> {
        let place = ingress.enter(session, Kind::Udp).ok()?;
        let socket = match connected(session.endpoint(index).address) {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                ingress.metrics.unreachable.inc();
                tracing::debug!(%error, "no socket for a client of a session");
                return None;
            }
        };
        let activity = Arc::new(Activity::new(&ingress.clock));
        // Ends when the client is forgotten, and so when the port is dropped.
        let answers = session.life.child_token();
        let task = Answers {
            ingress: Arc::clone(ingress),
            socket: Arc::clone(&socket),
            port: Arc::downgrade(port),
            client: address,
            activity: Arc::clone(&activity),
            ended: answers.clone(),
            _place: place,
        };
        ingress.tasks.spawn("session datagrams", task.run());
        Some(Client { socket, activity, _answers: answers.drop_guard() })
    }
}

fn connected(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if endpoint.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(endpoint)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Carries what the session answers to one client.
struct Answers {
    ingress: Arc<Ingress>,
    socket: Arc<UdpSocket>,
    /// Not its owner: it is closed when the session has it no longer.
    port: Weak<UdpSocket>,
    client: SocketAddr,
    activity: Arc<Activity>,
    ended: CancellationToken,
    _place: Place,
}

impl Answers {
    async fn run(self) {
        tokio::select! {
            biased;
            () = self.ended.cancelled() => {}
            () = self.ingress.closing.cancelled() => {}
            () = self.carry() => {}
        }
    }

    async fn carry(&self) {
        let metrics = &self.ingress.metrics;
        while self.socket.readable().await.is_ok() {
            with_scratch(|scratch| match self.socket.try_recv(scratch) {
                Ok(length) => {
                    self.activity.stamp();
                    let port = self.port.upgrade();
                    match port.map(|port| port.try_send_to(&scratch[..length], self.client)) {
                        Some(Ok(_)) => metrics.carried(Kind::Udp).down.inc_by(length as u64),
                        _ => metrics.dropped.inc(),
                    }
                }
                Err(error) if is_not_now(&error) => {}
                // The endpoint is not there: a datagram that was sent before is lost, as datagrams may be.
                Err(_) => metrics.unreachable.inc(),
            });
            tokio::task::coop::consume_budget().await;
        }
    }
}
