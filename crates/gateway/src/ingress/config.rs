//! Settings of the way to sessions.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a gateway carries to sessions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngressConfig {
    /// Whether this gateway listens on the ports of sessions. Where it does not, sessions are reached by path and by host only.
    pub enabled: bool,
    /// Address that ports of sessions are listened on. Where it is `None`, that of the gateway's own listener.
    pub address: Option<IpAddr>,
    /// Most connections to all sessions at one time, requests and clients of UDP ports counted as one each: 10,000.
    pub max_connections: usize,
    /// Most of them to one session: 1,000.
    pub max_session_connections: usize,
    /// Longest wait for a session's endpoint to take a connection: 5 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest wait of a call for the session of a [bound](lyra_types::SessionBinding) function to be open: 10 s.
    #[serde(with = "humantime_serde")]
    pub open_timeout: Duration,
    /// Longest time that a request, or a connection that was upgraded, may go on with no byte moving: 5 min.
    #[serde(with = "humantime_serde")]
    pub http_idle_timeout: Duration,
    /// The same for connections to TCP ports: 1 h.
    #[serde(with = "humantime_serde")]
    pub tcp_idle_timeout: Duration,
    /// How long a client of a UDP port is remembered after its last datagram, either way: 60 s.
    #[serde(with = "humantime_serde")]
    pub udp_idle_timeout: Duration,
    /// How long a connection to a session's endpoint is kept for the next request: 30 s.
    #[serde(with = "humantime_serde")]
    pub pool_idle_timeout: Duration,
    /// How long connections to sessions may go on after a stop was asked for: 5 s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Default for IngressConfig {
    fn default() -> IngressConfig {
        IngressConfig {
            enabled: true,
            address: None,
            max_connections: 10_000,
            max_session_connections: 1_000,
            connect_timeout: Duration::from_secs(5),
            open_timeout: Duration::from_secs(10),
            http_idle_timeout: Duration::from_secs(300),
            tcp_idle_timeout: Duration::from_secs(3_600),
            udp_idle_timeout: Duration::from_secs(60),
            pool_idle_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        }
    }
}
