//! Settings of deliveries.

use std::time::Duration;

use ipnet::IpNet;
use lyra_kit::retry::Backoff;
use serde::{Deserialize, Serialize};

/// Settings of deliveries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksConfig {
    /// Networks that may be called although they are not public, such as `10.0.0.0/8`.
    #[serde(with = "networks")]
    pub allow: Vec<IpNet>,
    /// Longest time for one call, its answer included.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Waits between the tries of a delivery.
    pub retry: Backoff,
    /// Most tries of a delivery.
    pub max_attempts: u32,
    /// A delivery is given up that was not made within this time, however often it was tried.
    #[serde(with = "humantime_serde")]
    pub give_up_after: Duration,
    /// Tries that are made at the same time.
    pub max_in_flight: usize,
    /// Tries of one tenant that are made at the same time.
    pub max_in_flight_per_tenant: usize,
    /// How long a delivery is kept after its end.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
    /// Most deliveries of one tenant that are kept; the oldest that have ended go first.
    pub max_kept_per_tenant: usize,
}

impl Default for WebhooksConfig {
    fn default() -> WebhooksConfig {
        WebhooksConfig {
            allow: Vec::new(),
            timeout: Duration::from_secs(15),
            retry: Backoff { first: Duration::from_secs(5), max: Duration::from_secs(3_600) },
            max_attempts: 20,
            give_up_after: Duration::from_secs(24 * 3_600),
            max_in_flight: 64,
            max_in_flight_per_tenant: 16,
            keep: Duration::from_secs(7 * 24 * 3_600),
            max_kept_per_tenant: 10_000,
        }
    }
}

/// Networks as a list of texts.
pub(crate) mod networks {
    use super::IpNet;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(networks: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(networks.iter().map(ToString::to_string))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let read = |text: &String| {
            let fault = |_| format!("\"{}\" is no network such as 10.0.0.0/8", text.escape_debug());
            text.parse::<IpNet>().map_err(fault)
        };
        texts.iter().map(read).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
    }
}
