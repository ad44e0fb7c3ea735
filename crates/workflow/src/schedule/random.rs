//! Any resource that has room, by chance. Apollo draws with replacement, where the same one twice is one; here `picks`
//! different ones are drawn.

use lyra_kit::Random;

use super::{Decision, OptionView, Scheduler, TaskView, draw, unmapped};

/// See [`super::Policy::Random`].
pub(super) struct AnyOption {
    pub(super) picks: u32,
}

impl Scheduler for AnyOption {
    fn schedule(&mut self, task: &TaskView<'_>, options: &[OptionView<'_>], random: &Random) -> Decision {
        if options.is_empty() {
            return unmapped(task);
        }
        let free = options.iter().filter(|option| option.has_room()).map(|option| option.index).collect();
        draw(free, self.picks.max(task.redundancy), random)
    }
}
