//! The worker that holds an idle instance of the version, else its loaded code, else as by bounded hashing.

use super::bounded_hash::{self, bound, weight};
use super::{Candidate, Holds, Toss};

/// A worker that holds something takes up to so many quarters of the average load.
const QUARTERS: u64 = 8;

pub(super) fn choose(candidates: &[Candidate], toss: Toss) -> Option<usize> {
    let bound = bound(candidates, QUARTERS);
    let held = candidates.iter().enumerate().filter(|(_, of)| of.holds > Holds::Nothing && of.load < bound);
    let best = held.max_by_key(|(_, of)| (of.holds, weight(toss.version, of.name)));
    best.map(|(at, _)| at).or_else(|| bounded_hash::choose(candidates, toss))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_goes_before_code_and_code_before_nothing_but_not_into_a_crowd() {
        let of = |all: [(u64, Holds); 3]| {
            let candidates = all.map(|(load, holds)| Candidate { name: load, load, holds });
            choose(&candidates, Toss { version: 1, turn: 0, draw: 0, share: 0.0 })
        };
        use Holds::{Code, Instance, Nothing};
        assert_eq!(of([(1, Nothing), (3, Instance), (2, Code)]), Some(1));
        assert_eq!(of([(3, Nothing), (2, Nothing), (4, Code)]), Some(2));
        assert_eq!(of([(0, Nothing), (90, Instance), (1, Code)]), Some(2));
        assert_ne!(of([(0, Nothing), (90, Instance), (1, Nothing)]), Some(1));
    }
}
