//! The accounts of the control role as other roles ask for them.

use async_trait::async_trait;
use futures::stream::BoxStream;
use lyra_types::api::Page;
use lyra_types::{Result, Role, TenantName, TokenId};
use lyra_wire::accounts::{
    AuditEvent, AuditQuery, GrantEvent, Issued, Login, NewPassword, NewToken, NewUser, Tenant, Token, TokenQuery, User,
    UserKey,
};
use lyra_wire::control::{Changed, PageQuery};

use crate::Service;

#[async_trait]
impl lyra_wire::Accounts for Service {
    async fn create_tenant(&self, tenant: &TenantName) -> Result<Changed<Tenant>> {
        self.accounts().create_tenant(tenant).await
    }

    async fn tenant(&self, tenant: &TenantName) -> Result<Tenant> {
        self.accounts().tenant(tenant)
    }

    async fn tenants(&self, page: PageQuery) -> Result<Page<Tenant>> {
        self.accounts().tenants(&page)
    }

    async fn delete_tenant(&self, tenant: &TenantName, force: bool) -> Result<Changed<Tenant>> {
        self.accounts().delete_tenant(tenant, force).await
    }

    async fn create_user(&self, user: NewUser) -> Result<Changed<User>> {
        self.accounts().create_user(user).await
    }

    async fn user(&self, user: &UserKey) -> Result<User> {
        self.accounts().user(user)
    }

    async fn users(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<User>> {
        self.accounts().users(tenant, &page)
    }

    async fn set_role(&self, user: &UserKey, role: Role) -> Result<Changed<User>> {
        self.accounts().set_role(user, role).await
    }

    async fn set_password(&self, password: NewPassword) -> Result<Changed<User>> {
        self.accounts().set_password(password).await
    }

    async fn delete_user(&self, user: &UserKey) -> Result<Changed<()>> {
        self.accounts().delete_user(user).await
    }

    async fn create_token(&self, token: NewToken) -> Result<Changed<Issued>> {
        self.accounts().create_token(token).await
    }

    async fn token(&self, id: TokenId) -> Result<Token> {
        self.accounts().token(id)
    }

    async fn tokens(&self, query: TokenQuery) -> Result<Page<Token>> {
        self.accounts().tokens(&query)
    }

    async fn delete_token(&self, id: TokenId) -> Result<Changed<()>> {
        self.accounts().delete_token(id).await
    }

    async fn login(&self, login: Login) -> Result<Changed<Issued>> {
        self.accounts().login(login).await
    }

    async fn watch_grants(&self) -> Result<BoxStream<'static, Result<(u64, GrantEvent)>>> {
        Ok(self.accounts().watch())
    }

    async fn record(&self, events: Vec<AuditEvent>) -> Result<()> {
        self.accounts().record(events).await
    }

    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEvent>> {
        self.accounts().audit(&query).await
    }
}
