//! X: a task has ended well, and its outputs become data.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::datum::{Datum, Extent};
use super::queues::Extraction;
use super::state::Wait;
use super::{Core, DataKey, TaskKey};

impl Core {
    pub(super) fn extract(&mut self, token: Extraction) {
        let Extraction { key, values } = token;
        if !self.is_function(&key) {
            self.trace_task("X", &key);
        }
        let plan = Arc::clone(&self.plan);
        let task = plan.graph.task(key.task);
        for (output, value) in task.outputs.iter().zip(values) {
            self.provide(DataKey { data: output.data, path: key.path.clone() }, value);
        }
        self.task_ended(&key);
        self.one_less(task.scope, &key.path);
    }

    /// Tells those that wait for a task's end.
    pub(super) fn task_ended(&mut self, key: &TaskKey) {
        if self.plan.awaited[key.task.0 as usize] {
            self.state.done.insert(key.clone());
            self.wake(&Wait::Task(key.clone()));
        }
    }

    /// The declared outputs of a function's answer, in order.
    ///
    /// # Errors
    /// Which is not there, or nested too deep.
    pub(super) fn declared(&self, key: &TaskKey, output: &Map<String, Value>) -> Result<Vec<Datum>, String> {
        let task = self.plan.graph.task(key.task);
        let value = |name: &String| {
            let value = output.get(name).ok_or_else(|| format!("its output has no \"{name}\""))?;
            self.held(value.clone(), Extent::of(value))
        };
        task.outputs.iter().map(|member| value(&member.name)).collect()
    }

    /// What is kept of a function's answer: the declared outputs and nothing else.
    ///
    /// # Errors
    /// The name of a declared output that is not there.
    pub fn keep_declared(&self, key: &TaskKey, mut output: Map<String, Value>) -> Result<Map<String, Value>, String> {
        let task = self.plan.graph.task(key.task);
        let mut kept = Map::with_capacity(task.outputs.len());
        for member in &task.outputs {
            let value = output.remove(&member.name).ok_or_else(|| member.name.clone())?;
            kept.insert(member.name.clone(), value);
        }
        Ok(kept)
    }
}
