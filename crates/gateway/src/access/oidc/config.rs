//! Settings of the identity provider.

use std::collections::BTreeMap;
use std::time::Duration;

use lyra_types::{Code, Error, Result, Role, TenantName};
use serde::{Deserialize, Serialize};

/// The identity provider whose tokens are taken, and what its claims mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OidcConfig {
    /// The provider, as its tokens' `iss` has it: `https://id.example.org`. Empty: none.
    pub issuer: String,
    /// A token's `aud` must name one of these.
    pub audience: Vec<String>,
    /// Where the provider's keys are; empty: where `{issuer}/.well-known/openid-configuration` says.
    pub jwks_url: String,
    /// The claim that names the tenant; a dot leads into an object (`org.name`).
    pub tenant_claim: String,
    /// The tenant of everybody; where it is set, the claim is not looked at.
    pub tenant: String,
    /// The claim that names the user.
    pub user_claim: String,
    /// The claim with roles: a text, or a list of them.
    pub role_claim: String,
    /// What a value of that claim means. Values that are not here mean the role of the same name, where there is one.
    pub roles: BTreeMap<String, Role>,
    /// Values of that claim that make an operator. None does unless it stands here.
    pub operators: Vec<String>,
    /// The provider's keys are read again after this time: 1 h.
    #[serde(with = "humantime_serde")]
    pub refresh: Duration,
    /// A token by an unknown key has the keys read again, at most so often: 10 s.
    #[serde(with = "humantime_serde")]
    pub refetch: Duration,
    /// By how much the provider's clock may differ: 60 s.
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
}

impl Default for OidcConfig {
    fn default() -> OidcConfig {
        OidcConfig {
            issuer: String::new(),
            audience: Vec::new(),
            jwks_url: String::new(),
            tenant_claim: "tenant".to_owned(),
            tenant: String::new(),
            user_claim: "sub".to_owned(),
            role_claim: "roles".to_owned(),
            roles: BTreeMap::new(),
            operators: Vec::new(),
            refresh: Duration::from_secs(3_600),
            refetch: Duration::from_secs(10),
            leeway: Duration::from_secs(60),
        }
    }
}

impl OidcConfig {
    /// Whether a provider is named.
    pub fn is_on(&self) -> bool {
        !self.issuer.is_empty()
    }

    /// Finds what can't work.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with the setting.
    pub(crate) fn check(&self) -> Result<()> {
        let refused =
            |field: &str, reason: &str| Err(Error::field(Code::InvalidField, format!("oidc.{field}"), reason));
        for (field, url) in [("issuer", &self.issuer), ("jwks_url", &self.jwks_url)] {
            if !url.is_empty() && !is_safe(url) {
                return refused(field, "must begin with https:// (http:// is for loopback addresses only)");
            }
        }
        if self.audience.is_empty() {
            return refused("audience", "must name at least one: else tokens for any other service were good here");
        }
        if !self.tenant.is_empty() && TenantName::new(&self.tenant).is_err() {
            return refused("tenant", "can't be the name of a tenant");
        }
        if self.tenant.is_empty() && self.tenant_claim.is_empty() {
            return refused("tenant_claim", "is empty, and no tenant is set");
        }
        if self.user_claim.is_empty() || self.role_claim.is_empty() {
            return refused("user_claim", "and role_claim must be set");
        }
        if self.refetch.is_zero() {
            return refused("refetch", "must be above 0");
        }
        Ok(())
    }
}

/// Whether keys that come from there can be believed.
fn is_safe(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_by_https_and_an_audience_is_needed() {
        let good = OidcConfig {
            issuer: "https://id.example.org".into(),
            audience: vec!["lyra".into()],
            ..OidcConfig::default()
        };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(OidcConfig { issuer: "http://127.0.0.1:9/x".into(), ..good.clone() }.check(), Ok(()));
        for bad in [
            OidcConfig { issuer: "http://id.example.org".into(), ..good.clone() },
            OidcConfig { issuer: "id.example.org".into(), ..good.clone() },
            OidcConfig { jwks_url: "http://10.0.0.1/keys".into(), ..good.clone() },
            OidcConfig { audience: Vec::new(), ..good.clone() },
            OidcConfig { tenant: "Not A Tenant".into(), ..good.clone() },
            OidcConfig { tenant_claim: String::new(), ..good.clone() },
            OidcConfig { refetch: Duration::ZERO, ..good },
        ] {
            assert_eq!(bad.check().unwrap_err().code, Code::InvalidField, "{bad:?}");
        }
    }
}
