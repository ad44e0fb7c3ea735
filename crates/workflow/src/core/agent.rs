//! The main agent: begins a run, takes in what happens outside, moves tokens until all queues are empty, ends the run.

use std::sync::Arc;

use lyra_afcl::graph::{DataKind, ScopeId, TaskKind};
use lyra_types::workflow::Cause;
use serde_json::Map;

use super::datum::DEPTH;
use super::queues::Extraction;
use super::state::CAUSES;
use super::{Core, Effect, Entry, Event, Next, Outcome, TaskKey};
use crate::core::entry::Stored;

impl Core {
    /// Takes in an entry and all that follows from it.
    #[cfg(test)]
    pub fn apply(&mut self, entry: &Entry) {
        self.take(entry);
        while self.advance(u64::MAX) {}
    }

    /// Takes in an entry; what follows from it is left to [`Core::advance`], and has to be done before the next entry, unless
    /// that ends the run. An entry that fits nothing any more (the answer of a try that was given up) changes nothing.
    pub fn take(&mut self, entry: &Entry) {
        self.now = entry.at;
        match &entry.event {
            Event::Begun => self.begin(),
            Event::Scheduled { key, attempt, picks } => self.scheduled(key, *attempt, picks),
            Event::Succeeded { key, attempt, resource, output } => {
                let Stored::Value(output) = output else {
                    return self.fail_helper(key, "its output was not brought back from the blob store".to_owned());
                };
                self.succeeded(key, *attempt, resource.clone(), output);
            }
            Event::Left { .. } => {}
            Event::Failed { key, attempt, cause, next } => self.failed(key, *attempt, cause, next),
            Event::Paused => {
                self.state.paused = true;
                self.trace_run("P", None);
            }
            Event::Resumed => {
                self.state.paused = false;
                self.trace_run("C", None);
            }
            Event::Stopped { error, .. } => self.stopped(error.clone()),
            Event::Redriven => self.redriven(),
        }
        self.state.settled = false;
    }

    /// Every root datum and constant is there from the start; then the workflow's scope is entered.
    fn begin(&mut self) {
        let plan = Arc::clone(&self.plan);
        if self.state.inputs.iter().flatten().any(|input| input.extent().depth > DEPTH) {
            let message = format!("the input is nested deeper than {DEPTH}");
            let cause = Cause { code: "invalid_input".to_owned(), message, name: None, resource: None };
            return self.fail(None, 0, cause, Vec::new());
        }
        for (index, data) in plan.graph.data.iter().enumerate() {
            match &data.kind {
                DataKind::Input { key } if self.state.inputs[index].is_none() => {
                    let message = format!("the input has no \"{key}\"");
                    let cause = Cause { code: "invalid_input".to_owned(), message, name: None, resource: None };
                    self.fail(None, 0, cause, Vec::new());
                }
                DataKind::Input { .. } | DataKind::Constant(_) => {
                    let data = lyra_afcl::graph::DataId(u32::try_from(index).unwrap_or(u32::MAX));
                    self.trace_data(&super::DataKey { data, path: Core::top() });
                }
                _ => {}
            }
        }
        if self.state.outcome.is_none() {
            self.enter(ScopeId::WORKFLOW, &Core::top());
        }
    }

    /// Moves tokens, until none is left or about so many were moved; true when there are more.
    pub fn advance(&mut self, most: u64) -> bool {
        let until = self.state.moved.saturating_add(most);
        while self.is_busy() {
            if self.state.moved >= until {
                return true;
            }
            self.state.moved += 1;
            self.step();
            if self.state.held.bytes() > self.limits.live_bytes {
                let limit = self.limits.live_bytes;
                let detail = format!(
                    "the run's values take more than the limit of {limit} bytes (the setting workflow.max_live_bytes)"
                );
                self.fail_limit(None, detail);
            }
        }
        if !std::mem::replace(&mut self.state.settled, true) && self.state.outcome.is_none() {
            self.check_stuck();
        }
        false
    }

    /// Whether tokens are left that wait for nobody outside.
    pub fn is_busy(&self) -> bool {
        self.state.outcome.is_none() && self.queues.any()
    }

    /// How much the run has moved up to now: tokens, and looks at what tasks lack.
    pub fn moved(&self) -> u64 {
        self.state.moved
    }

