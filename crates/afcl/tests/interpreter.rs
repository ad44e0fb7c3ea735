//! Computes what a graph gives, by asking for its outputs: what `graph/mod.rs` says, in the plainest way, so that tests
//! can say what a document means. Everything is read when it is asked for; what runs for its effect alone does not run.

use std::collections::BTreeMap;

use lyra_afcl::Graph;
use lyra_afcl::graph::{
    Combine, Condition, DataId, DataKind, DataType, Gather, Number, Operation, Operator, Over, Pick, ScopeId,
    ScopeKind, TaskId, TaskKind,
};
use serde_json::{Map, Value, json};

/// A call of a function: its name, where in the loops, and its input.
pub type Call = (String, Vec<usize>, Value);

/// Runs one graph on one input.
pub struct Interpreter<'g> {
    graph: &'g Graph,
    input: Value,
    done: BTreeMap<(TaskId, Vec<usize>), Value>,
    /// The graphs behind functions of type `lyra:cut/…`.
    cuts: BTreeMap<String, Graph>,
    pub calls: Vec<Call>,
}

impl<'g> Interpreter<'g> {
    pub fn new(graph: &'g Graph, input: Value) -> Interpreter<'g> {
        Interpreter { graph, input, done: BTreeMap::new(), cuts: BTreeMap::new(), calls: Vec::new() }
    }

    pub fn with_cut(mut self, name: &str, graph: Graph) -> Interpreter<'g> {
        self.cuts.insert(format!("lyra:cut/{name}"), graph);
        self
    }

    /// The result of the run.
    pub fn run(&mut self) -> Value {
        let mut result = Map::new();
        for output in &self.graph.outputs {
            let value = self.value(output.data, &[]);
            result.insert(output.name.clone(), value);
        }
        Value::Object(result)
    }

    fn value(&mut self, id: DataId, path: &[usize]) -> Value {
        let graph = self.graph;
        let datum = graph.datum(id);
        let depth = graph.depth(datum.scope);
        let path = &path[..depth];
        match &datum.kind {
            DataKind::Input { key } => self.input[key].clone(),
            DataKind::Constant(value) => value.clone(),
            DataKind::Output { task } => {
                let output = graph.task(*task).outputs.iter().find(|output| output.data == id).unwrap();
                self.call(*task, path)[&output.name].clone()
            }
            DataKind::Decision { task } => {
                let TaskKind::Condition(condition) = &graph.task(*task).kind else { panic!("no condition") };
                Value::Bool(self.decide(*task, condition, path))
            }
            DataKind::Computed { task } => self.compute(*task, path),
            DataKind::Element { iterator } => {
                let ScopeKind::Iterations { distribution, .. } = graph.scope(datum.scope).kind else {
                    panic!("no body")
                };
                let from = graph.task(distribution).inputs[*iterator as usize].data;
                let array = self.value(from, &path[..depth - 1]);
                array[path[depth - 1]].clone()
            }
            DataKind::Counter { start, step } => {
                let outer = &path[..depth - 1];
                let first = matches!(graph.scope(datum.scope).kind, ScopeKind::Loop { .. });
                let start = start.map_or(i64::from(first), |data| whole(&self.value(data, outer)));
                let step = step.map_or(1, |data| whole(&self.value(data, outer)));
                json!(start + step * i64::try_from(path[depth - 1]).unwrap())
            }
            DataKind::Carried { initial, next } => match path[depth - 1] {
                0 => self.value(*initial, &path[..depth - 1]),
                index => {
                    let before = [&path[..depth - 1], &[index - 1]].concat();
                    self.value(*next, &before)
                }
            },
            DataKind::Final { scope, of } => {
                let last = self.last_iteration(*scope, path);
                self.value(*of, &[path, &[last]].concat())
            }
        }
    }

    fn last_iteration(&mut self, scope: ScopeId, outer: &[usize]) -> usize {
        let ScopeKind::Loop { end } = self.graph.scope(scope).kind else { panic!("no loop") };
        let TaskKind::While(condition) = &self.graph.task(end).kind else { panic!("no while") };
        let mut index = 0;
        while self.decide(end, condition, &[outer, &[index]].concat()) {
            index += 1;
            assert!(index < 1000, "an endless loop");
        }
        index
    }

    /// How many iterations the body of a parallelFor has.
    pub fn iterations(&mut self, distribution: TaskId, path: &[usize]) -> usize {
        let task = self.graph.task(distribution);
        let TaskKind::Distribution { over, .. } = task.kind else { panic!("no distribution") };
        let inputs: Vec<Value> = task.inputs.iter().map(|input| self.value(input.data, path)).collect();
        match over {
            Over::Elements => {
                let lengths: Vec<usize> = inputs.iter().map(|array| array.as_array().unwrap().len()).collect();
                assert!(lengths.iter().all(|length| *length == lengths[0]), "arrays of one length");
                lengths[0]
            }
            Over::Count => usize::try_from(whole(&inputs[0])).unwrap(),
            Over::Range => {
                let (from, to, step) = (whole(&inputs[0]), whole(&inputs[1]), whole(&inputs[2]));
                usize::try_from((to - from + step - step.signum()) / step).unwrap_or(0)
            }
        }
    }

