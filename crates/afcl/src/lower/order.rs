//! The order that 1.0's `sequence` asks for, and tasks that wait for each other.

use super::Lowering;
use crate::diagnostic::{DiagnosticCode as Code, Position};
use crate::document::quote;
use crate::graph::{ScopeId, TaskId, order};
use crate::limits::MAX_ORDERS;

/// How a construct begins and ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Ends {
    /// Tasks before which nothing else of it runs.
    pub(super) heads: Vec<TaskId>,
    /// Functions that must have ended for it to have.
    pub(super) tails: Vec<TaskId>,
    /// Scopes that must be complete for it to have ended.
    pub(super) scopes: Vec<ScopeId>,
}

/// One construct after another.
pub(super) struct Order {
    before: Ends,
    heads: Vec<TaskId>,
    at: Position,
}

impl Ends {
    /// Those of a function.
    pub(super) fn of_task(task: TaskId) -> Ends {
        Ends { heads: vec![task], tails: vec![task], scopes: Vec::new() }
    }

    /// Adds what stands beside it.
    pub(super) fn join(&mut self, other: Ends) {
        self.heads.extend(other.heads);
        self.tails.extend(other.tails);
        self.scopes.extend(other.scopes);
    }
}

impl Lowering<'_, '_> {
    pub(super) fn add_order(&mut self, before: &Ends, after: &Ends, at: Position) {
        let before = Ends { heads: Vec::new(), tails: before.tails.clone(), scopes: before.scopes.clone() };
        self.orders.push(Order { before, heads: after.heads.clone(), at });
    }

    /// Writes down the orders that do not follow from data anyway.
    pub(super) fn put_in_order(&mut self) {
        let mut made = 0;
        for order in std::mem::take(&mut self.orders) {
            made += order.heads.len() * (order.before.tails.len() + order.before.scopes.len());
            if made > MAX_ORDERS {
                let message = format!("the sequences ask for more than {MAX_ORDERS} orders between two tasks");
                self.findings.fatal(order.at, Code::TooLarge, message);
                return;
            }
            for head in order.heads {
                let mut after = order.before.tails.clone();
                after.retain(|before| !self.reads_from(head, *before));
                let task = self.task_mut(head);
                task.after.extend(after);
                task.after_scopes.extend(&order.before.scopes);
            }
        }
    }

    /// Whether a task has an input that the other makes.
    fn reads_from(&self, reader: TaskId, maker: TaskId) -> bool {
        let makes = &self.graph.task(maker).outputs;
        let reads = &self.graph.task(reader).inputs;
        reads.iter().any(|input| makes.iter().any(|output| output.data == input.data))
    }

    /// Reports tasks that wait for each other.
    pub(super) fn report_cycles(&mut self) {
        let Some(cycle) = order::find_cycle(&self.graph) else { return };
        let named: Vec<&str> = cycle.iter().map(|task| self.graph.task(*task).name.as_str()).collect();
        const NAMED: usize = 8;
        let shown: Vec<String> = named.iter().take(NAMED).map(|name| quote(name).into_owned()).collect();
        let more = if named.len() > NAMED { " → …" } else { "" };
        let message = format!("these wait for each other: {}{more} → {}", shown.join(" → "), shown[0]);
        let at = self.places[cycle[0].0 as usize];
        self.findings.error(at, Code::Cycle, message);
    }
}
