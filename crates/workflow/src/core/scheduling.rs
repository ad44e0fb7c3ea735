//! S: a task has all its inputs, and is given resources.
//!
//! Helpers need none. Functions wait in a queue of their own until somebody outside has chosen
//! ([`Core::next_schedulable`]); the choice comes back as an entry, so that it is the same when the run is read back.

use std::sync::Arc;

use lyra_afcl::graph::TaskKind;

use super::{Core, TaskKey};

/// A function that waits for resources.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedulable {
    /// The task.
    pub key: TaskKey,
    /// The type to call: the task's own, or that of an alternative.
    pub function_type: Arc<str>,
    /// Which try it will be, from 1.
    pub attempt: u32,
}

impl Core {
    pub(super) fn hand_to_scheduling(&mut self, key: TaskKey) {
        match self.plan.graph.task(key.task).kind {
            TaskKind::Function { .. } => {
                self.state.begun += 1;
                if self.state.begun > self.limits.tasks {
                    let limit = self.limits.tasks;
                    let detail = format!("the run has had its limit of {limit} tasks (the setting workflow.max_tasks)");
                    return self.fail_limit(Some(key.task), detail);
                }
                self.state.active += 1;
                self.trace_task("S", &key);
                self.queues.functions.push_back(key);
            }
            _ => self.queues.scheduling.push_back(key),
        }
    }

    /// A helper: an empty schedule.
    pub(super) fn schedule(&mut self, key: TaskKey) {
        self.trace_task("S", &key);
        self.queues.enactment.push_back(key);
    }

    /// Takes the next function that waits for resources out of the queue; none while the run is paused or has ended.
    /// Answer it with [`super::Event::Scheduled`], or put it back with [`Core::wait_for_resources`].
    pub fn next_schedulable(&mut self) -> Option<Schedulable> {
        if self.state.paused || self.state.outcome.is_some() {
            return None;
        }
        let key = self.queues.functions.pop_front()?;
        let (function_type, attempt) = self.current_type(&key);
        self.state.chosen = Some(key.clone());
        Some(Schedulable { key, function_type, attempt })
    }

    /// Whether what is called now leaves room for another call: inputs are copied for as long as calls last.
    pub fn has_room(&self) -> bool {
        self.state.in_flight.is_empty() || self.state.called.bytes() < self.limits.live_bytes / 2
    }

    /// How many functions wait for resources.
    pub fn schedulable(&self) -> usize {
        self.queues.functions.len()
    }

    /// Puts a function back that got no resources now, before all others.
    pub fn wait_for_resources(&mut self, key: TaskKey) {
        self.queues.functions.push_front(key);
    }

    /// The type that is called at the next try, and which try it will be.
    pub(super) fn current_type(&self, key: &TaskKey) -> (Arc<str>, u32) {
        let own = || Arc::clone(self.plan.types[key.task.0 as usize].as_ref().expect("only functions are scheduled"));
        let Some(tries) = self.state.tries.get(key) else { return (own(), 1) };
        let TaskKind::Function { settings, .. } = &self.plan.graph.task(key.task).kind else {
            return (own(), tries.attempts + 1);
        };
        let alternative = tries
            .alternative
            .and_then(|n| settings.catch.as_ref().and_then(|catch| catch.alternatives.get(n as usize)))
            .map(|name| Arc::from(name.as_str()));
        (alternative.unwrap_or_else(own), tries.attempts + 1)
    }
}
