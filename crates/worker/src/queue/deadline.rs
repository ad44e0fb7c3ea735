//! Earliest effective deadline first: arrival plus expected execution.
//!
//! Favours short calls as [`super::shortest`] does, but a call can be overtaken only by those that came within its own
//! expected execution after it (Ilúvatar, HPDC 2023, which calls it EEDF; deadlines after C. L. Liu and J. W. Layland,
//! "Scheduling algorithms for multiprogramming in a hard-real-time environment", 1973).

use std::time::Duration;

use super::ranked::Rank;
use super::shortest::nanos;
use crate::characteristics::Record;

/// Ranks by arrival plus expected execution.
#[derive(Debug)]
pub(super) struct Deadline;

impl Rank for Deadline {
    fn rank(record: &Record, since_epoch: Duration) -> u64 {
        nanos(since_epoch.saturating_add(record.expected().exec))
    }
}
