//! What waits for what.

use super::{DataId, DataKind, Graph, ScopeId, ScopeKind, TaskId, TaskKind};

/// The graph of waiting. Its nodes: tasks, then scopes as entered, then scopes as complete, then data.
pub(super) struct Waiting {
    tasks: usize,
    scopes: usize,
    /// Where the edges of each node begin in `edges`.
    starts: Vec<usize>,
    edges: Vec<usize>,
}

/// Tasks that wait for each other, each for the next and the last for the first; none where there are none.
pub(crate) fn find_cycle(graph: &Graph) -> Option<Vec<TaskId>> {
    let waiting = Waiting::of(graph);
    let nodes = waiting.starts.len() - 1;
    // 0: not seen; 1: on the path; 2: done.
    let mut seen = vec![0_u8; nodes];
    let mut path: Vec<(usize, usize)> = Vec::new();
    for first in 0..nodes {
        if seen[first] != 0 {
            continue;
        }
        seen[first] = 1;
        path.push((first, waiting.starts[first]));
        while let Some((node, edge)) = path.last_mut() {
            if *edge == waiting.starts[*node + 1] {
                seen[*node] = 2;
                path.pop();
                continue;
            }
            let next = waiting.edges[*edge];
            *edge += 1;
            match seen[next] {
                0 => {
                    seen[next] = 1;
                    path.push((next, waiting.starts[next]));
                }
                1 => {
                    let from = path.iter().position(|(node, _)| *node == next).unwrap_or(0);
                    let tasks = path[from..].iter().filter(|(node, _)| *node < waiting.tasks);
                    let cycle: Vec<TaskId> = tasks.map(|(node, _)| TaskId(super::index_of(*node))).collect();
                    // Data that stand for each other without a task between them: name the first task there is.
                    return Some(if cycle.is_empty() { vec![TaskId(0)] } else { cycle });
                }
                _ => {}
            }
        }
    }
    None
}

impl Waiting {
    /// The tasks, scopes and data of a part, as nodes.
    pub(super) fn nodes(&self, tasks: &[bool], scopes: &[bool], data: &[bool]) -> Vec<bool> {
        [tasks, scopes, scopes, data].concat()
    }

    /// What a node waits for.
    pub(super) fn edges_of(&self, node: usize) -> &[usize] {
        &self.edges[self.starts[node]..self.starts[node + 1]]
    }

    /// The task that a node is.
    pub(super) fn task(&self, node: usize) -> Option<TaskId> {
        (node < self.tasks).then(|| TaskId(super::index_of(node)))
    }

    pub(super) fn of(graph: &Graph) -> Waiting {
        let (tasks, scopes, data) = (graph.tasks.len(), graph.scopes.len(), graph.data.len());
        let mut waiting = Waiting { tasks, scopes, starts: vec![0], edges: Vec::new() };
        let mut within = vec![Vec::new(); scopes];
        for (index, task) in graph.tasks.iter().enumerate() {
            within[task.scope.0 as usize].push(index);
        }
        for (index, scope) in graph.scopes.iter().enumerate() {
            if let Some(parent) = scope.parent {
                within[parent.0 as usize].push(waiting.complete(ScopeId(super::index_of(index))));
            }
        }
        for (index, task) in graph.tasks.iter().enumerate() {
            waiting.edges.push(waiting.entered(task.scope));
            for input in &task.inputs {
                waiting.edges.push(waiting.datum(input.data));
            }
            waiting.edges.extend(task.after.iter().map(|task| task.0 as usize));
            for scope in &task.after_scopes {
                waiting.edges.push(waiting.complete(*scope));
            }
            if let TaskKind::While(_) = task.kind {
                waiting.edges.extend(within[task.scope.0 as usize].iter().copied().filter(|node| *node != index));
            }
            waiting.close();
        }
        for scope in &graph.scopes {
            if let Some(parent) = scope.parent {
                waiting.edges.push(waiting.entered(parent));
            }
            match scope.kind {
                ScopeKind::Branch { decision, .. } => waiting.edges.push(waiting.datum(decision)),
                ScopeKind::Iterations { distribution, .. } => waiting.edges.push(distribution.0 as usize),
                ScopeKind::Workflow | ScopeKind::Loop { .. } => {}
            }
            waiting.close();
        }
        for nodes in &within {
            waiting.edges.extend(nodes);
            waiting.close();
        }
        for index in 0..data {
            waiting.add_datum(graph, DataId(super::index_of(index)));
            waiting.close();
        }
        waiting
    }

    fn add_datum(&mut self, graph: &Graph, id: DataId) {
        let datum = graph.datum(id);
        match datum.kind {
            DataKind::Input { .. } | DataKind::Constant(_) => {}
            DataKind::Output { task } | DataKind::Decision { task } | DataKind::Computed { task } => {
                self.edges.push(task.0 as usize);
            }
            DataKind::Element { .. } => self.edges.push(self.entered(datum.scope)),
            DataKind::Counter { start, step } => {
                self.edges.push(self.entered(datum.scope));
                for data in [start, step].into_iter().flatten() {
                    self.edges.push(self.datum(data));
                }
            }
            // What it is next was made in the iteration before.
            DataKind::Carried { initial, .. } => {
                self.edges.push(self.entered(datum.scope));
                self.edges.push(self.datum(initial));
            }
            DataKind::Final { scope, .. } => self.edges.push(self.complete(scope)),
        }
    }

    fn close(&mut self) {
        self.starts.push(self.edges.len());
    }

    fn entered(&self, scope: ScopeId) -> usize {
        self.tasks + scope.0 as usize
    }

    fn complete(&self, scope: ScopeId) -> usize {
        self.tasks + self.scopes + scope.0 as usize
    }

    fn datum(&self, data: DataId) -> usize {
        self.tasks + 2 * self.scopes + data.0 as usize
    }
}
