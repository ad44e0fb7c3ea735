//! Whether the worker works, seen from inside: it needs no network, no function and no other role.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lyra_wire::worker::{Check, Health};
use tokio::time::Instant;

use crate::service::Inner;

/// When a loop of the worker last came round.
#[derive(Debug)]
pub(crate) struct Beat {
    name: &'static str,
    begin: Instant,
    /// Longest time between two rounds of a loop that works.
    within: Duration,
    /// Microseconds from `begin` to the last round, plus one; 0: it has not begun.
    last: AtomicU64,
}

impl Beat {
    pub(crate) fn new(name: &'static str, within: Duration, begin: Instant) -> Beat {
        Beat { name, begin, within, last: AtomicU64::new(0) }
    }

    /// The loop has come round.
    pub(crate) fn beat(&self, now: Instant) {
        let micros = u64::try_from(now.saturating_duration_since(self.begin).as_micros()).unwrap_or(u64::MAX - 1);
        self.last.store(micros + 1, Ordering::Relaxed);
    }

    fn check(&self, now: Instant) -> Check {
        let last = self.last.load(Ordering::Relaxed);
        let name = self.name.to_owned();
        if last == 0 {
            return Check { name, healthy: false, detail: "has not begun".to_owned() };
        }
        let ago = now.saturating_duration_since(self.begin).saturating_sub(Duration::from_micros(last - 1));
        let detail = format!("came round {} ms ago; {} ms are in order", ago.as_millis(), self.within.as_millis());
        Check { name, healthy: ago <= self.within, detail }
    }
}

impl Inner {
    /// Looks at the loops, the queue, the pool and the back ends.
    pub(crate) fn check_up(&self) -> Health {
        let now = self.clock.instant();
        let lengths = self.queue.lengths();
        let (running, queued) = (lengths.running, lengths.held + lengths.eligible);
        let room = running < lengths.limit;
        let backends = self.templates.backends();
        let checks = vec![
            self.watch_beat.check(now),
            self.sweep_beat.check(now),
            Check {
                name: "queue".to_owned(),
                // Nobody runs, so nobody will end and let the next one in.
                healthy: !(queued > 0 && running == 0 && room),
                detail: format!("{running} calls run, {queued} wait"),
            },
            self.pool.check_up(),
            Check {
                name: "isolation".to_owned(),
                healthy: !backends.is_empty(),
                detail: format!("{} back ends", backends.len()),
            },
        ];
        Health { healthy: checks.iter().all(|check| check.healthy), checks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_come_round_is_noticed() {
        let clock = lyra_kit::Clock::simulated(lyra_types::Timestamp::from_millis(0));
        let beat = Beat::new("watch", Duration::from_secs(10), clock.instant());
        assert!(!beat.check(clock.instant()).healthy, "it has not begun");
        beat.beat(clock.instant());
        clock.sleep(Duration::from_secs(10)).await;
        assert!(beat.check(clock.instant()).healthy);
        clock.sleep(Duration::from_millis(1)).await;
        assert!(!beat.check(clock.instant()).healthy);
    }
}