    /// Moves one token. What is nearest to the end goes first, so that little is under way at a time.
    fn step(&mut self) {
        if let Some((scope, around)) = self.queues.entering.pop() {
            self.enter_one(scope, around);
        } else if let Some(token) = self.queues.extraction.pop_front() {
            self.extract(token);
        } else if let Some(change) = self.queues.transformation.pop_front() {
            self.transform(change);
        } else if let Some(key) = self.queues.transmission.pop_front() {
            self.transmit(key);
        } else if let Some((scope, path)) = self.queues.complete.pop_front() {
            self.completed(scope, &path);
        } else if let Some(key) = self.queues.enactment.pop_front() {
            self.enact(key);
        } else if let Some(key) = self.queues.scheduling.pop_front() {
            self.schedule(key);
        }
    }

    /// A run in which nothing moves and nothing is awaited would never end. No graph that the compiler made gets here.
    fn check_stuck(&mut self) {
        let idle = self.queues.functions.is_empty() && self.state.in_flight.is_empty() && self.state.asleep.is_empty();
        if !idle || self.state.entered.is_empty() {
            return;
        }
        let waiting = self.state.waits.values().flatten().next().cloned();
        let what = waiting.as_ref().map_or_else(|| "nothing".to_owned(), |key| self.place(key));
        let message = format!("nothing can go on: {what} waits for data that nobody makes");
        let cause = Cause { code: "stuck".to_owned(), message, name: None, resource: None };
        self.fail(waiting.as_ref(), 0, cause, Vec::new());
    }

    fn scheduled(&mut self, key: &TaskKey, attempt: u32, picks: &[u32]) {
        if self.state.outcome.is_some() {
            return;
        }
        // Chosen live, it has left the queue already.
        if self.state.chosen.take_if(|chosen| chosen == key).is_none() {
            self.leave_queue(key);
        }
        self.enact_function(key.clone(), attempt, picks.into());
    }

    /// A schedule that is read back: its task stands in the queue, near the front, or sleeps.
    fn leave_queue(&mut self, key: &TaskKey) {
        if self.state.asleep.remove(key).is_some() {
            self.trace_task("S", key);
        } else if let Some(place) = self.queues.functions.iter().position(|waiting| waiting == key) {
            self.queues.functions.remove(place);
        }
    }

    /// The time of a further try has come.
    pub fn wake_up(&mut self, key: &TaskKey) {
        if self.state.outcome.is_none() && self.state.asleep.remove(key).is_some() {
            self.trace_task("S", key);
            self.queues.functions.push_back(key.clone());
        }
    }

    fn succeeded(
        &mut self,
        key: &TaskKey,
        attempt: u32,
        resource: Option<String>,
        output: &Map<String, serde_json::Value>,
    ) {
        if self.state.outcome.is_some() || !self.end_attempt(key, attempt) {
            return;
        }
        self.trace_end_of_attempt("X", key, attempt, resource, None);
        self.close(key, output);
    }

    /// Takes a try that runs out of the list; false when there is none of that number.
    fn end_attempt(&mut self, key: &TaskKey, attempt: u32) -> bool {
        if self.state.in_flight.get(key).is_none_or(|running| running.attempt != attempt) {
            return false;
        }
        self.state.in_flight.remove(key);
        true
    }

    fn close(&mut self, key: &TaskKey, output: &Map<String, serde_json::Value>) {
        match self.declared(key, output) {
            Ok(values) => {
                self.state.tries.remove(key);
                self.state.active -= 1;
                self.state.succeeded += 1;
                self.queues.extraction.push_back(Extraction { key: key.clone(), values });
            }
            Err(detail) => self.fail_helper(key, detail),
        }
    }

    fn failed(&mut self, key: &TaskKey, attempt: u32, cause: &Cause, next: &Next) {
        if self.state.outcome.is_some() || !self.end_attempt(key, attempt) {
            return;
        }
        self.state.failed_attempts += 1;
        self.trace_end_of_attempt("R", key, attempt, cause.resource.clone(), Some(cause.clone()));
        let tries = self.state.tries.entry(key.clone()).or_default();
        tries.attempts = attempt;
        tries.of_type += 1;
        tries.causes.push(cause.clone());
        if tries.causes.len() > CAUSES {
            tries.causes.remove(0);
        }
        match next {
            Next::Again(at) => self.sleep(key, *at),
            Next::Alternative(n, at) => {
                tries.alternative = Some(*n);
                tries.of_type = 0;
                self.sleep(key, *at);
            }
            Next::Caught(output) => self.close(key, output),
            Next::Fatal => {
                let causes = tries.causes.clone();
                self.state.failed.push(key.clone());
                self.state.active -= 1;
                self.fail(Some(key), attempt, cause.clone(), causes);
                self.trace_run("Q", Some(cause.clone()));
            }
        }
    }

