//! What can be set on the invocation queue.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use lyra_types::TenantName;
use serde::{Deserialize, Serialize};

/// Settings of the invocation queue. How many calls run and wait at most stands in the worker's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which call runs next when several wait for the worker; `fair-share` by default, so that no tenant keeps the others waiting.
    pub policy: PolicyKind,
    /// A call that has waited so long goes before all that came after it, whatever the policy says, where the policy
    /// could leave it waiting for ever; 5 s by default. Less than the longest wait in the queue, or it has no effect.
    #[serde(with = "humantime_serde")]
    pub ageing: Duration,
    /// Adapts the number of calls that run at once to the load of the machine; off by default: it is fixed.
    pub adaptive: Option<Adaptive>,
    /// Lets short calls run outside of the worker's limit; off by default.
    pub bypass: Option<Bypass>,
    /// Settings of the policy `fair-share`.
    pub fair_share: FairShare,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            policy: PolicyKind::default(),
            ageing: Duration::from_secs(5),
            adaptive: None,
            bypass: None,
            fair_share: FairShare::default(),
        }
    }
}

/// A queue policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyKind {
    /// First come, first served.
    Fcfs,
    /// The shortest expected execution first.
    ShortestFirst,
    /// The earliest effective deadline first: arrival plus expected execution.
    EarliestDeadline,
    /// The function that is called most often first: the smallest time between its arrivals.
    InterArrival,
    /// The call that is expected to be done soonest, by what is in the pool right now.
    ColdPriority,
    /// Fair share between tenants; within a tenant, who came first.
    #[default]
    FairShare,
}

impl PolicyKind {
    /// Every policy.
    pub const ALL: [PolicyKind; 6] = [
        PolicyKind::Fcfs,
        PolicyKind::ShortestFirst,
        PolicyKind::EarliestDeadline,
        PolicyKind::InterArrival,
        PolicyKind::ColdPriority,
        PolicyKind::FairShare,
    ];

    /// The name in settings and in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            PolicyKind::Fcfs => "fcfs",
            PolicyKind::ShortestFirst => "shortest-first",
            PolicyKind::EarliestDeadline => "earliest-deadline",
            PolicyKind::InterArrival => "inter-arrival",
            PolicyKind::ColdPriority => "cold-priority",
            PolicyKind::FairShare => "fair-share",
        }
    }
}

/// Additive increase, multiplicative decrease of the number of calls that run at once. Its greatest value is the worker's
/// `max_running`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adaptive {
    /// The least limit, and the first one; 16 by default.
    pub min: NonZeroUsize,
    /// What the load is measured by; `pressure` by default.
    pub load: LoadKind,
    /// Load to stay under, in percent; 60 by default.
    pub target_percent: u32,
    /// Time between two steps; 1 s by default.
    #[serde(with = "humantime_serde")]
    pub period: Duration,
    /// Added in a step while calls wait and the load is under the target; 8 by default.
    pub increase: NonZeroUsize,
    /// Left, in percent, after a step over the target; 75 by default, taken as 1 to 99.
    pub keep_percent: u32,
}

impl Default for Adaptive {
    fn default() -> Adaptive {
        Adaptive {
            min: NonZeroUsize::new(16).expect("16 is not zero"),
            load: LoadKind::Pressure,
            target_percent: 60,
            period: Duration::from_secs(1),
            increase: NonZeroUsize::new(8).expect("8 is not zero"),
            keep_percent: 75,
        }
    }
}

/// What the load is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadKind {
    /// Share of time in which some task waited for a core (the kernel's pressure stall information), of this process'
    /// cgroup or of the machine.
    #[default]
    Pressure,
    /// One-minute load average by core.
    Average,
}

/// Which calls run outside of the worker's limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bypass {
    /// Those of versions whose measured execution is shorter than this, and that need not start an instance.
    #[serde(with = "humantime_serde")]
    pub below: Duration,
    /// So many at once; 64 by default.
    #[serde(default = "default_bypassing")]
    pub most: usize,
}

const fn default_bypassing() -> usize {
    64
}

/// Settings of the policy `fair-share`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FairShare {
    /// How far a tenant may run ahead of the one that is furthest behind, in time on a place at weight 1, before it is
    /// throttled; 20 ms by default. Longer keeps a tenant's instances and caches in use, shorter is fairer; 0 is plain
    /// start-time fair queueing.
    #[serde(with = "humantime_serde")]
    pub throttle: Duration,
    /// Weight of a tenant that `weights` does not name; 1 by default. A tenant's share is its weight over the weights of all
    /// tenants whose calls wait.
    pub default_weight: NonZeroU32,
    /// Weights by tenant.
    pub weights: BTreeMap<TenantName, NonZeroU32>,
}

impl Default for FairShare {
    fn default() -> FairShare {
        FairShare { throttle: Duration::from_millis(20), default_weight: NonZeroU32::MIN, weights: BTreeMap::new() }
    }
}

impl FairShare {
    /// The weight of a tenant.
    pub fn weight(&self, tenant: &TenantName) -> NonZeroU32 {
        self.weights.get(tenant).copied().unwrap_or(self.default_weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_as_documented_and_unknown_ones_are_refused() {
        let text = r#"{
            "policy": "fair-share", "ageing": "2s",
            "adaptive": {"load": "average", "target_percent": 80, "period": "500ms"},
            "bypass": {"below": "5ms"},
            "fair_share": {"throttle": "100ms", "weights": {"team-a": 3}}
        }"#;
        let config: Config = serde_json::from_str(text).expect("it is well formed");
        assert_eq!((config.policy, config.ageing), (PolicyKind::FairShare, Duration::from_secs(2)));
        let adaptive = config.adaptive.expect("it was given");
        assert_eq!((adaptive.load, adaptive.min.get(), adaptive.target_percent), (LoadKind::Average, 16, 80));
        assert_eq!(config.bypass, Some(Bypass { below: Duration::from_millis(5), most: 64 }));
        let weight = |tenant| config.fair_share.weight(&TenantName::new(tenant).expect("a valid name")).get();
        assert_eq!((weight("team-a"), weight("team-b")), (3, 1));
        assert_eq!(serde_json::from_str::<Config>("{}").expect("all has a default"), Config::default());
        for wrong in [
            r#"{"polycy": "fcfs"}"#,
            r#"{"bypass": {"below": "5ms", "x": 1}}"#,
            r#"{"fair_share": {"default_weight": 0}}"#,
        ] {
            assert!(serde_json::from_str::<Config>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_policy_is_set_by_its_name() {
        for policy in PolicyKind::ALL {
            let read: PolicyKind = serde_json::from_value(policy.as_str().into()).expect("it is a policy");
            assert_eq!(read, policy);
        }
    }
}
