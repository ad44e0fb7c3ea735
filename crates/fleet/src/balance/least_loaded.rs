//! The worker with the least to do, by whatever it is measured; of several such, one by chance.

use super::{Candidate, Toss};

pub(super) fn choose(candidates: &[Candidate], toss: Toss) -> Option<usize> {
    let first = toss.draw as usize % candidates.len().max(1);
    let from_there = (0..candidates.len()).map(|step| (first + step) % candidates.len());
    from_there.min_by_key(|at| candidates[*at].load)
}

#[cfg(test)]
mod tests {
    use super::super::Holds;
    use super::*;

    #[test]
    fn the_fewest_calls_win_and_ties_are_drawn() {
        let of = |loads: [u64; 3]| loads.map(|load| Candidate { name: 0, load, holds: Holds::Nothing });
        let toss = |draw| Toss { version: 0, turn: 0, draw, share: 0.0 };
        assert_eq!(choose(&of([2, 1, 3]), toss(5)), Some(1));
        let drawn: Vec<_> = (0..3).map(|draw| choose(&of([1, 1, 1]), toss(draw))).collect();
        assert_eq!(drawn, [Some(0), Some(1), Some(2)]);
    }
}
