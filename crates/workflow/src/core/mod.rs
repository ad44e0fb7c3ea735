//! The decision core of a run: state and token in, effects out. No I/O, no clock, no randomness.
//!
//! A run is a fold over its journal: [`Core::apply`] takes each [`Entry`], and everything that follows from it is
//! computed by moving tokens through five queues, one module for each step of Apollo's implementation process
//! (Smirnov, Pourmohseni, Fahringer, HiPS 2021; the letters are the paper's):
//!
//! | step | queue holds | module |
//! |---|---|---|
//! | T transmission | data that have become available | [`transmission`] |
//! | S scheduling | tasks whose inputs are all there | [`scheduling`] |
//! | E enactment | tasks that have been given resources | [`enactment`] |
//! | F transformation | tasks that change which scopes are entered | [`transformation`] |
//! | X extraction | tasks that have ended well | [`extraction`] |
//!
//! Helpers (conditions, collections, loops) go through all steps inside of the core. A function leaves it twice: at S, when
//! somebody must choose resources ([`Core::next_schedulable`], answered by [`Entry::Scheduled`]), and at E, when it must be
//! called ([`Effect::Enact`], answered by [`Entry::Succeeded`] or [`Entry::Failed`]). Only these answers are journalled:
//! the rest follows from them, so a run that is read back stands where it stood.
//!
//! What must hold: applying the same entries gives the same state; no token is lost or doubled, whatever the order of
//! answers; memory is bounded by the live iterations and the bytes of values ([`Limits`]), not by the number of elements; no
//! input makes it compute for ever in one go, since whoever moves it says how far ([`Core::advance`]).

mod agent;
pub mod compute;
pub(crate) mod datum;
mod enactment;
pub mod entry;
mod extraction;
mod needs;
pub mod plan;
mod queues;
mod scheduling;
mod scope;
mod state;
#[cfg(test)]
mod tests;
mod trace;
mod transformation;
mod transmission;

use std::sync::Arc;

use lyra_afcl::graph::{DataId, TaskId};
use lyra_types::workflow::{RunError, TraceToken};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use smallvec::SmallVec;

pub use datum::Extent;
pub use entry::{Entry, Event, Next};
pub use plan::Plan;
pub use scheduling::Schedulable;
pub use state::InFlight;

/// One index for each parallelFor and while around, outermost first.
pub type Path = SmallVec<[u32; 4]>;

/// One instance of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskKey {
    /// The task.
    pub task: TaskId,
    /// Which instance.
    #[serde(default, skip_serializing_if = "SmallVec::is_empty")]
    pub path: Path,
}

/// One instance of a datum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct DataKey {
    data: DataId,
    path: Path,
}

/// What a run may use. It is kept with the run: what it was begun with holds as long as it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Iterations of all parallelFors that are under way at a time; each of them has one at least.
    pub live_iterations: usize,
    /// Tasks of scopes that are under way, beyond which no further iteration is entered; each parallelFor has one at least.
    pub live_tasks: usize,
    /// Calls of functions, tries not counted.
    pub tasks: u64,
    /// Scopes that are entered (iterations, branches) and helpers that are computed.
    pub steps: u64,
    /// Iterations of one while.
    pub loop_iterations: u32,
    /// Elements of one parallelFor, and of what a constraint on a collection makes.
    pub elements: usize,
    /// Bytes of memory of what one operation makes.
    pub result_bytes: u64,
    /// Bytes of memory of all values that the run holds.
    pub live_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            live_iterations: 1_024,
            live_tasks: 100_000,
            tasks: 1_000_000,
            steps: 10_000_000,
            loop_iterations: 1_000_000,
            elements: 1_000_000,
            result_bytes: 64 << 20,
            live_bytes: 256 << 20,
        }
    }
}

/// What the run wants done outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Call a function.
    Enact(Enact),
    /// Try again at that time (milliseconds since the epoch).
    Wake {
        /// The task.
        key: TaskKey,
        /// When.
        at: i64,
    },
}

