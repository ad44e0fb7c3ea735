//! Greedy-Dual: keep what is called often, slow to start and small.
//!
//! After Fuerst and Sharma, "FaasCache: Keeping Serverless Computing Alive with Greedy-Dual Caching", ASPLOS'21
//! (doi 10.1145/3445814.3446757). An idle instance has the priority
//! `clock + frequency * cost / size`: `clock` is the policy's when the instance was last used, `frequency` the calls of
//! its version since there last was no instance, over the number of its instances; `cost` the version's measured cold
//! start, `size` its memory. The lowest goes first, and the policy's clock becomes its priority: what is not called any
//! more grows old.
//!
//! The paper's frequency is that of the function. Where a burst left a popular function many instances, all of them would
//! rank high for long, though a few serve nearly every call: what one of them is worth is its share.
//!
//! Instances of one version differ in their clocks only, and a later use has never an earlier clock: so the one that is
//! idle longest has the lowest priority of them, and the lowest of all is among these.

use std::time::Duration;

use super::{KeepAlive, Rested, Track};

#[derive(Debug, Default)]
pub(super) struct GreedyDual {
    clock: f64,
}

impl KeepAlive for GreedyDual {
    fn stamp(&self) -> f64 {
        self.clock
    }

    fn rank(&self, track: &mut Track, rested: &Rested) -> f64 {
        rested.stamp + track.calls.max(1) as f64 / track.instances.max(1) as f64 * track.worth()
    }

    fn evicted(&mut self, rank: f64) {
        self.clock = self.clock.max(rank);
    }

    fn keep(&self, _: &mut Track, _: &Rested) -> Option<Duration> {
        None
    }
}
