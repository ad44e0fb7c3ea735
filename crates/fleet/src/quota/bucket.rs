//! A token bucket whose rate and size may change at any time, without a lock.
//!
//! What must hold: over any span, no more tokens are taken than the bucket held at its begin and what its rate brought since; a change
//! of rate or size never makes a token. A race costs a caller a token that was about to be there, never the other way round.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// One token; tokens are counted in billionths.
const TOKEN: i64 = 1_000_000_000;
/// Rates are counted in tokens per a million seconds.
const RATE: u128 = 1_000_000;

#[derive(Debug)]
pub(super) struct Bucket {
    tokens: AtomicI64,
    /// What came in up to this time is in `tokens`; in nanoseconds.
    filled: AtomicU64,
    /// Tokens in a million seconds.
    rate: AtomicU64,
    /// Most tokens, in billionths.
    size: AtomicI64,
}

/// `burst` in thousandths of a token. A bucket that anything comes into holds a whole token, else it would never give one.
fn size(rate: u64, burst: u64) -> i64 {
    let burst = i64::try_from(burst).unwrap_or(i64::MAX).saturating_mul(TOKEN / 1_000);
    if rate == 0 { burst } else { burst.max(TOKEN) }
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(rate: u64, burst: u64, now: u64) -> Bucket {
        let size = size(rate, burst);
        Bucket {
            tokens: AtomicI64::new(size),
            filled: AtomicU64::new(now),
            rate: AtomicU64::new(rate),
            size: AtomicI64::new(size),
        }
    }

    /// Makes it a full one of this rate and size, where there was no limit before.
    pub(super) fn begin(&self, rate: u64, burst: u64, now: u64) {
        self.set(rate, burst, now);
        self.tokens.store(size(rate, burst), Ordering::Relaxed);
    }

    /// Gives it another rate and size. It is as full as it was, as far as there is room.
    pub(super) fn set(&self, rate: u64, burst: u64, now: u64) {
        self.fill(now);
        self.rate.store(rate, Ordering::Relaxed);
        // What is left of a token before this time came in at another rate: it is forgotten.
        self.filled.fetch_max(now, Ordering::Relaxed);
        let size = size(rate, burst);
        self.size.store(size, Ordering::Relaxed);
        self.tokens.fetch_min(size, Ordering::Relaxed);
    }

    fn fill(&self, now: u64) {
        let (filled, rate) = (self.filled.load(Ordering::Relaxed), u128::from(self.rate.load(Ordering::Relaxed)));
        let Some(passed) = now.checked_sub(filled).filter(|passed| *passed > 0 && rate > 0) else { return };
        let more = u128::from(passed) * rate / RATE;
        if more == 0 {
            return;
        }
        // No more than the time that these tokens took is spent, so that a slow bucket that is asked often fills all the same.
        let spent = u64::try_from((more * RATE).div_ceil(rate)).unwrap_or(passed).min(passed);
        if self.filled.compare_exchange(filled, filled + spent, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            // Somebody else fills.
            return;
        }
        let (more, size) = (i64::try_from(more).unwrap_or(i64::MAX), self.size.load(Ordering::Relaxed));
        let fill = |tokens: i64| Some(tokens.saturating_add(more).min(size.max(tokens)));
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fill);
    }

    /// Takes a token, or says when there will be one, as far as the rate tells.
    pub(super) fn take(&self, now: u64) -> Result<(), Duration> {
        self.fill(now);
        let take = |tokens: i64| (tokens >= TOKEN).then(|| tokens - TOKEN);
        match self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(tokens) => {
                let missing = u128::from((TOKEN - tokens).unsigned_abs());
                let rate = u128::from(self.rate.load(Ordering::Relaxed));
                let nanos = (missing * RATE).checked_div(rate).unwrap_or_else(|| u64::MAX.into());
                Err(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
            }
        }
    }

    /// Gives a token back that was not used.
    pub(super) fn give_back(&self) {
        let size = self.size.load(Ordering::Relaxed);
        let give = |tokens: i64| Some(tokens.saturating_add(TOKEN).min(size.max(tokens)));
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, give);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn it_gives_its_burst_then_its_rate_and_says_when_to_come_again() {
        // Two in a second, three at once.
        let bucket = Bucket::new(2_000_000, 3_000, 5);
        assert!((0..3).all(|_| bucket.take(5).is_ok()));
        assert_eq!(bucket.take(5), Err(Duration::from_millis(500)));
        assert!(bucket.take(5 + SECOND / 2 - 1).is_err());
        assert!(bucket.take(5 + SECOND / 2).is_ok());
        bucket.give_back();
        assert!(bucket.take(5 + SECOND / 2).is_ok());
        assert_eq!((0..10).filter(|_| bucket.take(100 * SECOND).is_ok()).count(), 3, "never more than its burst");
    }

    #[test]
    fn a_slow_bucket_that_is_asked_often_fills_all_the_same() {
        // One in an hour.
        let bucket = Bucket::new(278, 1_000, 0);
        assert!(bucket.take(0).is_ok());
        let taken = (0..4_000_000).filter(|step| bucket.take(step * SECOND / 1_000).is_ok()).count();
        assert_eq!(taken, 1, "in 4,000 s");
    }

    #[test]
    fn a_share_of_less_than_one_call_still_gives_one() {
        let bucket = Bucket::new(500_000, 500, 0);
        assert!(bucket.take(0).is_ok() && bucket.take(SECOND).is_err() && bucket.take(2 * SECOND).is_ok());
        let none = Bucket::new(0, 0, 0);
        assert!(none.take(9 * SECOND).is_err());
    }

    proptest! {
        #[test]
        fn whatever_changes_no_more_comes_out_than_went_in(
            steps in prop::collection::vec((0_u64..2_000, 0_u64..5_000_000, 0_u64..5_000, 0_usize..20), 1..60)
        ) {
            let (mut now, mut rate) = (0_u64, 1_000_000_u64);
            let bucket = Bucket::new(rate, 2_000, 0);
            // In billionths.
            let (mut came, mut taken) = (2 * i128::from(TOKEN), 0_i128);
            for (pause, new_rate, burst, takes) in steps {
                now += pause * 1_000_000;
                came += i128::from(pause) * 1_000_000 * i128::from(rate) / 1_000_000;
                for _ in 0..takes {
                    taken += i128::from(TOKEN) * i128::from(bucket.take(now).is_ok());
                    prop_assert!(taken <= came, "{taken} of {came}");
                }
                bucket.set(new_rate, burst, now);
                rate = new_rate;
            }
        }
    }
}
