//! What a worker tells of its instances, its resources and its health.
//!
//! Plain values: a snapshot, out of date as soon as it is read. Times are wall-clock times of the worker.

use std::time::Duration;

pub use lyra_types::api::{BackendStatus, Check, Drained, GpuStatus, Health, Resource, RuntimeOffer, WaitingStatus};
use lyra_types::{FunctionName, InstanceId, Runtime, TenantName, Timestamp};
use serde::{Deserialize, Serialize};

/// Where an instance is in its life.
///
/// `Creating → Standby → Active → (Hibernated ↔ …) → Evacuating → Terminating → Terminated`, or `Failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceState {
    /// Its resources are charged, and its sandbox is being started.
    Creating,
    /// It waits for a call.
    Standby,
    /// It serves a call.
    Active,
    /// It is stopped where it stands, with most of its memory given back.
    Hibernated,
    /// It was chosen to go and takes no more calls.
    Evacuating,
    /// Its sandbox is being ended.
    Terminating,
    /// It is gone; its resources are free. Never seen in a list.
    Terminated,
    /// It crashed, hung or failed its probe, and is being ended.
    Failed,
}

impl InstanceState {
    /// Every state, in the order of a life.
    pub const ALL: [InstanceState; 8] = [
        InstanceState::Creating,
        InstanceState::Standby,
        InstanceState::Active,
        InstanceState::Hibernated,
        InstanceState::Evacuating,
        InstanceState::Terminating,
        InstanceState::Terminated,
        InstanceState::Failed,
    ];

    /// The name in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            InstanceState::Creating => "creating",
            InstanceState::Standby => "standby",
            InstanceState::Active => "active",
            InstanceState::Hibernated => "hibernated",
            InstanceState::Evacuating => "evacuating",
            InstanceState::Terminating => "terminating",
            InstanceState::Terminated => "terminated",
            InstanceState::Failed => "failed",
        }
    }
}

/// One instance. Instances that are made for one call alone and count on their engine's own budget are not listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its id, as in `Lyra-Instance` and in logs.
    pub id: InstanceId,
    /// Owner of its function.
    pub tenant: TenantName,
    /// Its function.
    pub function: FunctionName,
    /// The one version that it serves.
    pub version: u64,
    /// What its code is written for.
    pub runtime: Runtime,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Since when it is in that state.
    pub since: Timestamp,
    /// Bytes of memory that are charged for it.
    pub memory: u64,
    /// Calls that it has begun to serve; sessions, where it is one of an application.
    pub served: u64,
    /// Devices that it may use.
    pub gpus: Vec<u32>,
    /// The application that it belongs to, as `NAME@VERSION`.
    #[serde(default)]
    pub application: Option<String>,
    /// Name of the session that it serves.
    #[serde(default)]
    pub session: Option<String>,
}

/// What can be done to one idle instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceCommand {
    /// It is ended.
    Terminate,
    /// It is stopped where it stands, and gives its memory back as far as it can.
    Hibernate,
    /// If it was hibernated, it goes on.
    Activate,
}

/// Instances by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceCounts {
    /// [`InstanceState::Creating`].
    pub creating: usize,
    /// [`InstanceState::Standby`].
    pub standby: usize,
    /// [`InstanceState::Active`].
    pub active: usize,
    /// [`InstanceState::Hibernated`].
    pub hibernated: usize,
    /// [`InstanceState::Evacuating`].
    pub evacuating: usize,
    /// [`InstanceState::Terminating`].
    pub terminating: usize,
    /// [`InstanceState::Failed`].
    pub failed: usize,
}

impl InstanceCounts {
    /// Counts one instance of `state`; those that are gone are not counted.
    pub fn add(&mut self, state: InstanceState) {
        match state {
            InstanceState::Creating => self.creating += 1,
            InstanceState::Standby => self.standby += 1,
            InstanceState::Active => self.active += 1,
            InstanceState::Hibernated => self.hibernated += 1,
            InstanceState::Evacuating => self.evacuating += 1,
            InstanceState::Terminating => self.terminating += 1,
            InstanceState::Failed => self.failed += 1,
            InstanceState::Terminated => {}
        }
    }

    /// How many instances are in `state`.
    pub fn of(&self, state: InstanceState) -> usize {
        match state {
            InstanceState::Creating => self.creating,
            InstanceState::Standby => self.standby,
            InstanceState::Active => self.active,
            InstanceState::Hibernated => self.hibernated,
            InstanceState::Evacuating => self.evacuating,
            InstanceState::Terminating => self.terminating,
            InstanceState::Failed => self.failed,
            InstanceState::Terminated => 0,
        }
    }
}

/// What a worker's instances hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Holdings {
    /// Kept instances and those with resources of their own, by state.
    pub instances: InstanceCounts,
    /// Memory, in bytes.
    pub memory: Resource,
    /// Processor time, in thousandths of a core.
    pub cpu: Resource,
    /// Slots of GPUs.
    pub gpu: Resource,
    /// Each GPU.
    pub gpus: Vec<GpuStatus>,
    /// Calls that wait for resources.
    pub waiting: usize,
    /// Name of the keep-alive policy.
    pub keep_alive: String,
}

/// The machine that a worker runs on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Time since the worker was made.
    pub uptime: Duration,
    /// Load averages of 1, 5 and 15 minutes; `None` where the system has none.
    pub load: Option<[f64; 3]>,
    /// Whether the worker was told to take no more calls.
    pub cordoned: bool,
    /// Its back ends, the preferred one first.
    pub backends: Vec<BackendStatus>,
}
