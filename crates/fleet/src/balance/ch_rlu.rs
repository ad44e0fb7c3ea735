//! Consistent hashing with random load updates (Fuerst, Sharma, HPDC 2022).
//!
//! A version has a short chain of workers, its own one first; the first with less than a quarter over the average load gets
//! the call. What is known of loads is old, and calls of a version that is called much come faster than it is renewed: so
//! the loads that such a version sees are raised by chance, by as much as its own calls may have added meanwhile. It spills
//! over before its worker is full, now to one and now to another, while versions that are called rarely stay.

use std::cmp::Reverse;

use super::bounded_hash::{bound, weight};
use super::{Candidate, Toss};

/// A worker takes up to so many quarters of the average load.
const QUARTERS: u64 = 5;
/// Workers of a chain. That of a version with a large share of all calls is longer, since it needs more.
const CHAIN: usize = 4;
/// A version is called much when it alone is so much of the load that one worker would have with an even spread.
const POPULAR: f64 = 0.5;

pub(super) fn choose(candidates: &[Candidate], toss: Toss) -> Option<usize> {
    let count = candidates.len();
    let needs = toss.share * count as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the candidates, twice")]
    let chain = CHAIN.max((needs * 2.0).ceil() as usize).min(count);
    let bound = bound(candidates, QUARTERS);
    let total: u64 = candidates.iter().map(|candidate| candidate.load).sum();
    let added = if needs < POPULAR { 0.0 } else { toss.share * (total + 1) as f64 };
    let seen = |at: usize| {
        let candidate = candidates[at];
        // A chance of its own for each worker, from the one that was drawn.
        let chance = (weight(toss.draw, candidate.name) >> 11) as f64 / (1u64 << 53) as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most all load that there is")]
        let added = (added * chance) as u64;
        candidate.load + added
    };
    // In the order of the chain: its next one is the best of those that are left.
    let mut left: Vec<(u64, usize)> = (0..count).map(|at| (weight(toss.version, candidates[at].name), at)).collect();
    if chain < count {
        left.select_nth_unstable_by_key(chain - 1, |(weight, _)| Reverse(*weight));
        left.truncate(chain);
    }
    left.sort_unstable_by_key(|(weight, _)| Reverse(*weight));
    let below = left.iter().find(|(_, at)| seen(*at) < bound);
    below.or_else(|| left.iter().min_by_key(|(_, at)| seen(*at))).map(|(_, at)| *at)
}

#[cfg(test)]
mod tests {
    use super::super::Holds;
    use super::*;

    fn calls(share: f64, workers: u64, load: impl Fn(u64) -> u64) -> Vec<usize> {
        let candidates: Vec<_> =
            (0..workers).map(|name| Candidate { name, load: load(name), holds: Holds::Nothing }).collect();
        let random = lyra_kit::Random::seeded(2);
        let mut calls = vec![0; candidates.len()];
        for turn in 0..1_000 {
            calls[choose(&candidates, Toss { version: 9, turn, draw: random.u64(), share }).unwrap()] += 1;
        }
        calls
    }

    #[test]
    fn a_rare_version_stays_on_its_worker_and_a_popular_one_spills_over() {
        let rare = calls(0.01, 10, |_| 10);
        assert_eq!(rare.iter().filter(|count| **count > 0).count(), 1, "{rare:?}");
        let popular = calls(0.2, 10, |_| 10);
        assert!(popular.iter().filter(|count| **count > 0).count() == 4, "{popular:?}");
    }

    #[test]
    fn a_rare_version_keeps_to_its_chain_even_where_that_is_full() {
        let full = calls(0.01, 10, |_| 10);
        let own = full.iter().position(|count| *count > 0).unwrap() as u64;
        let next = calls(0.01, 10, |name| if name == own { 100 } else { 10 });
        assert!(next[own as usize] == 0 && next.iter().filter(|count| **count > 0).count() == 1, "{next:?}");
    }

    #[test]
    fn a_version_that_is_most_of_all_calls_has_all_workers() {
        let all = calls(0.9, 10, |_| 10);
        assert!(all.iter().all(|count| *count > 0), "{all:?}");
    }
}
