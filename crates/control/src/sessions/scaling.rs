//! How many standing instances an application has: a pure function of its policy and of what there is.
//!
//! What must hold: instances with and without a session together never exceed the maximum; where there is room, at least
//! the minimum stand without a session; between the thresholds nothing changes; and a pool that is to have any standing
//! instances has at least one, however small it is.
//!
//! After the scaling policy of Fornax (seed 002), mended: the minimum counts standing instances and not busy ones, the
//! percentage is one of all instances and works for small pools, and the burst bounds what starts at once, not what is asked
//! for in one event.

use lyra_types::resources::{ScalingPolicy, ScalingPolicyType, Threshold};

/// Instances that are started or ended at once, where the policy does not say.
const BURST: u32 = 2;

/// What there is of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pool {
    /// Instances that have a session, or were given one.
    pub(super) allocated: u32,
    /// Sessions that wait for an instance.
    pub(super) waiting: u32,
    /// Standing instances that are wanted now: started, starting, or about to be.
    pub(super) standing: u32,
    /// Of them: those that are ready.
    pub(super) ready: u32,
}

/// How many standing instances are wanted from now on.
pub(super) fn standing(policy: &ScalingPolicy, pool: Pool) -> u32 {
    let (low, high) = bounds(policy, pool);
    let wanted = pool.standing.clamp(low, high);
    let room = policy.maximum_instance.saturating_sub(pool.allocated);
    let wanted = wanted.min(room);
    let burst = if policy.burst == 0 { BURST } else { policy.burst };
    if wanted > pool.standing {
        // What starts at once is bounded; what is there already does not count.
        wanted.min(pool.standing.max(pool.ready.saturating_add(burst).saturating_add(pool.waiting)))
    } else if pool.standing > room {
        // Beyond the maximum nothing may stay.
        wanted
    } else {
        wanted.max(pool.standing.saturating_sub(burst))
    }
}

/// Fewest and most standing instances that the policy asks for.
fn bounds(policy: &ScalingPolicy, pool: Pool) -> (u32, u32) {
    let threshold = |of: Option<Threshold>| of.unwrap_or_default();
    let (low, high) = match policy.scaling_policy_type {
        ScalingPolicyType::IdleSessionNumber => {
            let Threshold { low, high } = threshold(policy.idle_session_num_threshold);
            (low, high.max(low))
        }
        ScalingPolicyType::IdleSessionPercent => {
            let Threshold { low, high } = threshold(policy.idle_session_percent_threshold);
            let busy = pool.allocated.saturating_add(pool.waiting);
            // One at least where any are asked for: a share of nothing would be nothing, and the first session cold.
            let least = share(low, busy, policy.maximum_instance, Round::Up).max(u32::from(low > 0));
            let most = share(high, busy, policy.maximum_instance, Round::Down).max(u32::from(high > 0));
            (least, most.max(least))
        }
        ScalingPolicyType::Unset => (0, 0),
    };
    let low = low.max(policy.minimum_instance).saturating_add(pool.waiting);
    (low, high.max(policy.minimum_instance).saturating_add(pool.waiting).max(low))
}

enum Round {
    Up,
    Down,
}

