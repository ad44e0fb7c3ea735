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
    /// All of these scopes, in the tenant that the request is about.
    All(Scopes),
}

impl Needs {
    pub(crate) const READ: Needs = Needs::Any(Scopes::of(&[Scope::Read]));
    pub(crate) const INVOKE: Needs = Needs::Any(Scopes::of(&[Scope::Invoke]));
    pub(crate) const DEPLOY: Needs = Needs::Any(Scopes::of(&[Scope::Deploy]));
    pub(crate) const ADMIN: Needs = Needs::Any(Scopes::of(&[Scope::Admin]));
    /// Whoever submits a job can follow it.
    pub(crate) const READ_OR_INVOKE: Needs = Needs::Any(Scopes::of(&[Scope::Read, Scope::Invoke]));
    /// What comes with a definition of its own and runs it at once.
    pub(crate) const DEPLOY_AND_INVOKE: Needs = Needs::All(Scopes::of(&[Scope::Deploy, Scope::Invoke]));
    /// What is no tenant's but the platform's.
    pub(crate) const OPERATOR: Needs = Needs::Any(Scopes::of(&[Scope::Operator]));

    /// Sets of scopes, any of which is enough; `None`: none is needed.
    pub(crate) fn scopes(self) -> Option<Vec<Scopes>> {
        match self {
            Needs::Nothing | Needs::Somebody => None,
            Needs::Any(scopes) => Some(scopes.iter().map(|scope| Scopes::of(&[scope])).collect()),
            Needs::All(scopes) => Some(vec![scopes]),
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
        let has = identity.scopes;
        let needed = match self {
            Needs::Nothing | Needs::Somebody => return Ok(()),
            Needs::Any(_) | Needs::All(_) if identity.is_operator() => return Ok(()),
            Needs::Any(scopes) if has.has_any(scopes) => return Ok(()),
            Needs::All(scopes) if has.has_all(scopes) => return Ok(()),
            Needs::Any(scopes) => format!("scope {}", scopes.to_string().replace(',', " or ")),
            Needs::All(scopes) => format!("scopes {}", scopes.to_string().replace(',', " and ")),
        };
        Err(Error::new(Code::PermissionDenied, format!("this needs the {needed}; {} has {has}", identity.name)))
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
        let both = Needs::DEPLOY_AND_INVOKE;
        assert_eq!(code(both, &with(&[Scope::Deploy, Scope::Invoke])), Ok(()));
        assert_eq!(code(both, &with(&[Scope::Operator])), Ok(()));
        let said = both.check(&with(&[Scope::Invoke])).unwrap_err().detail;
        assert_eq!(said, "this needs the scopes deploy and invoke; acme/ada has invoke");
        assert!(with(&[]).check_tenant("acme").is_ok() && with(&[]).check_tenant("other").is_err());
        assert!(with(&[Scope::Operator]).check_tenant("other").is_ok());
    }
}
