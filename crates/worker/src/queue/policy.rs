//! What a queue policy is: it decides which of the calls that wait for the worker runs next.
//!
//! Only calls that nothing but the worker's own limit holds back come before a policy; those behind their function's limit
//! wait in order of arrival elsewhere. A policy is pure state under the queue's lock: it never waits, and each of its steps
//! takes at most logarithmic time in what waits.

use std::sync::Arc;
use std::time::Duration;

use lyra_types::invocation::Start;
use tokio::time::Instant;

use super::config::{Config, PolicyKind};
use super::{cold_priority, deadline, fair_share, fcfs, inter_arrival, ranked, shortest};
use crate::characteristics::Record;

/// A call that waits for the worker.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Its place in the order of arrival.
    pub(super) order: u64,
    /// When it came.
    pub(super) arrived: Instant,
    /// What is known of its version.
    pub(super) record: Arc<Record>,
}

/// The call that runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// Its place in the order of arrival.
    pub(super) order: u64,
    /// It was let in for its age, past what the policy says.
    pub(super) aged: bool,
}

/// What a call was charged when it began to run; given back to the policy when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Charge {
    /// Whose account, in the policy's own numbering.
    pub(super) flow: u32,
    /// Nanoseconds on a place.
    pub(super) amount: u64,
}

/// A queue policy.
pub(super) trait Policy: Send {
    /// A call waits.
    fn push(&mut self, candidate: Candidate);

    /// Takes out the call that runs next; `None` only when none waits.
    fn pop(&mut self, now: Instant) -> Option<Choice>;

    /// Takes out a call that gave up; `record` is the one that it was pushed with.
    fn remove(&mut self, order: u64, record: &Record);

    /// Takes out all.
    fn clear(&mut self);

    /// A call begins to run, after its turn or without any wait.
    fn began(&mut self, _record: &Record) -> Charge {
        Charge::default()
    }

    /// A call that was charged has ended, after it held its place for so long.
    fn ended(&mut self, _charge: Charge, _held: Duration) {}

    /// Whether [`Policy::ended`] needs to know how long places were held: reading the clock isn't free.
    fn meters(&self) -> bool {
        false
    }
}

/// What the pool could give to a version right now. Asked under the queue's lock: it must neither wait nor call the queue.
pub trait Instances: Send + Sync {
    /// The start that a call of the version would have now.
    fn ready(&self, version: &Record) -> Start;

    /// Thousandths of a core that all calls together may hold; `None`: not limited.
    fn processors(&self) -> Option<u64> {
        None
    }
}

/// The policy that the settings name.
pub(super) fn of(config: &Config, instances: &Arc<dyn Instances>, epoch: Instant) -> Box<dyn Policy> {
    match config.policy {
        PolicyKind::Fcfs => Box::new(fcfs::Fcfs::default()),
        PolicyKind::ShortestFirst => Box::new(ranked::Ranked::<shortest::Shortest>::new(config.ageing, epoch)),
        PolicyKind::EarliestDeadline => Box::new(ranked::Ranked::<deadline::Deadline>::new(config.ageing, epoch)),
        PolicyKind::InterArrival => Box::new(ranked::Ranked::<inter_arrival::InterArrival>::new(config.ageing, epoch)),
        PolicyKind::ColdPriority => Box::new(cold_priority::ColdPriority::new(config.ageing, instances.clone())),
        PolicyKind::FairShare => Box::new(fair_share::FairShare::new(config.fair_share.clone())),
    }
}
