//! Settings of triggers.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use lyra_kit::retry::Backoff;
use serde::{Deserialize, Serialize};

use crate::deliveries::config::networks;

/// Settings of triggers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TriggersConfig {
    /// Networks that may be reached although they are not public, such as `10.0.0.0/8`.
    #[serde(with = "networks")]
    pub allow: Vec<IpNet>,
    /// File with certificates of authorities, in PEM, that servers at `tls://` may have theirs of, beside the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Most triggers that take messages from NATS at the same time; each has a connection.
    pub max_connections: usize,
    /// Longest time to connect, and for one answer of NATS.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Waits before a trigger that can take no messages tries again.
    pub retry: Backoff,
    /// NATS gives a message again of which nothing was heard for so long, beside the time in which a batch is gathered; a batch
    /// that runs is told of three times as often.
    #[serde(with = "humantime_serde")]
    pub ack_wait: Duration,
}

impl Default for TriggersConfig {
    fn default() -> TriggersConfig {
        TriggersConfig {
            allow: Vec::new(),
            ca_file: None,
            max_connections: 500,
            timeout: Duration::from_secs(10),
            retry: Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) },
            ack_wait: Duration::from_secs(30),
        }
    }
}
