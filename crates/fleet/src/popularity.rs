//! Which share of the latest calls each version has: a sketch of fixed size.
//!
//! Two rows of counters, of which a version has one each; the smaller of the two counts (Cormode, Muthukrishnan, "An
//! Improved Data Stream Summary: The Count-Min Sketch", 2005). All are halved again and again, so that what was called
//! long ago counts little. Counters are changed without a lock; a count that is lost now and then does no harm.

use std::sync::atomic::{AtomicU32, Ordering};

/// Counters of a row.
const SLOTS: usize = 512;
/// Calls after which all counters are halved.
const PERIOD: u32 = 4_096;
/// Fewer calls tell nothing: of the very first one, every call would be.
const MANY: u32 = 64;

/// The sketch.
#[derive(Debug)]
pub(crate) struct Popularity {
    rows: [[AtomicU32; SLOTS]; 2],
    calls: AtomicU32,
}

impl Default for Popularity {
    fn default() -> Popularity {
        let row = || std::array::from_fn(|_| AtomicU32::new(0));
        Popularity { rows: [row(), row()], calls: AtomicU32::new(0) }
    }
}

impl Popularity {
    /// Counts a call of the version; says which share of all calls it has, from 0 to 1.
    pub(crate) fn count(&self, version: u64) -> f64 {
        let slots = [version as usize % SLOTS, (version >> 32) as usize % SLOTS];
        let counts = [0, 1].map(|row| self.rows[row][slots[row]].fetch_add(1, Ordering::Relaxed) + 1);
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if calls == PERIOD {
            self.halve();
        }
        (f64::from(counts[0].min(counts[1])) / f64::from(calls.max(MANY))).min(1.0)
    }

    fn halve(&self) {
        for counter in self.rows.iter().flatten().chain([&self.calls]) {
            counter.store(counter.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_what_is_called_now() {
        let (popularity, random) = (Popularity::default(), lyra_kit::Random::seeded(4));
        let rare: Vec<u64> = (0..100).map(|_| random.u64()).collect();
        let [first, second] = [random.u64(), random.u64()];
        let mut shares = [0.0; 2];
        for turn in 0..20_000usize {
            let popular = if turn < 10_000 { first } else { second };
            let share = popularity.count(if turn % 2 == 0 { popular } else { rare[turn / 2 % 100] });
            shares[turn % 2] = share;
            assert!((0.0..=1.0).contains(&share));
        }
        assert!((0.4..0.6).contains(&shares[0]) && shares[1] < 0.05, "{shares:?}");
        assert!(popularity.count(first) < 0.1, "what was popular is forgotten");
    }
}
