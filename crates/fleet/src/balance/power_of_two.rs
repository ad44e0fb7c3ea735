//! Two workers by chance, and of these the one with fewer calls.

use super::{Candidate, Toss};

pub(super) fn choose(candidates: &[Candidate], toss: Toss) -> Option<usize> {
    let count = candidates.len() as u64;
    let first = (toss.draw % count.max(1)) as usize;
    // Another one: a distance between 1 and one less than all.
    let distance = 1 + (toss.draw >> 32) % count.saturating_sub(1).max(1);
    let second = ((first as u64 + distance) % count.max(1)) as usize;
    [first, second].into_iter().min_by_key(|at| candidates.get(*at).map_or(u64::MAX, |of| of.load))
}

#[cfg(test)]
mod tests {
    use super::super::Holds;
    use super::*;

    #[test]
    fn two_different_ones_are_compared() {
        let candidates = [5, 0, 9].map(|load| Candidate { name: 0, load, holds: Holds::Nothing });
        let mut seen = [0; 3];
        let random = lyra_kit::Random::seeded(1);
        for _ in 0..3_000 {
            seen[choose(&candidates, Toss { version: 0, turn: 0, draw: random.u64(), share: 0.0 }).unwrap()] += 1;
        }
        // The least loaded wins two pairs of three, the most loaded none.
        assert!(seen[2] == 0 && seen[1] > 1_800 && seen[0] > 800, "{seen:?}");
    }
}
