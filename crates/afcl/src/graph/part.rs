//! The part of a graph that a cut takes out: which tasks, scopes and data are in it, and whether it can be taken.

use std::collections::HashMap;

use super::order::Waiting;
use super::{Cut, DataId, DataKind, Graph, ScopeId, ScopeKind, TaskId, TaskKind, index_of};

/// What a cut takes out.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The scope in which it stands.
    pub(super) scope: ScopeId,
    /// Whether each task is in it.
    pub(super) tasks: Vec<bool>,
    /// Whether each scope is in it.
    pub(super) scopes: Vec<bool>,
    /// Whether each datum is made in it.
    pub(super) data: Vec<bool>,
}

impl Part {
    /// What the members of a cut stand for; the error says why they are no part.
    pub(super) fn of(graph: &Graph, cut: &Cut) -> Result<Part, String> {
        if cut.members.is_empty() {
            return Err("has no members".to_owned());
        }
        let mut part = Part {
            scope: ScopeId::WORKFLOW,
            tasks: vec![false; graph.tasks.len()],
            scopes: vec![false; graph.scopes.len()],
            data: vec![false; graph.data.len()],
        };
        let names = Names::of(graph);
        let mut common = None;
        for member in &cut.members {
            let scope = part.add_member(graph, &names, member)?;
            match common {
                None => common = Some(scope),
                Some(common) if common == scope => {}
                Some(_) => return Err(format!("its member `{member}` stands in another scope than those before it")),
            }
        }
        part.scope = common.expect("a cut has members");
        part.fill(graph);
        part.add_helpers(graph);
        part.check_convex(graph)?;
        Ok(part)
    }

    fn add_member(&mut self, graph: &Graph, names: &Names<'_>, member: &str) -> Result<ScopeId, String> {
        if let Some(task) = names.functions.get(member) {
            self.tasks[task.0 as usize] = true;
            return Ok(graph.task(*task).scope);
        }
        let Some(scopes) = names.scopes.get(member) else {
            return Err(format!("has a member `{member}` that is no function or compound"));
        };
        // The body of a `for` has the loop's name, and stands inside of it.
        let outermost =
            scopes.iter().map(|scope| graph.scope(*scope).parent).min().flatten().unwrap_or(ScopeId::WORKFLOW);
        for scope in scopes {
            self.scopes[scope.0 as usize] = true;
        }
        Ok(outermost)
    }

    /// Adds what belongs to the scopes and tasks that are in it.
    fn fill(&mut self, graph: &Graph) {
        for (index, scope) in graph.scopes.iter().enumerate() {
            // A scope's parent stands before it.
            self.scopes[index] |= scope.parent.is_some_and(|parent| self.scopes[parent.0 as usize]);
        }
        let mut decisions = vec![false; graph.data.len()];
        for (scope, _) in graph.scopes.iter().zip(&self.scopes).filter(|(_, inside)| **inside) {
            match scope.kind {
                ScopeKind::Iterations { distribution, .. } => self.tasks[distribution.0 as usize] = true,
                ScopeKind::Branch { decision, .. } => {
                    decisions[decision.0 as usize] = true;
                    if let DataKind::Decision { task } = graph.datum(decision).kind {
                        self.tasks[task.0 as usize] = true;
                    }
                }
                ScopeKind::Workflow | ScopeKind::Loop { .. } => {}
            }
        }
        for (index, task) in graph.tasks.iter().enumerate() {
            self.tasks[index] |= self.scopes[task.scope.0 as usize]
                || match task.kind {
                    TaskKind::Aggregation { scope } => self.scopes[scope.0 as usize],
                    TaskKind::Multiplexer => {
                        task.inputs.first().is_some_and(|decision| decisions[decision.data.0 as usize])
                    }
                    _ => false,
                };
        }
        self.mark_data(graph);
    }

    fn mark_data(&mut self, graph: &Graph) {
        for (index, datum) in graph.data.iter().enumerate() {
            self.data[index] = match datum.kind {
                DataKind::Input { .. } | DataKind::Constant(_) => false,
                DataKind::Output { task } | DataKind::Decision { task } | DataKind::Computed { task } => {
                    self.tasks[task.0 as usize]
                }
                DataKind::Element { .. } | DataKind::Counter { .. } | DataKind::Carried { .. } => {
                    self.scopes[datum.scope.0 as usize]
                }
                DataKind::Final { scope, .. } => self.scopes[scope.0 as usize],
            };
        }
    }

