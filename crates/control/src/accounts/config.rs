//! Settings of accounts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Settings of tenants, users, tokens and the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountsConfig {
    /// How long a login is good for: 1 h.
    #[serde(with = "humantime_serde")]
    pub login_ttl: Duration,
    /// Wrong passwords that a user may have at once: 10. By each control process.
    pub login_tries: u32,
    /// After this time a user has one try more: 10 s.
    #[serde(with = "humantime_serde")]
    pub login_try_every: Duration,
    /// Wrong passwords that may come from an address at once: 30. Of IPv6, from 2^64 addresses.
    pub login_tries_of_address: u32,
    /// After this time an address has one try more: 1 s.
    #[serde(with = "humantime_serde")]
    pub login_try_of_address_every: Duration,
    /// How long entries of the audit log are kept: 90 days.
    #[serde(with = "humantime_serde")]
    pub keep_audit: Duration,
    /// Most entries of the audit log: 100,000. The oldest go.
    pub max_audit: usize,
    /// Most entries of the audit log that a tenant sees: 10,000. The oldest go.
    pub max_audit_of_tenant: usize,
    /// How often tokens that have ended and old entries are looked for: 5 min.
    #[serde(with = "humantime_serde")]
    pub sweep_every: Duration,
}

impl Default for AccountsConfig {
    fn default() -> AccountsConfig {
        AccountsConfig {
            login_ttl: Duration::from_secs(3_600),
            login_tries: 10,
            login_try_every: Duration::from_secs(10),
            login_tries_of_address: 30,
            login_try_of_address_every: Duration::from_secs(1),
            keep_audit: Duration::from_secs(90 * 86_400),
            max_audit: 100_000,
            max_audit_of_tenant: 10_000,
            sweep_every: Duration::from_secs(300),
        }
    }
}
