//! Bodies of the routes about workers and their instances.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Runtime, Timestamp};

/// A worker: what it has, what it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    /// Name.
    pub name: String,
    /// Where calls reach it; none where it is part of a platform in one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `ready`; `cordoned`: told to take no more calls; `lost`: nothing is heard of it.
    pub state: String,
    /// Calls that run.
    pub running: usize,
    /// Calls that wait.
    pub queued: usize,
    /// Of `queued`: those behind their function's own limit.
    pub held: usize,
    /// Calls that it lets run at once now.
    pub concurrency_limit: usize,
    /// Which of the waiting calls runs next.
    pub queue_policy: String,
    /// Which idle instances stay.
    pub keep_alive: String,
    /// Instances kept idle.
    pub idle_instances: usize,
    /// Kept instances and those with resources of their own, by state.
    pub instances: BTreeMap<String, usize>,
    /// Memory of instances, in bytes.
    pub memory: Resource,
    /// Processor time of instances, in thousandths of a core.
    pub cpu: Resource,
    /// Slots of GPUs.
    pub gpu: Resource,
    /// Each GPU.
    pub gpus: Vec<GpuStatus>,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Isolation back ends, the preferred one first.
    pub backends: Vec<BackendStatus>,
}

/// One resource of a worker, in its unit: bytes of memory, thousandths of a core, slots of GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Resource {
    /// What may be charged, over-commitment counted in; `None`: it is not limited.
    pub total: Option<u64>,
    /// What is charged now.
    pub charged: u64,
    /// What those wait for that found too little of it.
    pub waiting: u64,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct GpuStatus {
    /// Its number on this machine.
    pub index: u32,
    /// Its unique name, as `CUDA_VISIBLE_DEVICES` takes it.
    pub uuid: String,
    /// Its product name.
    pub name: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of memory in use by whatever runs on it; `None` where the driver doesn't tell.
    pub memory_used: Option<u64>,
    /// Percent of the last moment in which it computed; `None` where the driver doesn't tell.
    pub utilisation: Option<u32>,
    /// Instances that may share it.
    pub slots: u32,
    /// Instances that hold a slot of it.
    pub slots_charged: u32,
}

/// A back end that a worker has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct BackendStatus {
    /// Its name: `wasm`, `process`, …
    pub name: String,
    /// What it takes.
    pub runtimes: Vec<Runtime>,
    /// Why it can't be used on this machine; `None`: it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
    /// Each of `runtimes`: what runs it, or why it can't be had.
    pub offers: Vec<RuntimeOffer>,
    /// What this machine lets its sandboxes have, by name: `namespaces`, `cgroups`, …
    pub abilities: BTreeMap<String, String>,
    /// What is kept started ahead of calls and belongs to no instance yet.
    pub waiting: Vec<WaitingStatus>,
    /// Bytes of memory that are set aside for `waiting`; instances are never charged for them.
    pub reserved: u64,
}

impl BackendStatus {
    /// Whether functions of the runtime can run by it, as far as it has said: it takes them, and lacks nothing for them.
    pub fn runs(&self, runtime: Runtime) -> bool {
        let lacking = |offer: &RuntimeOffer| offer.runtime == runtime && !offer.available;
        self.unavailable.is_none() && self.runtimes.contains(&runtime) && !self.offers.iter().any(lacking)
    }
}

/// A runtime as a back end has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuntimeOffer {
    /// Which.
    pub runtime: Runtime,
    /// Functions of it can be deployed.
    pub available: bool,
    /// What runs it, with its version; or what is missing.
    pub detail: String,
    /// The isolation `auto` means this back end for it.
    pub auto: bool,
}

/// What a back end keeps started ahead of calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct WaitingStatus {
    /// `cells`: sandboxed interpreters that become instances; `zygotes`: interpreters that are forked.
    pub kind: String,
    /// How many.
    pub count: usize,
    /// Bytes of memory that they hold.
    pub memory: u64,
}

/// Whether a worker works.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// All checks passed.
    pub healthy: bool,
    /// Each check.
    pub checks: Vec<Check>,
}

/// One check of a worker's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// Whether it was in order.
    pub healthy: bool,
    /// What was seen, in a sentence.
    pub detail: String,
}

/// How a worker was emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Drained {
    /// Every call had ended by the limit.
    pub ended: bool,
    /// Calls that still ran or waited at the limit.
    pub left: usize,
    /// Idle instances that were ended.
    pub evacuated: usize,
}

/// What a worker knows of a version from its calls. Times in ms; a time that was never measured is missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CharacteristicsView {
    /// Owner.
    pub tenant: String,
    /// Function.
    pub function: String,
    /// Version.
    pub version: u64,
    /// Calls that reached an instance.
    pub calls: u64,
    /// Bytes of memory of an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// By what was measured: `cold`, `prewarmed`, `warm` (time to get an instance), `exec`, `end_to_end`, `inter_arrival`.
    pub times: BTreeMap<String, EstimateView>,
}

/// A time as it was measured, in ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EstimateView {
    /// Measurements.
    pub samples: u64,
    /// Their average, the latest weighing most.
    pub average_ms: f64,
    /// The middle one of the last 16.
    pub recent_median_ms: f64,
    /// The longest of the last 16.
    pub recent_max_ms: f64,
}

/// An instance that is kept, or has resources of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceView {
    /// Id.
    pub id: String,
    /// Worker.
    pub worker: String,
    /// Owner of its function.
    pub tenant: String,
    /// Function.
    pub function: String,
    /// The one version that it serves.
    pub version: u64,
    /// What its code is written for.
    pub runtime: Runtime,
    /// `creating`, `standby`, `active`, `hibernated`, `evacuating`, `terminating` or `failed`.
    pub state: String,
    /// Since when.
    pub since: Timestamp,
    /// Bytes of memory that are charged for it.
    pub memory: u64,
    /// Calls that it has begun to serve; sessions, where it belongs to an application.
    pub served: u64,
    /// GPUs that it may use.
    pub gpus: Vec<u32>,
    /// The application that it belongs to, as `NAME@VERSION`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Name of the session that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// What was cleaned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CleanedView {
    /// Idle instances that were ended.
    pub instances: usize,
}

/// Body of `POST /v1/workers/{worker}/prewarm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrewarmRequest {
    /// Function, as `NAME`, `NAME@VERSION` or `NAME@ALIAS`.
    pub function: String,
    /// Instances that shall be there, from 1; default 1. Versions without `reuse` have their code loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
}

/// What was warmed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrewarmedView {
    /// Function.
    pub function: String,
    /// Version.
    pub version: u64,
    /// Idle instances of the version that are there now.
    pub instances: usize,
}
