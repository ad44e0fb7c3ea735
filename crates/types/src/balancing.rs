//! Names of the policies by which a call finds its worker. What each does stands in `lyra-fleet`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which of several workers gets a call of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Balancing {
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest calls, running or waiting.
    LeastLoaded,
    /// The one with the fewest calls that wait.
    LeastQueued,
    /// The one with the smallest share of its memory charged.
    LeastMemory,
    /// The one with the smallest share of its processors charged.
    LeastCpu,
    /// The one with the smallest load average of a minute for each of its processors.
    LeastLoadAverage,
    /// The one with fewer calls of two drawn by chance (Mitzenmacher, "The Power of Two Choices in Randomized Load
    /// Balancing", 2001): what is known of the load is old, and all others know it too, so the least loaded one would
    /// get every call for a while.
    PowerOfTwo,
    /// A version's own worker as long as that has no more than a quarter over the average load, then the next in its
    /// order (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018): calls find the code loaded and
    /// instances warm. Workers are ordered by rendezvous hashing (Thaler, Ravishankar, 1998).
    #[default]
    BoundedHash,
    /// The same over a short chain of workers, with loads that are raised by chance for versions that are called much
    /// (Fuerst, Sharma, "Locality-aware Load-Balancing For Serverless Clusters", HPDC 2022): popular versions leave
    /// their worker before it is full, and not all for the same one.
    ChRlu,
    /// The one that is known to hold an idle instance of the version, else its loaded code, as long as it has no more
    /// than twice the average load; else as `bounded-hash`.
    LocalityFirst,
}

impl Balancing {
    /// Every policy.
    pub const ALL: [Balancing; 10] = [
        Balancing::RoundRobin,
        Balancing::LeastLoaded,
        Balancing::LeastQueued,
        Balancing::LeastMemory,
        Balancing::LeastCpu,
        Balancing::LeastLoadAverage,
        Balancing::PowerOfTwo,
        Balancing::BoundedHash,
        Balancing::ChRlu,
        Balancing::LocalityFirst,
    ];

    /// The name in JSON, settings and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Balancing::RoundRobin => "round-robin",
            Balancing::LeastLoaded => "least-loaded",
            Balancing::LeastQueued => "least-queued",
            Balancing::LeastMemory => "least-memory",
            Balancing::LeastCpu => "least-cpu",
            Balancing::LeastLoadAverage => "least-load-average",
            Balancing::PowerOfTwo => "power-of-two",
            Balancing::BoundedHash => "bounded-hash",
            Balancing::ChRlu => "ch-rlu",
            Balancing::LocalityFirst => "locality-first",
        }
    }

    /// The policy of that name.
    pub fn parse(text: &str) -> Option<Balancing> {
        Balancing::ALL.into_iter().find(|policy| policy.as_str() == text)
    }
}

impl fmt::Display for Balancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_one_name_everywhere() {
        for policy in Balancing::ALL {
            assert_eq!(Balancing::parse(policy.as_str()), Some(policy));
            assert_eq!(serde_json::to_value(policy).expect("serializes"), policy.as_str());
        }
        assert_eq!(Balancing::parse("random"), None);
    }
}
