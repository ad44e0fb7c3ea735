//! What the solver is given, and what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lyra_types::{Runtime, TenantName};

/// All hosts and all demands.
#[derive(Debug, Clone)]
pub struct Problem<K> {
    /// The workers.
    pub hosts: Vec<Host<K>>,
    /// What shall stand on them.
    pub demands: Vec<Demand<K>>,
    /// Most instances that may move for the sake of spread alone, in this plan. What has to leave its host is not counted.
    pub moves: usize,
}

/// A worker.
#[derive(Debug, Clone)]
pub struct Host<K> {
    /// Its name.
    pub name: String,
    /// Ready, and neither cordoned, drained nor lost. One that is closed ends empty.
    pub open: bool,
    /// Its isolation back ends.
    pub offers: Vec<Offer>,
    /// What it has for instances; [`u64::MAX`] where there is no limit.
    pub capacity: Amounts,
    /// What of it is taken by others than the instances that are placed here.
    pub charged: Amounts,
    /// How busy it is: any number that grows with it, such as the load average for each processor.
    pub load: f64,
    /// What it has loaded, or on disk.
    pub images: BTreeSet<K>,
    /// Hosts of a zone fail together.
    pub zone: Option<String>,
}

/// An isolation back end of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub backend: String,
    /// What it runs.
    pub runtimes: Vec<Runtime>,
}

/// Resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    /// In bytes.
    pub memory: u64,
    /// Processor time, in thousandths of a core.
    pub cpu_millis: u64,
    /// Slots of GPUs.
    pub gpus: u64,
}

/// Instances of one kind.
#[derive(Debug, Clone)]
pub struct Demand<K> {
    /// What tells it from every other demand: a version's key, or a pool's.
    pub key: K,
    /// Whose it is. Tenants take turns where there is too little.
    pub tenant: TenantName,
    /// What the code is written for.
    pub runtime: Runtime,
    /// The back end that was asked for, or `auto`.
    pub isolation: String,
    /// What each instance takes.
    pub need: Amounts,
    /// How many there shall be.
    pub instances: u32,
    /// What they are spread over.
    pub spread: Spread,
    /// No two demands with the same word here share a host.
    pub apart: Option<String>,
}

/// What the instances of a demand are spread over, as far as there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spread {
    /// Hosts.
    #[default]
    Hosts,
    /// Zones, then the hosts of each. Hosts without a zone are one zone.
    Zones,
}

/// Instances by demand and by host's name. No count is 0.
pub type Placed<K> = BTreeMap<K, BTreeMap<String, u32>>;

/// What shall stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<K: Ord> {
    /// Where.
    pub placed: Placed<K>,
    /// What finds no place, by key.
    pub unplaced: Vec<Unplaced<K>>,
}

/// Instances that find no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced<K> {
    /// Of which demand.
    pub key: K,
    /// How many.
    pub missing: u32,
    /// Why.
    pub reason: Reason,
}

/// Why an instance finds no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No host is open.
    NoHost,
    /// No open host has the runtime with the isolation that was asked for.
    NotOffered,
    /// Hosts that have it have too little of this left.
    Short(Short),
    /// No such host has that much of this, even when it is empty.
    TooLarge(Short),
    /// Hosts with room hold what it must not share a host with.
    Apart,
}

/// A resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Short {
    /// Memory.
    Memory,
    /// Processor time.
    Cpu,
    /// GPUs.
    Gpus,
}

impl Short {
    /// In the order of [`Amounts::array`].
    pub(super) const ALL: [Short; 3] = [Short::Memory, Short::Cpu, Short::Gpus];

    /// Its name in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Short::Memory => "memory",
            Short::Cpu => "processors",
            Short::Gpus => "GPUs",
        }
    }
}

impl Amounts {
    pub(super) const fn array(self) -> [u64; 3] {
        [self.memory, self.cpu_millis, self.gpus]
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoHost => f.write_str("no worker is ready"),
            Reason::NotOffered => f.write_str("no worker that is ready runs it"),
            Reason::Short(what) => write!(f, "the workers that run it have too little left of their {}", what.as_str()),
            Reason::TooLarge(Short::Memory) => f.write_str("no worker that runs it has that much memory"),
            Reason::TooLarge(what) => write!(f, "no worker that runs it has that many {}", what.as_str()),
            Reason::Apart => f.write_str("the workers with room hold what it must be apart from"),
        }
    }
}
