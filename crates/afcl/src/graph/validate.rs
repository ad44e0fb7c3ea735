//! Whether a graph keeps its own rules; see [`super::Graph::validate`].
//!
//! A graph may come from another Lyra, so nothing is taken for granted: numbers are compared with the tables before
//! they are used, and scopes are checked first, because all else walks up through them.

use std::collections::HashSet;

use lyra_types::{Code, Error};

use super::{
    DataId, DataKind, Graph, Member, Number, Operation, Over, Pick, ScopeId, ScopeKind, Task, TaskId, TaskKind, cut,
    order,
};
use crate::limits::{MAX_CUTS, MAX_DATA, MAX_NESTING, MAX_ORDERS, MAX_TASKS};

/// A rule that is broken: where, and how.
type Broken = (String, &'static str);

pub(super) fn validate(graph: &Graph) -> Result<(), Error> {
    let checks = [check_sizes, check_scopes, check_numbers, check_scope_kinds, check_tasks, check_data, check_results];
    for check in checks {
        check(graph).map_err(|(field, reason)| Error::field(Code::InvalidField, field, reason))?;
    }
    for cut in &graph.cuts {
        if let Some(reason) = cut::refusal(graph, cut) {
            return Err(Error::field(Code::InvalidField, "cuts", format!("the cut `{}` {reason}", cut.name)));
        }
    }
    if cut::overlap(graph).is_some() {
        return Err(Error::field(Code::InvalidField, "cuts", "two cuts overlap, and neither is inside of the other"));
    }
    Ok(())
}

fn check_sizes(graph: &Graph) -> Result<(), Broken> {
    let orders: usize = graph.tasks.iter().map(|task| task.after.len() + task.after_scopes.len()).sum();
    let too_large = graph.tasks.len() > MAX_TASKS
        || graph.data.len() > MAX_DATA
        || graph.scopes.len() > 2 * MAX_TASKS
        || orders > MAX_ORDERS
        || graph.cuts.len() > MAX_CUTS;
    match too_large {
        true => Err(("tasks".to_owned(), "is larger than the limits on graphs")),
        false => Ok(()),
    }
}

fn check_scopes(graph: &Graph) -> Result<(), Broken> {
    let mut depths = Vec::with_capacity(graph.scopes.len());
    for (index, scope) in graph.scopes.iter().enumerate() {
        let field = || format!("scopes[{index}]");
        let depth = match (index, scope.parent, &scope.kind) {
            (0, None, ScopeKind::Workflow) => 0,
            (0, ..) => return Err((field(), "must be the workflow's, without a parent")),
            (_, Some(parent), kind) if *kind != ScopeKind::Workflow && (parent.0 as usize) < index => {
                depths[parent.0 as usize] + 1
            }
            _ => return Err((field(), "must have a parent that stands before it")),
        };
        // A `for` is two scopes.
        if depth > 2 * MAX_NESTING {
            return Err((field(), "is nested too deep"));
        }
        depths.push(depth);
    }
    match graph.scopes.is_empty() {
        true => Err(("scopes".to_owned(), "has no scope")),
        false => Ok(()),
    }
}

/// Every number is the number of something.
fn check_numbers(graph: &Graph) -> Result<(), Broken> {
    let task = |id: TaskId| (id.0 as usize) < graph.tasks.len();
    let scope = |id: ScopeId| (id.0 as usize) < graph.scopes.len();
    let datum = |id: DataId| (id.0 as usize) < graph.data.len();
    let members = |members: &[Member]| members.iter().all(|member| datum(member.data));
    let unknown = "refers to something that is not there";
    for (index, around) in graph.scopes.iter().enumerate() {
        let known = match around.kind {
            ScopeKind::Workflow => true,
            ScopeKind::Branch { decision, .. } => datum(decision),
            ScopeKind::Iterations { distribution, .. } => task(distribution),
            ScopeKind::Loop { end } => task(end),
        };
        if !known {
            return Err((format!("scopes[{index}]"), unknown));
        }
    }
    for (index, one) in graph.tasks.iter().enumerate() {
        let kind = match one.kind {
            TaskKind::Distribution { scope: body, .. } | TaskKind::Aggregation { scope: body } => scope(body),
            _ => true,
        };
        let orders = one.after.iter().all(|id| task(*id)) && one.after_scopes.iter().all(|id| scope(*id));
        if !kind || !orders || !scope(one.scope) || !members(&one.inputs) || !members(&one.outputs) {
            return Err((format!("tasks[{index}]"), unknown));
        }
    }
    for (index, one) in graph.data.iter().enumerate() {
        let known = match one.kind {
            DataKind::Input { .. } | DataKind::Constant(_) | DataKind::Element { .. } => true,
            DataKind::Output { task: by } | DataKind::Decision { task: by } | DataKind::Computed { task: by } => {
                task(by)
            }
            DataKind::Counter { start, step } => [start, step].into_iter().flatten().all(datum),
            DataKind::Carried { initial, next } => datum(initial) && datum(next),
            DataKind::Final { scope: of_scope, of } => scope(of_scope) && datum(of),
        };
        if !known || !scope(one.scope) {
            return Err((format!("data[{index}]"), unknown));
        }
    }
    match members(&graph.outputs) {
        true => Ok(()),
        false => Err(("outputs".to_owned(), unknown)),
    }
}

fn check_scope_kinds(graph: &Graph) -> Result<(), Broken> {
    for (index, scope) in graph.scopes.iter().enumerate() {
        let id = ScopeId(super::index_of(index));
        let right = match scope.kind {
            ScopeKind::Workflow => true,
            ScopeKind::Branch { decision, .. } => {
                let datum = graph.datum(decision);
                matches!(datum.kind, DataKind::Decision { .. }) && Some(datum.scope) == scope.parent
            }
            ScopeKind::Iterations { distribution, concurrency } => {
                let task = graph.task(distribution);
                let mine = matches!(task.kind, TaskKind::Distribution { scope, .. } if scope == id);
                mine && Some(task.scope) == scope.parent && concurrency != Some(0)
            }
            ScopeKind::Loop { end } => {
                let task = graph.task(end);
                matches!(task.kind, TaskKind::While(_)) && task.scope == id
            }
        };
        if !right {
            return Err((format!("scopes[{index}]"), "does not fit the task or decision that it names"));
        }
    }
    Ok(())
}

fn check_tasks(graph: &Graph) -> Result<(), Broken> {
    let mut names = HashSet::new();
    for (index, task) in graph.tasks.iter().enumerate() {
        let id = TaskId(super::index_of(index));
        let field = |part: &str| format!("tasks[{index}]{part}");
        if !names.insert(&task.name) {
            return Err((field(".name"), "is there twice"));
        }
        if !inputs_fit(graph, id, task) {
            return Err((field(".inputs"), "are not what a task of this kind reads"));
        }
        if !inputs_are_seen(graph, task) {
            return Err((field(".inputs"), "stand in a scope that the task is not in"));
        }
        if !outputs_fit(graph, id, task) {
            return Err((field(".outputs"), "are not what a task of this kind makes"));
        }
        let after = task.after.iter().all(|before| graph.is_within(task.scope, graph.task(*before).scope));
        let scopes = task.after_scopes.iter().all(|before| {
            let parent = graph.scope(*before).parent;
            parent.is_some_and(|parent| graph.is_within(task.scope, parent)) && !graph.is_within(task.scope, *before)
        });
        if !after || !scopes {
            return Err((field(".after"), "names something in a scope that the task is not in"));
        }
    }
    match order::find_cycle(graph) {
        Some(cycle) => Err((format!("tasks[{}]", cycle[0].0), "waits for itself")),
        None => Ok(()),
    }
}

fn inputs_fit(graph: &Graph, id: TaskId, task: &Task) -> bool {
    let count = task.inputs.len();
    match &task.kind {
        TaskKind::Function { .. } => {
            let mut names = HashSet::new();
            task.inputs.iter().all(|input| names.insert(&input.name))
        }
        TaskKind::Condition(condition) => !condition.terms.is_empty() && count == 2 * condition.terms.len(),
        TaskKind::While(condition) => {
            let mine = matches!(graph.scope(task.scope).kind, ScopeKind::Loop { end } if end == id);
            mine && !condition.terms.is_empty() && count == 2 * condition.terms.len()
        }
        TaskKind::Multiplexer => {
            let decides = |input: &Member| matches!(graph.datum(input.data).kind, DataKind::Decision { .. });
            (2..=3).contains(&count) && task.inputs.first().is_some_and(decides)
        }
        TaskKind::Distribution { scope, over } => {
            let mine =
                matches!(graph.scope(*scope).kind, ScopeKind::Iterations { distribution, .. } if distribution == id);
            mine && match over {
                Over::Elements => count >= 1,
                Over::Count => count == 1,
                Over::Range => count == 3,
            }
        }
        TaskKind::Aggregation { scope } => {
            let body = graph.scope(*scope);
            let collects = |input: &Member| graph.datum(input.data).scope == *scope;
            matches!(body.kind, ScopeKind::Iterations { .. })
                && body.parent == Some(task.scope)
                && count == 1
                && task.inputs.iter().all(collects)
        }
        TaskKind::CollectionOperation(operation) => count >= 1 && operation_fits(operation, count),
        TaskKind::Gather(_) => count >= 1,
    }
}

fn operation_fits(operation: &Operation, inputs: usize) -> bool {
    let number = |number: &Number, least: i64| match number {
        Number::Constant(value) => *value >= least,
        Number::Input(index) => *index >= 1 && (*index as usize) < inputs,
    };
    match operation {
        Operation::ElementIndex(picks) => {
            let optional = |value: &Option<Number>, least| value.as_ref().is_none_or(|value| number(value, least));
            let pick = |pick: &Pick| match pick {
                Pick::At(at) => number(at, 0),
                Pick::Range { start, end, stride } => optional(start, 0) && optional(end, 0) && optional(stride, 1),
            };
            !picks.is_empty() && picks.iter().all(pick)
        }
        Operation::Block { size, overlap } => {
            let less =
                !matches!((size, overlap), (Number::Constant(size), Number::Constant(overlap)) if overlap >= size);
            number(size, 1) && number(overlap, 0) && less
        }
        Operation::Split(n) | Operation::Replicate(n) => number(n, 1),
    }
}

/// Data are read by what stands in their scope; those of a branch also by the multiplexers beside it, those of an
/// iteration also by its aggregations.
fn inputs_are_seen(graph: &Graph, task: &Task) -> bool {
    let decision = task.inputs.first().map(|input| input.data);
    task.inputs.iter().enumerate().all(|(index, input)| {
        let of = graph.datum(input.data).scope;
        let around = graph.scope(of);
        graph.is_within(task.scope, of)
            || match (&task.kind, &around.kind) {
                (TaskKind::Aggregation { .. }, _) => true,
                (TaskKind::Multiplexer, ScopeKind::Branch { decision: by, taken_when }) => {
                    Some(*by) == decision && *taken_when == (index == 1) && around.parent == Some(task.scope)
                }
                _ => false,
            }
    })
}

fn outputs_fit(graph: &Graph, id: TaskId, task: &Task) -> bool {
    let mut names = HashSet::new();
    let mut data = HashSet::new();
    let made = task.outputs.iter().all(|output| {
        let datum = graph.datum(output.data);
        let kind = match (&task.kind, &datum.kind) {
            (TaskKind::Function { .. }, DataKind::Output { task }) => *task == id,
            (TaskKind::Condition(_), DataKind::Decision { task }) => *task == id,
            (TaskKind::Function { .. } | TaskKind::Condition(_), _) => false,
            (_, DataKind::Computed { task }) => *task == id,
            _ => false,
        };
        kind && datum.scope == task.scope && names.insert(&output.name) && data.insert(output.data)
    });
    let count = match task.kind {
        TaskKind::Function { .. } => true,
        TaskKind::While(_) | TaskKind::Distribution { .. } => task.outputs.is_empty(),
        _ => task.outputs.len() == 1,
    };
    made && count
}

fn check_data(graph: &Graph) -> Result<(), Broken> {
    let mut made = vec![false; graph.data.len()];
    for output in graph.tasks.iter().flat_map(|task| &task.outputs) {
        made[output.data.0 as usize] = true;
    }
    for (index, datum) in graph.data.iter().enumerate() {
        let around = graph.scope(datum.scope);
        // What a loop or its counter begins with stands around it.
        let before =
            |data: &DataId| around.parent.is_some_and(|parent| graph.is_within(parent, graph.datum(*data).scope));
        let right = match &datum.kind {
            DataKind::Input { .. } | DataKind::Constant(_) => datum.scope == ScopeId::WORKFLOW,
            DataKind::Output { .. } | DataKind::Decision { .. } | DataKind::Computed { .. } => made[index],
            DataKind::Element { iterator } => match around.kind {
                ScopeKind::Iterations { distribution, .. } => {
                    let task = graph.task(distribution);
                    let elements = matches!(task.kind, TaskKind::Distribution { over: Over::Elements, .. });
                    elements && (*iterator as usize) < task.inputs.len()
                }
                _ => false,
            },
            DataKind::Counter { start, step } => around.kind.is_indexed() && start.iter().chain(step).all(before),
            DataKind::Carried { initial, next } => {
                matches!(around.kind, ScopeKind::Loop { .. })
                    && before(initial)
                    && graph.datum(*next).scope == datum.scope
            }
            DataKind::Final { scope, of } => {
                let of_loop = graph.scope(*scope);
                matches!(of_loop.kind, ScopeKind::Loop { .. })
                    && of_loop.parent == Some(datum.scope)
                    && graph.datum(*of).scope == *scope
            }
        };
        if !right {
            return Err((format!("data[{index}]"), "does not fit its scope or its maker"));
        }
    }
    Ok(())
}

fn check_results(graph: &Graph) -> Result<(), Broken> {
    let mut names = HashSet::new();
    for (index, output) in graph.outputs.iter().enumerate() {
        if graph.datum(output.data).scope != ScopeId::WORKFLOW {
            return Err((format!("outputs[{index}]"), "must be of the workflow's scope"));
        }
        if !names.insert(&output.name) {
            return Err((format!("outputs[{index}]"), "is there twice"));
        }
    }
    let mut names = HashSet::new();
    match graph.cuts.iter().all(|cut| names.insert(&cut.name)) {
        true => Ok(()),
        false => Err(("cuts".to_owned(), "two have one name")),
    }
}
