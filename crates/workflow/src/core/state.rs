//! What a run knows: values, who waits for what, what is under way.

use std::collections::{HashMap, HashSet};

use lyra_afcl::graph::{DataId, DataKind, ScopeId, ScopeKind, TaskId, TaskKind};
use lyra_types::workflow::{Cause, RunError};
use rustc_hash::FxBuildHasher;
use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::datum::{Charge, DEPTH, Datum, Extent, Meter};
use super::{Core, DataKey, Outcome, Path, Plan, TaskKey};

type FxHashMap<K, V> = HashMap<K, V, FxBuildHasher>;
type FxHashSet<K> = HashSet<K, FxBuildHasher>;

/// State of a run. Everything here but the counters is dropped when the iteration that it belongs to is complete.
pub(super) struct State {
    /// For each datum that is an input of the run: its value.
    pub inputs: Vec<Option<Datum>>,
    /// Values that were made.
    pub values: FxHashMap<DataKey, Datum>,
    /// What all values take that the run holds.
    pub held: Meter,
    /// What the inputs of functions take that are called now, with what their references stand for.
    pub called: Meter,
    /// Tasks that wait, each for one thing at a time.
    pub waits: FxHashMap<Wait, SmallVec<[TaskKey; 2]>>,
    /// Scopes that are entered, with how many tasks and child scopes have not ended.
    pub entered: FxHashMap<(ScopeId, Path), u32>,
    /// Parallel loops that are under way, by the path around them.
    pub iterations: FxHashMap<(ScopeId, Path), Iterations>,
    /// Iterations that are under way, of all loops.
    pub live: usize,
    /// Tasks and child scopes of entered scopes that have not ended.
    pub open: usize,
    /// Functions that are called now.
    pub in_flight: FxHashMap<TaskKey, InFlight>,
    /// What is known of tries before, of functions that have failed at least once.
    pub tries: FxHashMap<TaskKey, Tries>,
    /// The function that was taken out of the queue last.
    pub chosen: Option<TaskKey>,
    /// Functions that wait for the time of their next try.
    pub asleep: FxHashMap<TaskKey, i64>,
    /// Ended tasks that others wait for.
    pub done: FxHashSet<TaskKey>,
    /// Completed scopes that tasks wait for.
    pub completed: FxHashSet<(ScopeId, Path)>,
    /// Functions that failed for good.
    pub failed: Vec<TaskKey>,
    /// No further task is begun.
    pub paused: bool,
    /// How it has ended.
    pub outcome: Option<Outcome>,
    /// Whether every task has ended well, so that only the output is left to be made.
    pub complete: bool,
    /// Functions that ended well.
    pub succeeded: u64,
    /// Functions that have been given to scheduling and have not ended.
    pub active: u64,
    /// Functions that were given to scheduling.
    pub begun: u64,
    /// Tries that failed.
    pub failed_attempts: u64,
    /// Steps that were had.
    pub steps: u64,
    /// Tokens that were moved, and looks at what tasks lack.
    pub moved: u64,
    /// Whether no token was left since the last entry.
    pub settled: bool,
}

/// What a task waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Wait {
    Data(DataKey),
    Task(TaskKey),
    Scope(ScopeId, Path),
}

/// A parallel loop that is under way.
#[derive(Debug)]
pub(super) struct Iterations {
    /// All of them.
    pub count: usize,
    /// The first that is not entered.
    pub next: usize,
    /// How many are complete.
    pub complete: usize,
    /// For each aggregation: the value of each iteration, as far as one has ended.
    pub collected: Vec<Vec<Option<Datum>>>,
    /// What the places of those take.
    pub charge: Charge,
}

impl Iterations {
    /// Keeps what an iteration gave.
    pub(super) fn collect(&mut self, place: usize, index: usize, value: Datum) {
        let collected = &mut self.collected[place];
        if collected.len() <= index {
            // Room is made for twice as many.
            self.charge.add(((index + 1 - collected.len()) * 2 * size_of::<Option<Datum>>()) as u64);
            collected.resize(index + 1, None);
        }
        collected[index] = Some(value);
    }
}

/// A function that is called now.
#[derive(Debug, Clone, PartialEq)]
pub struct InFlight {
    /// Which try, from 1.
    pub attempt: u32,
    /// The resources.
    pub picks: SmallVec<[u32; 2]>,
    /// Since when, in milliseconds since the epoch.
    pub since: i64,
    /// What its input takes.
    pub charge: Charge,
}

/// Tries before.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tries {
    /// How many, of all function types that were tried.
    pub attempts: u32,
    /// How many of the function type that is tried now.
    pub of_type: u32,
    /// Which alternative is tried now; none: the task's own type.
    pub alternative: Option<u32>,
    /// Why, the last few, oldest first.
    pub causes: Vec<Cause>,
}

