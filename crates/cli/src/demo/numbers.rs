//! Figures out of many measurements.

use std::time::Duration;

use crate::table::millis;

/// Latencies of calls.
#[derive(Debug, Default)]
pub struct Latencies {
    sorted: Vec<Duration>,
}

impl Latencies {
    /// From measurements in any order.
    pub fn new(mut measured: Vec<Duration>) -> Latencies {
        measured.sort_unstable();
        Latencies { sorted: measured }
    }

    /// The value that a share of `percent` of the calls stays at or below; zero when there are none.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// How many calls were measured.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// `p50 0.31 ms, p99 1.2 ms`.
    pub fn summary(&self) -> String {
        format!("p50 {}, p99 {}", millis(self.percentile(50)), millis(self.percentile(99)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let latencies = Latencies::new((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(latencies.percentile(50), Duration::from_millis(100));
        assert_eq!(latencies.percentile(99), Duration::from_millis(198));
        assert_eq!(latencies.percentile(100), Duration::from_millis(200));
        assert_eq!(Latencies::default().percentile(50), Duration::ZERO);
    }
}
