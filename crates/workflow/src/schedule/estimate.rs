//! How long a resource takes for an input of some size, learnt from what it took: a line through the measurements, of
//! which the older weigh less.

use std::time::Duration;

/// A line: seconds for nothing, and for each byte more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Seconds for an empty input.
    pub base: f64,
    /// Seconds for each byte of the input: what transfer and work per byte cost.
    pub per_byte: f64,
}

impl Estimate {
    /// Seconds for an input of `bytes`.
    pub fn seconds(&self, bytes: u64) -> f64 {
        self.base + self.per_byte * bytes as f64
    }
}

/// Weight of all that was measured before, with each measurement.
const KEPT: f64 = 0.9;

/// Sums of a weighted least-squares fit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fit {
    weight: f64,
    bytes: f64,
    seconds: f64,
    bytes_squared: f64,
    bytes_seconds: f64,
}

impl Fit {
    /// Takes up a measurement.
    pub(super) fn add(&mut self, bytes: u64, took: Duration) {
        let (bytes, seconds) = (bytes as f64, took.as_secs_f64());
        let sums =
            [&mut self.weight, &mut self.bytes, &mut self.seconds, &mut self.bytes_squared, &mut self.bytes_seconds];
        for (sum, new) in sums.into_iter().zip([1.0, bytes, seconds, bytes * bytes, bytes * seconds]) {
            *sum = *sum * KEPT + new;
        }
    }

    /// The line; none where nothing was measured.
    pub(super) fn estimate(&self) -> Option<Estimate> {
        if self.weight == 0.0 {
            return None;
        }
        let (mean_bytes, mean_seconds) = (self.bytes / self.weight, self.seconds / self.weight);
        let variance = self.bytes_squared / self.weight - mean_bytes * mean_bytes;
        let covariance = self.bytes_seconds / self.weight - mean_bytes * mean_seconds;
        // Sizes that hardly differ say nothing of their price; and no size makes a call faster.
        let spread = variance > (0.01 * mean_bytes * mean_bytes).max(1.0);
        let per_byte =
            if spread { (covariance / variance).clamp(0.0, mean_seconds / mean_bytes.max(1.0)) } else { 0.0 };
        Some(Estimate { base: mean_seconds - per_byte * mean_bytes, per_byte })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_measured_says_nothing() {
        assert_eq!(Fit::default().estimate(), None);
    }

    #[test]
    fn equal_sizes_give_the_mean_and_different_ones_the_price_of_a_byte() {
        let mut fit = Fit::default();
        for _ in 0..50 {
            fit.add(1_000, Duration::from_millis(20));
        }
        let flat = fit.estimate().expect("it was measured");
        assert!((flat.base - 0.02).abs() < 1e-9 && flat.per_byte == 0.0, "{flat:?}");
        let mut fit = Fit::default();
        for size in (0..200).map(|n| (n % 10) * 100_000) {
            fit.add(size, Duration::from_millis(10) + Duration::from_nanos(size));
        }
        let line = fit.estimate().expect("it was measured");
        assert!((line.base - 0.01).abs() < 1e-5 && (line.per_byte - 1e-9).abs() < 1e-12, "{line:?}");
        assert!((line.seconds(10_000_000) - 0.02).abs() < 1e-4);
    }

    #[test]
    fn a_line_never_falls_below_nothing() {
        let mut fit = Fit::default();
        for (bytes, millis) in [(0, 50), (1_000_000, 1), (10, 80), (2_000_000, 2), (0, 0)] {
            fit.add(bytes, Duration::from_millis(millis));
            let line = fit.estimate().expect("it was measured");
            assert!(line.base >= -1e-12 && line.per_byte >= 0.0, "{line:?}");
        }
    }
}
