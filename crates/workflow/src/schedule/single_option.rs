//! The one resource of a type; anything else is an error of the mapping. Apollo's default.

use lyra_kit::Random;

use super::{Decision, OptionView, Scheduler, TaskView, picks, unmapped};

/// See [`super::Policy::SingleOption`].
pub(super) struct SingleOption;

impl Scheduler for SingleOption {
    fn schedule(&mut self, task: &TaskView<'_>, options: &[OptionView<'_>], _: &Random) -> Decision {
        match options {
            [] => unmapped(task),
            [option] => picks(option.has_room().then_some(option.index)),
            many => Decision::Impossible(format!(
                "{} resources are mapped to the function type \"{}\", and the policy single_option takes one",
                many.len(),
                task.function_type
            )),
        }
    }
}
