//! Which workers there are: what a worker tells the control role, and what control tells gateways of it.
//!
//! A worker holds one conversation ([`Registry::join`]) with each control process for as long as it lives. Its first message
//! registers it; each further one renews its lease and says what it holds. Where nothing comes for the length of a lease the
//! worker is lost: no more calls are sent there until it is heard of again. Control speaks first ([`ToNode::Hello`]).
//!
//! What a worker holds has a revision, which grows by one with each change and is stored before it is told
//! ([`receive`] says what control makes of it). Commands come from the control process that leads, carry its epoch, and are
//! answered; a worker refuses those of an epoch lower than the highest that it has seen.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use lyra_types::api::{BackendStatus, Resource};
use lyra_types::function::VersionKey;
use lyra_types::{Error, FunctionVersion, InstanceId, Result};
use serde::{Deserialize, Serialize};

use crate::sessions::{HostedReport, SessionCommand, SessionReport, Stand};
use crate::worker::{InstanceCommand, InstanceState};

/// What a worker says of itself when it joins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// Its name, which no other worker has.
    pub name: String,
    /// Where calls reach it, `HOST:PORT`.
    pub address: String,
    /// Tells one start of the worker from another.
    pub incarnation: u64,
    /// Its isolation back ends, the preferred one first.
    pub backends: Vec<BackendStatus>,
    /// What it holds now.
    pub state: NodeState,
}

/// What a worker holds, as of its last message.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeState {
    /// Told to take no more calls, or shutting down.
    pub cordoned: bool,
    /// Calls that run.
    pub running: usize,
    /// Calls that wait.
    pub queued: usize,
    /// Calls that it lets run at once.
    pub concurrency_limit: usize,
    /// Instances, busy or idle.
    pub instances: usize,
    /// Memory of instances, in bytes.
    pub memory: Resource,
    /// Processor time of instances, in thousandths of a core.
    pub cpu: Resource,
    /// Slots of GPUs.
    pub gpu: Resource,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
}

/// A kept instance, as a worker reports it. Whether it serves a call at the moment is not reported: that changes with each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// Its id.
    pub id: InstanceId,
    /// The one version that it serves.
    pub version: VersionKey,
    /// Where it is in its life; [`InstanceState::Standby`] also while it serves, [`InstanceState::Terminated`] when it is
    /// gone.
    pub state: InstanceState,
    /// Bytes of memory that are charged for it.
    pub memory: u64,
}

/// Instances of a version that a worker was told to hold up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The version.
    pub version: VersionKey,
    /// How many; none where it was told to do so no more.
    pub instances: u32,
    /// Whether it also follows the version's schedule, which one worker does.
    pub schedule: bool,
}

/// All that a worker holds, as of one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Workload {
    /// Its store's number, drawn when the store was made: another number is another node, whatever its name.
    pub node: u64,
    /// How many changes there have been.
    pub revision: u64,
    /// Kept instances.
    pub instances: Vec<InstanceReport>,
    /// What it was told to hold up.
    pub holds: Vec<Hold>,
    /// Standing instances of applications that it was told to hold.
    pub stands: Vec<Stand>,
    /// Instances of applications.
    pub hosted: Vec<HostedReport>,
    /// Sessions, also those that have ended and were not told to be forgotten yet.
    pub sessions: Vec<SessionReport>,
}

/// One change of a worker's workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// An instance is new, has changed, or is gone.
    Instance(InstanceReport),
    /// It holds up something else than before.
    Hold(Hold),
    /// It holds other standing instances than before.
    Stand(Stand),
    /// An instance of an application is new, has changed, or is gone.
    Hosted(HostedReport),
    /// A session is new or has changed.
    Session(Box<SessionReport>),
    /// A session that has ended is forgotten.
    Forgotten(String),
}

