//! What a scaler and control tell each other.
//!
//! A scaler takes a turn every few seconds. Control answers whether it leads: the first one that asks does, for the length of
//! a lease that each turn renews, and another one after that; all control processes share the lease, which stands in the store. Only
//! the one that leads may change the number of workers, and only until the lease is over by its own clock, counted from before it
//! asked.
//!
//! What operators ask for, and what was decided, stands in the store as well: it outlives every scaler and control process.

use std::time::Duration;

use lyra_types::Timestamp;
use lyra_types::api::{ScalerDecision, ScalerLook, ScalerOrders};
use serde::{Deserialize, Serialize};

use crate::registry::MemberState;

/// Most workers that operators can ask for.
pub const MAX_WORKERS: u32 = 1_000;

/// Shortest and longest lease.
pub const LEASES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(600));

/// What a scaler says in its turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScalerTurn {
    /// Its name, for people.
    pub name: String,
    /// Tells one start of a scaler from every other.
    pub process: u64,
    /// How long it leads after this turn where it may; within [`LEASES`].
    pub lease: Duration,
    /// It ends: another may lead at once.
    pub leaves: bool,
    /// How it stands; none before it has looked once.
    pub report: Option<ScalerReport>,
    /// Changes that it has decided on since its last turn; counted only from the one that leads.
    pub decided: Vec<ScalerDecision>,
}

/// How a scaler stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScalerReport {
    /// Its rule.
    pub mode: String,
    /// What makes and ends its workers.
    pub backend: String,
    /// It does nothing of what it decides.
    pub dry_run: bool,
    /// Fewest workers, with what operators ask for.
    pub min: u32,
    /// Most workers, with what operators ask for.
    pub max: u32,
    /// How many it wants.
    pub desired: u32,
    /// What it saw last.
    pub look: ScalerLook,
    /// Why its last order could not be carried out.
    pub fault: Option<String>,
}

/// The answer to a turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScalerAnswer {
    /// It leads, for as long as it asked for.
    pub leads: bool,
    /// Who leads.
    pub leader: Option<String>,
    /// What operators ask for.
    pub orders: ScalerOrders,
    /// What there is to do, and by whom.
    pub load: Load,
}

/// What there is to do, and by whom.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Jobs that wait and were not given to a worker.
    pub queued: u64,
    /// Jobs in the record that have ended; less than before where old ones were forgotten.
    pub ended: u64,
    /// The workers, by name.
    pub workers: Vec<WorkerLoad>,
}

/// A worker's part of the load, as of its last message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerLoad {
    /// Its name.
    pub name: String,
    /// Where it is reached, `HOST:PORT`.
    pub address: String,
    /// Whether calls are sent there.
    pub state: MemberState,
    /// Calls and jobs that run there.
    pub running: u64,
    /// Calls and jobs that wait there.
    pub queued: u64,
    /// Share of its places or of its processors that is in use, the larger one: 0 to 1.
    pub utilisation: f64,
}

/// How the scaler stands, as control knows it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ScalerStatus {
    /// The one that leads: its name, when it took its last turn, and what it said of itself; none where none was heard of for a lease.
    pub leader: Option<(String, Timestamp, Option<ScalerReport>)>,
    /// What operators ask for.
    pub orders: ScalerOrders,
    /// The last changes that were decided on, newest first.
    pub history: Vec<ScalerDecision>,
}
