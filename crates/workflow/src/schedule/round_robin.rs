//! One resource after the other; full ones are passed over.

use std::collections::HashMap;

use lyra_kit::Random;

use super::{Decision, OptionView, Scheduler, TaskView, picks, unmapped};

/// Types that are remembered before all are forgotten, which costs an even turn and no more.
const REMEMBERED: usize = 10_000;

/// See [`super::Policy::RoundRobin`].
#[derive(Default)]
pub(super) struct RoundRobin {
    /// Whose turn it is, by function type.
    next: HashMap<String, usize>,
}

impl Scheduler for RoundRobin {
    fn schedule(&mut self, task: &TaskView<'_>, options: &[OptionView<'_>], _: &Random) -> Decision {
        if options.is_empty() {
            return unmapped(task);
        }
        if !self.next.contains_key(task.function_type) {
            if self.next.len() >= REMEMBERED {
                self.next.clear();
            }
            self.next.insert(task.function_type.to_owned(), 0);
        }
        let next = self.next.get_mut(task.function_type).expect("it was put there");
        let from = *next;
        let turn = (0..options.len()).map(|step| (from + step) % options.len());
        let free = turn.filter(|place| options[*place].has_room()).take(task.redundancy.max(1) as usize);
        picks(free.map(|place| {
            *next = (place + 1) % options.len();
            options[place].index
        }))
    }
}
