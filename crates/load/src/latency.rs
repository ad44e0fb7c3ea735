//! Latencies, in a histogram of high dynamic range: 3 digits from 1 ns to an hour.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that is told from longer ones: an hour, in ns.
const LONGEST: u64 = 3_600_000_000_000;

/// Latencies.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Latencies {
        Latencies(Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are constants that fit together"))
    }

    pub(crate) fn add(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(LONGEST));
    }

    pub(crate) fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that `share` of all are not above, in µs.
    pub(crate) fn us(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    /// The mean, in µs.
    pub(crate) fn mean_us(&self) -> f64 {
        self.0.mean() / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_have_three_digits() {
        let (mut one, mut other) = (Latencies::new(), Latencies::new());
        (1..=50).for_each(|ms| one.add(Duration::from_millis(ms)));
        (51..=100).for_each(|ms| other.add(Duration::from_millis(ms)));
        one.merge(&other);
        assert_eq!(one.count(), 100);
        assert!((one.us(0.99) / 99_000.0 - 1.0).abs() < 1e-3 && (one.mean_us() / 50_500.0 - 1.0).abs() < 1e-3);
        one.add(Duration::from_secs(1_000_000));
        assert_eq!(one.count(), 101);
    }
}
