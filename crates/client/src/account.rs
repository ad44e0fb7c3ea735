//! Tenants, users, tokens, logins, and the audit log.

use lyra_types::api::{
    AuditView, IssuedView, LoginRequest, PasswordRequest, TenantRequest, TenantView, TokenRequest, TokenView,
    UserChange, UserRequest, UserView, WhoAmI,
};
use lyra_types::{Role, Secret};
use reqwest::Method;

use crate::{Answer, Client, Listing, Result};

/// Which tokens to list.
#[derive(Debug, Clone, Default)]
pub struct TokenFilter {
    /// Only this user's.
    pub user: Option<String>,
    /// Those of operators.
    pub operators: bool,
}

impl Client {
    /// Tenants, by name.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn tenants(&self, limit: usize) -> Result<Listing<TenantView>> {
        self.list(self.at(&["v1", "tenants"]), &[], limit).await
    }

    /// Makes a tenant.
    ///
    /// # Errors
    /// `conflict` where it exists.
    pub async fn create_tenant(&self, name: &str) -> Result<Answer<TenantView>> {
        let request = self.request(Method::POST, self.at(&["v1", "tenants"]));
        self.fetch(request.json(&TenantRequest { name: name.to_owned() })).await
    }

    /// A tenant.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn get_tenant(&self, name: &str) -> Result<Answer<TenantView>> {
        self.fetch(self.request(Method::GET, self.at(&["v1", "tenants", name]))).await
    }

    /// Deletes a tenant; false: it is being deleted still.
    ///
    /// # Errors
    /// `not_found`; `conflict` while it has something, unless forced.
    pub async fn delete_tenant(&self, name: &str, force: bool) -> Result<bool> {
        let request = self.request(Method::DELETE, self.at(&["v1", "tenants", name]));
        let whole = self.send(request.query(&[("force", force)])).await?;
        Ok(whole.status == http::StatusCode::NO_CONTENT)
    }

    /// A tenant's users, by name.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn users(&self, limit: usize) -> Result<Listing<UserView>> {
        self.list(self.at(&["v1", "tenants", self.tenant.as_str(), "users"]), &[], limit).await
    }

    /// Makes a user.
    ///
    /// # Errors
    /// `conflict` where there is one of that name.
    pub async fn create_user(&self, user: &UserRequest) -> Result<Answer<UserView>> {
        let request = self.request(Method::POST, self.at(&["v1", "tenants", self.tenant.as_str(), "users"]));
        self.fetch(request.json(user)).await
    }

    /// A user.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn get_user(&self, name: &str) -> Result<Answer<UserView>> {
        self.fetch(self.request(Method::GET, self.at(&["v1", "tenants", self.tenant.as_str(), "users", name]))).await
    }

    /// Gives a user another role.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn set_role(&self, name: &str, role: Role) -> Result<Answer<UserView>> {
        let request = self.request(Method::PATCH, self.at(&["v1", "tenants", self.tenant.as_str(), "users", name]));
        self.fetch(request.json(&UserChange { role })).await
    }

    /// Sets a user's password; `current` is needed for one's own.
    ///
    /// # Errors
    /// `not_found`, `unauthenticated` where `current` is wrong.
    pub async fn set_password(&self, name: &str, password: Secret, current: Option<Secret>) -> Result<()> {
        let url = self.at(&["v1", "tenants", self.tenant.as_str(), "users", name, "password"]);
        self.send(self.request(Method::PUT, url).json(&PasswordRequest { password, current })).await.map(drop)
    }

    /// Deletes a user and revokes the user's tokens.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete_user(&self, name: &str) -> Result<()> {
        let url = self.at(&["v1", "tenants", self.tenant.as_str(), "users", name]);
        self.send(self.request(Method::DELETE, url)).await.map(drop)
    }

    /// Tokens, oldest first.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn tokens(&self, filter: TokenFilter, limit: usize) -> Result<Listing<TokenView>> {
        let mut query = Vec::new();
        query.extend(filter.user.map(|user| ("user", user)));
        query.extend(filter.operators.then(|| ("operator", "true".to_owned())));
        self.list(self.at(&["v1", "tokens"]), &query, limit).await
    }

    /// Makes a token. The answer is the only place where it shows.
    ///
    /// # Errors
    /// `permission_denied` where the caller may not give so much.
    pub async fn create_token(&self, token: &TokenRequest) -> Result<Answer<IssuedView>> {
        self.fetch(self.request(Method::POST, self.at(&["v1", "tokens"])).json(token)).await
    }

    /// A token, without what it is.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn get_token(&self, id: &str) -> Result<Answer<TokenView>> {
        self.fetch(self.request(Method::GET, self.at(&["v1", "tokens", id]))).await
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete_token(&self, id: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, self.at(&["v1", "tokens", id]))).await.map(drop)
    }

    /// Logs in by password.
    ///
    /// # Errors
    /// `unauthenticated`; `limit_reached` after too many wrong passwords.
    pub async fn login(&self, user: &str, password: Secret) -> Result<Answer<IssuedView>> {
        let (tenant, user) = (Some(self.tenant.to_string()), user.to_owned());
        let request = self.request(Method::POST, self.at(&["v1", "login"]));
        self.fetch(request.json(&LoginRequest { tenant, user, password })).await
    }

    /// Who the caller is.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn whoami(&self) -> Result<Answer<WhoAmI>> {
        self.fetch(self.request(Method::GET, self.at(&["v1", "whoami"]))).await
    }

    /// The audit log, newest first.
    ///
    /// # Errors
    /// Those of every request.
    pub async fn audit(&self, limit: usize) -> Result<Listing<AuditView>> {
        self.list(self.at(&["v1", "audit"]), &[], limit).await
    }
}
