//! Bodies about the control role.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;

/// A control process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ControlView {
    /// Name.
    pub name: String,
    /// Where other roles reach it; none where it is part of a platform in one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `leader`: hands out jobs and places instances; `standby`: takes over when the leader dies.
    pub state: String,
    /// Of the leader: the number of its term, higher than that of every term before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// When it was started.
    pub since: Timestamp,
}
