//! When something last moved on a connection, so that one on which nothing does is not held for ever.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lyra_kit::Clock;

/// When bytes last moved. A stamp costs a look at the clock and a store.
#[derive(Debug)]
pub(super) struct Activity {
    clock: Clock,
    begun: tokio::time::Instant,
    /// Milliseconds after `begun`.
    last: AtomicU64,
    busy: AtomicBool,
    over: AtomicBool,
}

impl Activity {
    /// As of now, and in use.
    pub(super) fn new(clock: &Clock) -> Activity {
        Activity {
            clock: clock.clone(),
            begun: clock.instant(),
            last: AtomicU64::new(0),
            busy: AtomicBool::new(true),
            over: AtomicBool::new(false),
        }
    }

    fn elapsed(&self) -> Duration {
        self.clock.instant().duration_since(self.begun)
    }

    /// Bytes have moved.
    pub(super) fn stamp(&self) {
        self.last.store(u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether it is in use from now on, or waits for its next use.
    pub(super) fn set_busy(&self, busy: bool) {
        self.stamp();
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Whether it ended because nothing moved while it was in use.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// For how long nothing has moved.
    pub(super) fn quiet(&self) -> Duration {
        self.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }

    /// Ends when nothing has moved for as long as may be: `busy` while it is in use, `waiting` else.
    pub(super) async fn until_over(&self, busy: Duration, waiting: Duration) {
        loop {
            let in_use = self.busy.load(Ordering::Relaxed);
            let limit = if in_use { busy } else { waiting };
            let quiet = self.quiet();
            if quiet >= limit {
                self.over.store(in_use, Ordering::Relaxed);
                return;
            }
            // It may cease to be in use while this sleeps.
            self.clock.sleep((limit - quiet).min(waiting).max(Duration::from_millis(1))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Duration = Duration::from_secs(100);
    const WAITING: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn what_moves_goes_on_and_what_does_not_is_over() {
        let clock = Clock::system();
        let activity = Activity::new(&clock);
        let begun = clock.instant();
        let took = |begun: tokio::time::Instant| Clock::system().instant().duration_since(begun).as_secs();
        tokio::join!(activity.until_over(BUSY, WAITING), async {
            clock.sleep(Duration::from_secs(60)).await;
            activity.stamp();
        });
        assert_eq!((took(begun), activity.is_over()), (160, true));
        let activity = Activity::new(&clock);
        let begun = clock.instant();
        tokio::join!(activity.until_over(BUSY, WAITING), async {
            clock.sleep(Duration::from_secs(5)).await;
            activity.set_busy(false);
        });
        assert!((15..=16).contains(&took(begun)) && !activity.is_over(), "{}", took(begun));
    }
}
