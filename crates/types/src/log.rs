//! Lines that functions write.

use std::sync::Arc;

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
    /// The call that wrote it. Lines of instances of applications belong to no call: theirs is made of the instance's id.
    pub invocation: InvocationId,
    /// Version that ran.
    pub version: u64,
    /// Instance that ran it.
    pub instance: Option<InstanceId>,
    /// Owner.
    pub tenant: TenantName,
    /// Function.
    pub function: FunctionName,
    /// Of a line that an instance of an application wrote: which application's, in which session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted: Option<Arc<Hosted>>,
}

/// What an instance of an application was doing when it wrote a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosted {
    /// Name of the application.
    pub application: String,
    /// The session that the instance had; none while it stood by.
    pub session: Option<SessionOf>,
}

/// A session, as lines name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOf {
    /// Its name.
    pub name: String,
    /// Its identity: another one of the same name has another.
    pub uid: String,
}

impl LogLine {
    /// Name of the application whose instance wrote it.
    pub fn application(&self) -> Option<&str> {
        self.hosted.as_ref().map(|hosted| hosted.application.as_str())
    }

    /// The session in which it was written.
    pub fn session(&self) -> Option<&SessionOf> {
        self.hosted.as_ref()?.session.as_ref()
    }
}