    fn sleep(&mut self, key: &TaskKey, at: i64) {
        self.state.asleep.insert(key.clone(), at);
        self.effects.push(Effect::Wake { key: key.clone(), at });
    }

    fn stopped(&mut self, error: Option<lyra_types::workflow::RunError>) {
        // One that has all its results fails all the same where its output can't be written.
        let unwritten = error.is_some() && matches!(self.state.outcome, Some(Outcome::Succeeded(_)));
        if self.state.outcome.is_none() || unwritten {
            self.trace_run("Q", error.as_ref().map(|error| error.cause.clone()));
            self.state.outcome = Some(error.map_or(Outcome::Cancelled, Outcome::Failed));
        }
    }

    /// Takes up a run that has failed or was cancelled: what failed, and what was called then, is scheduled again.
    fn redriven(&mut self) {
        if matches!(self.state.outcome, None | Some(Outcome::Succeeded(_))) {
            return;
        }
        self.trace_run("C", None);
        self.state.outcome = None;
        if self.state.complete {
            return self.ended_well();
        }
        for key in std::mem::take(&mut self.state.failed) {
            // Tries are counted on, so that no two calls have the same number, but the limit begins anew.
            if let Some(tries) = self.state.tries.get_mut(&key) {
                tries.of_type = 0;
                tries.alternative = None;
                tries.causes.clear();
            }
            self.state.active += 1;
            self.queues.functions.push_back(key);
        }
        let in_flight: Vec<_> = self.state.in_flight.drain().collect();
        let mut again = Vec::with_capacity(in_flight.len());
        for (key, flight) in in_flight {
            // What it called was given up with the run: another try is another call. Its limit stays; and whoever was to
            // complete a task has the token of the try that was under way.
            if &*self.current_type(&key).0 != crate::engine::program::CALLBACK {
                self.state.tries.entry(key.clone()).or_default().attempts = flight.attempt;
            }
            again.push(key);
        }
        again.extend(self.state.asleep.drain().map(|(key, _)| key));
        again.sort();
        self.queues.functions.extend(again);
    }

    /// Everything that is to be done outside for the run to go on, after it was read back: calls that were under way, tries
    /// that wait for their time.
    pub fn resume(&mut self) -> Vec<Effect> {
        self.effects.clear();
        if self.state.outcome.is_some() {
            return Vec::new();
        }
        let mut keys: Vec<TaskKey> = self.state.in_flight.keys().cloned().collect();
        keys.sort();
        for key in keys {
            let running = self.state.in_flight[&key].clone();
            let (function_type, _) = self.current_type(&key);
            match self.input_of(&key) {
                Ok(input) => self.effects.push(Effect::Enact(super::Enact {
                    key,
                    attempt: running.attempt,
                    function_type,
                    picks: running.picks,
                    input,
                })),
                Err(detail) => self.fail_helper(&key, detail),
            }
        }
        let mut asleep: Vec<(TaskKey, i64)> = self.state.asleep.iter().map(|(key, at)| (key.clone(), *at)).collect();
        asleep.sort();
        self.effects.extend(asleep.into_iter().map(|(key, at)| Effect::Wake { key, at }));
        self.take_effects()
    }

    /// The workflow's scope is complete: the result is read.
    pub(super) fn ended_well(&mut self) {
        self.state.complete = true;
        let plan = Arc::clone(&self.plan);
        let mut output = Map::with_capacity(plan.graph.outputs.len());
        for member in &plan.graph.outputs {
            match self.value(member.data, &[]) {
                Ok(value) => output.insert(member.name.clone(), value.into_value()),
                Err(detail) => {
                    let message = format!("the output \"{}\" can't be made: {detail}", member.name);
                    let cause = Cause { code: "invalid_data".to_owned(), message, name: None, resource: None };
                    return self.fail(None, 0, cause, Vec::new());
                }
            };
        }
        self.trace_run("Q", None);
        self.state.outcome = Some(Outcome::Succeeded(output));
    }

    /// How many tries of its present type a task has had, and which alternative that is.
    pub fn tries(&self, key: &TaskKey) -> (u32, Option<u32>) {
        self.state.tries.get(key).map_or((0, None), |tries| (tries.of_type, tries.alternative))
    }

    /// How a function is called.
    pub fn settings(&self, key: &TaskKey) -> Option<&lyra_afcl::graph::Settings> {
        match &self.plan.graph.task(key.task).kind {
            TaskKind::Function { settings, .. } => Some(settings),
            _ => None,
        }
    }
}
