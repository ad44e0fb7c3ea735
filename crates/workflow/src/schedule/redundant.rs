//! All resources that have room, at once: the first that succeeds wins, and only when all fail the try has failed.

use lyra_kit::Random;

use super::{Decision, OptionView, Scheduler, TaskView, picks, unmapped};

/// See [`super::Policy::Redundant`].
pub(super) struct Redundant;

impl Scheduler for Redundant {
    fn schedule(&mut self, task: &TaskView<'_>, options: &[OptionView<'_>], _: &Random) -> Decision {
        if options.is_empty() {
            return unmapped(task);
        }
        picks(options.iter().filter(|option| option.has_room()).map(|option| option.index))
    }
}
