//! Names that users give: DNS labels (RFC 1123), so that they fit in host names, paths and
//! Kubernetes objects without quoting.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Code, Error};

/// Longest name, in bytes.
pub const MAX_LEN: usize = 63;

fn check(kind: &str, text: &str) -> Result<(), Error> {
    let fault = if text.is_empty() {
        "is empty"
    } else if text.len() > MAX_LEN {
        "is longer than 63 characters"
    } else if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        "may hold only lower-case letters, digits and '-'"
    } else if text.starts_with('-') || text.ends_with('-') {
        "must start and end with a letter or a digit"
    } else {
        return Ok(());
    };
    let shown: String = text.chars().take(80).collect();
    Err(Error::field(Code::InvalidName, "name", format!("the {kind} name \"{}\" {fault}", shown.escape_debug())))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $extra:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks the naming rule.
            ///
            /// # Errors
            /// [`Code::InvalidName`] with the rule that is broken.
            pub fn new(text: &str) -> Result<$type, Error> {
                check($kind, text)?;
                let extra: fn(&str) -> Result<(), Error> = $extra;
                extra(text)?;
                Ok($type(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $type {
            type Err = Error;
            fn from_str(text: &str) -> Result<$type, Error> {
                $type::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;
            fn try_from(text: String) -> Result<$type, Error> {
                $type::new(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// Name of a tenant; a Kubernetes namespace.
    TenantName,
    "tenant",
    |_| Ok(())
);
name!(
    /// Name of a secret, unique in its tenant.
    SecretName,
    "secret",
    |_| Ok(())
);
name!(
    /// Name of a function, unique in its tenant.
    FunctionName,
    "function",
    |_| Ok(())
);
name!(
    /// Name of a workflow, unique in its tenant.
    WorkflowName,
    "workflow",
    |_| Ok(())
);
name!(
    /// Name of a schedule, unique in its tenant.
    ScheduleName,
    "schedule",
    |_| Ok(())
);
name!(
    /// Name of a trigger, unique in its tenant.
    TriggerName,
    "trigger",
    |_| Ok(())
);
name!(
    /// Name of an alias of a function. Holds at least one letter, so that it can't be taken for a version number.
    AliasName,
    "alias",
    |text| {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::field(Code::InvalidName, "alias", format!("the alias name \"{text}\" looks like a version number; add a letter")));
        }
        Ok(())
    }
);

/// Longest name of a user, in bytes.
pub const MAX_USER_LEN: usize = 128;

/// Name of a user, unique in its tenant: letters, digits and `. _ - @ + | :`, so that an address of mail or the subject of an identity provider can be one. Letters are told
/// apart by case, as identity providers do.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(Arc<str>);

impl UserName {
    /// Checks the naming rule.
    ///
    /// # Errors
    /// [`Code::InvalidName`] with the rule that is broken.
    pub fn new(text: &str) -> Result<UserName, Error> {
        let fault = if text.is_empty() {
            "is empty"
        } else if text.len() > MAX_USER_LEN {
            "is longer than 128 characters"
        } else if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@+|:".contains(&b)) {
            "may hold only letters, digits and . _ - @ + | :"
        } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            "must start with a letter or a digit"
        } else {
            return Ok(UserName(text.into()));
        };
        let shown: String = text.chars().take(80).collect();
        Err(Error::field(Code::InvalidName, "name", format!("the user name \"{}\" {fault}", shown.escape_debug())))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for UserName {
    type Err = Error;
    fn from_str(text: &str) -> Result<UserName, Error> {
        UserName::new(text)
    }
}

impl TryFrom<String> for UserName {
    type Error = Error;
    fn try_from(text: String) -> Result<UserName, Error> {
        UserName::new(&text)
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl TenantName {
    /// The tenant of whoever names none.
    pub fn default_tenant() -> TenantName {
        TenantName("default".into())
    }
}

impl AliasName {
    /// The alias that calls go to when they name neither version nor alias.
    pub fn live() -> AliasName {
        AliasName("live".into())
    }
}

/// What a call asks for: `name`, `name@3` or `name@alias`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Qualifier {
    /// The alias `live`.
    #[default]
    Live,
    /// A version by number.
    Version(u64),
    /// An alias by name.
    Alias(AliasName),
}

impl Qualifier {
    /// Reads what stands after the `@`.
    ///
    /// # Errors
    /// [`Code::InvalidName`] when it is neither a number from 1 nor an alias name.
    pub fn parse(text: &str) -> Result<Qualifier, Error> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return match text.parse::<u64>() {
                Ok(version) if version > 0 => Ok(Qualifier::Version(version)),
                _ => Err(Error::field(
                    Code::InvalidName,
                    "version",
                    format!("\"{text}\" is not a version number: they count from 1"),
                )),
            };
        }
        Ok(match AliasName::new(text)? {
            alias if alias.as_str() == "live" => Qualifier::Live,
            alias => Qualifier::Alias(alias),
        })
    }

    /// Splits `name[@qualifier]`.
    ///
    /// # Errors
    /// [`Code::InvalidName`] for either part.
    pub fn split(text: &str) -> Result<(FunctionName, Qualifier), Error> {
        match text.split_once('@') {
            Some((name, qualifier)) => Ok((FunctionName::new(name)?, Qualifier::parse(qualifier)?)),
            None => Ok((FunctionName::new(text)?, Qualifier::Live)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_dns_labels_and_nothing_else() {
        for good in ["a", "hello", "a-1", "0a", &"x".repeat(63)] {
            assert!(FunctionName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "é", "a b", "../x", &"x".repeat(64)] {
            let error = FunctionName::new(bad).expect_err(bad);
            assert_eq!(error.code, Code::InvalidName);
        }
    }

    #[test]
    fn names_of_users_follow_their_rule() {
        for good in ["ada", "Ada.Lovelace@example.org", "a_b+c-1", "0", &"x".repeat(128)] {
            assert!(UserName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "@a", "a b", "a/b", "é", "a\n", &"x".repeat(129)] {
            assert_eq!(UserName::new(bad).expect_err(bad).code, Code::InvalidName);
        }
    }

    #[test]
    fn qualifiers_tell_versions_from_aliases() {
        assert_eq!(Qualifier::parse("3"), Ok(Qualifier::Version(3)));
        assert_eq!(Qualifier::parse("live"), Ok(Qualifier::Live));
        assert!(matches!(Qualifier::parse("beta"), Ok(Qualifier::Alias(_))));
        assert!(Qualifier::parse("0").is_err());
        assert!(Qualifier::parse("99999999999999999999999").is_err());
        assert!(Qualifier::parse("").is_err());
        assert!(AliasName::new("12").is_err());
    }
}
