//! A version's own worker, unless that has too much to do.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Candidate, Toss};

/// A worker takes up to so many quarters of the average load.
const QUARTERS: u64 = 5;

pub(super) fn choose(candidates: &[Candidate], toss: Toss) -> Option<usize> {
    let bound = bound(candidates, QUARTERS);
    let below = candidates.iter().enumerate().filter(|(_, candidate)| candidate.load < bound);
    below.max_by_key(|(_, candidate)| weight(toss.version, candidate.name)).map(|(at, _)| at)
}

/// Nobody gets a call who has so many: quarters of the average load with this call, rounded up, so that somebody is always
/// below.
pub(super) fn bound(candidates: &[Candidate], quarters: u64) -> u64 {
    let total: u64 = candidates.iter().map(|candidate| candidate.load).sum();
    ((total + 1) * quarters).div_ceil(candidates.len().max(1) as u64 * 4)
}

/// How much a version belongs to a worker: the same on every gateway.
pub(super) fn weight(version: u64, name: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (version, name).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Holds;
    use super::*;

    fn toss(version: u64) -> Toss {
        Toss { version, turn: 0, draw: 0, share: 0.0 }
    }

    fn candidate(name: u64, load: u64) -> Candidate {
        Candidate { name, load, holds: Holds::Nothing }
    }

    proptest! {
        #[test]
        fn nobody_gets_a_call_beyond_the_bound(loads in proptest::collection::vec(0u64..1_000, 2..30), version: u64) {
            let candidates: Vec<_> = (0..).zip(&loads).map(|(name, load)| candidate(name, *load)).collect();
            let chosen = choose(&candidates, toss(version)).expect("somebody is below the average");
            let mean = (loads.iter().sum::<u64>() + 1) as f64 / loads.len() as f64;
            prop_assert!((loads[chosen] as f64) < mean * 1.25 + 1.0);
        }

        #[test]
        fn a_worker_that_goes_takes_only_its_own_versions_along(gone in 0usize..10) {
            let all: Vec<_> = (0..10).map(|name| candidate(name * 7_919, 0)).collect();
            let mut rest = all.clone();
            rest.remove(gone);
            for version in 0..200 {
                let before = all[choose(&all, toss(version)).unwrap()];
                let after = rest[choose(&rest, toss(version)).unwrap()];
                prop_assert!(before == after || before == all[gone]);
            }
        }
    }

    #[test]
    fn versions_are_spread_over_idle_workers() {
        let candidates: Vec<_> = (0..4).map(|name| candidate(name, 0)).collect();
        let mut seen = [0; 4];
        for version in 0..4_000 {
            seen[choose(&candidates, toss(version)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| (800..1_200).contains(count)), "{seen:?}");
    }
}
