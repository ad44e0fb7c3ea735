//! Puts operations on collections before the tasks that read them first, where people look for them.

use std::collections::HashMap;

use super::Lowering;
use crate::graph::{DataId, DataKind, ScopeKind, TaskId, TaskKind, index_of};

impl Lowering<'_, '_> {
    /// Gives tasks the order of the document.
    pub(super) fn arrange(&mut self) {
        let tasks = &self.graph.tasks;
        let is_operation = |index: usize| matches!(tasks[index].kind, TaskKind::CollectionOperation(_));
        let mut first_reader: HashMap<DataId, usize> = HashMap::new();
        let mut keys: Vec<usize> = (0..tasks.len()).collect();
        // An operation is made before those that read it: backwards, the keys of its readers are known.
        for index in (0..tasks.len()).rev() {
            if is_operation(index) {
                let read = tasks[index].outputs.first().and_then(|output| first_reader.get(&output.data));
                keys[index] = read.copied().unwrap_or(usize::MAX);
            }
            for input in &tasks[index].inputs {
                let first = first_reader.entry(input.data).or_insert(usize::MAX);
                *first = (*first).min(keys[index]);
            }
        }
        let mut order: Vec<usize> = (0..tasks.len()).collect();
        order.sort_by_key(|index| (keys[*index], !is_operation(*index), *index));
        let mut numbers = vec![TaskId(0); order.len()];
        for (new, old) in order.iter().enumerate() {
            numbers[*old] = TaskId(index_of(new));
        }
        let mut old: Vec<Option<_>> = std::mem::take(&mut self.graph.tasks).into_iter().map(Some).collect();
        self.graph.tasks = order.iter().filter_map(|index| old[*index].take()).collect();
        self.places = order.iter().map(|index| self.places[*index]).collect();
        self.renumber(&numbers);
    }

    fn renumber(&mut self, numbers: &[TaskId]) {
        let new = |task: &mut TaskId| *task = numbers[task.0 as usize];
        for task in &mut self.graph.tasks {
            task.after.iter_mut().for_each(new);
        }
        for scope in &mut self.graph.scopes {
            match &mut scope.kind {
                ScopeKind::Iterations { distribution: task, .. } | ScopeKind::Loop { end: task } => new(task),
                ScopeKind::Workflow | ScopeKind::Branch { .. } => {}
            }
        }
        for datum in &mut self.graph.data {
            match &mut datum.kind {
                DataKind::Output { task } | DataKind::Decision { task } | DataKind::Computed { task } => new(task),
                _ => {}
            }
        }
    }
}
