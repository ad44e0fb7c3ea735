//! Settings of sessions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of applications and sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionsConfig {
    /// Where clients reach gateways, a host name or an IP address: endpoints of sessions are given with it. Empty: endpoints are
    /// ports of the workers' own nodes.
    pub ingress_address: String,
    /// First port of gateways that is given to sessions. Only with `ingress_address`.
    pub ingress_first_port: u16,
    /// Last one.
    pub ingress_last_port: u16,
    /// What the address of a session over HTTP begins with, such as `https://lyra.example.org`. Empty: endpoints have no such
    /// address, though gateways answer there.
    pub url: String,
    /// Sessions of a worker that is lost end when it has not come back after so long.
    #[serde(with = "humantime_serde")]
    pub lost_after: Duration,
    /// Sessions that calls of a function opened are closed when no call has come for so long.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
}

impl Default for SessionsConfig {
    fn default() -> SessionsConfig {
        SessionsConfig {
            ingress_address: String::new(),
            ingress_first_port: 30_000,
            ingress_last_port: 32_767,
            url: String::new(),
            lost_after: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(300),
        }
    }
}
