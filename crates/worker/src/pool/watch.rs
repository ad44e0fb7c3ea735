//! The pool's periodic work: what is idle too long goes, what is too few is brought up, what is idle is looked at.
//!
//! Each function here is one step of the worker's watch, which runs every half of a watchdog period. An instance that
//! is looked at is taken aside, so no call gets it meanwhile; of several idle ones of a version one always stays, so that a
//! call need not wait for a probe.

use std::sync::Arc;
use std::time::Duration;

use lyra_types::FunctionVersion;
use lyra_wire::worker::InstanceState;
use tokio::time::Instant;

use super::instance::{Instance, Place};
use super::state::{Gone, Grant, Reason, State};
use super::{Pool, Shared};
use crate::templates::key_of;

/// A version that nobody called for so long is forgotten by the pool, with what was learnt of it.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Instances that a version should get ahead of calls.
pub(crate) struct Ahead {
    pub(crate) version: Arc<FunctionVersion>,
    pub(crate) instances: usize,
    /// Not where there are so many already: others may be starting some, too.
    pub(crate) up_to: usize,
    /// `minimum`, `schedule` or `predicted`.
    pub(crate) why: &'static str,
}

impl Pool {
    /// Lets go what the policy or the memory buffer wants gone, and says what is to be started.
    pub(crate) fn tend(&self, memory_buffer: u64) -> (Vec<Instance>, Vec<Ahead>) {
        let mut gone = Gone::new();
        let mut ahead = Vec::new();
        {
            let state = &mut *self.shared.state.lock();
            let now = self.shared.clock.instant();
            expire(state, &self.shared, now, &mut gone, &mut ahead);
            if memory_buffer > 0 {
                state.keep_free(memory_buffer, now, &mut gone);
            }
            state.settle(now, &mut gone);
            state
                .shelves
                .retain(|_, shelf| !shelf.is_bare() || now.saturating_duration_since(shelf.called) < FORGET_AFTER);
        }
        self.shared.count(&gone);
        (instances_of(gone), ahead)
    }

    /// Holds the version's minimum and its schedule up from now on, in place of those of older versions.
    pub(crate) fn hold_up(&self, version: &Arc<FunctionVersion>, need: crate::resources::Need) {
        let state = &mut *self.shared.state.lock();
        let (key, now) = (key_of(version), self.shared.clock.instant());
        state.shelf(version, need, now).held_up = true;
        for (other, shelf) in &mut state.shelves {
            if other.0 == key.0 && other.1 != key.1 {
                shelf.held_up = false;
            }
        }
    }

    /// A start ahead of calls failed before there was an instance to count it by.
    pub(crate) fn could_not_refill(&self, version: &FunctionVersion) {
        let state = &mut *self.shared.state.lock();
        let now = self.shared.clock.instant();
        if let Some(shelf) = state.shelves.get_mut(&key_of(version)) {
            shelf.refilled(false, now);
        }
    }

    /// Takes those idle instances aside that have not shown for `period` that they serve.
    pub(crate) fn take_aside_to_probe(&self, period: Duration) -> Vec<Instance> {
        self.take_aside(|instance, now| {
            now.saturating_duration_since(instance.lease.proved) >= period && !instance.lease.hibernated
        })
    }

    /// Takes those aside that are idle for `after` and may be hibernated.
    pub(crate) fn take_aside_to_hibernate(&self, after: Duration) -> Vec<Instance> {
        self.take_aside(|instance, now| {
            now.saturating_duration_since(instance.lease.since) >= after
                && !instance.lease.hibernated
                && !instance.lease.restless
        })
    }

    fn take_aside(&self, is_meant: impl Fn(&Instance, Instant) -> bool) -> Vec<Instance> {
        let mut taken = Vec::new();
        let state = &mut *self.shared.state.lock();
        let now = self.shared.clock.instant();
        for shelf in state.shelves.values_mut() {
            let mut meant: Vec<usize> =
                (0..shelf.idle.len()).filter(|position| is_meant(&shelf.idle[*position], now)).collect();
            // Where all are meant, the one that proved itself last is left for calls; it is the first to go next time.
            if meant.len() > 1 && meant.len() == shelf.idle.len() {
                let latest =
                    meant.iter().copied().max_by_key(|position| (shelf.idle[*position].lease.proved, *position));
                meant.retain(|position| Some(*position) != latest);
            }
            for position in meant.into_iter().rev() {
                let Some(mut instance) = shelf.idle.remove(position) else { continue };
                instance.lease.place = Place::Aside;
                shelf.aside += 1;
                state.idle -= 1;
                taken.push(instance);
            }
        }
        taken
    }

