//! A graph made ready to be run: what the core would otherwise search for at each token.

use std::sync::Arc;

use lyra_afcl::Graph;
use lyra_afcl::graph::{DataId, DataKind, ScopeId, ScopeKind, TaskId, TaskKind};
use lyra_types::Error;

use super::datum::Datum;

/// A workflow that can be run.
#[derive(Debug)]
pub struct Plan {
    /// The graph.
    pub graph: Graph,
    /// For each scope: indices that a path has there.
    pub(super) depth: Vec<usize>,
    /// For each scope: tasks that begin with it, that is all of it but its [`TaskKind::While`].
    pub(super) tasks: Vec<Vec<TaskId>>,
    /// For each scope: its child scopes.
    pub(super) children: Vec<Vec<ScopeId>>,
    /// For each indexed scope: data that live as long as one of its instances, its own and those of branches in it.
    pub(super) lives: Vec<Vec<DataId>>,
    /// For each indexed scope: scopes that live so: itself and branches in it.
    pub(super) realm: Vec<Vec<ScopeId>>,
    /// For each scope of iterations: what is collected from it.
    pub(super) aggregations: Vec<Vec<TaskId>>,
    /// For each loop: values that go from one iteration to the next.
    pub(super) carried: Vec<Vec<DataId>>,
    /// For each loop: values of its last iteration.
    pub(super) finals: Vec<Vec<DataId>>,
    /// For each datum: branches that it decides.
    pub(super) branches: Vec<Vec<ScopeId>>,
    /// For each datum: its value, if it is a constant.
    pub(super) constants: Vec<Option<Datum>>,
    /// For each task: whether another waits for its end.
    pub(super) awaited: Vec<bool>,
    /// For each task: the function type, if it is a function.
    pub(super) types: Vec<Option<Arc<str>>>,
    /// For each function type: the ids of its resources, for traces.
    pub(super) resources: std::collections::HashMap<String, Vec<String>>,
    /// For each datum: whether the run looks into it itself.
    looked_into: Vec<bool>,
    /// For each task: how many tasks stand on the longest way from it to the end, itself included.
    pub(super) rank: Vec<u32>,
}

impl Plan {
    /// Checks a graph and makes it ready.
    ///
    /// # Errors
    /// Those of [`Graph::validate`].
    pub fn new(graph: Graph) -> Result<Plan, Error> {
        graph.validate()?;
        let scopes = graph.scopes.len();
        let depth: Vec<usize> = (0..scopes).map(|s| graph.depth(scope_id(s))).collect();
        let mut plan = Plan {
            depth,
            tasks: vec![Vec::new(); scopes],
            children: vec![Vec::new(); scopes],
            lives: vec![Vec::new(); scopes],
            realm: vec![Vec::new(); scopes],
            aggregations: vec![Vec::new(); scopes],
            carried: vec![Vec::new(); scopes],
            finals: vec![Vec::new(); scopes],
            branches: vec![Vec::new(); graph.data.len()],
            constants: Vec::with_capacity(graph.data.len()),
            awaited: vec![false; graph.tasks.len()],
            types: Vec::with_capacity(graph.tasks.len()),
            rank: Vec::new(),
            looked_into: super::needs::looked_into(&graph),
            resources: std::collections::HashMap::new(),
            graph,
        };
        plan.place_scopes();
        plan.place_tasks();
        plan.place_data();
        plan.rank = plan.ranks();
        Ok(plan)
    }

    /// Has traces name resources: for each function type the ids of its resources, in the mapping's order.
    #[must_use]
    pub fn with_resources(mut self, resources: std::collections::HashMap<String, Vec<String>>) -> Plan {
        self.resources = resources;
        self
    }

    /// Function types that the workflow calls, alternatives included, each once, in the order of the document.
    pub fn function_types(&self) -> Vec<String> {
        let mut types: Vec<String> = Vec::new();
        for task in &self.graph.tasks {
            let TaskKind::Function { function_type, settings } = &task.kind else { continue };
            let alternatives = settings.catch.iter().flat_map(|catch| &catch.alternatives);
            for name in std::iter::once(function_type).chain(alternatives) {
                if !types.contains(name) {
                    types.push(name.clone());
                }
            }
        }
        types
    }

    /// How deep the constant is nested that is nested deepest.
    pub fn deepest_constant(&self) -> u32 {
        self.constants.iter().flatten().map(|value| value.extent().depth).max().unwrap_or(0)
    }

    /// Whether a function's output of this name may stay elsewhere: it is declared, and the run only hands it on.
    pub fn may_stay(&self, task: TaskId, name: &str) -> bool {
        let output = self.graph.task(task).outputs.iter().find(|output| output.name == name);
        output.is_some_and(|output| !self.looked_into[output.data.0 as usize])
    }

    /// How many tasks stand on the longest way from this one to the end.
    pub fn rank(&self, task: TaskId) -> u32 {
        self.rank[task.0 as usize]
    }

