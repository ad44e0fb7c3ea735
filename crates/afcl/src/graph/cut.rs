//! Cuts a graph in two: what runs here, with one task in place of the part, and the part, which runs on another Lyra.
//!
//! In the parent the part is a function of type `lyra:cut/NAME`, whose inputs are the data that go into the part, and
//! whose outputs those that come out of it; only these cross. In the part they are its inputs and outputs. Cuts inside
//! of the part go with it, so cuts nest. Both graphs keep the rules of [`Graph::validate`].

use std::collections::{HashMap, HashSet};

use lyra_types::{Code, Error};

use super::part::{Part, for_each_reference};
use super::{
    Cut, Data, DataId, DataKind, DataType, Graph, Member, Over, Scope, ScopeId, ScopeKind, Settings, Task, TaskId,
    TaskKind, index_of,
};

/// The function type of a cut's task, without the cut's name.
pub const CUT_TYPE: &str = "lyra:cut/";

/// Cuts `graph` along one of its cuts; first what stays here, then what runs elsewhere.
///
/// # Errors
/// `invalid_field` where the cut's members are unknown, not all in one scope, or not convex: where a path leaves the
/// part and comes back.
pub fn cut(graph: &Graph, cut: &Cut) -> Result<(Graph, Graph), Error> {
    let part = Part::of(graph, cut)
        .map_err(|reason| Error::field(Code::InvalidField, "cuts", format!("the cut `{}` {reason}", cut.name)))?;
    let crossing = Crossing::of(graph, &part);
    let (inner, outer) = sort_cuts(graph, cut, &part);
    Ok((parent(graph, cut, &part, &crossing, outer), sub(graph, cut, &part, &crossing, inner)))
}

/// Why a cut can't be made; nothing where it can.
pub(crate) fn refusal(graph: &Graph, cut: &Cut) -> Option<String> {
    Part::of(graph, cut).err()
}

/// Why two cuts can't stand beside each other: they share a part, and neither is inside of the other.
pub(crate) fn overlap(graph: &Graph) -> Option<(usize, usize)> {
    let parts: Vec<Option<HashSet<usize>>> = graph.cuts.iter().map(|cut| functions(graph, cut)).collect();
    for (index, one) in parts.iter().enumerate() {
        for (other_index, other) in parts.iter().enumerate().skip(index + 1) {
            let (Some(one), Some(other)) = (one, other) else { continue };
            if !one.is_disjoint(other) && !one.is_subset(other) && !other.is_subset(one) {
                return Some((index, other_index));
            }
        }
    }
    None
}

fn functions(graph: &Graph, cut: &Cut) -> Option<HashSet<usize>> {
    let part = Part::of(graph, cut).ok()?;
    Some((0..graph.tasks.len()).filter(|index| part.tasks[*index] && graph.tasks[*index].kind.is_function()).collect())
}

/// The data that cross a cut, each with the name under which it does.
pub(super) struct Crossing {
    pub(super) into: Vec<Member>,
    pub(super) out: Vec<Member>,
}

impl Crossing {
    pub(super) fn of(graph: &Graph, part: &Part) -> Crossing {
        let mut into = Collected::default();
        let mut out = Collected::default();
        for (index, task) in graph.tasks.iter().enumerate() {
            for input in &task.inputs {
                match (part.tasks[index], part.data[input.data.0 as usize]) {
                    (true, false) => into.add(graph, input.data, input.data_type),
                    (false, true) => out.add(graph, input.data, input.data_type),
                    _ => {}
                }
            }
        }
        for_each_reference(graph, |by, data| match (part.data[by.0 as usize], part.data[data.0 as usize]) {
            (true, false) => into.add(graph, data, DataType::Object),
            (false, true) => out.add(graph, data, DataType::Object),
            _ => {}
        });
        for output in &graph.outputs {
            if part.data[output.data.0 as usize] {
                out.add(graph, output.data, output.data_type);
            }
        }
        Crossing { into: into.members, out: out.members }
    }
}

#[derive(Default)]
struct Collected {
    known: HashSet<DataId>,
    names: HashMap<String, u32>,
    members: Vec<Member>,
}

