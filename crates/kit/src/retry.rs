//! Exponential back-off with jitter.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Random;

/// How long to wait before each further try: doubling from `first` to `max`, then "equal jitter":
/// half of it fixed, half drawn (Brooker, "Exponential Backoff and Jitter", AWS 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// Wait before the second try, before jitter.
    #[serde(with = "humantime_serde")]
    pub first: Duration,
    /// Longest wait, before jitter.
    #[serde(with = "humantime_serde")]
    pub max: Duration,
}

impl Backoff {
    /// The wait after `tries` tries have failed (from 1): between half of the doubled time and all of it.
    pub fn delay(&self, tries: u32, random: &Random) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX));
        let half = doubled.min(self.max) / 2;
        half + half.mul_f64(random.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_maximum_and_jitters_within_half() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
        let random = Random::seeded(1);
        for (tries, full) in [(1, 1), (2, 2), (3, 4), (7, 60), (40, 60), (u32::MAX, 60)] {
            for _ in 0..50 {
                let delay = backoff.delay(tries, &random).as_secs_f64();
                assert!(delay >= f64::from(full) / 2.0 && delay <= f64::from(full), "{tries}: {delay}");
            }
        }
    }
}
