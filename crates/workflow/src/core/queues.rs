//! The queues between the steps.

use std::collections::VecDeque;

use lyra_afcl::graph::ScopeId;

use super::datum::Datum;
use super::{DataKey, Path, TaskKey};

/// Tokens that wait, by the step that takes them. How many there can be is bounded by the scopes that are entered.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// ParallelFors that may have room for a further iteration, the innermost last; before everything else.
    pub entering: Vec<(ScopeId, Path)>,
    /// T: data that have become available.
    pub transmission: VecDeque<DataKey>,
    /// S: helpers whose inputs are all there.
    pub scheduling: VecDeque<TaskKey>,
    /// S: functions whose inputs are all there, until somebody chooses resources for them.
    pub functions: VecDeque<TaskKey>,
    /// E: helpers to compute.
    pub enactment: VecDeque<TaskKey>,
    /// F: what a helper has changed about scopes.
    pub transformation: VecDeque<Transformation>,
    /// X: tasks that have ended, with their outputs in the order of the task's.
    pub extraction: VecDeque<Extraction>,
    /// Scopes of which everything has ended.
    pub complete: VecDeque<(ScopeId, Path)>,
}

/// A change of scopes.
#[derive(Debug)]
pub(super) enum Transformation {
    /// A parallelFor has this many iterations.
    Iterate(TaskKey, usize),
    /// A loop goes on, or ends.
    Repeat(TaskKey, bool),
}

/// A task that has ended well.
#[derive(Debug)]
pub(super) struct Extraction {
    /// The task.
    pub key: TaskKey,
    /// Its outputs, in the order of [`lyra_afcl::graph::Task::outputs`].
    pub values: Vec<Datum>,
}

impl Queues {
    /// Whether a token waits for nobody outside.
    pub(super) fn any(&self) -> bool {
        !(self.entering.is_empty()
            && self.transmission.is_empty()
            && self.scheduling.is_empty()
            && self.enactment.is_empty()
            && self.transformation.is_empty()
            && self.extraction.is_empty()
            && self.complete.is_empty())
    }
}
