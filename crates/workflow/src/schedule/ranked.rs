//! The lowest rank: the place in the mapping, and 20 more for each failure. So tasks leave a resource that fails for the
//! next, and come back as its failures are forgotten, which those of Chisté's fork of Apollo never are.

use lyra_kit::Random;
use smallvec::SmallVec;

use super::{Decision, OptionView, Scheduler, TaskView, picks, unmapped};

/// What a failure adds to the rank.
const PENALTY: f64 = 20.0;

/// See [`super::Policy::Ranked`].
pub(super) struct Ranked;

impl Scheduler for Ranked {
    fn schedule(&mut self, task: &TaskView<'_>, options: &[OptionView<'_>], _: &Random) -> Decision {
        if options.is_empty() {
            return unmapped(task);
        }
        let rank = |option: &OptionView<'_>| f64::from(option.index) + PENALTY * option.failures;
        let mut free: SmallVec<[(f64, u32); 8]> =
            options.iter().filter(|option| option.has_room()).map(|option| (rank(option), option.index)).collect();
        free.sort_unstable_by(|(a, first), (b, second)| a.total_cmp(b).then(first.cmp(second)));
        picks(free.into_iter().map(|(_, index)| index).take(task.redundancy.max(1) as usize))
    }
}
