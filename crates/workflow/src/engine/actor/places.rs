//! Which resources the tasks of a run get, and the places that they take there.

use std::time::Duration;

use lyra_types::workflow::{Cause, RunError};
use smallvec::SmallVec;

use super::{Actor, Answered};
use crate::core::{Event, Extent, Schedulable, TaskKey};
use crate::engine::choose::Choice;
use crate::engine::values::size;
use crate::schedule::{Bound, Lease, Outcome as Measured, TaskView, WaitingView};

/// Places of a task that is called.
pub(super) struct Places {
    leases: Vec<Lease>,
    input_bytes: u64,
}

impl Places {
    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }
}

impl Actor {
    /// Has calls made again that were under way in a process that is gone, as far as there are places for them; true if
    /// any. They have been scheduled: which resources they get stands in the journal.
    fn admit_resumed(&mut self) -> bool {
        let mut any = false;
        while let Some(mut enact) = self.resumed.pop_front() {
            if !self.core.is_in_flight(&enact.key, enact.attempt) {
                // Completed from outside meanwhile.
                continue;
            }
            let Some(bound) = self.program.bound.get(&*enact.function_type) else {
                self.outward.push(enact);
                any = true;
                continue;
            };
            let (mut picks, mut leases) = (SmallVec::new(), Vec::new());
            for pick in &enact.picks {
                if let Some(lease) = bound.begin(*pick) {
                    picks.push(*pick);
                    leases.push(lease);
                }
            }
            if leases.is_empty() && !enact.picks.is_empty() {
                let view = WaitingView { expected: None, critical_path: self.core.plan().rank(enact.key.task) };
                self.resumed.push_front(enact);
                if !std::mem::replace(&mut self.listed, true) {
                    self.inner.chooser.wait(self.sender.clone(), &view);
                }
                return any;
            }
            any = true;
            enact.picks = picks;
            self.leases.insert(enact.key.clone(), Places { leases, input_bytes: size(&enact.input) });
            self.outward.push(enact);
        }
        any
    }

    /// Gives resources to functions that wait for them, as many as may be called at a time; true if to any.
    pub(super) fn schedule_some(&mut self) -> bool {
        let told = std::mem::take(&mut self.freed);
        self.listed &= !told;
        let mut any = self.admit_resumed();
        let most = self.inner.deps.config.run_in_flight.max(1);
        // What waits for a time or for somebody outside takes no place, and does not count.
        while self.leases.len() < most && !self.is_full() && !self.is_tired() && self.core.has_room() {
            let Some(waiting) = self.core.next_schedulable() else { break };
            let Some(bound) = self.program.bound.get(&*waiting.function_type) else {
                // One of Lyra's own types needs no resource.
                self.record(Event::Scheduled { key: waiting.key, attempt: waiting.attempt, picks: SmallVec::new() });
                any = true;
                continue;
            };
            let Extent { memory, text: input_bytes, .. } = self.core.extent_of_input(&waiting.key);
            match self.choose(&waiting, bound, input_bytes) {
                Choice::Taken(picks, leases) => {
                    // It is copied, and what is computed at once goes through it.
                    self.budget = self.budget.saturating_sub(1 + memory / 64);
                    let picks = picks.iter().copied().collect();
                    self.leases.insert(waiting.key.clone(), Places { leases, input_bytes });
                    self.record(Event::Scheduled { key: waiting.key, attempt: waiting.attempt, picks });
                }
                Choice::Full(view) => {
                    self.core.wait_for_resources(waiting.key);
                    if !std::mem::replace(&mut self.listed, true) {
                        self.inner.chooser.wait(self.sender.clone(), &view);
                    }
                    break;
                }
                Choice::Impossible(reason) => {
                    let task = Some(self.core.place(&waiting.key));
                    let cause = Cause { code: "no_resource".to_owned(), message: reason, name: None, resource: None };
                    let error = RunError { task, attempts: 0, cause, causes: Vec::new() };
                    self.record(Event::Stopped { error: Some(error), moved: None });
                    break;
                }
            }
            any = true;
        }
        if told && !any && !self.listed {
            // The place is for the next one then.
            self.inner.chooser.freed();
        }
        any
    }

    fn choose(&self, waiting: &Schedulable, bound: &Bound, input_bytes: u64) -> Choice {
        let place = self.core.place(&waiting.key);
        let redundancy = self.core.settings(&waiting.key).and_then(|settings| settings.redundancy).unwrap_or(1);
        let view = TaskView {
            function_type: &waiting.function_type,
            task: &place,
            input_bytes,
            attempt: waiting.attempt,
            redundancy,
        };
        let rank = self.core.plan().rank(waiting.key.task);
        self.inner.chooser.choose(&waiting.function_type, bound, &view, rank)
    }

    /// Frees the places of a try that has ended.
    pub(super) fn release(&mut self, key: &TaskKey, since: i64, outcome: &Answered) {
        let Some(Places { mut leases, input_bytes }) = self.leases.remove(key) else { return };
        let free = leases.len();
        // Of several that were called at once only the winner is known, and not how the others did.
        if leases.len() == 1
            && let Some(lease) = leases.pop()
        {
            let took = Duration::from_millis(u64::try_from(self.now().saturating_sub(since)).unwrap_or(0));
            let measured = match outcome {
                Ok(_) => Measured::Succeeded { input_bytes, took },
                Err(_) => Measured::Failed,
            };
            lease.end(measured, self.inner.deps.clock.instant());
        }
        drop(leases);
        for _ in 0..free {
            self.inner.chooser.freed();
        }
    }
}
