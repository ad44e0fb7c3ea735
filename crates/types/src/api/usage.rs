//! Bodies of `/v1/usage`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::usage::{Usage, UsageSum};

/// Answer of `GET /v1/usage`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageReport {
    /// One sum for each combination of what was asked for, in order.
    pub items: Vec<UsageView>,
    /// Cursor of the next page.
    pub next: Option<String>,
    /// The sum over all pages.
    pub total: UsageView,
}

/// A sum of what attempts used. Time in the queue and the start of the engine are not in it; failed and timed-out attempts are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct UsageView {
    /// Owner, where grouped by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Who called, where grouped by it; empty: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Function, where grouped by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Version, where grouped by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Begin of the hour or day, where grouped by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<Timestamp>,
    /// Attempts that reached an instance.
    pub invocations: u64,
    /// Those that did not succeed.
    pub failures: u64,
    /// Those whose instance had to be started, or code loaded.
    pub cold_starts: u64,
    /// Time in the handler, in whole ms.
    pub exec_ms: u64,
    /// Processor time in the handler, in whole ms.
    pub cpu_ms: u64,
    /// Memory limit (GiB) times time in the handler (ms).
    pub gb_ms: f64,
    /// Bytes of results and of bodies of responses.
    pub egress_bytes: u64,
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> UsageView {
        UsageView {
            invocations: usage.invocations,
            failures: usage.failures,
            cold_starts: usage.cold_starts,
            exec_ms: usage.exec_us / 1_000,
            cpu_ms: usage.cpu_us / 1_000,
            gb_ms: usage.gb_ms(),
            egress_bytes: usage.egress_bytes,
            ..UsageView::default()
        }
    }
}

impl From<UsageSum> for UsageView {
    fn from(sum: UsageSum) -> UsageView {
        UsageView {
            tenant: sum.tenant.map(String::from),
            user: sum.user,
            function: sum.function.map(String::from),
            version: sum.version,
            begin: sum.begin,
            ..UsageView::from(sum.usage)
        }
    }
}