/// From a worker to control.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromNode {
    /// The answer to control's [`ToNode::Hello`].
    Register(Box<Registration>, Workload),
    /// A sign of life, with the revision that the workload has.
    State(NodeState, u64),
    /// The change that made this revision.
    Changed(u64, Change),
    /// All of it, as control asked.
    Workload(Workload),
    /// How a command went, by its number.
    Done(u64, Result<()>),
    /// It ends in good order and shall get no more calls.
    Leave,
}

/// What control makes of a message with this revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// It is the next one: to be applied.
    Apply,
    /// It was applied before.
    Duplicate,
    /// It is older than what is known: to be discarded.
    Stale,
    /// Others are missing before it: all is to be asked for.
    Gap,
}

/// Whether a change with the revision `received` follows upon what is known as of `known`.
pub const fn receive(known: u64, received: u64) -> Reception {
    if received == known {
        Reception::Duplicate
    } else if received < known {
        Reception::Stale
    } else if received == known.wrapping_add(1) {
        Reception::Apply
    } else {
        Reception::Gap
    }
}

/// What the leader has a worker do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Hold so many instances of the version up from now on; none: do so no more. Done when that is stored.
    Hold {
        /// The version.
        version: Arc<FunctionVersion>,
        /// How many.
        instances: u32,
        /// Whether to follow the version's schedule, too.
        schedule: bool,
    },
    /// Hold nothing of this version up any more, and forget it.
    Release(VersionKey),
    /// Do something to an idle instance.
    Instance(InstanceId, InstanceCommand),
    /// Do something for applications and sessions.
    Session(SessionCommand),
    /// Another leader has begun. Done when commands of lower epochs are refused and all that was accepted before has been
    /// told.
    Follow,
}

/// The control processes, as a worker is told of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Controls {
    /// The epoch of the one that leads, and its address; none while nobody does.
    pub leader: Option<(u64, String)>,
    /// Addresses of all that are known, `HOST:PORT`.
    pub addresses: Vec<String>,
}

/// From control to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToNode {
    /// First of all: which control process this is. The same number at another address is the same process, with which a
    /// worker does not talk twice.
    Hello {
        /// Its number.
        process: u64,
    },
    /// It is registered.
    Welcome {
        /// Longest time between two of its messages.
        heartbeat: Duration,
        /// It is lost when nothing was heard of it for so long.
        lease: Duration,
    },
    /// It is not, and why. The conversation ends.
    Refused(Error),
    /// Which control processes there are.
    Controls(Controls),
    /// Tell all of the workload.
    FullSync,
    /// Do something, and say how it went under this number.
    Command {
        /// Its number, for the answer.
        id: u64,
        /// The leader's epoch.
        epoch: u64,
        /// What to do.
        command: Command,
    },
}

/// Whether calls may be sent to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// They may.
    Ready,
    /// It asked for none.
    Cordoned,
    /// Nothing was heard of it for the length of a lease.
    Lost,
}

impl MemberState {
    /// Every state.
    pub const ALL: [MemberState; 3] = [MemberState::Ready, MemberState::Cordoned, MemberState::Lost];

    /// The name in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            MemberState::Ready => "ready",
            MemberState::Cordoned => "cordoned",
            MemberState::Lost => "lost",
        }
    }
}

/// A worker as the registry knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Whether calls may be sent there.
    pub state: MemberState,
    /// What it said of itself, with its last state.
    pub registration: Registration,
}

/// A change of the workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MemberEvent {
    /// A worker is new or has changed.
    Put(Box<Member>),
    /// A worker is gone in good order, or was lost long ago.
    Remove(String),
    /// All workers have been told.
    Synced,
}

/// The control role's knowledge of workers.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// A worker's conversation with control. It ends when either end goes away.
    async fn join(&self, messages: BoxStream<'static, Result<FromNode>>) -> Result<BoxStream<'static, Result<ToNode>>>;

    /// Every worker, then each change.
    async fn watch_workers(&self) -> Result<BoxStream<'static, Result<MemberEvent>>>;
}
