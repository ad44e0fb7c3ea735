//! Shortest expected execution first.
//!
//! Least mean wait of all orders that don't break calls off, where the estimates are right (L. Schrage, "A proof of the
//! optimality of the shortest remaining processing time discipline", 1968; for functions: Ilúvatar, HPDC 2023). Long calls
//! pay for it, up to the ageing bound.

use std::time::Duration;

use super::ranked::Rank;
use crate::characteristics::Record;

/// Ranks by expected execution.
#[derive(Debug)]
pub(super) struct Shortest;

impl Rank for Shortest {
    fn rank(record: &Record, _: Duration) -> u64 {
        nanos(record.expected().exec)
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
