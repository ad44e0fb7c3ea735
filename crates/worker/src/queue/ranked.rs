//! What the policies share that rank a call once, when it begins to wait: the least rank first, ties by arrival.
//!
//! Such an order can leave a call waiting for ever while better ranked ones keep coming, so age comes before rank: the call
//! that has waited longest runs next once it is `ageing` old.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::time::Duration;

use tokio::time::Instant;

use super::policy::{Candidate, Choice, Policy};
use crate::characteristics::Record;

/// How a policy ranks.
pub(super) trait Rank: Send {
    /// Less runs earlier. `since_epoch` is the time of the call's arrival.
    fn rank(record: &Record, since_epoch: Duration) -> u64;
}

/// Calls by rank.
#[derive(Debug)]
pub(super) struct Ranked<R> {
    ageing: Duration,
    epoch: Instant,
    by_rank: BTreeSet<(u64, u64)>,
    by_arrival: BTreeMap<u64, (u64, Instant)>,
    rank: PhantomData<R>,
}

impl<R: Rank> Ranked<R> {
    pub(super) fn new(ageing: Duration, epoch: Instant) -> Ranked<R> {
        Ranked { ageing, epoch, by_rank: BTreeSet::new(), by_arrival: BTreeMap::new(), rank: PhantomData }
    }
}

impl<R: Rank> Policy for Ranked<R> {
    fn push(&mut self, candidate: Candidate) {
        let rank = R::rank(&candidate.record, candidate.arrived.saturating_duration_since(self.epoch));
        self.by_rank.insert((rank, candidate.order));
        self.by_arrival.insert(candidate.order, (rank, candidate.arrived));
    }

    fn pop(&mut self, now: Instant) -> Option<Choice> {
        let (oldest, (rank, arrived)) = self.by_arrival.first_key_value().map(|(order, of)| (*order, *of))?;
        let best = *self.by_rank.first()?;
        let is_old = now.saturating_duration_since(arrived) >= self.ageing;
        let next = if is_old { (rank, oldest) } else { best };
        self.by_rank.remove(&next);
        self.by_arrival.remove(&next.1);
        Some(Choice { order: next.1, aged: next != best })
    }

    fn remove(&mut self, order: u64, _: &Record) {
        if let Some((rank, _)) = self.by_arrival.remove(&order) {
            self.by_rank.remove(&(rank, order));
        }
    }

    fn clear(&mut self) {
        self.by_rank.clear();
        self.by_arrival.clear();
    }
}
