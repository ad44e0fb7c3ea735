//! Scopes: entered, complete, left behind.

use lyra_afcl::graph::{DataKind, ScopeId, ScopeKind, TaskId, TaskKind};
use smallvec::smallvec;

use super::queues::Transformation;
use super::state::{Iterations, Wait};
use super::{Core, DataKey, Path, TaskKey};

impl Core {
    /// Enters a scope: its tasks begin to wait for their inputs, loops in it begin with their first iteration.
    pub(super) fn enter(&mut self, scope: ScopeId, path: &Path) {
        let plan = std::sync::Arc::clone(&self.plan);
        let tasks = &plan.tasks[scope.0 as usize];
        let children = &plan.children[scope.0 as usize];
        let open = tasks.len() + children.len();
        let open = u32::try_from(open).expect("validate bounds the number of tasks and scopes");
        self.state.entered.insert((scope, path.clone()), open);
        self.state.open += open as usize;
        if !self.one_more_step(tasks.first().copied()) {
            return;
        }
        for task in tasks {
            self.look(TaskKey { task: *task, path: path.clone() });
        }
        for child in children {
            if matches!(plan.graph.scope(*child).kind, ScopeKind::Loop { .. }) {
                let mut first = path.clone();
                first.push(0);
                self.state.live += 1;
                self.enter(*child, &first);
            }
        }
        if open == 0 {
            self.queues.complete.push_back((scope, path.clone()));
        }
    }

    /// Has a task wait for what it lacks, or gives it to scheduling.
    pub(super) fn look(&mut self, key: TaskKey) {
        self.worked(1 + self.plan.graph.task(key.task).inputs.len() / 16);
        match self.first_missing(&key) {
            Ok(Some(wait)) => self.state.waits.entry(wait).or_default().push(key),
            Ok(None) => self.hand_to_scheduling(key),
            Err(detail) => self.fail_helper(&key, detail),
        }
    }

    /// Looks again at those who waited for this.
    pub(super) fn wake(&mut self, wait: &Wait) {
        for key in self.state.waits.remove(wait).unwrap_or_default() {
            self.look(key);
        }
    }

    /// One task or child scope of `scope` has ended.
    pub(super) fn one_less(&mut self, scope: ScopeId, path: &Path) {
        let key = (scope, path.clone());
        let Some(open) = self.state.entered.get_mut(&key) else { return };
        *open -= 1;
        self.state.open -= 1;
        if *open == 0 {
            self.queues.complete.push_back(key);
        }
    }

    /// Everything in an entered scope has ended.
    pub(super) fn completed(&mut self, scope: ScopeId, path: &Path) {
        match self.plan.graph.scope(scope).kind {
            ScopeKind::Workflow => self.ended_well(),
            ScopeKind::Branch { .. } => {
                self.state.entered.remove(&(scope, path.clone()));
                self.left(scope, path.clone());
            }
            ScopeKind::Iterations { .. } => self.iteration_ended(scope, path),
            // Its end decides whether there is another iteration.
            ScopeKind::Loop { end } => self.look(TaskKey { task: end, path: path.clone() }),
        }
    }

    /// A child scope is over: a branch, all iterations of a parallelFor, a loop. `path` stands around it, or is a branch's.
    pub(super) fn left(&mut self, scope: ScopeId, path: Path) {
        self.state.completed.insert((scope, path.clone()));
        self.wake(&Wait::Scope(scope, path.clone()));
        if let Some(parent) = self.plan.graph.scope(scope).parent {
            self.one_less(parent, &path);
        }
    }

    /// Begins a parallelFor of `count` iterations.
    pub(super) fn iterate(&mut self, key: &TaskKey, count: usize) {
        let TaskKind::Distribution { scope, .. } = self.plan.graph.task(key.task).kind else { return };
        if count > self.limits.elements {
            let limit = self.limits.elements;
            let detail = format!(
                "{count} iterations are more than the limit of {limit} elements (the setting workflow.max_elements)"
            );
            return self.fail_limit(Some(key.task), detail);
        }
        let collected = vec![Vec::new(); self.plan.aggregations[scope.0 as usize].len()];
        let iterations = Iterations { count, next: 0, complete: 0, collected, charge: self.state.held.charge(0) };
        self.state.iterations.insert((scope, key.path.clone()), iterations);
        if count == 0 {
            self.left(scope, key.path.clone());
        } else {
            self.queues.entering.push((scope, key.path.clone()));
        }
    }

    /// Enters a further iteration, if one more may be under way, and comes back for the next; one always may.
    pub(super) fn enter_one(&mut self, scope: ScopeId, around: Path) {
        let ScopeKind::Iterations { concurrency, .. } = self.plan.graph.scope(scope).kind else { return };
        let most = concurrency.map_or(usize::MAX, |most| most as usize).max(1);
        let key = (scope, around);
        let Some(iterations) = self.state.iterations.get_mut(&key) else { return };
        let under_way = iterations.next - iterations.complete;
        let room = self.state.live < self.limits.live_iterations && self.state.open < self.limits.live_tasks;
        if iterations.next == iterations.count || !(under_way == 0 || (under_way < most && room)) {
            return;
        }
        let mut path = key.1.clone();
        path.push(u32::try_from(iterations.next).expect("the limit of elements is below 2^32"));
        iterations.next += 1;
        self.state.live += 1;
        self.queues.entering.push(key);
        self.enter(scope, &path);
    }

