//! Each worker in turn.

use super::{Candidate, Toss};

pub(super) fn choose(candidates: &[Candidate], toss: Toss) -> Option<usize> {
    toss.turn.checked_rem(candidates.len())
}