/// Standing instances `u` of which `percent` of all (`u + busy`) is just reached.
fn share(percent: u32, busy: u32, all: u32, round: Round) -> u32 {
    let (percent, busy) = (u64::from(percent.min(100)), u64::from(busy));
    if percent == 100 {
        return all;
    }
    let (part, whole) = (percent * busy, 100 - percent);
    let standing = match round {
        Round::Up => part.div_ceil(whole),
        Round::Down => part / whole,
    };
    u32::try_from(standing).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(low: u32, high: u32, minimum: u32, maximum: u32) -> ScalingPolicy {
        ScalingPolicy {
            minimum_instance: minimum,
            maximum_instance: maximum,
            burst: 1_000,
            scaling_policy_type: ScalingPolicyType::IdleSessionNumber,
            idle_session_num_threshold: Some(Threshold { low, high }),
            ..ScalingPolicy::default()
        }
    }

    fn percent(low: u32, high: u32, maximum: u32) -> ScalingPolicy {
        ScalingPolicy {
            maximum_instance: maximum,
            burst: 1_000,
            scaling_policy_type: ScalingPolicyType::IdleSessionPercent,
            idle_session_percent_threshold: Some(Threshold { low, high }),
            ..ScalingPolicy::default()
        }
    }

    fn pool(allocated: u32, standing: u32, waiting: u32) -> Pool {
        Pool { allocated, waiting, standing, ready: standing }
    }

    fn delta(policy: &ScalingPolicy, pool: Pool) -> i64 {
        i64::from(super::standing(policy, pool)) - i64::from(pool.standing)
    }

    #[test]
    fn by_number_the_pool_stays_between_its_thresholds() {
        let policy = number(1, 3, 0, 5);
        let table = [
            ((0, 0, 0), 1),
            ((0, 0, 1), 2),
            ((0, 4, 0), -1),
            ((2, 1, 0), 0),
            ((4, 1, 2), 0),
            ((5, 0, 1), 0),
            ((1, 5, 0), -2),
            ((3, 0, 5), 2),
        ];
        for ((allocated, standing, waiting), expected) in table {
            let pool = pool(allocated, standing, waiting);
            assert_eq!(delta(&policy, pool), expected, "{pool:?}");
        }
    }

    #[test]
    fn the_minimum_counts_instances_without_a_session() {
        let policy = number(0, 3, 1, 30);
        assert_eq!(delta(&policy, pool(1, 0, 0)), 1);
        assert_eq!(delta(&policy, pool(30, 0, 0)), 0, "there is no room");
        assert_eq!(super::standing(&number(0, 0, 5, 30), pool(0, 0, 0)), 5);
    }

    #[test]
    fn on_demand_only_nothing_stands() {
        let policy = number(0, 0, 0, 10);
        assert_eq!(super::standing(&policy, pool(0, 0, 0)), 0);
        assert_eq!(super::standing(&policy, pool(3, 2, 0)), 0);
        assert_eq!(super::standing(&policy, pool(3, 0, 2)), 2);
    }

    #[test]
    fn by_percent_small_pools_do_not_collapse() {
        let policy = percent(50, 80, 1_000);
        for standing in [1, 2, 4, 60] {
            assert!(super::standing(&policy, pool(0, standing, 0)) >= 1, "{standing}");
        }
        assert_eq!(super::standing(&policy, pool(0, 0, 0)), 1);
        // Half of all: as many standing as busy ones.
        assert_eq!(super::standing(&policy, pool(10, 0, 0)), 10);
        assert_eq!(super::standing(&policy, pool(10, 40, 0)), 40, "80 % exactly");
        assert_eq!(super::standing(&policy, pool(10, 41, 0)), 40);
        assert_eq!(super::standing(&percent(100, 100, 20), pool(5, 0, 0)), 15);
        assert_eq!(super::standing(&percent(0, 0, 20), pool(5, 3, 0)), 0);
    }

    #[test]
    fn what_starts_or_ends_at_once_is_bounded() {
        let policy = ScalingPolicy { burst: 3, ..number(10, 10, 0, 100) };
        let starting = Pool { allocated: 0, waiting: 0, standing: 3, ready: 0 };
        assert_eq!(super::standing(&policy, Pool::default()), 3);
        assert_eq!(super::standing(&policy, starting), 3, "three start already");
        assert_eq!(super::standing(&policy, Pool { ready: 2, ..starting }), 5);
        assert_eq!(super::standing(&policy, pool(0, 20, 0)), 17);
        let default = ScalingPolicy { burst: 0, ..policy };
        assert_eq!(super::standing(&default, Pool::default()), 2);
    }

    proptest! {
        #[test]
        fn the_pool_comes_to_rest_within_its_bounds(
            by_percent: bool, a in 0u32..60, b in 0u32..60, minimum in 0u32..20, more in 1u32..80, burst in 0u32..9,
            allocated in 0u32..100, standing in 0u32..120,
        ) {
            let maximum = minimum + more;
            let mut policy = if by_percent { percent(a.min(b), a.max(b), maximum) } else { number(a.min(b), a.max(b), 0, maximum) };
            (policy.minimum_instance, policy.burst) = (minimum, burst);
            let allocated = allocated.min(maximum);
            let mut now = Pool { allocated, waiting: 0, standing, ready: standing };
            for _ in 0..400 {
                let next = super::standing(&policy, now);
                prop_assert!(next + allocated <= maximum, "{now:?} -> {next}");
                if next == now.standing { break }
                now = Pool { standing: next, ready: next, ..now };
            }
            prop_assert_eq!(super::standing(&policy, now), now.standing, "at rest: {:?}", now);
            let (low, high) = bounds(&policy, now);
            let room = maximum - allocated;
            prop_assert!(now.standing >= low.min(room) && now.standing <= high.min(room), "{now:?} in {low}..={high}");
        }
    }
}