    /// The innermost indexed scope around this one, itself included; none in the workflow's own.
    fn home(&self, scope: ScopeId) -> Option<ScopeId> {
        let mut at = Some(scope);
        while let Some(id) = at {
            if self.graph.scope(id).kind.is_indexed() {
                return Some(id);
            }
            at = self.graph.scope(id).parent;
        }
        None
    }

    fn place_scopes(&mut self) {
        for index in 0..self.graph.scopes.len() {
            let id = scope_id(index);
            if let Some(home) = self.home(id) {
                self.realm[home.0 as usize].push(id);
            }
            let scope = &self.graph.scopes[index];
            if let Some(parent) = scope.parent {
                self.children[parent.0 as usize].push(id);
            }
            if let ScopeKind::Branch { decision, .. } = scope.kind {
                self.branches[decision.0 as usize].push(id);
            }
        }
    }

    fn place_tasks(&mut self) {
        for (index, task) in self.graph.tasks.iter().enumerate() {
            let id = task_id(index);
            if !matches!(task.kind, TaskKind::While(_)) {
                self.tasks[task.scope.0 as usize].push(id);
            }
            if let TaskKind::Aggregation { scope } = task.kind {
                self.aggregations[scope.0 as usize].push(id);
            }
            for before in &task.after {
                self.awaited[before.0 as usize] = true;
            }
            self.types.push(match &task.kind {
                TaskKind::Function { function_type, .. } => Some(Arc::from(function_type.as_str())),
                _ => None,
            });
        }
    }

    fn place_data(&mut self) {
        for index in 0..self.graph.data.len() {
            let id = DataId(u32::try_from(index).expect("validate bounds the number of data"));
            let data = &self.graph.data[index];
            if let Some(home) = self.home(data.scope) {
                self.lives[home.0 as usize].push(id);
            }
            self.constants.push(match &data.kind {
                DataKind::Constant(value) => Some(Datum::constant(value.clone())),
                _ => None,
            });
            match data.kind {
                DataKind::Carried { .. } => self.carried[data.scope.0 as usize].push(id),
                DataKind::Final { scope, .. } => self.finals[scope.0 as usize].push(id),
                _ => {}
            }
        }
    }

    /// Longest ways to the end, over data, orders and scopes. Tasks of a loop count once.
    fn ranks(&self) -> Vec<u32> {
        let graph = &self.graph;
        let mut next: Vec<Vec<usize>> = vec![Vec::new(); graph.tasks.len()];
        for (index, task) in graph.tasks.iter().enumerate() {
            for input in &task.inputs {
                for producer in self.producers(input.data, 0) {
                    next[producer.0 as usize].push(index);
                }
            }
            for before in &task.after {
                next[before.0 as usize].push(index);
            }
        }
        let mut rank = vec![0u32; graph.tasks.len()];
        let mut open = vec![false; graph.tasks.len()];
        for start in 0..graph.tasks.len() {
            visit(start, &next, &mut rank, &mut open);
        }
        rank
    }

    /// The tasks that make a datum, through loops and elements.
    fn producers(&self, data: DataId, hops: usize) -> Vec<TaskId> {
        if hops > 64 {
            return Vec::new();
        }
        let datum = self.graph.datum(data);
        match &datum.kind {
            DataKind::Output { task } | DataKind::Decision { task } | DataKind::Computed { task } => vec![*task],
            DataKind::Element { .. } => match self.graph.scope(datum.scope).kind {
                ScopeKind::Iterations { distribution, .. } => vec![distribution],
                _ => Vec::new(),
            },
            DataKind::Carried { initial, .. } => self.producers(*initial, hops + 1),
            DataKind::Final { of, .. } => self.producers(*of, hops + 1),
            DataKind::Input { .. } | DataKind::Constant(_) | DataKind::Counter { .. } => Vec::new(),
        }
    }
}

/// Depth-first with a stack of its own, so that a long chain does not fill the thread's. A way that closes a circle
/// (through a loop) is not followed twice.
fn visit(start: usize, next: &[Vec<usize>], rank: &mut [u32], open: &mut [bool]) {
    if rank[start] > 0 {
        return;
    }
    let mut stack = vec![(start, 0usize)];
    open[start] = true;
    while let Some((at, edge)) = stack.pop() {
        match next[at].get(edge) {
            Some(&to) => {
                stack.push((at, edge + 1));
                if rank[to] == 0 && !std::mem::replace(&mut open[to], true) {
                    stack.push((to, 0));
                }
            }
            None => {
                rank[at] = 1 + next[at].iter().map(|&to| rank[to]).max().unwrap_or(0);
                open[at] = false;
            }
        }
    }
}

fn scope_id(index: usize) -> ScopeId {
    ScopeId(u32::try_from(index).expect("validate bounds the number of scopes"))
}

fn task_id(index: usize) -> TaskId {
    TaskId(u32::try_from(index).expect("validate bounds the number of tasks"))
}
