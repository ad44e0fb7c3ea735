//! Keys of accounts and of the audit log in the store (the layout stands in the module above).

use lyra_types::{TenantName, Timestamp, TokenId, UserName};

/// What all keys of accounts start with.
pub(super) const ALL: &str = "accounts/";
/// What the keys of all entries of the audit log start with.
pub(super) const AUDIT: &str = "audit/all/";
/// What the keys of entries by tenant start with.
pub(super) const AUDIT_OF: &str = "audit/of/";

pub(super) fn tenant(tenant: &TenantName) -> String {
    format!("{ALL}tenants/{tenant}")
}

/// What the keys of a tenant's users start with.
pub(super) fn users(tenant: &TenantName) -> String {
    format!("{ALL}users/{tenant}/")
}

pub(super) fn user(tenant: &TenantName, user: &UserName) -> String {
    format!("{ALL}users/{tenant}/{user}")
}

pub(super) fn token(id: TokenId) -> String {
    format!("{ALL}tokens/{id}")
}

/// What the keys of a tenant's entries of the audit log start with.
pub(super) fn audit_of(tenant: &TenantName) -> String {
    format!("{AUDIT_OF}{tenant}/")
}

/// The end of the key of an entry: the later, the smaller. `tie` tells entries of the same millisecond apart.
pub(super) fn audit_suffix(time: Timestamp, tie: u64) -> String {
    format!("{:016x}{tie:016x}", u64::MAX - u64::try_from(time.millis()).unwrap_or(0))
}

/// What an object of accounts is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Tenant(TenantName),
    User(TenantName, UserName),
    Token(TokenId),
}

/// Takes a key apart; `None` for one that is not of this layout.
pub(super) fn parse(key: &str) -> Option<Part> {
    let (kind, rest) = key.strip_prefix(ALL)?.split_once('/')?;
    match (kind, rest.split_once('/')) {
        ("tenants", None) => Some(Part::Tenant(TenantName::new(rest).ok()?)),
        ("users", Some((tenant, user))) => Some(Part::User(TenantName::new(tenant).ok()?, UserName::new(user).ok()?)),
        ("tokens", None) => Some(Part::Token(rest.parse().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart_as_they_were_put_together() {
        let (t, u, id) =
            (TenantName::new("acme").unwrap(), UserName::new("Ada@example.org").unwrap(), TokenId::from_parts(7, 7));
        assert_eq!(parse(&tenant(&t)), Some(Part::Tenant(t.clone())));
        assert_eq!(parse(&user(&t, &u)), Some(Part::User(t.clone(), u.clone())));
        assert_eq!(parse(&token(id)), Some(Part::Token(id)));
        assert!(user(&t, &u).starts_with(&users(&t)));
        for bad in ["", "accounts/", "accounts/tenants/A", "accounts/users/a", "accounts/tokens/x", "other/tenants/a"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn later_entries_come_first() {
        let at = |millis| audit_suffix(Timestamp::from_millis(millis), 5);
        assert!(at(2_000) < at(1_000) && at(1_000).len() == 32);
    }
}
