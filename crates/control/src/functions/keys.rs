//! Keys of the registry in the store (the layout stands in the module above).

use lyra_types::{AliasName, FunctionName, TenantName};

/// What all keys of the registry start with.
pub(super) const ALL: &str = "functions/";

/// What all keys of a function start with.
pub(super) fn function(tenant: &TenantName, function: &FunctionName) -> String {
    format!("{ALL}{tenant}/{function}/")
}

pub(super) fn meta(tenant: &TenantName, name: &FunctionName) -> String {
    function(tenant, name) + "meta"
}

pub(super) fn version(tenant: &TenantName, name: &FunctionName, version: u64) -> String {
    format!("{ALL}{tenant}/{name}/versions/{version:010}")
}

pub(super) fn alias(tenant: &TenantName, name: &FunctionName, alias: &AliasName) -> String {
    format!("{ALL}{tenant}/{name}/aliases/{alias}")
}

/// What an object of a function is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Meta,
    Version,
    Alias(&'a str),
}

/// Takes a key apart; `None` for one that is not of this layout.
pub(super) fn parse(key: &str) -> Option<(TenantName, FunctionName, Part<'_>)> {
    let mut parts = key.strip_prefix(ALL)?.splitn(3, '/');
    let tenant = TenantName::new(parts.next()?).ok()?;
    let function = FunctionName::new(parts.next()?).ok()?;
    let part = match parts.next()?.split_once('/') {
        None => Part::Meta,
        Some(("versions", _)) => Part::Version,
        Some(("aliases", alias)) => Part::Alias(alias),
        Some(_) => return None,
    };
    Some((tenant, function, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart_as_they_were_put_together() {
        let (tenant, name) = (TenantName::default_tenant(), FunctionName::new("f").unwrap());
        let of = |part| Some((tenant.clone(), name.clone(), part));
        assert_eq!(parse(&meta(&tenant, &name)), of(Part::Meta));
        assert_eq!(parse(&version(&tenant, &name, 7)), of(Part::Version));
        assert_eq!(parse(&alias(&tenant, &name, &AliasName::live())), of(Part::Alias("live")));
        assert!(version(&tenant, &name, 9) < version(&tenant, &name, 10));
        for bad in ["", "functions/", "functions/a/b", "functions/A/b/meta", "functions/a/b/x/y", "other/a/b/meta"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
