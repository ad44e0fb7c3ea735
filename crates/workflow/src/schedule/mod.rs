//! Decisions of scheduling: which resources a task gets, how many tasks a resource takes, who of those that wait is next.
//!
//! Each decision is a trait with one file for each policy, chosen by a config enum: [`Policy`] makes a [`Scheduler`],
//! [`Limit`] says a resource's capacity, [`Arbitration`] orders a [`WaitingList`]. All of them are pure: what they know
//! of the world stands in the views that they are given, which come from a [`Book`].
//!
//! What must hold: a scheduler picks only options that have room, none twice; a task that could run on something is
//! never told that it is impossible; one that is told to wait has an option whose place will be freed.
//!
//! The policies that Apollo has keep its rules (`SC-Core`, Smirnov et al., UCC 2021), less its faults: nothing is thrown
//! when a filter leaves no option, and any policy may pick several.

mod arbitration;
mod book;
mod capacity;
mod estimate;
mod expected_finish;
mod local_first;
mod random;
mod ranked;
mod redundant;
mod round_robin;
mod single_option;
mod size_constraint;
#[cfg(test)]
mod tests;
mod waiting;

use lyra_kit::Random;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

pub use arbitration::{Arbitration, WaitingView};
pub use book::{Book, Bound, Lease, Outcome};
pub use capacity::Limit;
pub use estimate::Estimate;
pub use waiting::WaitingList;

/// A task to schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskView<'a> {
    /// Its function type.
    pub function_type: &'a str,
    /// Its name with its place: `resize[3]`.
    pub task: &'a str,
    /// Size of its input as JSON, in bytes.
    pub input_bytes: u64,
    /// Which try, from 1.
    pub attempt: u32,
    /// How many resources it asks to be called at once, from 1.
    pub redundancy: u32,
}

/// A resource that a task's type is mapped to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptionView<'a> {
    /// Its place in the type's resources.
    pub index: u32,
    /// Its id in traces.
    pub id: &'a str,
    /// Whether it stands for this machine rather than for a service that grows.
    pub is_local: bool,
    /// Tasks that it has now.
    pub used: u32,
    /// Most tasks that it may have; any number where none.
    pub capacity: Option<u32>,
    /// Its failures, of which the older count less.
    pub failures: f64,
    /// How long it takes, once that was measured.
    pub estimate: Option<Estimate>,
}

impl OptionView<'_> {
    /// Whether it may have one more task.
    pub fn has_room(&self) -> bool {
        self.capacity.is_none_or(|capacity| self.used < capacity)
    }
}

/// Numbers of options, by [`OptionView::index`].
pub type Picks = SmallVec<[u32; 4]>;

/// What was decided for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It gets these, at least one, none twice; the first that succeeds wins.
    Picks(Picks),
    /// It waits for a place.
    Wait,
    /// It can never run, for this reason.
    Impossible(String),
}

/// Chooses resources for tasks.
pub trait Scheduler: Send + 'static {
    /// Chooses among `options`, all resources of the task's type in the order of the mapping, whether they have room or
    /// not. What chance there is comes from `random`.
    fn schedule(&mut self, task: &TaskView<'_>, options: &[OptionView<'_>], random: &Random) -> Decision;
}

/// Which scheduler chooses.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "policy", rename_all = "snake_case", deny_unknown_fields)]
pub enum Policy {
    /// A type must have exactly one resource.
    SingleOption,
    /// Any that has room, by chance.
    Random {
        /// How many at once, from 1.
        #[serde(default = "one")]
        picks: u32,
    },
    /// One after the other.
    RoundRobin,
    /// Those of this machine first; when they are full, the others.
    LocalFirst,
    /// Large inputs stay on this machine, small ones go elsewhere.
    SizeConstraint {
        /// Largest input that goes elsewhere, in units of 1,000 bytes.
        #[serde(default = "ten")]
        threshold_kb: u64,
    },
    /// The first of the mapping, as long as it does not fail.
    #[default]
    Ranked,
    /// All at once.
    Redundant,
    /// The one that is expected to be done first.
    ExpectedFinishTime,
}

fn one() -> u32 {
    1
}

fn ten() -> u64 {
    10
}

impl Policy {
    /// A scheduler of this kind.
    pub fn scheduler(&self) -> Box<dyn Scheduler> {
        match *self {
            Policy::SingleOption => Box::new(single_option::SingleOption),
            Policy::Random { picks } => Box::new(random::AnyOption { picks }),
            Policy::RoundRobin => Box::<round_robin::RoundRobin>::default(),
            Policy::LocalFirst => Box::new(local_first::LocalFirst),
            Policy::SizeConstraint { threshold_kb } => {
                Box::new(size_constraint::SizeConstraint { threshold: threshold_kb.saturating_mul(1_000) })
            }
            Policy::Ranked => Box::new(ranked::Ranked),
            Policy::Redundant => Box::new(redundant::Redundant),
            Policy::ExpectedFinishTime => Box::new(expected_finish::ExpectedFinish),
        }
    }
}

/// `count` of `from`, by chance, none twice; fewer where there are fewer. A task waits where there is none.
fn draw(mut from: SmallVec<[u32; 8]>, count: u32, random: &Random) -> Decision {
    let count = (count.max(1) as usize).min(from.len());
    for place in 0..count {
        let left = from.len() - place;
        let other = place + ((random.unit() * left as f64) as usize).min(left - 1);
        from.swap(place, other);
    }
    from.truncate(count);
    picks(from)
}

/// These, or a wait where there is none.
fn picks(picked: impl IntoIterator<Item = u32>) -> Decision {
    let picks: Picks = picked.into_iter().collect();
    if picks.is_empty() { Decision::Wait } else { Decision::Picks(picks) }
}

/// What is decided where a type has no resource at all.
fn unmapped(task: &TaskView<'_>) -> Decision {
    Decision::Impossible(format!("no resource is mapped to the function type \"{}\"", task.function_type))
}