    fn compute(&mut self, id: TaskId, path: &[usize]) -> Value {
        let task = self.graph.task(id);
        match &task.kind {
            TaskKind::Multiplexer => {
                let decision = self.value(task.inputs[0].data, path);
                let side = if decision == Value::Bool(true) { 1 } else { 2 };
                self.value(task.inputs[side].data, path)
            }
            TaskKind::Aggregation { scope } => {
                let ScopeKind::Iterations { distribution, .. } = self.graph.scope(*scope).kind else {
                    panic!("no body")
                };
                let count = self.iterations(distribution, path);
                (0..count).map(|index| self.value(task.inputs[0].data, &[path, &[index]].concat())).collect()
            }
            TaskKind::Gather(gather) => {
                let values: Vec<Value> = task.inputs.iter().map(|input| self.value(input.data, path)).collect();
                let flat = values.iter().flat_map(|value| match (gather, value) {
                    (Gather::Elements, Value::Array(items)) => items.clone(),
                    (_, value) => vec![value.clone()],
                });
                flat.collect()
            }
            TaskKind::CollectionOperation(operation) => {
                let inputs: Vec<Value> = task.inputs.iter().map(|input| self.value(input.data, path)).collect();
                operate(operation, &inputs)
            }
            other => panic!("{other:?} computes nothing"),
        }
    }

    fn decide(&mut self, id: TaskId, condition: &Condition, path: &[usize]) -> bool {
        let inputs = &self.graph.task(id).inputs;
        let mut result = None;
        let mut combine = Combine::And;
        for (index, term) in condition.terms.iter().enumerate() {
            let left = self.value(inputs[2 * index].data, path);
            let right = self.value(inputs[2 * index + 1].data, path);
            let holds = compare(term.data_type, term.operator, &left, &right) ^ term.negated;
            result = Some(match (result, combine) {
                (None, _) => holds,
                (Some(before), Combine::And) => before && holds,
                (Some(before), Combine::Or) => before || holds,
            });
            combine = term.combined_with;
        }
        result.unwrap()
    }

    fn call(&mut self, id: TaskId, path: &[usize]) -> Value {
        let key = (id, path.to_vec());
        if let Some(done) = self.done.get(&key) {
            return done.clone();
        }
        let task = self.graph.task(id);
        let TaskKind::Function { function_type, .. } = &task.kind else { panic!("no function") };
        let mut input = Map::new();
        for member in &task.inputs {
            input.insert(member.name.clone(), self.value(member.data, path));
        }
        let input = Value::Object(input);
        let output = match self.cuts.get(function_type) {
            Some(graph) => {
                let mut inner = Interpreter::new(graph, input.clone());
                inner.cuts.clone_from(&self.cuts);
                inner.run()
            }
            None => function(function_type, &input),
        };
        self.calls.push((task.name.clone(), path.to_vec(), input));
        self.done.insert(key, output.clone());
        output
    }
}

/// The functions of the tests.
fn function(function_type: &str, input: &Value) -> Value {
    match function_type {
        "Inc" => json!({"y": whole(&input["x"]) + 1}),
        "Range" => {
            let x = whole(&input["x"]);
            json!({"l": [x, x + 1, x + 2]})
        }
        "Sum" => json!({"s": sum(&input["l"])}),
        "Echo" => json!({"out": input}),
        other => panic!("no function {other}"),
    }
}

fn sum(value: &Value) -> i64 {
    value.as_array().map_or_else(|| whole(value), |items| items.iter().map(sum).sum())
}

fn whole(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no whole number"))
}

fn compare(data_type: DataType, operator: Operator, left: &Value, right: &Value) -> bool {
    let ordering = |value: &Value| whole(value);
    match (data_type, operator) {
        (_, Operator::Equal) => left == right,
        (_, Operator::NotEqual) => left != right,
        (_, Operator::Less) => ordering(left) < ordering(right),
        (_, Operator::Greater) => ordering(left) > ordering(right),
        (_, Operator::LessOrEqual) => ordering(left) <= ordering(right),
        (_, Operator::GreaterOrEqual) => ordering(left) >= ordering(right),
        (_, Operator::Contains) => left.as_str().unwrap().contains(right.as_str().unwrap()),
        (_, Operator::StartsWith) => left.as_str().unwrap().starts_with(right.as_str().unwrap()),
        (_, Operator::EndsWith) => left.as_str().unwrap().ends_with(right.as_str().unwrap()),
    }
}

fn operate(operation: &Operation, inputs: &[Value]) -> Value {
    let items = inputs[0].as_array().unwrap();
    let number = |number: &Number| match number {
        Number::Constant(value) => usize::try_from(*value).unwrap(),
        Number::Input(index) => usize::try_from(whole(&inputs[*index as usize])).unwrap(),
    };
    match operation {
        Operation::ElementIndex(picks) => match picks.as_slice() {
            [Pick::At(at)] => items[number(at)].clone(),
            picks => picks
                .iter()
                .flat_map(|pick| match pick {
                    Pick::At(at) => vec![items[number(at)].clone()],
                    Pick::Range { start, end, stride } => {
                        let end = end.as_ref().map_or(items.len() - 1, number);
                        let steps = (start.as_ref().map_or(0, number)..=end).step_by(stride.as_ref().map_or(1, number));
                        steps.map(|index| items[index].clone()).collect()
                    }
                })
                .collect(),
        },
        Operation::Block { size, overlap } => {
            let (size, step) = (number(size), number(size) - number(overlap));
            let starts = (0..items.len()).step_by(step);
            let covered = |start: &usize| *start == 0 || start + number(overlap) < items.len();
            starts.take_while(covered).map(|start| json!(items[start..(start + size).min(items.len())])).collect()
        }
        Operation::Split(n) => {
            let chunks = number(n).min(items.len());
            let each = items.len().div_ceil(chunks);
            (0..chunks)
                .map(|index| json!(items[(index * each).min(items.len())..((index + 1) * each).min(items.len())]))
                .collect()
        }
        Operation::Replicate(n) => items.iter().flat_map(|item| std::iter::repeat_n(item.clone(), number(n))).collect(),
    }
}