/// Whether a datum is there.
pub(super) enum Found {
    Value(Datum),
    /// This one of its elements, of whose elements this one, and so on.
    Element(Datum, SmallVec<[u32; 4]>),
    Missing(DataKey),
}

/// The element of a value at the end of a way.
fn element_of<'v>(value: &'v Value, way: &[u32]) -> Option<&'v Value> {
    way.iter().try_fold(value, |value, index| value.get(*index as usize))
}

impl State {
    pub(super) fn new(plan: &Plan, mut input: Map<String, Value>) -> State {
        let mut inputs = Vec::with_capacity(plan.graph.data.len());
        let held = Meter::default();
        for data in &plan.graph.data {
            inputs.push(match &data.kind {
                DataKind::Input { key } => input.remove(key).map(|value| {
                    let extent = Extent::of(&value);
                    Datum::new(value, extent, &held)
                }),
                _ => None,
            });
        }
        State {
            inputs,
            held,
            called: Meter::default(),
            values: FxHashMap::default(),
            waits: FxHashMap::default(),
            entered: FxHashMap::default(),
            iterations: FxHashMap::default(),
            live: 0,
            open: 0,
            in_flight: FxHashMap::default(),
            tries: FxHashMap::default(),
            chosen: None,
            asleep: FxHashMap::default(),
            done: FxHashSet::default(),
            completed: FxHashSet::default(),
            failed: Vec::new(),
            paused: false,
            outcome: None,
            complete: false,
            succeeded: 0,
            active: 0,
            begun: 0,
            failed_attempts: 0,
            steps: 0,
            moved: 0,
            settled: true,
        }
    }
}

/// Causes that are kept of one task.
pub(super) const CAUSES: usize = 10;

impl Core {
    /// The datum as a task at `path` sees it.
    ///
    /// # Errors
    /// When there is something in its place that can't be read: no array where elements are asked for.
    pub(super) fn locate(&self, data: DataId, path: &[u32]) -> Result<Found, String> {
        let graph = &self.plan.graph;
        let datum = graph.datum(data);
        let own = &path[..self.plan.depth[datum.scope.0 as usize]];
        match &datum.kind {
            DataKind::Constant(_) => {
                let value = self.plan.constants[data.0 as usize].as_ref();
                Ok(Found::Value(value.expect("the plan keeps the value of every constant").clone()))
            }
            DataKind::Input { key } => match &self.state.inputs[data.0 as usize] {
                Some(value) => Ok(Found::Value(value.clone())),
                None => Err(format!("the input has no \"{key}\"")),
            },
            DataKind::Element { iterator } => self.element(datum.scope, *iterator, own),
            DataKind::Counter { start, step } => self.counter(datum.scope, *start, *step, own),
            DataKind::Carried { initial, .. } if own.last() == Some(&0) => self.locate(*initial, &own[..own.len() - 1]),
            _ => {
                let key = DataKey { data, path: Path::from_slice(own) };
                Ok(match self.state.values.get(&key) {
                    Some(value) => Found::Value(value.clone()),
                    None => Found::Missing(key),
                })
            }
        }
    }

    fn element(&self, scope: ScopeId, iterator: u32, path: &[u32]) -> Result<Found, String> {
        let ScopeKind::Iterations { distribution, .. } = self.plan.graph.scope(scope).kind else {
            return Err("an element outside of a parallelFor".to_owned());
        };
        let task = self.plan.graph.task(distribution);
        let Some((&index, outer)) = path.split_last() else {
            return Err("an element without an iteration".to_owned());
        };
        let source = &task.inputs[iterator as usize];
        let (array, mut way) = match self.locate(source.data, outer)? {
            Found::Value(array) => (array, SmallVec::new()),
            Found::Element(array, way) => (array, way),
            missing @ Found::Missing(_) => return Ok(missing),
        };
        way.push(index);
        match element_of(&array, &way) {
            Some(_) => Ok(Found::Element(array, way)),
            None => Err(format!("\"{}\" has no element {index}", source.name)),
        }
    }

    fn counter(
        &self,
        scope: ScopeId,
        start: Option<DataId>,
        step: Option<DataId>,
        path: &[u32],
    ) -> Result<Found, String> {
        let first = i64::from(matches!(self.plan.graph.scope(scope).kind, ScopeKind::Loop { .. }));
        let Some((&index, outer)) = path.split_last() else {
            return Err("a counter without an iteration".to_owned());
        };
        let mut numbers = [first, 1];
        for (number, source) in numbers.iter_mut().zip([start, step]) {
            let Some(source) = source else { continue };
            match self.locate(source, outer)? {
                missing @ Found::Missing(_) => return Ok(missing),
                found => {
                    let value = self.had(found)?;
                    *number = super::compute::whole(&value)?;
                }
            }
        }
        let value = numbers[1].checked_mul(i64::from(index)).and_then(|way| way.checked_add(numbers[0]));
        value
            .map(|value| Found::Value(self.small(Value::from(value))))
            .ok_or_else(|| "the counter is beyond 2^63".to_owned())
    }

