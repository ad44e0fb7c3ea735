//! When standing instances are started: a few at a time, and behind the sessions that are being opened.
//!
//! An open takes a millisecond or two of several processes; making a sandbox takes as much of the kernel, and some of its locks.
//! An instance that only replaces another one has time: it is started when no session was given an instance for a moment.

use std::sync::Arc;
use std::time::Duration;

use lyra_kit::Clock;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// An open takes about so long from here to the client's first byte.
const OPEN: Duration = Duration::from_millis(5);
/// Longest wait for opens, however many come.
const LONGEST: Duration = Duration::from_millis(25);

/// Who may start a standing instance.
pub(super) struct Starts {
    places: Arc<Semaphore>,
    /// When a session was last given a standing instance.
    opened: Mutex<Option<Instant>>,
}

impl Starts {
    /// So many at a time.
    pub(super) fn new(at_a_time: usize) -> Starts {
        Starts { places: Arc::new(Semaphore::new(at_a_time.max(1))), opened: Mutex::default() }
    }

    /// A session was given a standing instance.
    pub(super) fn opened(&self, now: Instant) {
        *self.opened.lock() = Some(now);
    }

    /// Waits for a place; `None`: there are none any more.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Lets opens go first.
    pub(super) async fn give_way(&self, clock: &Clock) {
        let latest = clock.instant() + LONGEST;
        loop {
            let Some(opened) = *self.opened.lock() else { return };
            let at = (opened + OPEN).min(latest);
            let now = clock.instant();
            if at <= now {
                return;
            }
            clock.sleep(at - now).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_for_opens_but_not_for_ever() {
        let (clock, starts) = (Clock::system(), Arc::new(Starts::new(1)));
        let began = clock.instant();
        starts.give_way(&clock).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "nothing was opened");
        starts.opened(began);
        starts.give_way(&clock).await;
        assert_eq!(began.elapsed(), OPEN);
        let (opening, began) = (Arc::clone(&starts), clock.instant());
        let opens = lyra_kit::tasks::spawn("opens", async move {
            let clock = Clock::system();
            loop {
                opening.opened(clock.instant());
                clock.sleep(OPEN / 5).await;
            }
        });
        tokio::task::yield_now().await;
        starts.give_way(&clock).await;
        assert_eq!(began.elapsed(), LONGEST, "opens that never end");
        opens.abort();
    }
}
