//! The idle times of one version: counts by bin, and the latest of those beyond the last bin.

use std::collections::VecDeque;
use std::time::Duration;

/// Idle times beyond the last bin that are remembered one by one.
const RECENT: usize = 9;

/// Idle times of a version.
#[derive(Debug)]
pub(crate) struct IdleTimes {
    bin: Duration,
    bins: Box<[u32]>,
    within: u64,
    beyond: u64,
    /// Sum of the squares of the counts.
    squares: u64,
    recent: VecDeque<Duration>,
}

impl IdleTimes {
    pub(super) fn new(bin: Duration, bins: usize) -> IdleTimes {
        IdleTimes {
            bin: bin.max(Duration::from_millis(1)),
            bins: vec![0; bins.max(1)].into(),
            within: 0,
            beyond: 0,
            squares: 0,
            recent: VecDeque::with_capacity(RECENT),
        }
    }

    pub(super) fn record(&mut self, idle: Duration) {
        let bin = (idle.as_nanos() / self.bin.as_nanos()).min(self.bins.len() as u128) as usize;
        match self.bins.get_mut(bin) {
            Some(count) => {
                // (c + 1)² - c²
                self.squares += 2 * u64::from(*count) + 1;
                *count += 1;
                self.within += 1;
            }
            None => {
                self.beyond += 1;
                if self.recent.len() == RECENT {
                    self.recent.pop_front();
                }
                self.recent.push_back(idle);
            }
        }
    }

    /// Share of the idle times that are beyond the last bin; 0 when there are none at all.
    pub(super) fn share_beyond(&self) -> f64 {
        let all = self.within + self.beyond;
        if all == 0 { 0.0 } else { self.beyond as f64 / all as f64 }
    }

    /// Coefficient of variation of the bins' counts: high when idle times gather in a few bins; 0 when there are none.
    pub(super) fn variation(&self) -> f64 {
        let bins = self.bins.len() as f64;
        let mean = self.within as f64 / bins;
        if mean == 0.0 { 0.0 } else { (self.squares as f64 / bins - mean * mean).max(0.0).sqrt() / mean }
    }

    /// The bin in which the idle time is that `share` of those within the bins do not exceed.
    pub(super) fn percentile(&self, share: f64) -> Option<usize> {
        let rank = ((share * self.within as f64).ceil() as u64).max(1);
        let mut seen = 0;
        self.bins.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        })
    }

    /// The median of the latest idle times beyond the last bin.
    pub(super) fn usual_beyond(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = self.recent.iter().copied().collect();
        sorted.sort();
        sorted.get(sorted.len() / 2).copied()
    }
}
