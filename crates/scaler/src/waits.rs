//! How long what is accepted now will wait: an estimate, from how much waits and how fast jobs end.
//!
//! By Little's law (Little, "A Proof for the Queuing Formula L = λW", 1961) the wait is what waits, divided by how much of it ends in a
//! second. The rate is smoothed over the last looks. While nothing ends, the wait is the time for which something has waited.

use std::time::Duration;

use tokio::time::Instant;

/// How much the newest look weighs.
const NEWEST: f64 = 0.3;
/// Longest wait that is told.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// What was seen before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waits {
    before: Option<(Instant, u64)>,
    /// Jobs that end in a second.
    rate: f64,
    /// Since when something has waited without a break.
    since: Option<Instant>,
}

impl Waits {
    /// Takes in that at `now` so much waits and so many jobs have `ended` since ever; returns the wait in ms.
    #[expect(clippy::cast_precision_loss, reason = "an estimate, for which a few figures are enough")]
    pub(crate) fn look(&mut self, now: Instant, queued: u64, ended: u64) -> u64 {
        if let Some((then, before)) = self.before {
            let seconds = now.duration_since(then).as_secs_f64();
            if seconds > 0.0 {
                // Old jobs are forgotten, which makes the number less.
                let rate = ended.saturating_sub(before) as f64 / seconds;
                self.rate += NEWEST * (rate - self.rate);
            }
        }
        self.before = Some((now, ended));
        if queued == 0 {
            self.since = None;
            return 0;
        }
        let waited = now.duration_since(*self.since.get_or_insert(now));
        let wait = match self.rate > 1e-3 {
            true => Duration::try_from_secs_f64(queued as f64 / self.rate).unwrap_or(LONGEST),
            false => waited,
        };
        u64::try_from(wait.min(LONGEST).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use lyra_kit::Clock;

    use super::*;

    #[test]
    fn the_wait_is_what_waits_by_how_fast_it_ends() {
        let (mut waits, start) = (Waits::default(), Clock::system().instant());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(waits.look(at(0), 0, 0), 0);
        let mut last = 0;
        for step in 1..60 {
            last = waits.look(at(step), 100, step * 50);
        }
        assert!((1_990..2_010).contains(&last), "{last}");
        assert_eq!(waits.look(at(60), 0, 3_000), 0);
    }

    #[test]
    fn while_nothing_ends_the_wait_grows_with_time() {
        let (mut waits, start) = (Waits::default(), Clock::system().instant());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(waits.look(at(0), 5, 9), 0);
        assert_eq!(waits.look(at(30), 5, 9), 30_000);
        assert_eq!(waits.look(at(60), 5, 2), 60_000, "that old jobs are forgotten is no rate");
    }
}
