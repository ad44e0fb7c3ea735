//! Lines that functions write.

use serde::{Deserialize, Serialize};

use crate::{FunctionName, InstanceId, InvocationId, TenantName, Timestamp};

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// `console.debug`.
    Debug,
    /// `console.log`, `console.info`, stdout.
    Info,
    /// `console.warn`.
    Warn,
    /// `console.error`, stderr, uncaught errors.
    Error,
}

impl Level {
    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written.
    pub time: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// The text, without the line's end.
    pub message: String,
    /// The call that wrote it.
    pub invocation: InvocationId,
    /// Version that ran.
    pub version: u64,
    /// Instance that ran it.
    pub instance: Option<InstanceId>,
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
}
