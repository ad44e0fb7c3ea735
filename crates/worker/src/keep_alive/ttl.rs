//! Fixed time to live: what most platforms do.
//!
//! Every idle instance stays for the same time, whatever it costs to start again. Under pressure the one that would end next goes first.

use std::time::Duration;

use tokio::time::Instant;

use super::{KeepAlive, Rested, Track};

#[derive(Debug)]
pub(super) struct Ttl {
    after: Duration,
    begin: Instant,
}

impl Ttl {
    pub(super) fn new(after: Duration, begin: Instant) -> Ttl {
        Ttl { after, begin }
    }
}

impl KeepAlive for Ttl {
    fn rank(&self, _: &mut Track, rested: &Rested) -> f64 {
        rested.since.saturating_duration_since(self.begin).as_secs_f64()
    }

    fn keep(&self, _: &mut Track, _: &Rested) -> Option<Duration> {
        Some(self.after)
    }
}
