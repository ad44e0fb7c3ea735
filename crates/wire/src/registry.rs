//! Which workers there are: what a worker tells the control role, and what control tells gateways of it.
//!
//! A worker holds one conversation ([`Registry::join`]) with each control process for as long as it lives. Its first message
//! registers it; each further one renews its lease and says what it holds. Where nothing comes for the length of a lease the
//! worker is lost: no more calls are sent there until it is heard of again.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use lyra_types::api::{BackendStatus, Resource};
use lyra_types::{Error, Result};
use serde::{Deserialize, Serialize};

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

/// From a worker to control.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromNode {
    /// First of all.
    Register(Box<Registration>),
    /// A sign of life.
    State(NodeState),
    /// It ends in good order and shall get no more calls.
    Leave,
}

/// From control to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToNode {
    /// It is registered.
    Welcome {
        /// Longest time between two of its messages.
        heartbeat: Duration,
        /// It is lost when nothing was heard of it for so long.
        lease: Duration,
    },
    /// It is not, and why. The conversation ends.
    Refused(Error),
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