    /// Counts a step of the run; false when it has had all that it may have.
    pub(super) fn one_more_step(&mut self, task: Option<TaskId>) -> bool {
        self.state.steps += 1;
        let limit = self.limits.steps;
        if self.state.steps <= limit {
            return true;
        }
        let detail = format!(
            "the run has had its limit of {limit} steps: iterations, branches, decisions and operations on collections \
             (the setting workflow.max_steps)"
        );
        self.fail_limit(task, detail);
        false
    }

    fn iteration_ended(&mut self, scope: ScopeId, path: &Path) {
        let Some((&index, around)) = path.split_last() else { return };
        let around = Path::from_slice(around);
        let plan = std::sync::Arc::clone(&self.plan);
        self.worked(plan.aggregations[scope.0 as usize].len());
        for (place, aggregation) in plan.aggregations[scope.0 as usize].iter().enumerate() {
            let input = &plan.graph.task(*aggregation).inputs[0];
            match self.value(input.data, path) {
                Ok(value) => {
                    if let Some(iterations) = self.state.iterations.get_mut(&(scope, around.clone())) {
                        iterations.collect(place, index as usize, value);
                    }
                }
                Err(detail) => {
                    return self.fail_helper(&TaskKey { task: *aggregation, path: path.clone() }, detail);
                }
            }
        }
        self.forget(scope, path);
        self.state.live -= 1;
        let Some(iterations) = self.state.iterations.get_mut(&(scope, around.clone())) else { return };
        iterations.complete += 1;
        if iterations.complete == iterations.count {
            self.left(scope, around);
        } else {
            self.queues.entering.push((scope, around));
        }
    }

    /// A loop goes on with its next iteration, or is over.
    pub(super) fn repeat(&mut self, key: &TaskKey, again: bool) {
        let scope = self.plan.graph.task(key.task).scope;
        let Some((&index, around)) = key.path.split_last() else { return };
        let around = Path::from_slice(around);
        let plan = std::sync::Arc::clone(&self.plan);
        let (data, next_path): (_, Path) = if again {
            if index + 1 >= self.limits.loop_iterations {
                let limit = self.limits.loop_iterations;
                let detail = format!(
                    "the loop has had its limit of {limit} iterations (the setting workflow.max_loop_iterations)"
                );
                return self.fail_limit(Some(key.task), detail);
            }
            let mut next = around.clone();
            next.push(index + 1);
            (&plan.carried[scope.0 as usize], next)
        } else {
            (&plan.finals[scope.0 as usize], around.clone())
        };
        self.worked(data.len());
        for id in data {
            let (DataKind::Carried { next: of, .. } | DataKind::Final { of, .. }) = plan.graph.datum(*id).kind else {
                continue;
            };
            match self.value(of, &key.path) {
                Ok(value) => self.provide(DataKey { data: *id, path: next_path.clone() }, value),
                Err(detail) => return self.fail_helper(key, detail),
            }
        }
        self.forget(scope, &key.path);
        if again {
            self.enter(scope, &next_path);
        } else {
            self.state.live -= 1;
            self.left(scope, around);
        }
    }

    /// Counts work that is done in one go, so that others get their turn however large the document is.
    fn worked(&mut self, parts: usize) {
        self.state.moved += parts as u64;
    }

    /// Drops all that belongs to one iteration.
    fn forget(&mut self, scope: ScopeId, path: &Path) {
        let plan = std::sync::Arc::clone(&self.plan);
        let tasks = plan.realm[scope.0 as usize].iter().map(|within| plan.tasks[within.0 as usize].len());
        let parts = plan.lives[scope.0 as usize].len() + tasks.sum::<usize>();
        self.worked(parts);
        // A long document counts by its length.
        self.state.steps += parts as u64 / 100;
        for data in &plan.lives[scope.0 as usize] {
            self.state.values.remove(&DataKey { data: *data, path: path.clone() });
        }
        for within in &plan.realm[scope.0 as usize] {
            self.state.entered.remove(&(*within, path.clone()));
            self.state.completed.remove(&(*within, path.clone()));
            for child in &plan.children[within.0 as usize] {
                self.state.completed.remove(&(*child, path.clone()));
                self.state.iterations.remove(&(*child, path.clone()));
            }
            for task in plan.tasks[within.0 as usize].iter().filter(|task| plan.awaited[task.0 as usize]) {
                self.state.done.remove(&TaskKey { task: *task, path: path.clone() });
            }
        }
    }

    /// Enters the branches that a decision opens, passes by those that it closes.
    pub(super) fn branch(&mut self, key: &DataKey) {
        let plan = std::sync::Arc::clone(&self.plan);
        let branches = &plan.branches[key.data.0 as usize];
        if branches.is_empty() {
            return;
        }
        let decision = self.state.values.get(key).and_then(|value| value.as_bool()).unwrap_or(false);
        for branch in branches {
            let ScopeKind::Branch { taken_when, .. } = plan.graph.scope(*branch).kind else { continue };
            if taken_when == decision {
                self.enter(*branch, &key.path);
            } else {
                self.left(*branch, key.path.clone());
            }
        }
    }

    pub(super) fn transform(&mut self, change: Transformation) {
        match change {
            Transformation::Iterate(key, count) => self.transform_token(&key, |core, key| core.iterate(key, count)),
            Transformation::Repeat(key, again) => self.transform_token(&key, |core, key| core.repeat(key, again)),
        }
    }

    /// The first path: the workflow's own.
    pub(super) fn top() -> Path {
        smallvec![]
    }
}
