//! What calls use: counted once for each attempt, added up by tenant, user, function, version and hour.

use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::invocation::{Report, Start};
use crate::{FunctionName, TenantName, Timestamp};

/// An hour, in milliseconds.
const HOUR_MS: i64 = 3_600_000;

/// What some attempts used. Only ever grows; time in the queue and the start of the engine are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Attempts that reached an instance, whatever came of them.
    pub invocations: u64,
    /// Those that did not succeed.
    pub failures: u64,
    /// Those whose instance had to be started, or code loaded.
    pub cold_starts: u64,
    /// Time in the handler, in microseconds of wall clock.
    pub exec_us: u64,
    /// Processor time in the handler, in microseconds.
    pub cpu_us: u64,
    /// The version's memory limit times the time in the handler, in MiB·ms.
    pub mb_ms: u64,
    /// Bytes of results and of bodies of responses.
    pub egress_bytes: u64,
}

impl Usage {
    /// What one attempt used; nothing where it reached no instance.
    pub fn of(report: &Report, memory_mb: u32, succeeded: bool, egress_bytes: usize) -> Usage {
        let Some(start) = report.start else { return Usage::default() };
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let exec_us = micros(report.phases.exec);
        Usage {
            invocations: 1,
            failures: u64::from(!succeeded),
            cold_starts: u64::from(start == Start::Cold),
            exec_us,
            cpu_us: micros(report.cpu),
            mb_ms: exec_us.saturating_mul(u64::from(memory_mb)) / 1_000,
            egress_bytes: egress_bytes as u64,
        }
    }

    /// Whether there is anything to count.
    pub fn is_empty(&self) -> bool {
        *self == Usage::default()
    }

    /// GB·ms, of 1024 MiB each.
    pub fn gb_ms(&self) -> f64 {
        self.mb_ms as f64 / 1_024.0
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        for (sum, more) in [
            (&mut self.invocations, other.invocations),
            (&mut self.failures, other.failures),
            (&mut self.cold_starts, other.cold_starts),
            (&mut self.exec_us, other.exec_us),
            (&mut self.cpu_us, other.cpu_us),
            (&mut self.mb_ms, other.mb_ms),
            (&mut self.egress_bytes, other.egress_bytes),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// Who used it, through what, and when.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UsageKey {
    /// Owner of the function, who is charged.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// Number of the version.
    pub version: u64,
    /// Who called; empty where nobody has to say.
    pub user: String,
    /// The hour in which the attempt ended.
    pub hour: Hour,
}

/// An hour of UTC, as a number since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hour(pub i64);

impl Hour {
    /// The hour of a point in time.
    pub fn of(time: Timestamp) -> Hour {
        Hour(time.millis().div_euclid(HOUR_MS))
    }

    /// When it begins.
    pub fn begin(self) -> Timestamp {
        Timestamp::from_millis(self.0.saturating_mul(HOUR_MS))
    }
}

/// What was used under one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// By whom and when.
    pub key: UsageKey,
    /// What.
    pub usage: Usage,
}

/// What a worker has counted since it told of it last: taken once, however often it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageBatch {
    /// Whose count it is: of no other worker, nor of a worker whose files were lost.
    pub source: String,
    /// Number among the batches of this source; each is greater than the one before.
    pub sequence: u64,
    /// The rows, one for each key.
    pub rows: Vec<UsageRow>,
}

/// By what rows are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageGroup {
    /// Owner.
    Tenant,
    /// Who called.
    User,
    /// Function.
    Function,
    /// Version of a function.
    Version,
    /// Hour.
    Hour,
    /// Day of UTC.
    Day,
}

impl UsageGroup {
    /// All of them.
    pub const ALL: [UsageGroup; 6] = [
        UsageGroup::Tenant,
        UsageGroup::User,
        UsageGroup::Function,
        UsageGroup::Version,
        UsageGroup::Hour,
        UsageGroup::Day,
    ];

    /// The word in queries.
    pub const fn as_str(self) -> &'static str {
        match self {
            UsageGroup::Tenant => "tenant",
            UsageGroup::User => "user",
            UsageGroup::Function => "function",
            UsageGroup::Version => "version",
            UsageGroup::Hour => "hour",
            UsageGroup::Day => "day",
        }
    }

    /// The group of that word.
    pub fn parse(text: &str) -> Option<UsageGroup> {
        UsageGroup::ALL.into_iter().find(|group| group.as_str() == text)
    }
}

impl fmt::Display for UsageGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which usage to add up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UsageQuery {
    /// Of this tenant; of all where `None`.
    pub tenant: Option<TenantName>,
    /// Of this function only.
    pub function: Option<FunctionName>,
    /// From this hour on.
    pub from: Option<Hour>,
    /// Before this hour.
    pub to: Option<Hour>,
    /// One sum for each combination of these; one in all where there are none.
    pub by: Vec<UsageGroup>,
    /// At most so many sums.
    pub limit: usize,
    /// After so many.
    pub offset: usize,
}

/// One sum: what it is of has a value, as far as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UsageSum {
    /// Owner.
    pub tenant: Option<TenantName>,
    /// Who called.
    pub user: Option<String>,
    /// Function.
    pub function: Option<FunctionName>,
    /// Version.
    pub version: Option<u64>,
    /// Begin of the hour or day.
    pub begin: Option<Timestamp>,
    /// What was used.
    pub usage: Usage,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::InvocationId;

    #[test]
    fn what_reached_no_instance_used_nothing() {
        let report = Report::new(InvocationId::from_parts(1, 1), 1);
        assert!(Usage::of(&report, 128, false, 0).is_empty());
    }

    #[test]
    fn an_attempt_counts_its_time_in_the_handler_only() {
        let mut report = Report::new(InvocationId::from_parts(1, 1), 1);
        report.start = Some(Start::Cold);
        report.phases.queue = Duration::from_secs(9);
        report.phases.start = Duration::from_secs(9);
        report.phases.exec = Duration::from_micros(2_500);
        report.cpu = Duration::from_micros(700);
        let mut usage = Usage::of(&report, 128, true, 11);
        assert_eq!((usage.exec_us, usage.cpu_us, usage.mb_ms, usage.cold_starts), (2_500, 700, 320, 1));
        usage += Usage::of(&report, 128, false, 0);
        assert_eq!((usage.invocations, usage.failures, usage.egress_bytes), (2, 1, 11));
    }

    #[test]
    fn hours_begin_where_they_should() {
        assert_eq!(Hour::of(Timestamp::from_millis(3_600_000)), Hour(1));
        assert_eq!(Hour::of(Timestamp::from_millis(3_599_999)).begin(), Timestamp::from_millis(0));
    }
}
