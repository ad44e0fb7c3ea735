//! Which idle instances stay, and which versions get one ahead of their next call.
//!
//! A policy answers three questions. Under pressure: which idle instance goes first ([`KeepAlive::rank`])? Without
//! pressure: how long does an idle instance stay ([`KeepAlive::keep`])? And: when, after its last call, is a version
//! without instances given one ([`KeepAlive::prewarm`])? It sees idle instances only, so whatever it answers, a busy
//! one is never touched. It holds nothing that could run out: what it remembers of a version is in the version's
//! [`Track`].
//!
//! Within one version the instance that has been idle longest must never rank above the others: the pool looks at that one only.

pub mod hybrid;

mod greedy_dual;
mod histogram;
mod landlord;
mod lru;
pub(crate) mod schedule;
mod ttl;

#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use histogram::IdleTimes;
pub use hybrid::Hybrid;

/// Which policy a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Each idle instance stays for the idle timeout; under pressure the longest idle goes first.
    #[default]
    Ttl,
    /// The longest idle goes first, and only under pressure.
    Lru,
    /// Greedy-Dual by frequency, cold start and size; only under pressure.
    GreedyDual,
    /// Landlord: rent by size, paid out of the cold start that an instance spares; only under pressure.
    Landlord,
    /// Histograms of idle times, with pre-warming.
    Hybrid,
}

impl Policy {
    /// The policy's name in status and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Ttl => "ttl",
            Policy::Lru => "lru",
            Policy::GreedyDual => "greedy-dual",
            Policy::Landlord => "landlord",
            Policy::Hybrid => "hybrid",
        }
    }

    /// The policy of that name.
    pub fn parse(name: &str) -> Option<Policy> {
        let all = [Policy::Ttl, Policy::Lru, Policy::GreedyDual, Policy::Landlord, Policy::Hybrid];
        all.into_iter().find(|policy| policy.name() == name)
    }

    /// Makes the policy; `begin` is the moment from which it measures time.
    pub(crate) fn build(self, idle_timeout: Duration, hybrid: &Hybrid, begin: Instant) -> Box<dyn KeepAlive> {
        match self {
            Policy::Ttl => Box::new(ttl::Ttl::new(idle_timeout, begin)),
            Policy::Lru => Box::new(lru::Lru::new(begin)),
            Policy::GreedyDual => Box::new(greedy_dual::GreedyDual::default()),
            Policy::Landlord => Box::new(landlord::Landlord::default()),
            Policy::Hybrid => Box::new(hybrid::Windows::new(hybrid.clone(), begin)),
        }
    }
}

/// What is known of one version. Outlives its instances.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// Calls of the version, by all its instances, since it last had none at all.
    pub(crate) calls: u64,
    /// Instances of the version, idle or busy, when one of them is ranked.
    pub(crate) instances: usize,
    /// Bytes that one instance is charged for.
    pub(crate) memory: u64,
    /// What a cold start takes, smoothed.
    pub(crate) cold: Option<Duration>,
    /// When the last call ended; `None` while one runs, and before the first.
    pub(crate) ended: Option<Instant>,
    /// For a policy that wants it: since when fewer calls run than before. The last entry is for one call more than
    /// run now, the one before for two more; a call takes its entry, and leaves a new one when it ends.
    pub(crate) vacated: Vec<Instant>,
    /// Idle times, for a policy that wants them.
    pub(crate) idle_times: Option<Box<IdleTimes>>,
}

/// Weight of the newest measurement of a cold start.
const SMOOTHING: f64 = 0.2;

impl Track {
    /// A cold start took so long.
    pub(crate) fn started(&mut self, took: Duration) {
        self.cold = Some(match self.cold {
            Some(before) => before.mul_f64(1.0 - SMOOTHING) + took.mul_f64(SMOOTHING),
            None => took,
        });
    }

    /// What keeping one instance saves (seconds of cold start) for what it costs (MiB).
    fn worth(&self) -> f64 {
        let cost = self.cold.unwrap_or_default().as_secs_f64();
        // Instances of nothing cost nothing to keep; a page stands for them.
        let size = (self.memory as f64 / f64::from(1 << 20)).max(1.0 / 256.0);
        cost / size
    }
}

/// An idle instance, as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rested {
    /// When it became idle.
    pub(crate) since: Instant,
    /// The policy's own mark of that moment.
    pub(crate) stamp: f64,
    /// Calls that it has served.
    pub(crate) served: u64,
}

/// A keep-alive policy.
pub(crate) trait KeepAlive: Send + Sync + Debug {
    /// A call of the version has come.
    fn called(&mut self, track: &mut Track, now: Instant) {
        let _ = (track, now);
    }

    /// A call of the version has ended, or was given up.
    fn ended(&mut self, track: &mut Track, now: Instant) {
        let _ = (track, now);
    }

    /// The mark for an instance that becomes idle now.
    fn stamp(&self) -> f64 {
        0.0
    }

    /// The idle instance of the lowest rank goes first.
    fn rank(&self, track: &mut Track, rested: &Rested) -> f64;

    /// An instance of that rank was made to go.
    fn evicted(&mut self, rank: f64) {
        let _ = rank;
    }

    /// How long an idle instance stays while nothing presses; `None`: for ever.
    fn keep(&self, track: &mut Track, rested: &Rested) -> Option<Duration>;

    /// How long after its last call a version without instances is given one; `None`: not at all.
    fn prewarm(&self, track: &mut Track) -> Option<Duration> {
        let _ = track;
        None
    }
}
