//! What lists show of a run: the opaque summary of its record.

use lyra_types::workflow::{Parent, RunError, TaskCounts};
use serde::{Deserialize, Serialize};

/// What is recorded beside a run's status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Summary {
    pub counts: TaskCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Digest of the program, by which it is kept from being deleted; not there in runs of an earlier Lyra.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Whether its journal names blobs; also where it is not known.
    #[serde(default = "yes")]
    pub spilled: bool,
    /// Why it can't go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
}

fn yes() -> bool {
    true
}
