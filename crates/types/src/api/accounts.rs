//! Bodies about tenants, users, tokens and the audit log.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Role, Scopes, Secret, Timestamp};

/// Body of `POST /v1/tenants`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantRequest {
    /// 1 to 63 lower-case letters, digits and `-`.
    pub name: String,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantView {
    /// Its name.
    pub name: String,
    /// `active`, or `deleting`: nobody is let in any more, and what belongs to it is being cleared away.
    pub state: String,
    /// When it was made; none for `default` until it has users or tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// Body of `POST /v1/tenants/{tenant}/users`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserRequest {
    /// 1 to 128 letters, digits and `. _ - @ + | :`.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// By which the user logs in: 8 to 1024 bytes. Without, only tokens that somebody else makes let the user in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

/// Body of `PATCH /v1/tenants/{tenant}/users/{user}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// What the user may do from now on; tokens of the user are narrowed by it at once.
    pub role: Role,
}

/// Body of `PUT /v1/tenants/{tenant}/users/{user}/password`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordRequest {
    /// The new one: 8 to 1024 bytes.
    pub password: Secret,
    /// The one that holds now, where users change their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Secret>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserView {
    /// Name, unique in the tenant.
    pub name: String,
    /// Tenant.
    pub tenant: String,
    /// What the user may do.
    pub role: Role,
    /// Whether the user can log in by password.
    pub has_password: bool,
    /// When the user was made.
    pub created_at: Timestamp,
}

/// Body of `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What it is for, for people: 1 to 100 characters.
    pub name: String,
    /// What it allows. Default: all that the user's role does; without a user they must be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Scopes>,
    /// Whose it is. Default: the caller's own, where the caller is a user; an empty text: nobody's but the tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How long it is good for, in seconds, at least 1; `null`: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
}

/// A token. The token itself is never shown again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// What names it.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// The tenant that it is good in; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it allows; narrowed by the user's role.
    pub scopes: Scopes,
    /// Whether it came from a login.
    pub login: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A new token, with the token itself: this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuedView {
    /// What to send as `Authorization: Bearer …`.
    pub token: Secret,
    /// What is known of it later.
    #[serde(flatten)]
    pub about: TokenView,
}

/// Body of `POST /v1/login`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// Default: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// User.
    pub user: String,
    /// Password.
    pub password: Secret,
}

/// Who the caller is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    /// As messages and the audit log have it.
    pub name: String,
    /// The tenant that the caller is bound to; none: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The user, where the caller is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What the caller may do.
    pub scopes: Scopes,
    /// The token's id, where the server keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// How the caller was known: `token`, `login`, `oidc`, `operator-file`, or `local` where authentication is off.
    pub by: String,
    /// When that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A change, or the attempt at one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// When it ended.
    pub time: Timestamp,
    /// Who, as messages have it.
    pub actor: String,
    /// The token's id, where the server keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Address that the request came from.
    pub address: String,
    /// In which tenant; none: the platform itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Method and route.
    pub action: String,
    /// The path.
    pub target: String,
    /// `ok`, or the error's code.
    pub outcome: String,
    /// HTTP status.
    pub status: u16,
}