/// A call of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Enact {
    /// The task.
    pub key: TaskKey,
    /// Which try, from 1.
    pub attempt: u32,
    /// The function type: the task's own, or that of an alternative.
    pub function_type: Arc<str>,
    /// Which of the type's resources, by their place in the mapping; more than one: the first that succeeds wins.
    pub picks: SmallVec<[u32; 2]>,
    /// Exactly the declared inputs.
    pub input: Map<String, Value>,
}

/// How a run has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With this output.
    Succeeded(Map<String, Value>),
    /// A task failed for good, or a rule was broken.
    Failed(RunError),
    /// Its owner ended it.
    Cancelled,
}

/// A run.
pub struct Core {
    plan: Arc<Plan>,
    limits: Limits,
    state: state::State,
    queues: queues::Queues,
    effects: Vec<Effect>,
    trace: Option<Vec<TraceToken>>,
    /// The time of the entry that is being applied, in milliseconds since the epoch.
    now: i64,
}

impl Core {
    /// A run that has not begun: its first entry is [`Event::Begun`].
    pub fn new(plan: Arc<Plan>, limits: Limits, input: Map<String, Value>) -> Core {
        Core {
            state: state::State::new(&plan, input),
            plan,
            limits,
            queues: queues::Queues::default(),
            effects: Vec::new(),
            trace: None,
            now: 0,
        }
    }

    /// Keeps every token from now on, for [`Core::take_trace`].
    pub fn keep_trace(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// The tokens since [`Core::keep_trace`] or the last call.
    pub fn take_trace(&mut self) -> Vec<TraceToken> {
        self.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The plan that it follows.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// What is to be done outside because of the entries since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// How it has ended, once it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.state.outcome.as_ref()
    }

    /// Bytes of memory of all that it holds, with the inputs of calls, about.
    pub fn held_bytes(&self) -> u64 {
        self.state.held.bytes().saturating_add(self.state.called.bytes())
    }

    /// Whether no further task shall be begun for now.
    pub fn is_paused(&self) -> bool {
        self.state.paused
    }

    /// Tasks that are called now.
    pub fn in_flight(&self) -> impl Iterator<Item = (&TaskKey, &InFlight)> {
        self.state.in_flight.iter()
    }

    /// Whether this try of a task is under way.
    pub fn is_in_flight(&self, key: &TaskKey, attempt: u32) -> bool {
        self.state.in_flight.get(key).is_some_and(|flight| flight.attempt == attempt)
    }

    /// Since when a task is called, in milliseconds since the epoch.
    pub fn since(&self, key: &TaskKey) -> Option<i64> {
        self.state.in_flight.get(key).map(|flight| flight.since)
    }

    /// How many tasks are called now.
    pub fn in_flight_len(&self) -> usize {
        self.state.in_flight.len()
    }

    /// The function type that a task is called by now or next; empty for a helper.
    pub fn function_type(&self, key: &TaskKey) -> Arc<str> {
        if self.is_function(key) { self.current_type(key).0 } else { Arc::from("") }
    }

    /// A task's input, where it is all there.
    pub fn input(&self, key: &TaskKey) -> Option<Map<String, Value>> {
        self.input_of(key).ok()
    }

    /// Function tasks by where they stand: ended well, active, tries that failed.
    pub fn counts(&self) -> lyra_types::workflow::TaskCounts {
        lyra_types::workflow::TaskCounts {
            succeeded: self.state.succeeded,
            active: self.state.active,
            failed_attempts: self.state.failed_attempts,
        }
    }

    /// The task's name with its place: `resize`, `resize[3]`, `resize[3,0]`.
    pub fn place(&self, key: &TaskKey) -> String {
        let name = &self.plan.graph.task(key.task).name;
        if key.path.is_empty() {
            return name.clone();
        }
        let path: Vec<String> = key.path.iter().map(u32::to_string).collect();
        format!("{name}[{}]", path.join(","))
    }
}