    /// The value, which must be there.
    pub(super) fn value(&self, data: DataId, path: &[u32]) -> Result<Datum, String> {
        self.had(self.locate(data, path)?)
    }

    fn had(&self, found: Found) -> Result<Datum, String> {
        match found {
            Found::Value(value) => Ok(value),
            Found::Element(array, way) => {
                let element = element_of(&array, &way).ok_or("an element is gone")?;
                Ok(Datum::new(element.clone(), Extent::of(element), &self.state.held))
            }
            Found::Missing(key) => Err(format!("\"{}\" has no value", self.plan.graph.datum(key.data).name)),
        }
    }

    /// A value that the run holds from now on.
    ///
    /// # Errors
    /// When it is nested too deep.
    pub(super) fn held(&self, value: Value, extent: Extent) -> Result<Datum, String> {
        if extent.depth > DEPTH {
            return Err(format!("a value would be nested deeper than {DEPTH}"));
        }
        Ok(Datum::new(value, extent, &self.state.held))
    }

    /// A number or a boolean.
    pub(super) fn small(&self, value: Value) -> Datum {
        let extent = Extent::of(&value);
        Datum::new(value, extent, &self.state.held)
    }

    /// What a task waits for first; none: it can run.
    pub(super) fn first_missing(&self, key: &TaskKey) -> Result<Option<Wait>, String> {
        let task = self.plan.graph.task(key.task);
        for before in &task.after {
            let scope = self.plan.graph.task(*before).scope;
            let other = TaskKey { task: *before, path: self.cut_to(scope, &key.path) };
            if !self.state.done.contains(&other) {
                return Ok(Some(Wait::Task(other)));
            }
        }
        for scope in &task.after_scopes {
            let around = self.around(*scope, &key.path);
            if !self.state.completed.contains(&(*scope, around.clone())) {
                return Ok(Some(Wait::Scope(*scope, around)));
            }
        }
        match &task.kind {
            TaskKind::Aggregation { scope } => {
                let around = self.around(*scope, &key.path);
                let complete = self.state.completed.contains(&(*scope, around.clone()));
                Ok((!complete).then_some(Wait::Scope(*scope, around)))
            }
            TaskKind::Multiplexer => {
                let decision = match self.locate(task.inputs[0].data, &key.path)? {
                    Found::Missing(missing) => return Ok(Some(Wait::Data(missing))),
                    found => self.had(found)?.as_bool().unwrap_or(false),
                };
                match task.inputs.get(if decision { 1 } else { 2 }) {
                    Some(side) => self.missing(side.data, &key.path),
                    None => Ok(None),
                }
            }
            _ => {
                for input in &task.inputs {
                    if let Some(wait) = self.missing(input.data, &key.path)? {
                        return Ok(Some(wait));
                    }
                }
                Ok(None)
            }
        }
    }

    fn missing(&self, data: DataId, path: &[u32]) -> Result<Option<Wait>, String> {
        Ok(match self.locate(data, path)? {
            Found::Value(_) | Found::Element(..) => None,
            Found::Missing(key) => Some(Wait::Data(key)),
        })
    }

    /// The part of a path that an instance of `scope` has.
    pub(super) fn cut_to(&self, scope: ScopeId, path: &[u32]) -> Path {
        Path::from_slice(&path[..self.plan.depth[scope.0 as usize]])
    }

    /// The part of a path that stands around `scope`.
    pub(super) fn around(&self, scope: ScopeId, path: &[u32]) -> Path {
        let indexed = usize::from(self.plan.graph.scope(scope).kind.is_indexed());
        Path::from_slice(&path[..self.plan.depth[scope.0 as usize] - indexed])
    }

    /// Ends the run because a task or rule failed.
    pub(super) fn fail(&mut self, task: Option<&TaskKey>, attempts: u32, cause: Cause, causes: Vec<Cause>) {
        if self.state.outcome.is_none() {
            let task = task.map(|key| self.place(key));
            self.state.outcome = Some(Outcome::Failed(RunError { task, attempts, cause, causes }));
        }
    }

    /// Ends the run because a helper could not do its work.
    pub(super) fn fail_helper(&mut self, key: &TaskKey, detail: String) {
        let cause = Cause { code: "invalid_data".to_owned(), message: detail, name: None, resource: None };
        self.fail(Some(key), 1, cause, Vec::new());
    }

    /// Ends the run because a limit is reached.
    pub(super) fn fail_limit(&mut self, task: Option<TaskId>, detail: String) {
        let cause = Cause { code: "limit_reached".to_owned(), message: detail, name: None, resource: None };
        let key = task.map(|task| TaskKey { task, path: Path::new() });
        self.fail(key.as_ref(), 0, cause, Vec::new());
    }
}
