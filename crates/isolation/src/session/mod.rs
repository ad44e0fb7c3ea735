//! Instances that serve sessions: programs that own their process from open to close, with ports of their own.
//!
//! [`crate::Template::host`] starts one. Nothing calls it as a function: it takes connections and datagrams on its ports,
//! reads its session's files, and may speak with the session service of its worker. Some back ends keep it while the worker
//! is away ([`Hosting::lasting`]): the next worker finds it with [`crate::Isolation::adopt`].
//!
//! What always holds: an instance has a network of its own in which it reaches nobody else; what it is told it can only
//! read; its ports on the node are carried to it by nobody but the back end. When it is ready, and what its session's
//! state is, is for the worker to say.

mod called;
pub(crate) mod files;
pub(crate) mod places;
pub(crate) mod ports;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::{Code, Error, InstanceId, Runtime};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use crate::{LogSink, Usage};

pub(crate) use self::called::{Called, Calls};

/// Variable with the address of the session service, where [`Hosting::service`] is asked for.
pub const ADDRESS_VARIABLE: &str = "LYRA_SESSION_ADDRESS";

/// Variable with the directory of the session's files.
pub const DIRECTORY_VARIABLE: &str = "LYRA_SESSION_DIR";

/// Where a session's files are, as its program sees it.
pub(crate) const DIRECTORY: &str = "/run/lyra/session";

/// Folder of files whose content is secret: never on a disk.
pub const SECRETS: &str = "secrets/";

/// Most ports of one instance.
pub const MAX_PORTS: usize = 16;

/// Longest label, in bytes.
pub const MAX_LABEL: usize = 16 << 10;

/// Files of a session by name: `name` or `directory/name`.
pub type Files = BTreeMap<String, Bytes>;

/// What an instance is started with, beside what its version says.
#[derive(Debug, Clone)]
pub struct Hosting {
    /// Ports that its program listens on; the first one of TCP (or else the first) is told by `PORT`.
    pub ports: Vec<Port>,
    /// It shall reach the session service of its worker: [`Hosted::service`] is then the listener, and
    /// [`ADDRESS_VARIABLE`] says where it is.
    pub service: bool,
    /// What it can read in the directory that [`DIRECTORY_VARIABLE`] names.
    pub files: Files,
    /// Variables over those of the version. What the platform sets can't be set by them.
    pub env: Vec<(String, String)>,
    /// Anything by which a later worker knows it again; [`MAX_LABEL`] bytes at most.
    pub label: String,
    /// It goes on while the worker is away, where the back end can do that.
    pub lasting: bool,
    /// Time between `SIGTERM` and `SIGKILL` when it is ended because no worker has come back.
    pub kill_grace: Duration,
}

impl Default for Hosting {
    fn default() -> Hosting {
        Hosting {
            ports: Vec::new(),
            service: false,
            files: Files::new(),
            env: Vec::new(),
            label: String::new(),
            lasting: false,
            kill_grace: Duration::from_secs(10),
        }
    }
}

/// What datagrams or connections come over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        })
    }
}

/// A port of an instance's program.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Port {
    /// Its name; may be empty.
    pub name: String,
    /// Its number in the instance.
    pub port: u16,
    /// What comes over it.
    pub protocol: Protocol,
}

/// A port of an instance that can be reached on the node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exposed {
    /// The port in the instance.
    pub port: Port,
    /// Where it is reached on the node.
    pub address: SocketAddr,
}

/// What has gone over an instance's exposed ports since they were exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// TCP connections that are open.
    pub connections: u64,
    /// UDP clients that were heard of in the last while.
    pub associations: u64,
    /// TCP connections that were opened to the program, and UDP clients, since the ports were exposed.
    pub accepted: u64,
    /// Those that were turned away: one too many, or the program did not listen.
    pub refused: u64,
    /// Bytes to the program.
    pub received: u64,
    /// Bytes from the program.
    pub sent: u64,
}

/// How an instance's program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What its program returned, when it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it, when one did.
    pub signal: Option<i32>,
    /// The kernel killed a process of it because its memory was used up. False when the program coped and returned 0.
    pub out_of_memory: bool,
}

impl Exit {
    /// It was killed.
    pub fn killed() -> Exit {
        Exit { code: None, signal: Some(9), out_of_memory: false }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.out_of_memory {
            f.write_str("used up its memory and ")?;
        }
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with status {code}"),
            (None, Some(signal)) => write!(f, "was ended by signal {signal}"),
            (None, None) => f.write_str("ended"),
        }
    }
}