impl Collected {
    fn add(&mut self, graph: &Graph, data: DataId, data_type: DataType) {
        let datum = graph.datum(data);
        // Constants are written into both graphs.
        if matches!(datum.kind, DataKind::Constant(_)) || !self.known.insert(data) {
            return;
        }
        let count = self.names.entry(datum.name.clone()).or_default();
        *count += 1;
        let name = if *count == 1 { datum.name.clone() } else { format!("{} ({count})", datum.name) };
        self.members.push(Member { name, data_type, data });
    }
}

/// The other cuts of the graph: those inside of the part, and those outside, in which the cut's task takes the place of
/// its members.
fn sort_cuts(graph: &Graph, made: &Cut, part: &Part) -> (Vec<Cut>, Vec<Cut>) {
    let mut inner = Vec::new();
    let mut outer = Vec::new();
    for other in graph.cuts.iter().filter(|other| other.name != made.name) {
        let Ok(other_part) = Part::of(graph, other) else { continue };
        let is_inside = (0..graph.tasks.len()).all(|index| !other_part.tasks[index] || part.tasks[index]);
        if is_inside {
            inner.push(other.clone());
            continue;
        }
        let mut other = other.clone();
        let before = other.members.len();
        let gone: HashSet<&String> = made.members.iter().collect();
        other.members.retain(|member| !gone.contains(member));
        if other.members.len() < before {
            other.members.push(made.name.clone());
        }
        outer.push(other);
    }
    (inner, outer)
}

/// New numbers for what is kept.
struct Renumbering {
    tasks: Vec<Option<TaskId>>,
    scopes: Vec<Option<ScopeId>>,
    data: Vec<Option<DataId>>,
}

impl Renumbering {
    fn task(&self, id: TaskId) -> TaskId {
        self.tasks[id.0 as usize].expect("what is kept refers to tasks that are kept")
    }

    fn scope(&self, id: ScopeId) -> ScopeId {
        self.scopes[id.0 as usize].expect("what is kept refers to scopes that are kept")
    }

    fn datum(&self, id: DataId) -> DataId {
        self.data[id.0 as usize].expect("what is kept refers to data that are kept")
    }

    fn members(&self, members: &[Member]) -> Vec<Member> {
        members.iter().map(|member| Member { data: self.datum(member.data), ..member.clone() }).collect()
    }

    fn scope_kind(&self, kind: &ScopeKind) -> ScopeKind {
        match kind {
            ScopeKind::Workflow => ScopeKind::Workflow,
            ScopeKind::Branch { decision, taken_when } => {
                ScopeKind::Branch { decision: self.datum(*decision), taken_when: *taken_when }
            }
            ScopeKind::Iterations { distribution, concurrency } => {
                ScopeKind::Iterations { distribution: self.task(*distribution), concurrency: *concurrency }
            }
            ScopeKind::Loop { end } => ScopeKind::Loop { end: self.task(*end) },
        }
    }

    fn task_kind(&self, kind: &TaskKind) -> TaskKind {
        match kind {
            TaskKind::Distribution { scope, over } => {
                let over: Over = *over;
                TaskKind::Distribution { scope: self.scope(*scope), over }
            }
            TaskKind::Aggregation { scope } => TaskKind::Aggregation { scope: self.scope(*scope) },
            other => other.clone(),
        }
    }

    fn data_kind(&self, kind: &DataKind) -> DataKind {
        match kind {
            DataKind::Output { task } => DataKind::Output { task: self.task(*task) },
            DataKind::Decision { task } => DataKind::Decision { task: self.task(*task) },
            DataKind::Computed { task } => DataKind::Computed { task: self.task(*task) },
            DataKind::Counter { start, step } => {
                let datum = |id: &DataId| self.datum(*id);
                DataKind::Counter { start: start.as_ref().map(datum), step: step.as_ref().map(datum) }
            }
            DataKind::Carried { initial, next } => {
                DataKind::Carried { initial: self.datum(*initial), next: self.datum(*next) }
            }
            DataKind::Final { scope, of } => DataKind::Final { scope: self.scope(*scope), of: self.datum(*of) },
            other => other.clone(),
        }
    }
}

