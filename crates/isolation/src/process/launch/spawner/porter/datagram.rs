//! UDP: each client of the node has a socket of its own to the program, so that the program can tell clients apart and its
//! answers find back.
//!
//! What must hold: a client is remembered as long as datagrams go either way and a while longer; datagrams are passed on
//! whole, or dropped where the receiver's socket is full, as UDP does; clients are bounded in number.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustix::net::SendFlags;
use tokio::net::UdpSocket;

use super::super::super::system;
use super::counts::{Of, Place};
use super::process::Inside;

/// Pause after an error of the port's socket, so that one that stays does not take the processor.
const PAUSE: Duration = Duration::from_millis(10);

/// Datagrams that are taken at a time.
const BATCH: usize = 64;

/// A UDP port of a sandbox.
pub(super) struct Datagrams {
    inside: Inside,
    /// On the node.
    socket: UdpSocket,
    /// The program listens at `::1` only, as far as is known.
    prefers_six: AtomicBool,
}

/// A client's socket in the sandbox.
struct Association {
    client: SocketAddr,
    /// To the program.
    socket: UdpSocket,
    /// Something went either way since this was last looked at.
    used: AtomicBool,
    _place: Place,
}

impl Datagrams {
    pub(super) fn new(inside: Inside, socket: UdpSocket) -> Datagrams {
        Datagrams { inside, socket, prefers_six: AtomicBool::new(false) }
    }

    /// Serves the port until it is dropped.
    pub(super) async fn serve(&self) {
        let mut clients: HashMap<SocketAddr, Arc<Association>> = HashMap::new();
        let mut answers = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = self.ready() => {
                    for _ in 0..BATCH {
                        match self.take(&clients) {
                            Ok(None) => {}
                            Ok(Some(new)) => {
                                clients.insert(new.client, Arc::clone(&new));
                                answers.push(self.answer(new));
                            }
                            Err(_) => break,
                        }
                    }
                    tokio::task::consume_budget().await;
                }
                Some(client) = answers.next() => drop(clients.remove(&client)),
            }
        }
    }

    /// Waits for datagrams, however often that fails.
    async fn ready(&self) {
        while self.socket.readable().await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Passes on one datagram that has come in; the client that it is from, if that is a new one.
    fn take(&self, clients: &HashMap<SocketAddr, Arc<Association>>) -> io::Result<Option<Arc<Association>>> {
        let mut buffer = self.inside.scratch.lock();
        let (length, client) = match self.socket.try_recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            // What an earlier answer met at a client, for one.
            Err(_) => return Ok(None),
        };
        let known = clients.get(&client);
        let new = match known {
            Some(_) => None,
            None => match self.associate(client) {
                Some(new) => Some(new),
                None => return Ok(None),
            },
        };
        let association = known.or(new.as_ref());
        if let Some(association) = association {
            association.used.store(true, Ordering::Relaxed);
            // Not by tokio, which knows nothing of a new socket before it has waited for it.
            let sent = rustix::net::send(&association.socket, &buffer[..length], SendFlags::NOSIGNAL);
            match sent.map_err(io::Error::from) {
                Ok(_) => drop(self.inside.counts.received().fetch_add(length as u64, Ordering::Relaxed)),
                Err(error) => self.meet(&error),
            }
        }
        Ok(new)
    }

    fn associate(&self, client: SocketAddr) -> Option<Arc<Association>> {
        let place = self.inside.counts.take(Of::Associations)?;
        let Ok(socket) = self.socket_inside() else {
            self.inside.counts.refuse();
            return None;
        };
        self.inside.counts.accept();
        Some(Arc::new(Association { client, socket, used: AtomicBool::new(true), _place: place }))
    }

    fn socket_inside(&self) -> io::Result<UdpSocket> {
        let six = self.prefers_six.load(Ordering::Relaxed);
        let port = self.inside.port;
        let program: SocketAddr =
            if six { (Ipv6Addr::LOCALHOST, port).into() } else { (Ipv4Addr::LOCALHOST, port).into() };
        let made = self.inside.networks.inside(&self.inside.network, || {
            let socket = system::udp_socket(six)?;
            rustix::net::connect(&socket, &program)?;
            Ok(socket)
        })?;
        UdpSocket::from_std(made.into())
    }

    /// Passes on what the program answers a client, until neither has said anything for a while; returns the client.
    async fn answer(&self, association: Arc<Association>) -> SocketAddr {
        let idle = self.inside.counts.idle();
        let mut waiting = Box::pin(tokio::time::sleep(idle));
        loop {
            tokio::select! {
                ready = association.socket.readable() => {
                    if ready.is_err() || !self.give(&association) {
                        break;
                    }
                    tokio::task::consume_budget().await;
                }
                () = &mut waiting => {
                    if !association.used.swap(false, Ordering::Relaxed) {
                        break;
                    }
                    waiting = Box::pin(tokio::time::sleep(idle));
                }
            }
        }
        association.client
    }

    /// Passes on what is there; false: this client's socket is of no more use.
    fn give(&self, association: &Association) -> bool {
        let mut buffer = self.inside.scratch.lock();
        for _ in 0..BATCH {
            let length = match association.socket.try_recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    self.meet(&error);
                    return false;
                }
            };
            association.used.store(true, Ordering::Relaxed);
            // A full socket drops, as networks do.
            let client = &association.client;
            if let Ok(sent) = rustix::net::sendto(&self.socket, &buffer[..length], SendFlags::NOSIGNAL, client) {
                self.inside.counts.sent().fetch_add(sent as u64, Ordering::Relaxed);
            }
        }
        true
    }

    /// Nobody listens at one of the addresses: the next client is carried to the other.
    fn meet(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            self.prefers_six.fetch_xor(true, Ordering::Relaxed);
        }
    }
}
