//! What is known of one call after it ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{InstanceId, InvocationId};

/// Header names that every response of an invocation carries (interfaces, section 2).
pub mod header {
    /// Id of the call.
    pub const INVOCATION_ID: &str = "lyra-invocation-id";
    /// Version that ran.
    pub const VERSION: &str = "lyra-version";
    /// `warm`, `prewarmed` or `cold`.
    pub const START: &str = "lyra-start";
    /// `fresh` or `reused`.
    pub const INSTANCE: &str = "lyra-instance";
    /// `queue;dur=…, start;dur=…, exec;dur=…`, in ms (W3C Server-Timing).
    pub const SERVER_TIMING: &str = "server-timing";
}

/// What a call had to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Code loaded, and an instance there or made in no time.
    Warm,
    /// An instance that was started ahead of the first call.
    Prewarmed,
    /// The version's code or instance had to be loaded or started for this call.
    Cold,
}

impl Start {
    /// The word in headers and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Start::Warm => "warm",
            Start::Prewarmed => "prewarmed",
            Start::Cold => "cold",
        }
    }
}

/// Time by phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Phases {
    /// Waiting for a place to run.
    pub queue: Duration,
    /// Loading code and starting an instance.
    pub start: Duration,
    /// In the handler; for a streamed response, until its headers.
    pub exec: Duration,
}

impl Phases {
    /// The value of `Server-Timing`.
    pub fn server_timing(&self) -> String {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        format!("queue;dur={:.3}, start;dur={:.3}, exec;dur={:.3}", ms(self.queue), ms(self.start), ms(self.exec))
    }
}

/// How one call went, whatever its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The call.
    pub invocation: InvocationId,
    /// Version that ran.
    pub version: u64,
    /// What it had to wait for; `None` when it never reached an instance (refused, or given up in the queue).
    pub start: Option<Start>,
    /// Whether the instance had served a call before.
    pub reused: bool,
    /// The instance.
    pub instance: Option<InstanceId>,
    /// Time by phase.
    pub phases: Phases,
    /// Processor time in the handler, as far as the isolation can tell it.
    #[serde(default)]
    pub cpu: Duration,
}

impl Report {
    /// Of a call that has not reached an instance.
    pub fn new(invocation: InvocationId, version: u64) -> Report {
        Report {
            invocation,
            version,
            start: None,
            reused: false,
            instance: None,
            phases: Phases::default(),
            cpu: Duration::ZERO,
        }
    }

    /// The word in `Lyra-Instance`.
    pub const fn instance_word(&self) -> &'static str {
        if self.reused { "reused" } else { "fresh" }
    }
}
