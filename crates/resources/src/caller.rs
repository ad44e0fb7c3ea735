//! Who asks. Somebody else has found out; here it is only what they may do.

use std::collections::BTreeSet;

use lyra_types::{Scope, Scopes, TenantName};

use crate::Status;

/// Whoever sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name, for messages and `kubectl auth whoami`.
    pub name: String,
    /// Where it may act.
    pub access: Access,
    /// What it may do there.
    pub scopes: Scopes,
}

/// Where a caller may act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// In every tenant, and where there is none.
    Operator,
    /// In these tenants, and nowhere else.
    Tenants(BTreeSet<TenantName>),
}

impl Caller {
    /// Who may do everything.
    pub fn operator(name: impl Into<String>) -> Caller {
        Caller { name: name.into(), access: Access::Operator, scopes: Scopes::ALL }
    }

    /// Who may do everything in these tenants.
    pub fn of_tenants(name: impl Into<String>, tenants: impl IntoIterator<Item = TenantName>) -> Caller {
        let access = Access::Tenants(tenants.into_iter().collect());
        Caller { name: name.into(), access, scopes: Scopes::OF_TENANT }
    }

    /// The same, allowed no more than `scopes`. Operators may do everything.
    #[must_use]
    pub fn with_scopes(self, scopes: Scopes) -> Caller {
        match self.access {
            Access::Operator => self,
            Access::Tenants(_) => Caller { scopes, ..self },
        }
    }

    /// Whether the caller may act in that namespace; in all of them, where it is `None`.
    pub fn may(&self, namespace: Option<&str>) -> bool {
        match (&self.access, namespace) {
            (Access::Operator, _) => true,
            (Access::Tenants(tenants), Some(namespace)) => tenants.contains(namespace),
            (Access::Tenants(_), None) => false,
        }
    }

    /// Whether the caller may do that, with objects of that resource or their status, in that namespace. `*` is every verb.
    pub(crate) fn may_do(&self, verb: &str, resource: &str, namespace: Option<&str>) -> bool {
        let any = |scopes: &[Scope]| self.scopes.has(Scope::Operator) || self.scopes.has_any(Scopes::of(scopes));
        let reads = || match resource.split('/').next() {
            // Whoever opens a session has to see where it is.
            Some("applicationsessions") => any(&[Scope::Read, Scope::Invoke]),
            _ => any(&[Scope::Read]),
        };
        let writes = || match resource {
            // To open a session is to call its application.
            "applicationsessions" => any(&[Scope::Deploy, Scope::Invoke]),
            _ => any(&[Scope::Deploy]),
        };
        self.may(namespace)
            && match (verb, resource) {
                (_, "namespaces") => true,
                ("get" | "list" | "watch", _) => reads(),
                ("*", _) => reads() && writes(),
                _ => writes(),
            }
    }

    /// Refuses as Kubernetes does.
    ///
    /// # Errors
    /// 403 where [`Caller::may_do`] says no.
    pub(crate) fn check(
        &self,
        verb: &str,
        resource: &str,
        group: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<(), Status> {
        if self.may_do(verb, resource, namespace) {
            return Ok(());
        }
        let at = match namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        let dotted = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let object = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        let mut status = Status::forbidden(format!(
            "{dotted}{object} is forbidden: User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {at}",
            self.name
        ));
        status.details.name = name.to_owned();
        status.details.group = group.to_owned();
        status.details.kind = resource.to_owned();
        Err(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_say_which_verbs_a_caller_has() {
        let tenant = TenantName::new("game1").unwrap();
        let with = |scopes: &[Scope]| Caller::of_tenants("ada", [tenant.clone()]).with_scopes(Scopes::of(scopes));
        let may = |caller: &Caller, verb: &str, resource: &str| caller.may_do(verb, resource, Some("game1"));
        let (apps, sessions) = ("applications", "applicationsessions");
        // Reads and writes of applications, then of sessions.
        for (scopes, expected) in [
            (&[Scope::Read][..], [true, false, true, false]),
            (&[Scope::Invoke], [false, false, true, true]),
            (&[Scope::Deploy], [false, true, false, true]),
            (&[Scope::Admin], [false, false, false, false]),
            (&[Scope::Deploy, Scope::Read], [true, true, true, true]),
        ] {
            let caller = with(scopes);
            for read in ["get", "list", "watch"] {
                assert_eq!(
                    (may(&caller, read, apps), may(&caller, read, sessions)),
                    (expected[0], expected[2]),
                    "{scopes:?}"
                );
            }
            for write in ["create", "update", "patch", "delete", "deletecollection"] {
                assert_eq!(
                    (may(&caller, write, apps), may(&caller, write, sessions)),
                    (expected[1], expected[3]),
                    "{scopes:?}"
                );
            }
            assert_eq!(may(&caller, "*", apps), expected[0] && expected[1]);
            assert!(!caller.may_do("get", apps, Some("game2")) && !caller.may_do("list", apps, None));
            assert!(may(&caller, "get", "namespaces"));
        }
        assert!(
            !may(&with(&[Scope::Invoke]), "update", "applicationsessions/status"),
            "only who deploys writes a status"
        );
        let operator = Caller::operator("root").with_scopes(Scopes::NONE);
        assert!(operator.may_do("*", apps, None));
    }
}
