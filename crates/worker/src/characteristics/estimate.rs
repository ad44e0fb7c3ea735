//! One quantity as it was seen lately: an exponentially weighted average, and the last few samples.
//!
//! Adding and reading take no lock and allocate nothing. Samples that come on several cores at the same moment may
//! each miss one another in the average; none is waited for.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Samples kept.
pub(super) const RECENT: usize = 16;

/// A new sample weighs one part in so many, once there are so many.
const MEMORY: u64 = 8;

/// A quantity in whole units: nanoseconds or bytes.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    samples: AtomicU64,
    average: AtomicU64,
    recent: [AtomicU64; RECENT],
}

/// What an [`Estimate`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) samples: u64,
    pub(super) average: u64,
    /// Of the last samples: the middle one, and the greatest.
    pub(super) median: u64,
    pub(super) greatest: u64,
}

/// An [`Estimate`] in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    samples: u64,
    average: u64,
    /// The oldest first.
    recent: Vec<u64>,
}

impl Estimate {
    pub(super) fn add(&self, sample: u64) {
        let before = self.samples.fetch_add(1, Ordering::Relaxed);
        self.recent[slot(before)].store(sample, Ordering::Relaxed);
        if before == 0 {
            self.average.store(sample, Ordering::Relaxed);
            return;
        }
        let weight = (before + 1).min(MEMORY);
        let blended = |average: u64| {
            Some(if sample >= average {
                average + (sample - average) / weight
            } else {
                average - (average - sample) / weight
            })
        };
        let _ = self.average.fetch_update(Ordering::Relaxed, Ordering::Relaxed, blended);
    }

    /// The weighted average; `None` before the first sample.
    pub(super) fn average(&self) -> Option<u64> {
        (self.samples.load(Ordering::Relaxed) > 0).then(|| self.average.load(Ordering::Relaxed))
    }

    pub(super) fn summary(&self) -> Option<Summary> {
        let samples = self.samples.load(Ordering::Relaxed);
        let mut sorted: [u64; RECENT] = std::array::from_fn(|slot| self.recent[slot].load(Ordering::Relaxed));
        let kept = &mut sorted[..kept(samples)];
        kept.sort_unstable();
        let greatest = *kept.last()?;
        let median = kept[kept.len() / 2];
        Some(Summary { samples, average: self.average.load(Ordering::Relaxed), median, greatest })
    }

    pub(super) fn save(&self) -> Option<Saved> {
        let samples = self.samples.load(Ordering::Relaxed);
        let oldest = samples - kept(samples) as u64;
        let recent = (oldest..samples).map(|n| self.recent[slot(n)].load(Ordering::Relaxed)).collect();
        (samples > 0).then(|| Saved { samples, average: self.average.load(Ordering::Relaxed), recent })
    }

    pub(super) fn restore(saved: Option<&Saved>) -> Estimate {
        let estimate = Estimate::default();
        if let Some(saved) = saved {
            let kept = saved.recent.len().min(RECENT);
            let samples = saved.samples.max(kept as u64);
            for (n, sample) in (samples - kept as u64..samples).zip(&saved.recent[saved.recent.len() - kept..]) {
                estimate.recent[slot(n)].store(*sample, Ordering::Relaxed);
            }
            // Slots that the file had no sample for would read as zero.
            let samples = if kept < RECENT { kept as u64 } else { samples };
            estimate.samples.store(samples, Ordering::Relaxed);
            estimate.average.store(saved.average, Ordering::Relaxed);
        }
        estimate
    }
}

fn slot(n: u64) -> usize {
    // Less than RECENT, so the cast keeps it.
    (n % RECENT as u64) as usize
}

fn kept(samples: u64) -> usize {
    usize::try_from(samples).map_or(RECENT, |samples| samples.min(RECENT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(samples: &[u64]) -> Estimate {
        let estimate = Estimate::default();
        samples.iter().for_each(|sample| estimate.add(*sample));
        estimate
    }

    #[test]
    fn nothing_is_said_before_the_first_sample() {
        assert_eq!((of(&[]).average(), of(&[]).summary(), of(&[]).save()), (None, None, None));
    }

    #[test]
    fn the_average_follows_a_change_within_a_few_samples() {
        let estimate = of(&[100; 50]);
        assert_eq!(estimate.average(), Some(100));
        (0..20).for_each(|_| estimate.add(1_000));
        assert!(estimate.average().is_some_and(|average| (900..=1_000).contains(&average)));
        let summary = estimate.summary().expect("it has samples");
        assert_eq!((summary.samples, summary.median, summary.greatest), (70, 1_000, 1_000));
    }

    #[test]
    fn the_first_samples_count_alike() {
        assert_eq!(of(&[10, 20, 30, 40]).average(), Some(25));
    }

    proptest! {
        #[test]
        fn the_average_lies_between_the_least_and_the_greatest(samples in prop::collection::vec(any::<u64>(), 1..60)) {
            let average = of(&samples).average().expect("there are samples");
            prop_assert!(samples.iter().min().is_some_and(|least| *least <= average));
            prop_assert!(samples.iter().max().is_some_and(|most| average <= *most));
        }

        #[test]
        fn what_is_saved_comes_back(samples in prop::collection::vec(any::<u64>(), 0..60), more in any::<u64>()) {
            let (one, two) = (of(&samples), Estimate::restore(of(&samples).save().as_ref()));
            prop_assert_eq!(one.summary(), two.summary());
            one.add(more);
            two.add(more);
            prop_assert_eq!(one.save(), two.save());
        }
    }
}
