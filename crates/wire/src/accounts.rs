//! What gateways ask the control role about tenants, users, tokens and the audit log.
//!
//! A gateway never asks on the path of a request: it follows [`Accounts::watch_grants`] and knows by itself what each token allows. What
//! the caller of these methods may do, the gateway has found out before; here nobody is asked who they are, but for
//! [`Accounts::login`] and the password of [`Accounts::set_password`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use lyra_types::api::Page;
use lyra_types::{Result, Role, Scopes, Secret, TenantName, Timestamp, TokenId, UserName};
use serde::{Deserialize, Serialize};

use crate::control::{Changed, PageQuery};

/// How often [`GrantEvent::Beat`] comes at least, so that a gateway knows how old its knowledge is.
pub const BEAT: Duration = Duration::from_millis(500);

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// Where a tenant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TenantState {
    /// Its people are let in.
    Active,
    /// Nobody is let in any more; what belongs to it is being cleared away.
    Deleting,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// Where it stands.
    pub state: TenantState,
    /// When it was made; `None` for the default tenant, which is always there, before it is written down.
    pub created_at: Option<Timestamp>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Tenant.
    pub tenant: TenantName,
    /// Name, unique in the tenant.
    pub name: UserName,
    /// What the user may do.
    pub role: Role,
    /// Whether the user can log in by password.
    pub has_password: bool,
    /// When the user was made.
    pub created_at: Timestamp,
}

/// A user to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewUser {
    /// Tenant.
    pub tenant: TenantName,
    /// Name.
    pub name: UserName,
    /// What the user may do.
    pub role: Role,
    /// By which the user logs in.
    pub password: Option<Secret>,
}

/// A user, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UserKey {
    /// Tenant.
    pub tenant: TenantName,
    /// Name.
    pub name: UserName,
}

/// A password to set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPassword {
    /// Whose.
    pub user: UserKey,
    /// The new one.
    pub password: Secret,
    /// The one that holds now, where it has to be right: users change their own. With the address that it came from.
    pub current: Option<(Secret, IpAddr)>,
}

/// A token, without what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What names it.
    pub id: TokenId,
    /// What it is for, for people.
    pub name: String,
    /// The tenant that it is good in; `None`: an operator's, good in all.
    pub tenant: Option<TenantName>,
    /// Whose it is.
    pub user: Option<UserName>,
    /// What it allows. In a [`Grant`] this is already narrowed by the user's role.
    pub scopes: Scopes,
    /// Whether it came from a login.
    pub login: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// A token to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// What it is for.
    pub name: String,
    /// The tenant that it is good in; `None`: an operator's.
    pub tenant: Option<TenantName>,
    /// Whose it is; `None`: the tenant's.
    pub user: Option<UserName>,
    /// What it allows; `None`: what the user's role does.
    pub scopes: Option<Scopes>,
    /// How long it is good for.
    pub expires_in: Option<Duration>,
}

/// A new token, and the token itself: this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// What its holder sends.
    pub secret: Secret,
    /// What is known of it.
    pub token: Token,
}

/// Which tokens to list, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenQuery {
    /// Those of this tenant; `None`: those of operators.
    pub tenant: Option<TenantName>,
    /// Only this user's.
    pub user: Option<UserName>,
    /// Which page.
    pub page: PageQuery,
}

/// Somebody who wants in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Who.
    pub user: UserKey,
    /// The password.
    pub password: Secret,
    /// Where the request came from.
    pub address: IpAddr,
}

/// What a token lets its holder do, for gateways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Of the token.
    pub hash: TokenHash,
    /// The token, with what it really allows.
    pub token: Token,
}

/// A change of what gateways let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantEvent {
    /// A token is good, or good for something else than before.
    Put(Arc<Grant>),
    /// A token is not good any more.
    Remove(TokenHash),
    /// A tenant is there.
    Tenant(TenantName, TenantState),
    /// A tenant is not there any more.
    TenantGone(TenantName),
    /// All has been told up to the revision that comes with this event.
    Synced,
    /// Nothing happened, and whoever says so knows all up to now.
    Beat,
}

/// A change, or the attempt at one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When it ended.
    pub time: Timestamp,
    /// Who.
    pub actor: String,
    /// By which token, where control keeps it.
    pub token: Option<TokenId>,
    /// Address that the request came from.
    pub address: String,
    /// In which tenant; `None`: the platform itself.
    pub tenant: Option<TenantName>,
    /// Method and route.
    pub action: String,
    /// The path.
    pub target: String,
    /// `ok`, or the error's code.
    pub outcome: String,
    /// HTTP status.
    pub status: u16,
}

/// Which entries of the audit log to show, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditQuery {
    /// Only this tenant's.
    pub tenant: Option<TenantName>,
    /// Which page.
    pub page: PageQuery,
}

/// Tenants, users, tokens, and who changed what.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// Makes a tenant.
    ///
    /// # Errors
    /// [`lyra_types::Code::Conflict`] where it exists or is being deleted.
    async fn create_tenant(&self, tenant: &TenantName) -> Result<Changed<Tenant>>;

    /// A tenant.
    async fn tenant(&self, tenant: &TenantName) -> Result<Tenant>;

    /// Tenants by name.
    async fn tenants(&self, page: PageQuery) -> Result<Page<Tenant>>;

    /// Marks a tenant as one to delete: from then on nobody is let in. Functions, applications, sessions, users and tokens go in the
    /// background. One that is being deleted already stays so.
    ///
    /// # Errors
    /// [`lyra_types::Code::Conflict`] where it has functions or applications and `force` is not set, or is the default tenant.
    async fn delete_tenant(&self, tenant: &TenantName, force: bool) -> Result<Changed<Tenant>>;

    /// Makes a user.
    ///
    /// # Errors
    /// [`lyra_types::Code::Conflict`] where there is one of that name, [`lyra_types::Code::NotFound`] where there is no such tenant.
    async fn create_user(&self, user: NewUser) -> Result<Changed<User>>;

    /// A user.
    async fn user(&self, user: &UserKey) -> Result<User>;

    /// A tenant's users by name.
    async fn users(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<User>>;

    /// Gives a user another role; tokens are narrowed by it at once.
    async fn set_role(&self, user: &UserKey, role: Role) -> Result<Changed<User>>;

    /// Gives a user another password, and ends what was logged in by the old one.
    async fn set_password(&self, password: NewPassword) -> Result<Changed<User>>;

    /// Deletes a user and revokes the user's tokens.
    async fn delete_user(&self, user: &UserKey) -> Result<Changed<()>>;

    /// Makes a token.
    async fn create_token(&self, token: NewToken) -> Result<Changed<Issued>>;

    /// A token.
    async fn token(&self, id: TokenId) -> Result<Token>;

    /// Tokens, oldest first.
    async fn tokens(&self, query: TokenQuery) -> Result<Page<Token>>;

    /// Revokes a token.
    async fn delete_token(&self, id: TokenId) -> Result<Changed<()>>;

    /// Gives a token that ends soon to who knows the password.
    ///
    /// # Errors
    /// [`lyra_types::Code::Unauthenticated`], the same whatever is wrong; [`lyra_types::Code::LimitReached`] after too many tries.
    async fn login(&self, login: Login) -> Result<Changed<Issued>>;

    /// Every grant and tenant, then [`GrantEvent::Synced`], then each change, with the store's revision.
    async fn watch_grants(&self) -> Result<BoxStream<'static, Result<(u64, GrantEvent)>>>;

    /// Writes down what was done. It is durable when this returns.
    async fn record(&self, events: Vec<AuditEvent>) -> Result<()>;

    /// What was done, newest first.
    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEvent>>;
}
