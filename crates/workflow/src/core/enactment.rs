//! E: a task is done: helpers here, functions outside.

use std::sync::Arc;

use lyra_afcl::graph::{Member, Over, TaskKind};
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::compute::Fault;
use super::datum::{Datum, Extent};
use super::queues::{Extraction, Transformation};
use super::state::InFlight;
use super::{Core, Effect, Enact, TaskKey, compute};

/// What a helper has made.
enum Made {
    /// Outputs, in order.
    Values(Vec<Datum>),
    /// A change of scopes.
    Change(Transformation),
}

impl Core {
    /// Computes a helper.
    pub(super) fn enact(&mut self, key: TaskKey) {
        self.trace_task("E", &key);
        if !self.one_more_step(Some(key.task)) {
            return;
        }
        match self.compute(&key) {
            Ok(Made::Values(values)) => self.queues.extraction.push_back(Extraction { key, values }),
            Ok(Made::Change(change)) => self.queues.transformation.push_back(change),
            Err(Fault::Data(detail)) => self.fail_helper(&key, detail),
            Err(Fault::Limit(detail)) => self.fail_limit(Some(key.task), detail),
        }
    }

    fn compute(&mut self, key: &TaskKey) -> Result<Made, Fault> {
        let plan = Arc::clone(&self.plan);
        let task = plan.graph.task(key.task);
        let inputs = || -> Result<Vec<Datum>, String> {
            task.inputs.iter().map(|input| self.value(input.data, &key.path)).collect()
        };
        let most = compute::Most { elements: self.limits.elements, bytes: self.limits.result_bytes };
        Ok(match &task.kind {
            TaskKind::Condition(condition) => {
                let decision = compute::condition(condition, &inputs()?)?;
                Made::Values(vec![self.small(Value::Bool(decision))])
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
                let null = Extent::of(&Value::Null);
                let extents = collected.iter().map(|value| value.as_ref().map_or(null, Datum::extent));
                let extent = extents.fold(Extent::array(), Extent::with);
                most.allows(extent.memory)?;
                let values = collected.into_iter().map(|value| value.map_or(Value::Null, Datum::into_value));
                Made::Values(vec![self.held(Value::Array(values.collect()), extent)?])
            }
            TaskKind::CollectionOperation(operation) => {
                let made = compute::collection(operation, &inputs()?, most)?;
                let extent = Extent::of(&made);
                most.allows(extent.memory)?;
                Made::Values(vec![self.held(made, extent)?])
            }
            TaskKind::Gather(how) => {
                let inputs = inputs()?;
                let extent = inputs.iter().map(Datum::extent).fold(Extent::array(), Extent::with);
                most.allows(extent.memory)?;
                let made = compute::gather(*how, &inputs);
                let extent = Extent::of(&made);
                Made::Values(vec![self.held(made, extent)?])
            }
            TaskKind::Function { .. } => return Err(Fault::Data("a function is not enacted here".to_owned())),
        })
    }

    /// A function was given resources: it is called from now on.
    pub(super) fn enact_function(&mut self, key: TaskKey, attempt: u32, picks: SmallVec<[u32; 2]>) {
        self.trace_attempt(&key, attempt, &picks);
        let (function_type, _) = self.current_type(&key);
        match self.whole_input(&key) {
            Ok((input, Extent { memory, text, .. })) => {
                let charge = self.state.called.charge(memory.max(text));
                let in_flight = InFlight { attempt, picks: picks.clone(), since: self.now, charge };
                self.state.in_flight.insert(key.clone(), in_flight);
                self.effects.push(Effect::Enact(Enact { key, attempt, function_type, picks, input }));
            }
            Err(detail) => self.fail_helper(&key, detail),
        }
    }

    /// The input object: each declared input, and nothing else.
    pub(super) fn input_of(&self, key: &TaskKey) -> Result<Map<String, Value>, String> {
        self.whole_input(key).map(|(input, _)| input)
    }

    fn whole_input(&self, key: &TaskKey) -> Result<(Map<String, Value>, Extent), String> {
        let task = self.plan.graph.task(key.task);
        let (mut input, mut extent) = (Map::with_capacity(task.inputs.len()), Extent::default());
        for member in &task.inputs {
            let value = self.value(member.data, &key.path)?;
            extent = extent.with_member(&member.name, value.extent());
            input.insert(member.name.clone(), value.into_value());
        }
        Ok((input, extent))
    }

    /// What a task's input takes; nothing where it is not all there.
    pub fn extent_of_input(&self, key: &TaskKey) -> Extent {
        let mut members = self.plan.graph.task(key.task).inputs.iter();
        let with = |all: Extent, member: &Member| {
            let value = self.value(member.data, &key.path)?;
            Ok::<_, String>(all.with_member(&member.name, value.extent()))
        };
        members.try_fold(Extent::default(), with).unwrap_or_default()
    }
}
