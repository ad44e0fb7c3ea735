//! Which of the tasks that wait for a place gets the next one.

use std::cmp::Reverse;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A task that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaitingView {
    /// How long it is expected to run; none where that is not known.
    pub expected: Option<Duration>,
    /// How many tasks stand on the longest way from it to the end of its run, itself counted.
    pub critical_path: u32,
}

/// How those that wait are ordered. Of equals the one that came first is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arbitration {
    /// First come, first served.
    #[default]
    Fcfs,
    /// The one that is expected to take the least time; those whose time is not known come first, to learn it.
    Shortest,
    /// The one with the longest way to go: what waits for it waits longest.
    CriticalPath,
}

/// Where a task stands among those that wait; the lowest is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    Equal,
    Time(Duration),
    Path(Reverse<u32>),
}

impl Arbitration {
    pub(super) fn priority(self, task: &WaitingView) -> Priority {
        match self {
            Arbitration::Fcfs => Priority::Equal,
            Arbitration::Shortest => Priority::Time(task.expected.unwrap_or(Duration::ZERO)),
            Arbitration::CriticalPath => Priority::Path(Reverse(task.critical_path)),
        }
    }
}
