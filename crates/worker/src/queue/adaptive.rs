//! How many calls may run at once, adapted to the load of the machine.
//!
//! Additive increase, multiplicative decrease: D.-M. Chiu and R. Jain, "Analysis of the increase and decrease algorithms for
//! congestion avoidance in computer networks" (1989). Pure: what is measured comes in, the next limit goes out.

use super::config::Adaptive;

/// What the queue looked like when the load was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observed {
    /// The limit now.
    pub(super) limit: usize,
    /// Calls that run under it.
    pub(super) running: usize,
    /// Whether calls wait for it.
    pub(super) waiting: bool,
    /// Load in percent.
    pub(super) load: u32,
}

/// The next limit, from `config.min` to `max`.
pub(super) fn next_limit(config: &Adaptive, max: usize, now: Observed) -> usize {
    let least = config.min.get().min(max.max(1));
    let next = if now.load > config.target_percent {
        // A limit that is far above what runs would take many steps to be felt: what runs is what is cut.
        let keep = config.keep_percent.clamp(1, 99) as usize;
        now.limit.min(now.running) * keep / 100
    } else if now.waiting && now.load < config.target_percent {
        now.limit.saturating_add(config.increase.get())
    } else {
        now.limit
    };
    next.clamp(least, max.max(1))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proptest::prelude::*;

    use super::*;

    fn config() -> Adaptive {
        Adaptive {
            min: NonZeroUsize::new(4).expect("not zero"),
            increase: NonZeroUsize::new(2).expect("not zero"),
            target_percent: 60,
            keep_percent: 50,
            ..Adaptive::default()
        }
    }

    #[test]
    fn the_limit_grows_by_steps_while_calls_wait_and_falls_by_a_share_under_load() {
        let of = |limit, running, waiting, load| next_limit(&config(), 100, Observed { limit, running, waiting, load });
        let table = [
            ("calls wait, load is low", of(10, 10, true, 10), 12),
            ("nobody waits: not wider than needed", of(10, 5, false, 10), 10),
            ("at the target it stays", of(10, 10, true, 60), 10),
            ("over the target it halves", of(10, 10, true, 61), 5),
            ("what runs is what is halved", of(100, 20, false, 90), 10),
            ("never under the least", of(5, 5, true, 100), 4),
            ("never over the most", of(99, 99, true, 0), 100),
        ];
        for (what, got, want) in table {
            assert_eq!(got, want, "{what}");
        }
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(
            limit in 0..2_000usize, running in 0..2_000usize, waiting: bool, load: u32, max in 0..1_000usize,
        ) {
            let next = next_limit(&config(), max, Observed { limit, running, waiting, load });
            prop_assert!(next >= 4.min(max.max(1)) && next <= max.max(1));
        }

        /// Under a load that follows the limit, the limit comes to the target and stays near it.
        #[test]
        fn it_settles_around_the_target(start in 4..500usize, per_call in 1..6u32) {
            let config = Adaptive { keep_percent: 75, ..config() };
            let mut limit = start;
            for _ in 0..400 {
                let load = u32::try_from(limit).expect("small") * per_call;
                limit = next_limit(&config, 500, Observed { limit, running: limit, waiting: true, load });
            }
            let load = u32::try_from(limit).expect("small") * per_call;
            prop_assert!(load <= 60 + 3 * per_call || limit == 4, "limit {limit}, load {load}");
            prop_assert!(load >= 30 || limit <= 4 + 3 , "limit {limit}, load {load}");
        }
    }
}
