//! Which of several workers gets a call: pure functions of what is known of them.

mod bounded_hash;
mod ch_rlu;
mod least_loaded;
mod locality_first;
mod power_of_two;
mod round_robin;
#[cfg(test)]
mod trace;

pub use lyra_types::Balancing as Policy;

/// A worker that could take the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Hash of its name.
    pub name: u64,
    /// How much it has to do, by what the policy goes by: calls that it has now for most.
    pub load: u64,
    /// What it holds of the version, where the policy goes by it.
    pub holds: Holds,
}

/// What a worker holds of a version, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Holds {
    /// Nothing.
    #[default]
    Nothing,
    /// Its code, loaded.
    Code,
    /// An instance that waits for a call.
    Instance,
}

/// What else a policy may go by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Toss {
    /// Hash of the version that is called.
    pub version: u64,
    /// How many calls came before.
    pub turn: usize,
    /// Uniform chance.
    pub draw: u64,
    /// Share of the latest calls that were of this version, from 0 to 1, where the policy goes by it.
    pub share: f64,
}

/// The index of the candidate that gets the call; `None` where there is none.
pub fn choose(policy: Policy, candidates: &[Candidate], toss: Toss) -> Option<usize> {
    match candidates {
        [] => None,
        [_] => Some(0),
        _ => match policy {
            Policy::RoundRobin => round_robin::choose(candidates, toss),
            Policy::LeastLoaded
            | Policy::LeastQueued
            | Policy::LeastMemory
            | Policy::LeastCpu
            | Policy::LeastLoadAverage => least_loaded::choose(candidates, toss),
            Policy::PowerOfTwo => power_of_two::choose(candidates, toss),
            Policy::BoundedHash => bounded_hash::choose(candidates, toss),
            Policy::ChRlu => ch_rlu::choose(candidates, toss),
            Policy::LocalityFirst => locality_first::choose(candidates, toss),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_policy_chooses_one_of_those_that_there_are(
            of in proptest::collection::vec((0u64..100, 0usize..3), 0..20),
            version: u64,
            turn: usize,
            draw: u64,
            share in 0.0f64..=1.0,
        ) {
            let holds = [Holds::Nothing, Holds::Code, Holds::Instance];
            let candidate = |(at, &(load, held)): (usize, &(u64, usize))| Candidate { name: at as u64, load, holds: holds[held] };
            let candidates: Vec<_> = of.iter().enumerate().map(candidate).collect();
            for policy in Policy::ALL {
                let chosen = choose(policy, &candidates, Toss { version, turn, draw, share });
                prop_assert_eq!(chosen.is_none(), candidates.is_empty());
                prop_assert!(chosen.is_none_or(|at| at < candidates.len()));
            }
        }
    }
}