/// Numbers those that are kept, in their order.
fn number<T>(keep: impl Iterator<Item = bool>, id: impl Fn(u32) -> T) -> Vec<Option<T>> {
    let mut next = 0;
    let each = |kept: bool| {
        kept.then(|| {
            next += 1;
            id(next - 1)
        })
    };
    keep.map(each).collect()
}

/// Which data somebody reads who is not in the part.
fn read_outside(graph: &Graph, part: &Part) -> Vec<bool> {
    let mut read = vec![false; graph.data.len()];
    for (task, _) in graph.tasks.iter().zip(&part.tasks).filter(|(_, inside)| !**inside) {
        for input in &task.inputs {
            read[input.data.0 as usize] = true;
        }
    }
    for_each_reference(graph, |by, data| read[data.0 as usize] |= !part.data[by.0 as usize]);
    for output in &graph.outputs {
        read[output.data.0 as usize] = true;
    }
    read
}

fn parent(graph: &Graph, cut: &Cut, part: &Part, crossing: &Crossing, cuts: Vec<Cut>) -> Graph {
    let first = part.tasks.iter().position(|inside| *inside).unwrap_or_default();
    let out: HashSet<DataId> = crossing.out.iter().map(|member| member.data).collect();
    let read = read_outside(graph, part);
    let keeps = |index: usize| match graph.data[index].kind {
        DataKind::Constant(_) => read[index],
        _ => !part.data[index] || out.contains(&DataId(index_of(index))),
    };
    let mut numbers = Renumbering {
        // The cut's task takes the place of the first task that goes.
        tasks: number((0..graph.tasks.len()).map(|index| !part.tasks[index] || index == first), TaskId),
        scopes: number(part.scopes.iter().map(|inside| !inside), ScopeId),
        data: number((0..graph.data.len()).map(keeps), DataId),
    };
    let cut_task = numbers.tasks[first].expect("the first task of the part gives its place");
    for (index, inside) in part.tasks.iter().enumerate() {
        if *inside {
            numbers.tasks[index] = Some(cut_task);
        }
    }
    let mut tasks = Vec::new();
    for (index, task) in graph.tasks.iter().enumerate() {
        if index == first {
            tasks.push(cut_as_task(graph, cut, part, crossing, &numbers));
        }
        if part.tasks[index] {
            continue;
        }
        let (inside, outside): (Vec<ScopeId>, Vec<ScopeId>) =
            task.after_scopes.iter().partition(|scope| part.scopes[scope.0 as usize]);
        let mut after: Vec<TaskId> = task.after.iter().map(|task| numbers.task(*task)).collect();
        after.extend(inside.first().map(|_| cut_task));
        dedup(&mut after);
        tasks.push(Task {
            name: task.name.clone(),
            scope: numbers.scope(task.scope),
            kind: numbers.task_kind(&task.kind),
            inputs: numbers.members(&task.inputs),
            outputs: numbers.members(&task.outputs),
            after,
            after_scopes: outside.into_iter().map(|scope| numbers.scope(scope)).collect(),
        });
    }
    let keep_datum = |(index, datum): (usize, &Data)| {
        numbers.data[index]?;
        let kind = match part.data[index] {
            true => DataKind::Output { task: cut_task },
            false => numbers.data_kind(&datum.kind),
        };
        Some(Data { name: datum.name.clone(), scope: numbers.scope(datum.scope), kind })
    };
    Graph {
        name: graph.name.clone(),
        scopes: kept_scopes(graph, &numbers),
        tasks,
        data: graph.data.iter().enumerate().filter_map(keep_datum).collect(),
        outputs: numbers.members(&graph.outputs),
        cuts,
    }
}

/// The task that stands for the part.
fn cut_as_task(graph: &Graph, cut: &Cut, part: &Part, crossing: &Crossing, numbers: &Renumbering) -> Task {
    let mut after = Vec::new();
    let mut after_scopes = Vec::new();
    for (task, _) in graph.tasks.iter().zip(&part.tasks).filter(|(_, inside)| **inside) {
        let outside = task.after.iter().filter(|before| !part.tasks[before.0 as usize]);
        after.extend(outside.map(|before| numbers.task(*before)));
        let outside = task.after_scopes.iter().filter(|before| !part.scopes[before.0 as usize]);
        after_scopes.extend(outside.map(|before| numbers.scope(*before)));
    }
    dedup(&mut after);
    dedup(&mut after_scopes);
    Task {
        name: cut.name.clone(),
        scope: numbers.scope(part.scope),
        kind: TaskKind::Function { function_type: format!("{CUT_TYPE}{}", cut.name), settings: Settings::default() },
        inputs: numbers.members(&crossing.into),
        outputs: numbers.members(&crossing.out),
        after,
        after_scopes,
    }
}

