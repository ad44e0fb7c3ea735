//! How one function of a workflow is called: tries, time limits, what to do when it fails for good.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How a function is called. All are optional; the engine has defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// When and how often to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Longest time of one try (property `timeout`, 1.0's constraint `C-maxRunningTime`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Latest start after the run's start (1.0's `C-latestStartingTime`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_start: Option<Duration>,
    /// Latest end after the run's start (1.0's `C-latestFinishingTime`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_end: Option<Duration>,
    /// How many resources are called at once; the first that succeeds wins (property `redundancy`, from 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redundancy: Option<u32>,
    /// What to do when all tries failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch: Option<Catch>,
    /// Whether results are kept and used again for equal inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memo: Option<Memo>,
}

/// When and how often to try again. The wait before try n + 1 is `initial * factor^(n-1)`, at most `maximum`, of which
/// a random part of `jitter` is taken off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Most tries, the first included; from 1 (1.0's `FT-Retries` is one less).
    pub attempts: u32,
    /// First wait.
    #[serde(default = "Retry::default_initial")]
    pub initial: Duration,
    /// Growth of the wait; from 1.
    #[serde(default = "Retry::default_factor")]
    pub factor: f64,
    /// Longest wait.
    #[serde(default = "Retry::default_maximum")]
    pub maximum: Duration,
    /// Part of the wait that is random, 0 to 1.
    #[serde(default = "Retry::default_jitter")]
    pub jitter: f64,
    /// Causes after which there is no further try: error codes, `http_404`, or names that a function's error has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
}

impl Retry {
    /// First wait where none is written: 100 ms.
    pub fn default_initial() -> Duration {
        Duration::from_millis(100)
    }

    /// Growth where none is written: 2.
    pub fn default_factor() -> f64 {
        2.0
    }

    /// Longest wait where none is written: 30 s.
    pub fn default_maximum() -> Duration {
        Duration::from_secs(30)
    }

    /// Random part where none is written: 0.2.
    pub fn default_jitter() -> f64 {
        0.2
    }
}

/// What to do when all tries failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catch {
    /// Causes that are caught, as in [`Retry::never`]; all where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
    /// Function types to call instead, one after the other until one succeeds (1.0's `FT-AltPlan`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<String>,
    /// The output to go on with when those failed too, or there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Map<String, Value>>,
}

/// Results that are kept and used again: the key is a hash of function type, resource and input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memo {
    /// How long a result is good for; as long as the engine keeps it where none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Names of the inputs that make the key; all where empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}
