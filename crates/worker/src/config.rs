//! What can be set on a worker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::keep_alive::{Hybrid, Policy};
use crate::{characteristics, queue, resources, sessions};

/// Limits and sizes of a worker. Every one of them is named in the error that it causes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Calls that run at once, of all functions together; the most of them, where the queue adapts the limit.
    pub max_running: usize,
    /// Calls that wait for a place, of all functions together.
    pub max_queued: usize,
    /// Calls that wait, of one function at its own concurrency limit.
    pub max_queued_per_function: usize,
    /// Longest wait for a place.
    #[serde(with = "humantime_serde")]
    pub queue_timeout: Duration,
    /// Longest time for loading code and starting an instance.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    /// Largest result, in bytes.
    pub max_result: usize,
    /// Loaded code kept in memory, in bytes; the least recently used goes first.
    pub code_cache_bytes: u64,
    /// Loaded code that nobody called for so long is dropped.
    #[serde(with = "humantime_serde")]
    pub code_idle: Duration,
    /// Idle instances kept, of all versions together; the longest idle goes first.
    pub max_idle_instances: usize,
    /// The policy `ttl` drops an idle instance after so long, but for a version's `min_instances`.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Which idle instances stay.
    pub keep_alive: Policy,
    /// Settings of the policy `hybrid`.
    pub hybrid: Hybrid,
    /// An instance idle for so long is hibernated, where its kind can; `None`: none is.
    #[serde(with = "humantime_serde")]
    pub hibernate_after: Option<Duration>,
    /// Idle instances are probed once in each such period; one that crashed, hangs or fails is replaced within two.
    #[serde(with = "humantime_serde")]
    pub watchdog: Duration,
    /// Memory, processors and GPUs of instances.
    pub resources: resources::Config,
    /// Log lines kept of one call.
    pub max_log_lines: u32,
    /// Log bytes kept of one call.
    pub max_log_bytes: u64,
    /// Who runs next, and how many.
    pub queue: queue::Config,
    /// What is known of each version from its calls.
    pub characteristics: characteristics::Config,
    /// Applications and their sessions.
    pub sessions: sessions::Config,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_running: 1_000,
            max_queued: 10_000,
            max_queued_per_function: 1_000,
            queue_timeout: Duration::from_secs(30),
            start_timeout: Duration::from_secs(30),
            max_result: lyra_types::function::limit::MAX_EVENT,
            code_cache_bytes: 64 << 20,
            code_idle: Duration::from_secs(15 * 60),
            max_idle_instances: 256,
            idle_timeout: Duration::from_secs(5 * 60),
            keep_alive: Policy::default(),
            hybrid: Hybrid::default(),
            hibernate_after: None,
            watchdog: Duration::from_secs(5),
            resources: resources::Config::default(),
            max_log_lines: 10_000,
            max_log_bytes: 1 << 20,
            queue: queue::Config::default(),
            characteristics: characteristics::Config::default(),
            sessions: sessions::Config::default(),
        }
    }
}
