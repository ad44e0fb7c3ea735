//! Who a caller is: one value, which every handler gets.

use std::sync::Arc;

use lyra_types::{Code, Error, Result, Scope, Scopes, TenantName, Timestamp, TokenId, UserName};
use tokio_util::sync::CancellationToken;

use crate::extract::DEFAULT_TENANT;

/// How a caller was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Not at all: only routes that need nothing are open.
    Nothing,
    /// It is a program of this machine, and authentication is off.
    Local,
    /// By a token of the operators' file.
    OperatorFile,
    /// By a token that control keeps.
    Token,
    /// By a token of a login.
    Login,
    /// By a token of the identity provider.
    Oidc,
}

impl By {
    /// As it stands in JSON.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            By::Nothing => "nothing",
            By::Local => "local",
            By::OperatorFile => "operator-file",
            By::Token => "token",
            By::Login => "login",
            By::Oidc => "oidc",
        }
    }
}

/// Who a caller is, and what it may do.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// As messages and the audit log have it.
    pub name: String,
    /// The tenant that it is bound to; operators are bound to none.
    pub tenant: Option<TenantName>,
    /// The user, where it is one.
    pub user: Option<UserName>,
    /// What it may do.
    pub scopes: Scopes,
    /// The token that control keeps.
    pub token: Option<TokenId>,
    /// How it was known.
    pub by: By,
    /// When that ends.
    pub expires_at: Option<Timestamp>,
    /// Cancelled when the token is revoked, or allows something else than before.
    pub over: CancellationToken,
}

impl Identity {
    /// An operator.
    pub(crate) fn operator(name: &str, by: By) -> Identity {
        let name = name.to_owned();
        Identity {
            name,
            tenant: None,
            user: None,
            scopes: Scopes::ALL,
            token: None,
            by,
            expires_at: None,
            over: CancellationToken::new(),
        }
    }

    /// Nobody.
    pub(crate) fn nobody() -> Identity {
        Identity { scopes: Scopes::NONE, ..Identity::operator("nobody", By::Nothing) }
    }

    /// Whether both are the same caller who may do the same.
    pub(crate) fn is_same(&self, other: &Identity) -> bool {
        let of = |identity: &Identity| (identity.scopes, identity.token, identity.by, identity.expires_at);
        of(self) == of(other) && (&self.name, &self.tenant, &self.user) == (&other.name, &other.tenant, &other.user)
    }

    /// Whether it may do everything.
    pub(crate) fn is_operator(&self) -> bool {
        self.scopes.has(Scope::Operator)
    }

    /// Whether it may do this.
    pub(crate) fn may(&self, scope: Scope) -> bool {
        self.is_operator() || self.scopes.has(scope)
    }

    /// The tenant that is meant where none is named.
    pub(crate) fn home(&self) -> &str {
        self.tenant.as_ref().map_or(DEFAULT_TENANT, TenantName::as_str)
    }

    /// The user on whose account a call goes, where it is one.
    pub(crate) fn account(&self) -> Option<Arc<str>> {
        self.user.as_ref().map(|user| Arc::from(user.as_str()))
    }

    /// Refuses what is about another tenant, without a word on whether there is such a one.
    ///
    /// # Errors
    /// [`Code::PermissionDenied`].
    pub(crate) fn check_tenant(&self, tenant: &str) -> Result<()> {
        let own = self.tenant.as_ref().map(TenantName::as_str);
        if self.is_operator() || own == Some(tenant) {
            return Ok(());
        }
        let detail = format!("{} may act in tenant {} only", self.name, own.unwrap_or("(none)"));
        Err(Error::new(Code::PermissionDenied, detail))
    }
}
