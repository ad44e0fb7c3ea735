//! Inputs above a threshold stay on this machine, others go elsewhere, by chance among what is left. Apollo's
//! `SizeConstraint`; where that leaves a type without any resource, the constraint is dropped instead of the run.

use lyra_kit::Random;
use smallvec::SmallVec;

use super::{Decision, OptionView, Scheduler, TaskView, draw, unmapped};

/// See [`super::Policy::SizeConstraint`].
pub(super) struct SizeConstraint {
    /// Largest input that goes elsewhere, in bytes.
    pub(super) threshold: u64,
}

impl Scheduler for SizeConstraint {
    fn schedule(&mut self, task: &TaskView<'_>, options: &[OptionView<'_>], random: &Random) -> Decision {
        if options.is_empty() {
            return unmapped(task);
        }
        let stays = task.input_bytes > self.threshold;
        let constrained = options.iter().any(|option| option.is_local == stays);
        let fits = |option: &&OptionView<'_>| option.has_room() && (!constrained || option.is_local == stays);
        let free: SmallVec<[u32; 8]> = options.iter().filter(fits).map(|option| option.index).collect();
        draw(free, task.redundancy, random)
    }
}