    /// Adds operations on collections, and gatherings, that only serve what is in it, or that stand between two parts
    /// of it.
    fn add_helpers(&mut self, graph: &Graph) {
        let serves = |kind: &TaskKind| matches!(kind, TaskKind::CollectionOperation(_) | TaskKind::Gather(_));
        let mut readers: HashMap<DataId, Vec<TaskId>> = HashMap::new();
        for (index, task) in graph.tasks.iter().enumerate() {
            for input in &task.inputs {
                readers.entry(input.data).or_default().push(TaskId(index_of(index)));
            }
        }
        let mut read_elsewhere = vec![false; graph.data.len()];
        for_each_reference(graph, |_, data| read_elsewhere[data.0 as usize] = true);
        for output in &graph.outputs {
            read_elsewhere[output.data.0 as usize] = true;
        }
        loop {
            let mut changed = false;
            for (index, task) in graph.tasks.iter().enumerate() {
                if self.tasks[index] || task.scope != self.scope || !serves(&task.kind) {
                    continue;
                }
                let made = task.outputs.first().map(|output| output.data);
                let read_by = made.and_then(|data| readers.get(&data)).map_or(&[][..], Vec::as_slice);
                let by_part = |reader: &TaskId| self.tasks[reader.0 as usize];
                let only = !read_by.is_empty()
                    && read_by.iter().all(by_part)
                    && made.is_none_or(|data| !read_elsewhere[data.0 as usize]);
                let between =
                    read_by.iter().any(by_part) && task.inputs.iter().any(|input| self.data[input.data.0 as usize]);
                if only || between {
                    self.tasks[index] = true;
                    changed = true;
                }
            }
            if !changed {
                return;
            }
            self.mark_data(graph);
        }
    }

    /// A path must not leave the part and come back: the other Lyra could not go on without this one.
    fn check_convex(&self, graph: &Graph) -> Result<(), String> {
        let waiting = Waiting::of(graph);
        let inside = waiting.nodes(&self.tasks, &self.scopes, &self.data);
        let mut seen = inside.clone();
        let mut open: Vec<usize> = Vec::new();
        for node in (0..inside.len()).filter(|node| inside[*node]) {
            open.extend(waiting.edges_of(node).iter().filter(|next| !inside[**next]));
        }
        while let Some(node) = open.pop() {
            if std::mem::replace(&mut seen[node], true) {
                continue;
            }
            for next in waiting.edges_of(node) {
                if inside[*next] {
                    let by = waiting.task(node).map_or("what is between", |task| graph.task(task).name.as_str());
                    return Err(format!(
                        "is not convex: `{by}` is not in it, but needs a part of it and is needed by another"
                    ));
                }
                open.push(*next);
            }
        }
        Ok(())
    }
}

/// Calls `found` with each datum that a datum refers to, and the datum that does.
pub(super) fn for_each_reference(graph: &Graph, mut found: impl FnMut(DataId, DataId)) {
    for (index, datum) in graph.data.iter().enumerate() {
        let by = DataId(index_of(index));
        match datum.kind {
            DataKind::Counter { start, step } => {
                for data in [start, step].into_iter().flatten() {
                    found(by, data);
                }
            }
            DataKind::Carried { initial, next } => {
                found(by, initial);
                found(by, next);
            }
            DataKind::Final { of, .. } => found(by, of),
            _ => {}
        }
    }
}

/// Functions and compounds by their names.
struct Names<'g> {
    functions: HashMap<&'g str, TaskId>,
    scopes: HashMap<&'g str, Vec<ScopeId>>,
}

impl<'g> Names<'g> {
    fn of(graph: &'g Graph) -> Names<'g> {
        let mut names = Names { functions: HashMap::new(), scopes: HashMap::new() };
        for (index, task) in graph.tasks.iter().enumerate().filter(|(_, task)| task.kind.is_function()) {
            names.functions.insert(&task.name, TaskId(index_of(index)));
        }
        for (index, scope) in graph.scopes.iter().enumerate().skip(1) {
            names.scopes.entry(&scope.name).or_default().push(ScopeId(index_of(index)));
        }
        names
    }
}
