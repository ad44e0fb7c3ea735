//! Which of several workers gets a call: pure functions of what is known of them.

mod bounded_hash;
mod least_loaded;
mod power_of_two;
mod round_robin;

use serde::{Deserialize, Serialize};

/// A worker that could take the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Hash of its name.
    pub name: u64,
    /// Calls that it has now, as far as is known.
    pub load: usize,
}

/// What else a policy may go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toss {
    /// Hash of the version that is called.
    pub version: u64,
    /// How many calls came before.
    pub turn: usize,
    /// Uniform chance.
    pub draw: u64,
}

/// A balancing policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest calls.
    LeastLoaded,
    /// The one with fewer calls of two drawn by chance (Mitzenmacher, "The Power of Two Choices in Randomized Load
    /// Balancing", 2001): what is known of the load is old, and all others know it too, so the least loaded one would
    /// get every call for a while.
    PowerOfTwo,
    /// A version's own worker as long as that has no more than a quarter over the average load, then the next in its
    /// order (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018): calls find the code loaded and
    /// instances warm. Workers are ordered by rendezvous hashing (Thaler, Ravishankar, 1998).
    #[default]
    BoundedHash,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Policy; 4] = [Policy::RoundRobin, Policy::LeastLoaded, Policy::PowerOfTwo, Policy::BoundedHash];

    /// The index of the candidate that gets the call; `None` where there is none.
    pub fn choose(self, candidates: &[Candidate], toss: Toss) -> Option<usize> {
        match candidates {
            [] => None,
            [_] => Some(0),
            _ => match self {
                Policy::RoundRobin => round_robin::choose(candidates, toss),
                Policy::LeastLoaded => least_loaded::choose(candidates, toss),
                Policy::PowerOfTwo => power_of_two::choose(candidates, toss),
                Policy::BoundedHash => bounded_hash::choose(candidates, toss),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_policy_chooses_one_of_those_that_there_are(
            loads in proptest::collection::vec(0usize..100, 0..20), version: u64, turn: usize, draw: u64,
        ) {
            let candidates: Vec<_> =
                loads.iter().enumerate().map(|(at, load)| Candidate { name: at as u64, load: *load }).collect();
            for policy in Policy::ALL {
                let chosen = policy.choose(&candidates, Toss { version, turn, draw });
                prop_assert_eq!(chosen.is_none(), candidates.is_empty());
                prop_assert!(chosen.is_none_or(|at| at < candidates.len()));
            }
        }
    }

    /// Calls that stay, of `versions` with a skewed popularity, on three workers; gives calls by worker and version.
    fn placed(policy: Policy, versions: u64, calls: usize) -> Vec<Vec<usize>> {
        let mut placed = vec![vec![0; versions as usize]; 3];
        let random = lyra_kit::Random::seeded(7);
        for turn in 0..calls {
            // Half of all calls are of an eighth of the versions.
            let version = (random.unit().powi(3) * versions as f64) as u64;
            let candidates: Vec<_> = placed
                .iter()
                .enumerate()
                .map(|(name, of)| Candidate { name: name as u64 * 1_000 + 17, load: of.iter().sum() })
                .collect();
            let at = policy.choose(&candidates, Toss { version, turn, draw: random.u64() }).unwrap();
            placed[at][version as usize] += 1;
        }
        placed
    }

    #[test]
    fn every_policy_spreads_a_skewed_load() {
        for policy in Policy::ALL {
            let calls = 3_000;
            let loads: Vec<usize> = placed(policy, 60, calls).iter().map(|of| of.iter().sum()).collect();
            let most = *loads.iter().max().unwrap();
            assert!(most <= calls / 3 + calls / 3 / 4 + 1, "{policy:?}: {loads:?}");
        }
    }

    #[test]
    fn only_hashing_keeps_versions_where_they_are_warm() {
        let warm = |policy| {
            // The first call of a version on a worker finds nothing warm there.
            placed(policy, 60, 3_000).iter().flatten().filter(|calls| **calls > 0).count()
        };
        let hashed = warm(Policy::BoundedHash);
        for other in [Policy::RoundRobin, Policy::LeastLoaded, Policy::PowerOfTwo] {
            assert!(hashed * 3 < warm(other) * 2, "{hashed} cold starts, {other:?} {}", warm(other));
        }
    }
}
