//! From claims to who somebody is.

use std::time::Duration;

use lyra_types::{Code, Error, Result, Role, Scope, Scopes, TenantName, Timestamp, UserName};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::{OidcConfig, refused};
use crate::access::{By, Identity};

/// When a token ends. `now` must lie between its times, give or take `leeway`.
///
/// # Errors
/// [`Code::Unauthenticated`] where it does not.
pub(super) fn times(claims: &Map<String, Value>, now: Timestamp, leeway: Duration) -> Result<Timestamp> {
    // Seconds since 1970, which may have a fraction (RFC 7519, section 2).
    let at = |name: &str| {
        let seconds = claims.get(name)?.as_f64().filter(|seconds| (0.0..1e11).contains(seconds))?;
        Some(Timestamp::from_millis((seconds * 1_000.0) as i64))
    };
    let end = at("exp").ok_or_else(|| refused("it has no end"))? + leeway;
    if end <= now {
        return Err(refused("it has ended"));
    }
    if claims.contains_key("nbf") && at("nbf").is_none_or(|begin| begin > now + leeway) {
        return Err(refused("its time has not come"));
    }
    Ok(end)
}

/// The claim of that name; a dot leads into an object, unless there is a claim with the dot in its name.
fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    claim(claims.get(first)?.as_object()?, rest)
}

/// The texts of a claim: itself, or those in its list.
fn texts<'a>(claims: &'a Map<String, Value>, name: &str) -> Vec<&'a str> {
    match claim(claims, name) {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Who the claims say that somebody is.
///
/// # Errors
/// [`Code::PermissionDenied`] where it is nobody who may do something here.
pub(super) fn identity(config: &OidcConfig, claims: &Map<String, Value>, end: Timestamp) -> Result<Identity> {
    let denied = |why: String| {
        Error::new(Code::PermissionDenied, format!("the identity provider's token lets nobody in: {why}"))
    };
    let name = claim(claims, &config.user_claim).and_then(Value::as_str);
    let name = name.ok_or_else(|| denied(format!("it has no claim {}", config.user_claim)))?;
    let user =
        UserName::new(name).map_err(|error| denied(format!("its claim {}: {}", config.user_claim, error.detail)))?;
    let roles = texts(claims, &config.role_claim);
    if roles.iter().any(|role| config.operators.iter().any(|operator| operator == role)) {
        let operator = Identity::operator(&format!("operator:{user}"), By::Oidc);
        return Ok(Identity { expires_at: Some(end), ..operator });
    }
    let tenant = match config.tenant.as_str() {
        "" => claim(claims, &config.tenant_claim)
            .and_then(Value::as_str)
            .ok_or_else(|| denied(format!("it has no claim {}", config.tenant_claim)))?,
        tenant => tenant,
    };
    let tenant = TenantName::new(tenant)
        .map_err(|error| denied(format!("its claim {}: {}", config.tenant_claim, error.detail)))?;
    let known = roles.iter().filter_map(|role| config.roles.get(*role).copied().or_else(|| Role::parse(role)));
    let scopes: Scopes = known.flat_map(|role| role.scopes().iter().collect::<Vec<Scope>>()).collect();
    if scopes.is_empty() {
        return Err(denied(format!("its claim {} names no role that is known here", config.role_claim)));
    }
    Ok(Identity {
        name: format!("{tenant}/{user}"),
        tenant: Some(tenant),
        user: Some(user),
        scopes,
        token: None,
        by: By::Oidc,
        expires_at: Some(end),
        over: CancellationToken::new(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(config: &OidcConfig, claims: Value) -> Result<Identity> {
        identity(config, claims.as_object().unwrap(), Timestamp::from_millis(5))
    }

    #[test]
    fn claims_say_who_somebody_is() {
        let config = OidcConfig {
            role_claim: "realm.roles".into(),
            roles: [("dev-team".to_owned(), Role::Developer)].into(),
            operators: vec!["root".into()],
            ..OidcConfig::default()
        };
        let ada = of(&config, json!({"sub": "ada", "tenant": "acme", "realm": {"roles": ["dev-team", "x"]}})).unwrap();
        assert_eq!((ada.name.as_str(), ada.scopes), ("acme/ada", Role::Developer.scopes()));
        let both =
            of(&config, json!({"sub": "a|1", "tenant": "acme", "realm": {"roles": ["viewer", "invoker"]}})).unwrap();
        assert_eq!(both.scopes, Scopes::of(&[Scope::Read, Scope::Invoke]));
        let dotted = of(&config, json!({"sub": "a", "tenant": "acme", "realm.roles": "owner"})).unwrap();
        assert_eq!(dotted.scopes, Scopes::OF_TENANT);
        let root = of(&config, json!({"sub": "ada", "realm": {"roles": ["root"]}})).unwrap();
        assert!(root.is_operator() && root.tenant.is_none());
        for bad in [
            json!({"tenant": "acme", "realm": {"roles": ["owner"]}}),
            json!({"sub": "ada", "realm": {"roles": ["owner"]}}),
            json!({"sub": "ada", "tenant": "acme"}),
            json!({"sub": "ada", "tenant": "acme", "realm": {"roles": ["operator"]}}),
            json!({"sub": "ada", "tenant": "Acme!", "realm": {"roles": ["owner"]}}),
            json!({"sub": "a b", "tenant": "acme", "realm": {"roles": ["owner"]}}),
            json!({"sub": 7, "tenant": "acme", "realm": {"roles": ["owner"]}}),
        ] {
            assert_eq!(of(&config, bad.clone()).unwrap_err().code, Code::PermissionDenied, "{bad}");
        }
        let fixed = OidcConfig { tenant: "only".into(), ..OidcConfig::default() };
        let ada = of(&fixed, json!({"sub": "ada", "tenant": "acme", "roles": "viewer"})).unwrap();
        assert_eq!(ada.tenant.unwrap().as_str(), "only");
    }

    #[test]
    fn a_token_is_good_between_its_times() {
        let at = |claims: Value, seconds: i64| {
            times(claims.as_object().unwrap(), Timestamp::from_millis(seconds * 1_000), Duration::from_secs(60)).is_ok()
        };
        assert!(at(json!({"exp": 1_000}), 1_059) && !at(json!({"exp": 1_000}), 1_060));
        assert!(at(json!({"exp": 1_000, "nbf": 900}), 840) && !at(json!({"exp": 1_000, "nbf": 900}), 839));
        for bad in [
            json!({}),
            json!({"exp": "1000"}),
            json!({"exp": -1}),
            json!({"exp": 1e300}),
            json!({"exp": 1_000, "nbf": "x"}),
        ] {
            assert!(!at(bad.clone(), 0), "{bad}");
        }
    }
}
