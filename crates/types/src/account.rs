//! Who may do what: roles, scopes, names of users, and secrets that never show.
//!
//! A *scope* is one thing that a token lets its holder do; a *role* is what a user may do in its tenant, as a set of scopes. What must
//! hold: an unknown scope is an error and never a smaller or larger set, and a [`Secret`] has no way into a log line.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::{Code, Error};

/// Fewest bytes of a password.
pub const MIN_PASSWORD: usize = 8;
/// Most bytes of a password.
pub const MAX_PASSWORD: usize = 1_024;
/// What each token that Lyra makes begins with.
pub const TOKEN_PREFIX: &str = "lyra_";
/// Random bytes of a token that Lyra makes; in base64url they are [`TOKEN_TEXT`] characters.
pub const TOKEN_BYTES: usize = 32;
/// Characters of a token that Lyra makes, after the prefix.
pub const TOKEN_TEXT: usize = 43;
/// Most characters of a token's name.
pub const MAX_TOKEN_NAME: usize = 100;

/// One thing that a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Functions and applications: make, change, delete.
    Deploy,
    /// Call functions, as jobs too; open sessions.
    Invoke,
    /// See functions, jobs, sessions, logs.
    Read,
    /// The tenant's users, tokens and audit log.
    Admin,
    /// Everything, in every tenant.
    Operator,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 5] = [Scope::Deploy, Scope::Invoke, Scope::Read, Scope::Admin, Scope::Operator];

    /// As it stands in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Deploy => "deploy",
            Scope::Invoke => "invoke",
            Scope::Read => "read",
            Scope::Admin => "admin",
            Scope::Operator => "operator",
        }
    }

    /// The scope of that name.
    pub fn parse(text: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == text)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Some scopes. JSON form: a list of names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// None.
    pub const NONE: Scopes = Scopes(0);
    /// All that a tenant's own people can have.
    pub const OF_TENANT: Scopes = Scopes::of(&[Scope::Deploy, Scope::Invoke, Scope::Read, Scope::Admin]);
    /// All.
    pub const ALL: Scopes = Scopes::of(&Scope::ALL);

    /// These.
    pub const fn of(scopes: &[Scope]) -> Scopes {
        let (mut bits, mut at) = (0, 0);
        while at < scopes.len() {
            bits |= scopes[at].bit();
            at += 1;
        }
        Scopes(bits)
    }

    /// Whether this one is among them.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether any of `others` is among them.
    pub const fn has_any(self, others: Scopes) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether all of `others` are among them.
    pub const fn has_all(self, others: Scopes) -> bool {
        self.0 & others.0 == others.0
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, others: Scopes) -> Scopes {
        Scopes(self.0 & others.0)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One by one.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Scopes {
        scopes.into_iter().fold(Scopes::NONE, |all, scope| Scopes(all.0 | scope.bit()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, scope) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}", scope.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scopes, D::Error> {
        Ok(Vec::<Scope>::deserialize(deserializer)?.into_iter().collect())
    }
}

impl utoipa::PartialSchema for Scopes {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        <Vec<Scope> as utoipa::PartialSchema>::schema()
    }
}

impl ToSchema for Scopes {
    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        schemas.push((Scope::name().into(), <Scope as utoipa::PartialSchema>::schema()));
    }
}

/// What a user may do in its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything in the tenant, its users and tokens too.
    Owner,
    /// Deploy, call and see.
    Developer,
    /// Call only.
    Invoker,
    /// See only.
    Viewer,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Owner, Role::Developer, Role::Invoker, Role::Viewer];

    /// As it stands in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Owner => "owner",
            Role::Developer => "developer",
            Role::Invoker => "invoker",
            Role::Viewer => "viewer",
        }
    }

    /// The role of that name.
    pub fn parse(text: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// What it allows.
    pub const fn scopes(self) -> Scopes {
        match self {
            Role::Owner => Scopes::OF_TENANT,
            Role::Developer => Scopes::of(&[Scope::Deploy, Scope::Invoke, Scope::Read]),
            Role::Invoker => Scopes::of(&[Scope::Invoke]),
            Role::Viewer => Scopes::of(&[Scope::Read]),
        }
    }
}

/// Text that must not show: a password, a token. Only who needs it looks inside.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = Password)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Holds it to the rules of passwords.
    ///
    /// # Errors
    /// [`Code::InvalidField`] where it is too short or too long.
    pub fn check_password(&self) -> Result<(), Error> {
        match self.0.len() {
            MIN_PASSWORD..=MAX_PASSWORD => Ok(()),
            _ => Err(Error::field(
                Code::InvalidField,
                "password",
                format!("must have {MIN_PASSWORD} to {MAX_PASSWORD} bytes"),
            )),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Whether a text has the form of the tokens that Lyra makes.
pub fn is_token(text: &[u8]) -> bool {
    let body = text.strip_prefix(TOKEN_PREFIX.as_bytes());
    body.is_some_and(|body| {
        body.len() == TOKEN_TEXT && body.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_a_set_with_a_list_as_json() {
        let some: Scopes = serde_json::from_str(r#"["read","deploy","read"]"#).expect("scopes");
        assert_eq!(some, Scopes::of(&[Scope::Deploy, Scope::Read]));
        assert_eq!(serde_json::to_string(&some).expect("json"), r#"["deploy","read"]"#);
        assert_eq!(some.to_string(), "deploy,read");
        assert!(serde_json::from_str::<Scopes>(r#"["everything"]"#).is_err());
        assert!(some.has(Scope::Read) && !some.has(Scope::Invoke));
        assert!(Scopes::ALL.has_all(some) && !some.has_all(Scopes::ALL) && some.has_all(Scopes::NONE));
        assert_eq!(some.and(Role::Viewer.scopes()), Scopes::of(&[Scope::Read]));
    }

    #[test]
    fn no_role_is_above_its_tenant() {
        for role in Role::ALL {
            assert!(!role.scopes().has(Scope::Operator) && Scopes::OF_TENANT.has_all(role.scopes()));
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
        }
    }

    #[test]
    fn a_secret_never_shows() {
        let secret = Secret::new("correct horse");
        assert!(!format!("{secret:?} {:?}", Some(&secret)).contains("horse"));
        assert!(secret.check_password().is_ok() && Secret::new("short").check_password().is_err());
    }
}
