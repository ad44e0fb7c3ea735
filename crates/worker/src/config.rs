//! What can be set on a worker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::keep_alive::{Hybrid, Policy};
use crate::{characteristics, queue, resources, sessions};

/// Most bins of a histogram of `hybrid`: each version has one.
const MOST_BINS: usize = 100_000;

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
    /// Idle instances kept, of all versions together, but for those that are held up, such as a version's minimum.
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

impl Config {
    /// Refuses settings with which nothing could run, or that can't be what somebody wants.
    ///
    /// # Errors
    /// The setting, and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let (hybrid, resources) = (&self.hybrid, &self.resources);
        let times = [
            ("start_timeout", self.start_timeout),
            ("watchdog", self.watchdog),
            ("hybrid.bin", hybrid.bin),
            ("queue.adaptive.period", self.queue.adaptive.as_ref().map_or(Duration::MAX, |adaptive| adaptive.period)),
        ];
        if let Some((name, _)) = times.iter().find(|(_, time)| time.is_zero()) {
            return Err(format!("{name}: must be longer than no time at all"));
        }
        let numbers = [
            ("max_running", self.max_running),
            ("max_result", self.max_result),
            ("hybrid.bins", hybrid.bins),
            ("characteristics.max_versions", self.characteristics.max_versions),
        ];
        if let Some((name, _)) = numbers.iter().find(|(_, number)| *number == 0) {
            return Err(format!("{name}: must be 1 at least"));
        }
        if hybrid.bins > MOST_BINS {
            return Err(format!("hybrid.bins: {} are more than the most, {MOST_BINS}", hybrid.bins));
        }
        let factors = [("memory_factor", resources.memory_factor), ("cpu_factor", resources.cpu_factor)];
        if let Some((name, factor)) = factors.iter().find(|(_, factor)| !(factor.is_finite() && *factor > 0.0)) {
            return Err(format!("resources.{name}: {factor} is no number greater than 0"));
        }
        let shares = [("head", hybrid.head), ("tail", hybrid.tail), ("beyond", hybrid.beyond)];
        if let Some((name, share)) = shares.iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            return Err(format!("hybrid.{name}: {share} is not between 0 and 1"));
        }
        let margins =
            [("margin", hybrid.margin), ("forecast_margin", hybrid.forecast_margin), ("variation", hybrid.variation)];
        // Times are multiplied by them.
        match margins.iter().find(|(_, margin)| !(0.0..=1_000.0).contains(margin)) {
            Some((name, margin)) => Err(format!("hybrid.{name}: {margin} is not between 0 and 1000")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_with_which_nothing_could_run_are_named() {
        Config::default().check().expect("the defaults are in order");
        type Change = fn(&mut Config);
        let table: [(&str, Change); 9] = [
            ("max_running", |c| c.max_running = 0),
            ("start_timeout", |c| c.start_timeout = Duration::ZERO),
            ("watchdog", |c| c.watchdog = Duration::ZERO),
            ("hybrid.bins", |c| c.hybrid.bins = 0),
            ("hybrid.bins", |c| c.hybrid.bins = 4_000_000_000),
            ("hybrid.tail", |c| c.hybrid.tail = 99.0),
            ("hybrid.margin", |c| c.hybrid.margin = f64::NAN),
            ("resources.memory_factor", |c| c.resources.memory_factor = -1.0),
            ("resources.cpu_factor", |c| c.resources.cpu_factor = f64::INFINITY),
        ];
        for (name, change) in table {
            let mut config = Config::default();
            change(&mut config);
            let said = config.check().expect_err(name);
            assert!(said.starts_with(&format!("{name}: ")), "{said}");
        }
    }
}
