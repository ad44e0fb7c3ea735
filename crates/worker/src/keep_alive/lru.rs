//! Least recently used: nothing goes until its place is needed, then the longest idle goes first.
//!
//! The classic of caches (Mattson et al., "Evaluation techniques for storage hierarchies", IBM Systems Journal 9(2), 1970).

use std::time::Duration;

use tokio::time::Instant;

use super::{KeepAlive, Rested, Track};

#[derive(Debug)]
pub(super) struct Lru {
    begin: Instant,
}

impl Lru {
    pub(super) fn new(begin: Instant) -> Lru {
        Lru { begin }
    }
}

impl KeepAlive for Lru {
    fn rank(&self, _: &mut Track, rested: &Rested) -> f64 {
        rested.since.saturating_duration_since(self.begin).as_secs_f64()
    }

    fn keep(&self, _: &mut Track, _: &Rested) -> Option<Duration> {
        None
    }
}
