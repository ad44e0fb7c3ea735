//! First come, first served.
//!
//! Nobody starves and nobody is favoured; one tenant's flood delays all others. The baseline of every paper on queueing
//! functions, among them A. Fuerst, A. Rehman and P. Sharma, "Ilúvatar: A Fast Control Plane for Serverless Computing"
//! (HPDC 2023).

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::policy::{Candidate, Choice, Policy};
use crate::characteristics::Record;

/// The order of arrival.
#[derive(Debug, Default)]
pub(super) struct Fcfs(BTreeSet<u64>);

impl Policy for Fcfs {
    fn push(&mut self, candidate: Candidate) {
        self.0.insert(candidate.order);
    }

    fn pop(&mut self, _: Instant) -> Option<Choice> {
        self.0.pop_first().map(|order| Choice { order, aged: false })
    }

    fn remove(&mut self, order: u64, _: &Record) {
        self.0.remove(&order);
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
