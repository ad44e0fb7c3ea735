//! Greedy-Dual: keep what is called often, slow to start and small.
//!
//! After Fuerst and Sharma, "FaasCache: Keeping Serverless Computing Alive with Greedy-Dual Caching", ASPLOS'21
//! (doi 10.1145/3445814.3446757). An idle instance has the priority
//! `clock + frequency * cost / size`: `clock` is the policy's when the instance was last used, `frequency` the calls
//! of its version since that last had no instance, `cost` the version's cold start, `size` its memory. The lowest
//! goes first, and the policy's clock becomes its priority: what is not called any more grows old.

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
        rested.stamp + track.calls as f64 * track.worth()
    }

    fn evicted(&mut self, rank: f64) {
        self.clock = self.clock.max(rank);
    }

    fn keep(&self, _: &mut Track, _: &Rested) -> Option<Duration> {
        None
    }
}