    /// Puts an instance back that was aside; it has just shown that it serves.
    pub(crate) fn proved(&self, mut instance: Instance) {
        instance.lease.proved = self.shared.clock.instant();
        self.back(instance);
    }

    /// Puts an instance back that was asked to hibernate: it does, and holds `memory` bytes; or it can't.
    pub(crate) fn rests(&self, mut instance: Instance, memory: Option<u64>) {
        match memory {
            Some(memory) => {
                let state = &mut *self.shared.state.lock();
                state.ledger.shrink(&mut instance.lease.held, memory);
                instance.lease.record.set_memory(instance.lease.held.memory);
                instance.lease.hibernated = true;
                state.changes += 1;
                self.shared.metrics.hibernated("hibernated");
            }
            None => instance.lease.restless = true,
        }
        self.back(instance);
    }

    /// A hibernated instance serves again, or is lost.
    pub(crate) fn woke(&self, worked: bool) {
        self.shared.metrics.hibernated(if worked { "woken" } else { "lost" });
    }

    fn back(&self, instance: Instance) {
        self.put(instance, self.shared.clock.instant());
        self.shared.returned.notify_waiters();
    }

    /// Ends an instance that was aside and failed its probe.
    pub(crate) fn failed_probe(&self, mut instance: Instance) {
        self.shared.leave(&mut instance.lease, InstanceState::Failed);
        self.shared.metrics.failed_probe(self.shared.policy, instance.lease.record.version.runtime);
        tracing::warn!(
            instance = %instance.lease.id(),
            version = %instance.lease.record.version.key(),
            "an idle instance failed its probe and is replaced"
        );
        self.shared.returned.notify_waiters();
        drop(lyra_kit::tasks::spawn("end-instance", async move { drop(instance) }));
    }

    /// Takes every idle instance off its shelf.
    pub(crate) fn take_all(&self, reason: Reason) -> Vec<Instance> {
        let mut gone = Gone::new();
        {
            let state = &mut *self.shared.state.lock();
            let now = self.shared.clock.instant();
            let keys: Vec<_> = state.shelves.keys().copied().collect();
            for key in keys {
                while state.shelves.get(&key).is_some_and(|shelf| !shelf.idle.is_empty()) {
                    state.take_off(key, 0, reason, now, &mut gone);
                }
            }
        }
        self.shared.count(&gone);
        instances_of(gone)
    }

    /// Counts instances that were started ahead of calls.
    pub(crate) fn prewarmed(&self, why: &'static str) {
        self.shared.metrics.prewarmed(why);
    }
}

pub(super) fn instances_of(gone: Gone) -> Vec<Instance> {
    let instance = |(_, grant)| match grant {
        Grant::Idle(instance) => Some(instance),
        Grant::Start(_) | Grant::Room(_) => None,
    };
    gone.into_iter().filter_map(instance).collect()
}

/// Takes off what has expired beyond each version's floor, and collects what is to be started.
fn expire(state: &mut State, shared: &Shared, now: Instant, gone: &mut Gone, ahead: &mut Vec<Ahead>) {
    let wall = shared.clock.now();
    let keys: Vec<_> = state.shelves.keys().copied().collect();
    for key in keys {
        let Some(shelf) = state.shelves.get_mut(&key) else { continue };
        let why = shelf.refresh_floor(now, wall, state.directed);
        let (floor, mut live) = (shelf.floor, shelf.live());
        let mut position = 0;
        while let Some(shelf) = state.shelves.get_mut(&key)
            && let Some(instance) = shelf.idle.get(position)
            && live > floor
        {
            let rested = instance.lease.rested();
            let keep = state.policy.keep(&mut shelf.track, &rested);
            if keep.is_some_and(|keep| now.saturating_duration_since(rested.since) >= keep) {
                state.take_off(key, position, Reason::Expired, now, gone);
                live -= 1;
            } else {
                position += 1;
            }
        }
        let Some(shelf) = state.shelves.get_mut(&key) else { continue };
        let mut wanted = (floor.saturating_sub(live), why);
        if live == 0
            && floor == 0
            && !shelf.predicted
            && let Some(ended) = shelf.track.ended
            && let Some(after) = state.policy.prewarm(&mut shelf.track)
            && now.saturating_duration_since(ended) >= after
        {
            shelf.predicted = true;
            wanted = (1, "predicted");
        }
        if wanted.0 > 0 && shelf.may_refill(now) {
            let (version, instances, why) = (shelf.version.clone(), wanted.0, wanted.1);
            ahead.push(Ahead { version, instances, up_to: live + instances, why });
        }
    }
}
