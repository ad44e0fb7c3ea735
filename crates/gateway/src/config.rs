//! Settings of the gateway, with their defaults.

use std::path::PathBuf;
use std::time::Duration;

use lyra_types::function::limit;
use serde::{Deserialize, Serialize};

use crate::access::oidc::OidcConfig;
use crate::auth::Tokens;
use crate::ingress::IngressConfig;

/// Settings of the gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Largest event of a call, in bytes: 6 MiB.
    pub max_event_bytes: usize,
    /// Largest JSON body of a deploy, in bytes: the largest code in base64, and 1 MiB for the rest.
    pub max_deploy_bytes: usize,
    /// Largest raw body of `PUT …/code`, in bytes: 48 MiB.
    pub max_code_bytes: usize,
    /// Largest body of every other route, in bytes: 1 MiB.
    pub max_json_bytes: usize,
    /// Most memory of bodies that are held at one time, in bytes: 512 MiB. Bodies up to 64 KiB are not counted.
    pub body_memory_bytes: usize,
    /// Most connections: 10,000. A further one gets 503 and is closed.
    pub max_connections: usize,
    /// Longest wait for a request's headers, and for the next request of a connection: 60 s.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// Longest wait for the next piece of a body: 30 s.
    #[serde(with = "humantime_serde")]
    pub body_idle_timeout: Duration,
    /// Longest time for a whole body that is read before it is used: 5 min.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Longest `?wait=`: 60 s.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// Longest wait for the route table, at start and after a change: 2 s.
    #[serde(with = "humantime_serde")]
    pub route_wait: Duration,
    /// Longest time that open requests get to end after a stop was asked for: 25 s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// PEM file with the certificate that is shown to clients, and those between it and its authority's; an empty path: no TLS. It is read
    /// again when it changes.
    pub tls_cert: PathBuf,
    /// PEM file with its key, which only its owner may read.
    pub tls_key: PathBuf,
    /// Longest time for a client to agree on TLS: 10 s.
    #[serde(with = "humantime_serde")]
    pub tls_handshake_timeout: Duration,
    /// Domain of host names `{id}.func.{domain}` and `{session}.{tenant}.s.{domain}`. Where it is `None`, any domain is taken, except that a
    /// listener without authentication takes only `localhost`.
    pub domain: Option<String>,
    /// When control is away, tokens that it keeps are good for so long: 10 min. What was revoked meanwhile is good as long.
    #[serde(with = "humantime_serde")]
    pub tokens_stale_after: Duration,
    /// Whether a stranger may make a user on the classic routes.
    pub classic_sign_up: bool,
    /// So many users a stranger may make from one address at once, at each gateway: 5.
    pub classic_sign_ups: u32,
    /// Time after which it may make one more: 1 min.
    #[serde(with = "humantime_serde")]
    pub classic_sign_up_every: Duration,
    /// The way to sessions.
    pub ingress: IngressConfig,
    /// The identity provider; it has a section of its own among the settings.
    #[serde(skip)]
    pub oidc: OidcConfig,
    /// Tokens of operators. Where there are none, and no identity provider, only loopback listeners are served.
    #[serde(skip)]
    pub tokens: Tokens,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_event_bytes: limit::MAX_EVENT,
            max_deploy_bytes: limit::MAX_WASM.max(limit::MAX_PACKAGE).div_ceil(3) * 4 + (1 << 20),
            max_code_bytes: limit::MAX_WASM,
            max_json_bytes: 1 << 20,
            body_memory_bytes: 512 << 20,
            max_connections: 10_000,
            header_timeout: Duration::from_secs(60),
            body_idle_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(300),
            max_wait: Duration::from_secs(60),
            route_wait: Duration::from_secs(2),
            drain: Duration::from_secs(25),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            tls_handshake_timeout: Duration::from_secs(10),
            domain: None,
            tokens_stale_after: Duration::from_secs(600),
            classic_sign_up: false,
            classic_sign_ups: 5,
            classic_sign_up_every: Duration::from_secs(60),
            ingress: IngressConfig::default(),
            oidc: OidcConfig::default(),
            tokens: Tokens::default(),
        }
    }
}

impl Config {
    /// How addresses of the listener begin.
    pub fn scheme(&self) -> &'static str {
        if crate::tls::is_given(&self.tls_cert) { "https" } else { "http" }
    }
}
