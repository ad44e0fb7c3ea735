//! What a route needs of its caller: a column of the table of routes.

use lyra_types::{Code, Error, Result, Scope, Scopes};

use super::{By, Identity};

/// What a route needs of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: anybody may ask. Each such path is also in [`crate::auth`]'s list of open ones, which a test insists on.
    Nothing,
    /// To be somebody; what they see is their own, which the handler looks after.
    Somebody,
    /// Any one of these scopes, in the tenant that the request is about.
    Any(Scopes),
}

impl Needs {
    pub(crate) const READ: Needs = Needs::Any(Scopes::of(&[Scope::Read]));
    pub(crate) const INVOKE: Needs = Needs::Any(Scopes::of(&[Scope::Invoke]));
    pub(crate) const DEPLOY: Needs = Needs::Any(Scopes::of(&[Scope::Deploy]));
    pub(crate) const ADMIN: Needs = Needs::Any(Scopes::of(&[Scope::Admin]));
    /// Whoever submits a job can follow it.
    pub(crate) const READ_OR_INVOKE: Needs = Needs::Any(Scopes::of(&[Scope::Read, Scope::Invoke]));
    /// What is no tenant's but the platform's.
    pub(crate) const OPERATOR: Needs = Needs::Any(Scopes::of(&[Scope::Operator]));

    /// The scopes, any of which is enough; `None`: none is needed.
    pub(crate) fn scopes(self) -> Option<Scopes> {
        match self {
            Needs::Nothing | Needs::Somebody => None,
            Needs::Any(scopes) => Some(scopes),
        }
    }

    /// Lets a caller through or says what is missing.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] where it is nobody, [`Code::PermissionDenied`] where it has none of the scopes.
    pub(crate) fn check(self, identity: &Identity) -> Result<()> {
        if self != Needs::Nothing && identity.by == By::Nothing {
            return Err(Error::new(Code::Unauthenticated, "send a token: Authorization: Bearer TOKEN"));
        }
        match self {
            Needs::Nothing | Needs::Somebody => Ok(()),
            Needs::Any(scopes) if identity.is_operator() || identity.scopes.has_any(scopes) => Ok(()),
            Needs::Any(scopes) => {
                let needed = scopes.to_string().replace(',', " or ");
                let has = identity.scopes;
                let detail = format!("this needs the scope {needed}; {} has {has}", identity.name);
                Err(Error::new(Code::PermissionDenied, detail))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_opens_what_needs_it_and_nobody_gets_what_needs_somebody() {
        let with = |scopes: &[Scope]| Identity {
            scopes: Scopes::of(scopes),
            tenant: Some("acme".parse().unwrap()),
            ..Identity::operator("acme/ada", By::Token)
        };
        let code = |needs: Needs, identity: &Identity| needs.check(identity).map_err(|error| error.code);
        assert_eq!(code(Needs::READ, &with(&[Scope::Read])), Ok(()));
        assert_eq!(code(Needs::READ, &with(&[Scope::Deploy, Scope::Admin])), Err(Code::PermissionDenied));
        assert_eq!(code(Needs::READ_OR_INVOKE, &with(&[Scope::Invoke])), Ok(()));
        assert_eq!(code(Needs::OPERATOR, &with(&Scope::ALL[..4])), Err(Code::PermissionDenied));
        assert_eq!(code(Needs::ADMIN, &with(&[Scope::Operator])), Ok(()));
        let nobody = Identity::nobody();
        assert_eq!(code(Needs::Somebody, &nobody), Err(Code::Unauthenticated));
        assert_eq!(code(Needs::READ, &nobody), Err(Code::Unauthenticated));
        assert_eq!(code(Needs::Nothing, &nobody), Ok(()));
        let said = Needs::READ_OR_INVOKE.check(&with(&[Scope::Deploy])).unwrap_err().detail;
        assert_eq!(said, "this needs the scope invoke or read; acme/ada has deploy");
        assert!(with(&[]).check_tenant("acme").is_ok() && with(&[]).check_tenant("other").is_err());
        assert!(with(&[Scope::Operator]).check_tenant("other").is_ok());
    }
}