/// An instance that serves a session. Dropping it kills it, unless [`Hosted::leave`] was called.
#[async_trait]
pub trait Hosted: Send + Sync + 'static {
    /// The instance.
    fn id(&self) -> InstanceId;

    /// What it was started with by this name.
    fn label(&self) -> &str;

    /// Waits until all its processes are gone and its ports on the node are free. Any number may wait, at any time.
    async fn wait(&self) -> Exit;

    /// How it ended, if it has.
    fn exit(&self) -> Option<Exit>;

    /// Makes all its ports reachable on the node, each on a free port of `range` at `ip`. Exposed already: returns what is.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when the range has too few free ports, [`Code::InvalidField`] when nobody may listen there,
    /// [`Code::Unavailable`] when the instance has ended. Nothing is exposed then.
    async fn expose(&self, ip: IpAddr, range: RangeInclusive<u16>) -> Result<Vec<Exposed>, Error>;

    /// What is reachable now, in the order of [`Hosting::ports`].
    fn exposed(&self) -> Vec<Exposed>;

    /// Cuts all connections and frees the ports on the node, which are free when this returns.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when the back end does not answer.
    async fn hide(&self) -> Result<(), Error>;

    /// What has gone over its ports; zeroes where none is exposed.
    async fn traffic(&self) -> Traffic;

    /// The listener of the session service, inside of the instance's network: whoever connects is this instance. `None`
    /// where it was not asked for, or has been taken.
    fn service(&self) -> Option<TcpListener>;

    /// Connects to a TCP port of the program, exposed or not: for probes and for HTTP.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when nothing listens, or the instance has ended.
    async fn connect(&self, port: u16) -> Result<TcpStream, Error>;

    /// Whether a TCP port of the program takes connections.
    async fn listens(&self, port: u16) -> bool {
        self.connect(port).await.is_ok()
    }

    /// Replaces its files. A program that opens one sees the old ones or the new ones, each as a whole.
    ///
    /// # Errors
    /// [`Code::InvalidField`] for a name that can't be; [`Code::Internal`] when the disk refuses. The old ones stay.
    async fn write(&self, files: &Files) -> Result<(), Error>;

    /// Says where its lines go, from now on and including those that nobody has taken yet. What it wrote while they went somewhere
    /// else still goes there.
    fn logs(&self, sink: Arc<dyn LogSink>);

    /// What it holds now.
    fn usage(&self) -> Usage;

    /// Stops it where it stands and gives its memory back as far as it can. False: it can't, and goes on as it was.
    async fn hibernate(&self) -> bool;

    /// Lets a hibernated one go on. False: it is lost.
    async fn wake(&self) -> bool;

    /// Sends its program a signal.
    fn signal(&self, signal: i32);

    /// Asks its program to end (`SIGTERM`; a hibernated one is woken for it), kills it when it has not gone by `grace`, and
    /// waits for its end.
    async fn stop(&self, grace: Duration) -> Exit;

    /// Ends all its processes at once.
    fn kill(&self);

    /// Lets it go on when this is dropped, for the next worker to adopt. Does nothing for one that is not lasting.
    fn leave(&self);
}

/// Refuses what no instance can have, whatever runs it.
pub(crate) fn check_hosting(hosting: &Hosting) -> Result<(), Error> {
    let refused = |field: &str, reason: String| Err(Error::field(Code::InvalidField, field, reason));
    if hosting.ports.len() > MAX_PORTS {
        return refused("ports", format!("an instance has {MAX_PORTS} ports at most"));
    }
    if hosting.label.len() > MAX_LABEL {
        return refused("label", format!("the label is longer than {MAX_LABEL} bytes"));
    }
    let mut known = BTreeSet::new();
    for port in &hosting.ports {
        if port.port == 0 {
            return Err(not_a_port(port));
        }
        if !known.insert((port.protocol, port.port)) {
            return refused("ports", format!("{} port {} is named twice", port.protocol, port.port));
        }
    }
    Ok(())
}

pub(crate) fn not_a_port(port: &Port) -> Error {
    let reason = format!("port {} can't be a session's: Lyra itself has it", port.port);
    Error::field(Code::InvalidField, "ports", reason)
}

/// The port that the variable `PORT` tells.
pub(crate) fn told_port(hosting: &Hosting) -> Option<u16> {
    let first = hosting.ports.iter().find(|port| port.protocol == Protocol::Tcp).or_else(|| hosting.ports.first());
    first.map(|port| port.port)
}

/// The error of a back end that has no sessions.
pub(crate) fn unsupported(runtime: Runtime) -> Error {
    let reason = format!("sessions can't run on this back end (runtime {runtime})");
    Error::field(Code::InvalidField, "function", reason)
}
