//! Who asks. Somebody else has found out; here it is only what they may do.

use std::collections::BTreeSet;

use lyra_types::TenantName;

use crate::Status;

/// Whoever sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name, for messages and `kubectl auth whoami`.
    pub name: String,
    /// What it may do.
    pub access: Access,
}

/// What a caller may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Everything, in every tenant.
    Operator,
    /// Everything in these tenants, nothing elsewhere.
    Tenants(BTreeSet<TenantName>),
}

impl Caller {
    /// Who may do everything.
    pub fn operator(name: impl Into<String>) -> Caller {
        Caller { name: name.into(), access: Access::Operator }
    }

    /// Who may do everything in these tenants.
    pub fn of_tenants(name: impl Into<String>, tenants: impl IntoIterator<Item = TenantName>) -> Caller {
        Caller { name: name.into(), access: Access::Tenants(tenants.into_iter().collect()) }
    }

    /// Whether the caller may act in that namespace; in all of them, where it is `None`.
    pub fn may(&self, namespace: Option<&str>) -> bool {
        match (&self.access, namespace) {
            (Access::Operator, _) => true,
            (Access::Tenants(tenants), Some(namespace)) => tenants.contains(namespace),
            (Access::Tenants(_), None) => false,
        }
    }

    /// Refuses as Kubernetes does.
    ///
    /// # Errors
    /// 403 where [`Caller::may`] says no.
    pub(crate) fn check(
        &self,
        verb: &str,
        resource: &str,
        group: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<(), Status> {
        if self.may(namespace) {
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
