//! The call that is expected to be done soonest, by what is in the pool right now: start plus execution, where the start is
//! warm, prewarmed or cold.
//!
//! Calls with an instance go first, so that instances are used while they are there and cold starts don't hold warm calls
//! up (Ilúvatar, HPDC 2023). The pool changes while calls wait, so the choice is made when a place comes free. Versions
//! are looked at in the order of their least possible time (a warm start), which ends the search as soon as no
//! further one can be better; [`LOOK`] bounds it. The ageing bound gets cold calls through.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxBuildHasher;
use tokio::time::Instant;

use super::policy::{Candidate, Choice, Instances, Policy};
use super::shortest::nanos;
use crate::characteristics::Record;
use crate::templates::Key;

/// Versions that are looked at for one choice, at most.
const LOOK: usize = 64;

/// The waiting calls of a version.
#[derive(Debug)]
struct Lane {
    record: Arc<Record>,
    waiting: BTreeMap<u64, Instant>,
    /// Where it stands in the order of least times.
    place: Option<(u64, u64)>,
}

/// Calls by version.
pub(super) struct ColdPriority {
    ageing: Duration,
    instances: Arc<dyn Instances>,
    lanes: HashMap<Key, Lane, FxBuildHasher>,
    /// Least possible time, oldest call, version.
    by_least: BTreeSet<(u64, u64, Key)>,
    by_arrival: BTreeMap<u64, Key>,
}

impl ColdPriority {
    pub(super) fn new(ageing: Duration, instances: Arc<dyn Instances>) -> ColdPriority {
        ColdPriority {
            ageing,
            instances,
            lanes: HashMap::default(),
            by_least: BTreeSet::new(),
            by_arrival: BTreeMap::new(),
        }
    }

    /// Puts a version where it belongs after its calls have changed.
    fn place(&mut self, key: Key) {
        let Some(lane) = self.lanes.get_mut(&key) else { return };
        if let Some((least, oldest)) = lane.place.take() {
            self.by_least.remove(&(least, oldest, key));
        }
        match lane.waiting.first_key_value() {
            Some((oldest, _)) => {
                let expected = lane.record.expected();
                let least = nanos(expected.exec + expected.warm.min(expected.prewarmed).min(expected.cold));
                lane.place = Some((least, *oldest));
                self.by_least.insert((least, *oldest, key));
            }
            None => drop(self.lanes.remove(&key)),
        }
    }

    fn take(&mut self, order: u64, key: Key) {
        self.by_arrival.remove(&order);
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.waiting.remove(&order);
            // A lane stands by its oldest call, which is the one that mostly goes.
            self.place(key);
        }
    }

    /// The oldest call of the version that is expected to be done soonest.
    fn soonest(&self) -> Option<(u64, Key)> {
        let mut best: Option<(u64, u64, Key)> = None;
        for (least, oldest, key) in self.by_least.iter().take(LOOK) {
            if best.is_some_and(|(time, ..)| *least > time) {
                break;
            }
            let Some(lane) = self.lanes.get(key) else { continue };
            let expected = lane.record.expected();
            let time = nanos(expected.exec + expected.start(self.instances.ready(&lane.record)));
            if best.is_none_or(|(best, order, _)| (time, *oldest) < (best, order)) {
                best = Some((time, *oldest, *key));
            }
        }
        best.map(|(_, order, key)| (order, key))
    }
}

impl Policy for ColdPriority {
    fn push(&mut self, candidate: Candidate) {
        let key = candidate.record.key();
        self.by_arrival.insert(candidate.order, key);
        let lane = self.lanes.entry(key).or_insert_with(|| Lane {
            record: candidate.record.clone(),
            waiting: BTreeMap::new(),
            place: None,
        });
        lane.waiting.insert(candidate.order, candidate.arrived);
        if lane.place.is_none_or(|(_, oldest)| candidate.order < oldest) {
            self.place(key);
        }
    }

    fn pop(&mut self, now: Instant) -> Option<Choice> {
        let (oldest, of) = self.by_arrival.first_key_value().map(|(order, key)| (*order, *key))?;
        let arrived = self.lanes.get(&of).and_then(|lane| lane.waiting.get(&oldest).copied());
        let is_old = arrived.is_some_and(|arrived| now.saturating_duration_since(arrived) >= self.ageing);
        let best = self.soonest()?;
        let (order, key) = if is_old { (oldest, of) } else { best };
        self.take(order, key);
        Some(Choice { order, aged: order != best.0 })
    }

    fn remove(&mut self, order: u64, record: &Record) {
        self.take(order, record.key());
    }

    fn clear(&mut self) {
        self.lanes.clear();
        self.by_least.clear();
        self.by_arrival.clear();
    }
}
