//! The porter, seen from the launcher: the process that carries traffic between ports of the node and sandboxes.
//!
//! It is a fork of the launcher, made when the first port is exposed, so that a flood of traffic or a fault in carrying it
//! can't hold up or end the parent of all sandboxes. The launcher keeps what is exposed, with its sockets: a porter that
//! has died is replaced, and what is exposed stays so; connections are lost then.
//!
//! What must hold: an order is answered once; a porter that dies at once is not started again and again.

mod counts;
mod datagram;
mod process;
mod stream;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::error::{Fault, Step};
use super::super::system::{self, Forked};
use super::super::wire;
use super::outbox::Outbox;
use crate::session::{Port, Traffic};

/// How much may come in at the ports of one sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// TCP connections at a time.
    pub connections: u32,
    /// UDP clients at a time.
    pub associations: u32,
    /// How long a UDP client is remembered that says nothing and is told nothing.
    pub idle: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { connections: 1024, associations: 1024, idle: Duration::from_secs(60) }
    }
}

/// What the launcher tells the porter.
#[derive(Serialize, Deserialize)]
struct Order {
    number: u64,
    sandbox: u64,
    task: Task,
}

#[derive(Serialize, Deserialize)]
enum Task {
    /// Carry what comes in at these ports. Brings: the sandbox's network, then a socket for each port.
    Expose { ports: Vec<Port>, bounds: Bounds },
    /// Close the sandbox's ports and all that has come in at them.
    Hide,
    /// Say what has gone over its ports.
    Count,
}

/// What the porter answers.
#[derive(Serialize, Deserialize)]
struct Told {
    number: u64,
    result: Result<Traffic, Fault>,
}

/// What an order was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A request of Lyra's to expose.
    Expose(u64),
    /// A request of Lyra's to hide.
    Hide(u64),
    /// A request of Lyra's to count.
    Count(u64),
    /// The sandbox has ended.
    End,
    /// A porter that died was replaced.
    Again,
}

/// An order that has been carried out, or can't be any more.
pub(super) struct Done {
    pub(super) sandbox: u64,
    pub(super) purpose: Purpose,
    pub(super) result: Result<Traffic, Fault>,
}

/// The launcher's end.
pub(super) struct Porter {
    pub(super) pid: i32,
    pub(super) socket: OwnedFd,
    outbox: Outbox,
    orders: HashMap<u64, (u64, Purpose)>,
    next: u64,
    /// It has carried an order out: it works here.
    pub(super) proven: bool,
}

impl Porter {
    /// Forks it.
    pub(super) fn start() -> Result<Porter, Fault> {
        const STEP: &str = "starting the porter";
        let (socket, its) = system::socket_pair().step(STEP)?;
        match system::fork_into(0).step(STEP)? {
            Forked::Child => process::run(its),
            Forked::Parent { pid, .. } => {
                system::set_nonblocking(socket.as_fd()).step(STEP)?;
                let (outbox, orders) = (Outbox::default(), HashMap::new());
                Ok(Porter { pid, socket, outbox, orders, next: 1, proven: false })
            }
        }
    }

    pub(super) fn expose(
        &mut self,
        (sandbox, purpose): (u64, Purpose),
        ports: Vec<Port>,
        bounds: Bounds,
        descriptors: &[BorrowedFd<'_>],
    ) {
        self.order(sandbox, purpose, Task::Expose { ports, bounds }, descriptors);
    }

    pub(super) fn hide(&mut self, sandbox: u64, purpose: Purpose) {
        self.order(sandbox, purpose, Task::Hide, &[]);
    }

    pub(super) fn count(&mut self, sandbox: u64, purpose: Purpose) {
        self.order(sandbox, purpose, Task::Count, &[]);
    }

    fn order(&mut self, sandbox: u64, purpose: Purpose, task: Task, descriptors: &[BorrowedFd<'_>]) {
        let number = self.next;
        self.next += 1;
        self.orders.insert(number, (sandbox, purpose));
        let bytes = wire::encode(&Order { number, sandbox, task }).unwrap_or_default();
        self.outbox.send(self.socket.as_fd(), bytes, descriptors);
    }

    /// Sends what could not be sent before; false: there is still some.
    pub(super) fn flush(&mut self) -> bool {
        self.outbox.flush(self.socket.as_fd());
        self.outbox.is_empty()
    }

    /// Takes one answer; `None`: there is none. An error: the porter is gone, or is not what it should be.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Done>> {
        let bytes = match wire::receive(self.socket.as_fd(), buffer) {
            Ok(([], _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((bytes, _)) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let Told { number, result } = wire::decode(bytes)?;
        self.proven = true;
        Ok(self.orders.remove(&number).map(|(sandbox, purpose)| Done { sandbox, purpose, result }))
    }

    /// It has died: what will not be carried out any more.
    pub(super) fn lost(&mut self) -> Vec<Done> {
        let gone = Fault::new("carrying the ports of a sandbox", &super::gone());
        let orders = std::mem::take(&mut self.orders).into_values();
        orders.map(|(sandbox, purpose)| Done { sandbox, purpose, result: Err(gone.clone()) }).collect()
    }
}
