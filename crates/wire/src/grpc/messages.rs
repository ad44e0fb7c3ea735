//! The messages of the services, where they are not the types of the traits themselves.

use std::sync::Arc;
use std::time::Duration;

use lyra_types::FunctionVersion;
use serde::{Deserialize, Serialize};

pub use crate::worker::{Drained, Health, InstanceStatus, Prepare, Prepared, Status};

/// Where there is nothing to say.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Nothing;

/// What [`crate::Worker::prewarm`] takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prewarm {
    /// The version.
    pub version: Arc<FunctionVersion>,
    /// How many.
    pub instances: u32,
}

/// What [`crate::Worker::forget`] takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Forget {
    /// See [`FunctionVersion::generation`].
    pub generation: u64,
    /// One version, or all.
    pub version: Option<u64>,
}

/// What [`crate::Worker::instances`] gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Instances {
    /// In the order of their ids.
    pub instances: Vec<InstanceStatus>,
}

/// What [`crate::Worker::drain`] takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Drain {
    /// Longest wait.
    pub limit: Duration,
}

/// What [`crate::Worker::clean`] gives.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cleaned {
    /// Instances that were ended.
    pub ended: usize,
}
