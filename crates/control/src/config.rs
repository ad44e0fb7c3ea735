//! Settings of the control role.

use std::time::Duration;

use lyra_kit::retry::Backoff;
use lyra_types::quota::Quota;
use serde::{Deserialize, Serialize};

use crate::accounts::AccountsConfig;
use crate::deliveries::WebhooksConfig;
use crate::registry::RegistryConfig;
use crate::secrets::SecretsConfig;
use crate::sessions::SessionsConfig;
use crate::triggers::TriggersConfig;

/// Settings of the control role. The defaults fit a laptop and a small server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Versions kept of one function. A deploy beyond it drops the oldest that no alias points at and no waiting,
    /// running or dead job is pinned to; where all are in use, more are kept.
    pub max_versions: usize,
    /// Aliases of one function.
    pub max_aliases: usize,
    /// How often code that no version uses any more is looked for.
    #[serde(with = "humantime_serde")]
    pub sweep_code_every: Duration,
    /// Jobs.
    pub jobs: JobsConfig,
    /// Workers in other processes.
    pub registry: RegistryConfig,
    /// Tenants, users, tokens, the audit log.
    pub accounts: AccountsConfig,
    /// Deliveries: who may be called, how often, how long they are kept.
    pub webhooks: WebhooksConfig,
    /// Triggers: which servers they may reach.
    pub triggers: TriggersConfig,
    /// Applications and sessions.
    pub sessions: SessionsConfig,
    /// Quota of tenants that have none of their own; it has a section of its own among the settings.
    #[serde(skip)]
    pub quota: Quota,
    /// The key file of secrets; set by the section `secrets` of a node's settings.
    #[serde(skip)]
    pub secrets: SecretsConfig,
    /// A control process that leads and dies is followed by another within about this time; not under 2 s, the least that
    /// etcd grants.
    #[serde(with = "humantime_serde")]
    pub leader_lease: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_versions: 100,
            max_aliases: 64,
            sweep_code_every: Duration::from_secs(3_600),
            jobs: JobsConfig::default(),
            registry: RegistryConfig::default(),
            accounts: AccountsConfig::default(),
            webhooks: WebhooksConfig::default(),
            triggers: TriggersConfig::default(),
            sessions: SessionsConfig::default(),
            quota: Quota::default(),
            secrets: SecretsConfig::default(),
            leader_lease: Duration::from_secs(2),
        }
    }
}

/// Least length of a term, a lease, or a time between two looks.
const LEAST: Duration = Duration::from_millis(10);

impl Config {
    /// Refuses times by which nobody could keep a lease.
    ///
    /// # Errors
    /// The setting, and why.
    pub fn check(&self) -> Result<(), String> {
        let least = [
            ("registry.heartbeat", self.registry.heartbeat),
            ("jobs.heartbeat", self.jobs.heartbeat),
            ("jobs.sweep_every", self.jobs.sweep_every),
            ("sweep_code_every", self.sweep_code_every),
            ("leader_lease", self.leader_lease),
        ];
        if let Some((name, time)) = least.into_iter().find(|(_, time)| *time < LEAST) {
            return Err(format!("{name}: {time:?} is too short, the least is {LEAST:?}"));
        }
        // One of them may be late, or lost.
        let leases = [
            ("registry", self.registry.heartbeat, self.registry.lease),
            ("jobs", self.jobs.heartbeat, self.jobs.lease_ttl),
        ];
        match leases.into_iter().find(|(_, heartbeat, lease)| *lease < heartbeat.saturating_mul(2)) {
            Some((of, heartbeat, lease)) => {
                let name = if of == "jobs" { "lease_ttl" } else { "lease" };
                Err(format!("{of}.{name}: {lease:?} is too short, the least is twice {of}.heartbeat, {heartbeat:?}"))
            }
            None => Ok(()),
        }
    }
}

/// Settings of jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobsConfig {
    /// Jobs that run at once.
    pub max_in_flight: usize,
    /// Jobs of one function that run at once, so that slow ones don't hold up the others.
    pub max_in_flight_per_function: usize,
    /// Most bytes of events of jobs that are leased together.
    pub max_leased_bytes: usize,
    /// Jobs that wait; more are refused with 503. Checked against a count that is up to 5 s old.
    pub max_queued: u64,
    /// How long a lease holds without a heartbeat.
    #[serde(with = "humantime_serde")]
    pub lease_ttl: Duration,
    /// How often leases are prolonged.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Waits between the tries of a job.
    pub retry: Backoff,
    /// Waits when the worker has no capacity; such tries don't count.
    pub busy: Backoff,
    /// How long running jobs may go on after shutdown began; after that they are given back, and the try does not count.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// How long ended jobs are kept, but for dead ones.
    #[serde(with = "humantime_serde")]
    pub keep_finished: Duration,
    /// How long dead jobs are kept.
    #[serde(with = "humantime_serde")]
    pub keep_dead: Duration,
    /// How often old jobs are looked for.
    #[serde(with = "humantime_serde")]
    pub sweep_every: Duration,
    /// How long an idempotency key is remembered.
    #[serde(with = "humantime_serde")]
    pub keep_keys: Duration,
    /// Callers that wait for jobs to end; more get an answer at once.
    pub max_waiters: usize,
    /// Longest time that a caller may wait for a job to end.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
}

impl Default for JobsConfig {
    fn default() -> JobsConfig {
        JobsConfig {
            max_in_flight: 64,
            max_in_flight_per_function: 48,
            max_leased_bytes: 64 << 20,
            max_queued: 1_000_000,
            lease_ttl: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            retry: Backoff { first: Duration::from_secs(1), max: Duration::from_secs(300) },
            busy: Backoff { first: Duration::from_millis(500), max: Duration::from_secs(5) },
            drain: Duration::from_secs(20),
            keep_finished: Duration::from_secs(24 * 3_600),
            keep_dead: Duration::from_secs(7 * 24 * 3_600),
            sweep_every: Duration::from_secs(60),
            keep_keys: Duration::from_secs(24 * 3_600),
            max_waiters: 10_000,
            max_wait: Duration::from_secs(300),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_by_which_no_lease_could_be_kept_are_refused() {
        assert_eq!(Config::default().check(), Ok(()));
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err()
        };
        let said = [
            with(|of| of.registry.heartbeat = Duration::ZERO),
            with(|of| of.leader_lease = Duration::from_millis(9)),
            with(|of| of.jobs.heartbeat = Duration::ZERO),
            with(|of| of.jobs.sweep_every = Duration::ZERO),
            with(|of| of.sweep_code_every = Duration::ZERO),
            with(|of| of.registry.lease = of.registry.heartbeat),
            with(|of| of.jobs.lease_ttl = Duration::ZERO),
        ];
        let named = [
            "registry.heartbeat",
            "leader_lease",
            "jobs.heartbeat",
            "jobs.sweep_every",
            "sweep_code_every",
            "registry.lease",
            "jobs.lease_ttl",
        ];
        for (said, name) in said.iter().zip(named) {
            assert!(said.starts_with(&format!("{name}: ")), "{said}");
        }
        assert!(said[5].contains("twice registry.heartbeat, 3s"), "{}", said[5]);
    }
}
