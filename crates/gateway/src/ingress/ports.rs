//! The ports of sessions that this gateway listens on.
//!
//! What must hold: a port leads to one session; when it passes to another, the former's listener is closed and what it carried
//! is cut before the new one is listened on, so that no byte goes to the wrong one; opening and closing cost the same however
//! many there are.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::retry::Backoff;
use lyra_types::resources::Protocol;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::table::Session;
use super::{Ingress, tcp, udp};

/// Waits between tries to listen on a port.
const BIND: Backoff = Backoff { first: Duration::from_millis(20), max: Duration::from_secs(5) };

type Port = (Protocol, u16);

/// A port that is listened on, or is about to be.
struct Slot {
    uid: String,
    /// Cancelled when the session has it no longer.
    life: CancellationToken,
    /// Cancelled when the listener is closed.
    free: CancellationToken,
}

/// All of them.
pub(super) struct Ports {
    ingress: Arc<Ingress>,
    /// Where ports are listened on; `None`: nowhere.
    address: Option<IpAddr>,
    slots: HashMap<Port, Slot>,
    /// Ports whose listener may not be closed yet.
    leaving: HashMap<Port, CancellationToken>,
}

impl Ports {
    pub(super) fn new(ingress: Arc<Ingress>, address: Option<IpAddr>) -> Ports {
        Ports { ingress, address, slots: HashMap::new(), leaving: HashMap::new() }
    }

    /// Listens on the ports of a session.
    pub(super) fn open(&mut self, session: &Arc<Session>) {
        let Some(address) = self.address else { return };
        for (index, (endpoint, public)) in session.route.endpoints.iter().enumerate() {
            let Some(number) = *public else { continue };
            let port = (endpoint.port.protocol, number);
            self.leave(port);
            let before = self.leaving.remove(&port);
            let (life, free) = (session.life.child_token(), CancellationToken::new());
            let slot = Slot { uid: session.route.key.uid.clone(), life: life.clone(), free: free.clone() };
            self.slots.insert(port, slot);
            let task = Listening {
                ingress: Arc::clone(&self.ingress),
                session: Arc::clone(session),
                index,
                protocol: port.0,
                address: SocketAddr::new(address, number),
                life,
                _free: free.drop_guard(),
            };
            self.ingress.tasks.spawn("session port", task.run(before));
        }
    }

    /// Closes the ports of a session, except those that have passed to another.
    pub(super) fn close(&mut self, session: &Session) {
        for (endpoint, public) in &session.route.endpoints {
            let Some(number) = *public else { continue };
            let port = (endpoint.port.protocol, number);
            if self.slots.get(&port).is_some_and(|slot| slot.uid == session.route.key.uid) {
                self.leave(port);
            }
        }
        if self.leaving.len() > 64 + self.slots.len() {
            self.leaving.retain(|_, free| !free.is_cancelled());
        }
    }

    fn leave(&mut self, port: Port) {
        if let Some(slot) = self.slots.remove(&port) {
            slot.life.cancel();
            self.leaving.insert(port, slot.free);
        }
    }
}

/// One port of one session.
struct Listening {
    ingress: Arc<Ingress>,
    session: Arc<Session>,
    index: usize,
    protocol: Protocol,
    address: SocketAddr,
    life: CancellationToken,
    _free: DropGuard,
}

impl Listening {
    async fn run(self, before: Option<CancellationToken>) {
        let (life, closing) = (self.life.clone(), self.ingress.closing.clone());
        tokio::select! {
            biased;
            () = life.cancelled() => {}
            () = closing.cancelled() => {}
            () = self.listen(before) => {}
        }
    }

    async fn listen(&self, before: Option<CancellationToken>) {
        if let Some(before) = before {
            before.cancelled().await;
        }
        match self.protocol {
            Protocol::Tcp => {
                let listener = self.bind(|| TcpListener::bind(self.address)).await;
                let _counted = Counted::new(&self.ingress);
                tcp::accept(&self.ingress, &self.session, self.index, listener, &self.life).await;
            }
            Protocol::Udp => {
                let socket = self.bind(|| UdpSocket::bind(self.address)).await;
                let _counted = Counted::new(&self.ingress);
                udp::relay(&self.ingress, &self.session, self.index, socket).await;
            }
        }
    }

    /// Tries for as long as the session has the port: what holds it may go away.
    async fn bind<T, F>(&self, bind: impl Fn() -> F) -> T
    where
        F: Future<Output = std::io::Result<T>>,
    {
        let (name, address) = (&self.session.route.key.name, self.address);
        let mut tries = 0;
        loop {
            match bind().await {
                Ok(bound) => {
                    if tries > 0 {
                        tracing::info!(%address, session = %name, tries, "the port of a session is listened on after all");
                    }
                    return bound;
                }
                Err(error) => {
                    tries += 1;
                    self.ingress.metrics.bind_failures.inc();
                    if tries == 1 {
                        tracing::warn!(%address, session = %name, %error, "the port of a session can't be listened on; trying on");
                    }
                    self.ingress.clock.sleep(BIND.delay(tries, &self.ingress.random)).await;
                }
            }
        }
    }
}

/// Counts a port while it is listened on.
struct Counted(Arc<Ingress>);

impl Counted {
    fn new(ingress: &Arc<Ingress>) -> Counted {
        ingress.metrics.ports.inc();
        Counted(Arc::clone(ingress))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.ports.dec();
    }
}
