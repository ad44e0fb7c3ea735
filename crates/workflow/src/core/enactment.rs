//! E: a task is done: helpers here, functions outside.

use std::sync::Arc;

use lyra_afcl::graph::{Over, TaskKind};
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::queues::{Extraction, Transformation};
use super::state::InFlight;
use super::{Core, Effect, Enact, TaskKey, compute};

/// What a helper has made.
enum Made {
    /// Outputs, in order.
    Values(Vec<Arc<Value>>),
    /// A change of scopes.
    Change(Transformation),
}

impl Core {
    /// Computes a helper.
    pub(super) fn enact(&mut self, key: TaskKey) {
        self.trace_task("E", &key);
        match self.compute(&key) {
            Ok(Made::Values(values)) => self.queues.extraction.push_back(Extraction { key, values }),
            Ok(Made::Change(change)) => self.queues.transformation.push_back(change),
            Err(detail) => self.fail_helper(&key, detail),
        }
    }

    fn compute(&mut self, key: &TaskKey) -> Result<Made, String> {
        let plan = Arc::clone(&self.plan);
        let task = plan.graph.task(key.task);
        let inputs = || -> Result<Vec<Arc<Value>>, String> {
            task.inputs.iter().map(|input| self.value(input.data, &key.path)).collect()
        };
        Ok(match &task.kind {
            TaskKind::Condition(condition) => {
                let decision = compute::condition(condition, &inputs()?)?;
                Made::Values(vec![Arc::new(Value::Bool(decision))])
            }
            TaskKind::While(condition) => {
                let again = compute::condition(condition, &inputs()?)?;
                Made::Change(Transformation::Repeat(key.clone(), again))
            }
            TaskKind::Multiplexer => {
                let decision = self.value(task.inputs[0].data, &key.path)?;
                let side = task.inputs.get(if decision.as_bool().unwrap_or(false) { 1 } else { 2 });
                let side = side.ok_or("the side that was taken gives no value")?;
                Made::Values(vec![self.value(side.data, &key.path)?])
            }
            TaskKind::Distribution { over, .. } => {
                let inputs = inputs()?;
                let names: Vec<&str> = task.inputs.iter().map(|input| input.name.as_str()).collect();
                let count = match over {
                    Over::Elements => compute::common_length(&names, &inputs)?,
                    Over::Count => compute::count(&inputs)?,
                    Over::Range => compute::range(&inputs)?,
                };
                Made::Change(Transformation::Iterate(key.clone(), count))
            }
            TaskKind::Aggregation { scope } => {
                let place = plan.aggregations[scope.0 as usize].iter().position(|task| *task == key.task);
                let place = place.ok_or("an aggregation of another loop")?;
                let around = self.around(*scope, &key.path);
                let iterations = self.state.iterations.get_mut(&(*scope, around));
                let collected = iterations.map(|it| std::mem::take(&mut it.collected[place])).unwrap_or_default();
                let values = collected.into_iter().map(|value| match value.map(Arc::try_unwrap) {
                    Some(Ok(value)) => value,
                    Some(Err(shared)) => (*shared).clone(),
                    None => Value::Null,
                });
                Made::Values(vec![Arc::new(Value::Array(values.collect()))])
            }
            TaskKind::CollectionOperation(operation) => {
                let made = compute::collection(operation, &inputs()?, self.limits.elements)?;
                Made::Values(vec![Arc::new(made)])
            }
            TaskKind::Gather(how) => Made::Values(vec![Arc::new(compute::gather(*how, &inputs()?))]),
            TaskKind::Function { .. } => return Err("a function is not enacted here".to_owned()),
        })
    }

    /// A function was given resources: it is called from now on.
    pub(super) fn enact_function(&mut self, key: TaskKey, attempt: u32, picks: SmallVec<[u32; 2]>) {
        self.trace_attempt(&key, attempt, &picks);
        let (function_type, _) = self.current_type(&key);
        match self.input_of(&key) {
            Ok(input) => {
                let in_flight = InFlight { attempt, picks: picks.clone(), since: self.now };
                self.state.in_flight.insert(key.clone(), in_flight);
                self.effects.push(Effect::Enact(Enact { key, attempt, function_type, picks, input }));
            }
            Err(detail) => self.fail_helper(&key, detail),
        }
    }

    /// The input object: each declared input, and nothing else.
    pub(super) fn input_of(&self, key: &TaskKey) -> Result<Map<String, Value>, String> {
        let task = self.plan.graph.task(key.task);
        let mut input = Map::with_capacity(task.inputs.len());
        for member in &task.inputs {
            let value = self.value(member.data, &key.path)?;
            input.insert(member.name.clone(), Arc::unwrap_or_clone(value));
        }
        Ok(input)
    }
}
