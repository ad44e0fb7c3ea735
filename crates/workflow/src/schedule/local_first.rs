//! This machine first, by chance among its resources; when it is full, what is elsewhere. Apollo's `LocalResources`.

use lyra_kit::Random;
use smallvec::SmallVec;

use super::{Decision, OptionView, Scheduler, TaskView, draw, picks, unmapped};

/// See [`super::Policy::LocalFirst`].
pub(super) struct LocalFirst;

impl Scheduler for LocalFirst {
    fn schedule(&mut self, task: &TaskView<'_>, options: &[OptionView<'_>], random: &Random) -> Decision {
        if options.is_empty() {
            return unmapped(task);
        }
        let free = |local: bool| -> SmallVec<[u32; 8]> {
            let of_that = options.iter().filter(|option| option.is_local == local && option.has_room());
            of_that.map(|option| option.index).collect()
        };
        let wanted = task.redundancy.max(1) as usize;
        let (here, elsewhere) = (free(true), free(false));
        match here.len() {
            0 => draw(elsewhere, task.redundancy, random),
            count if count >= wanted => draw(here, task.redundancy, random),
            // A redundant task takes all that is here, and the rest elsewhere.
            count => match draw(elsewhere, (wanted - count) as u32, random) {
                Decision::Picks(more) => picks(here.into_iter().chain(more)),
                _ => picks(here),
            },
        }
    }
}
