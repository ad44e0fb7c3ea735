//! Bodies of `/v1/tenants/{tenant}/quota…` and `/v1/quotas`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::quota::Quota;

/// A quota, and what counts against it now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QuotaView {
    /// Whose.
    pub tenant: String,
    /// Only of this function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// What is in force.
    pub quota: Quota,
    /// Nobody has set it: it is the one of the settings.
    pub is_default: bool,
    /// What counts against it.
    pub used: QuotaUse,
    /// Of a tenant: the quotas of its functions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub functions: Vec<QuotaView>,
}

/// What counts against a quota now. What gateways count is up to half a second old, and is there only where it is limited.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct QuotaUse {
    /// Calls and submitted jobs per second, asked for in the last second, refused ones too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Calls, and tries of jobs, at this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u64>,
    /// Their memory limits, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Bytes of code.
    pub stored_bytes: u64,
    /// Functions; of a function 1, or 0 where there is none of that name.
    pub functions: u64,
    /// Of a tenant: sessions that have not ended.
    #[serde(default)]
    pub sessions: u64,
    /// Of a tenant: workflows; not there where nobody who runs workflows can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflows: Option<u64>,
    /// Of a tenant: runs of workflows that have not ended; as for `workflows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u64>,
    /// Jobs that wait; counted up to 10,000.
    pub queued_jobs: u64,
    /// Processor time in this period, in ms, where it is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
}