fn sub(graph: &Graph, cut: &Cut, part: &Part, crossing: &Crossing, cuts: Vec<Cut>) -> Graph {
    let mut wanted = part.data.clone();
    for (index, task) in graph.tasks.iter().enumerate() {
        if part.tasks[index] {
            for input in &task.inputs {
                wanted[input.data.0 as usize] = true;
            }
        }
    }
    for_each_reference(graph, |by, data| wanted[data.0 as usize] |= part.data[by.0 as usize]);
    let mut numbers = Renumbering {
        tasks: number(part.tasks.iter().copied(), TaskId),
        // The workflow's scope, which is the part's own in the other graph.
        scopes: number(part.scopes.iter().copied(), |id| ScopeId(id + 1)),
        data: number(wanted.iter().copied(), DataId),
    };
    numbers.scopes[part.scope.0 as usize] = Some(ScopeId::WORKFLOW);
    let keys: HashMap<DataId, &str> = crossing.into.iter().map(|member| (member.data, member.name.as_str())).collect();
    let mut scopes = vec![Scope { name: cut.name.clone(), parent: None, kind: ScopeKind::Workflow }];
    for (scope, _) in graph.scopes.iter().zip(&part.scopes).filter(|(_, inside)| **inside) {
        let parent = scope.parent.map(|parent| numbers.scope(parent));
        scopes.push(Scope { name: scope.name.clone(), parent, kind: numbers.scope_kind(&scope.kind) });
    }
    let keep_task = |(index, task): (usize, &Task)| {
        let after = task.after.iter().filter(|before| part.tasks[before.0 as usize]);
        let after_scopes = task.after_scopes.iter().filter(|before| part.scopes[before.0 as usize]);
        part.tasks[index].then(|| Task {
            name: task.name.clone(),
            scope: numbers.scope(task.scope),
            kind: numbers.task_kind(&task.kind),
            inputs: numbers.members(&task.inputs),
            outputs: numbers.members(&task.outputs),
            after: after.map(|before| numbers.task(*before)).collect(),
            after_scopes: after_scopes.map(|before| numbers.scope(*before)).collect(),
        })
    };
    let keep_datum = |(index, datum): (usize, &Data)| {
        let id = DataId(index_of(index));
        numbers.data[index]?;
        let (scope, kind) = match (&datum.kind, keys.get(&id)) {
            (_, Some(key)) => (ScopeId::WORKFLOW, DataKind::Input { key: (*key).to_owned() }),
            (DataKind::Constant(value), _) => (ScopeId::WORKFLOW, DataKind::Constant(value.clone())),
            (kind, None) => (numbers.scope(datum.scope), numbers.data_kind(kind)),
        };
        Some(Data { name: datum.name.clone(), scope, kind })
    };
    Graph {
        name: cut.name.clone(),
        scopes,
        tasks: graph.tasks.iter().enumerate().filter_map(keep_task).collect(),
        data: graph.data.iter().enumerate().filter_map(keep_datum).collect(),
        outputs: numbers.members(&crossing.out),
        cuts,
    }
}

fn kept_scopes(graph: &Graph, numbers: &Renumbering) -> Vec<Scope> {
    let keep = |(index, scope): (usize, &Scope)| {
        numbers.scopes[index]?;
        let parent = scope.parent.map(|parent| numbers.scope(parent));
        Some(Scope { name: scope.name.clone(), parent, kind: numbers.scope_kind(&scope.kind) })
    };
    graph.scopes.iter().enumerate().filter_map(keep).collect()
}

fn dedup<T: Ord>(items: &mut Vec<T>) {
    items.sort_unstable();
    items.dedup();
}
