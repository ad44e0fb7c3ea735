//! Accounts in another process: the client that is one, and the server over one.
//!
//! A question that changes something is asked again only where it never left, or where asking twice comes to the same.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_types::api::Page;
use lyra_types::{Result, Role, TenantName, TokenId};
use tonic::service::RoutesBuilder;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::asking::{Items, Peers, Repeat, SHORT, answer, answers};
use super::messages::{
    AuditEvents, AuditPage, ChangedTenant, ChangedToken, ChangedUser, DeleteTenant, GrantChange, Nothing, OfTenant,
    OfToken, PageOf, Removed, SetRole, TenantPage, TokenPage, UserPage,
};
use super::security::{Peer, Security};
use super::services::accounts_client::AccountsClient;
use super::services::accounts_server::{Accounts as AccountsService, AccountsServer};
use crate::Accounts;
use crate::accounts::{
    AuditEvent, AuditQuery, GrantEvent, Issued, Login, NewPassword, NewToken, NewUser, Tenant, Token, TokenQuery, User,
    UserKey,
};
use crate::control::{Changed, PageQuery};

type Client = AccountsClient<Channel>;

/// Accounts that are reached over gRPC.
#[derive(Debug)]
pub struct RemoteAccounts {
    peers: Peers,
}

impl RemoteAccounts {
    /// The control processes at `addresses` (`HOST:PORT` each).
    ///
    /// # Errors
    /// When an address is none. Whether somebody is there is seen with the first question.
    pub fn new(addresses: &[String], security: &Security) -> Result<RemoteAccounts> {
        Ok(RemoteAccounts { peers: Peers::new("control", addresses, Peer::CONTROL, security)? })
    }

    async fn ask<M, T, F>(&self, repeat: Repeat, asked: M, question: impl Fn(Client, M) -> F) -> Result<T>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.peers.ask(repeat, SHORT, |channel| question(AccountsClient::new(channel), asked.clone())).await
    }
}

#[async_trait]
impl Accounts for RemoteAccounts {
    async fn create_tenant(&self, tenant: &TenantName) -> Result<Changed<Tenant>> {
        let ask = |mut client: Client, asked| async move { client.create_tenant(asked).await };
        self.ask(Repeat::Unsent, OfTenant { tenant: tenant.clone() }, ask).await
    }

    async fn tenant(&self, tenant: &TenantName) -> Result<Tenant> {
        let ask = |mut client: Client, asked| async move { client.tenant(asked).await };
        self.ask(Repeat::Always, OfTenant { tenant: tenant.clone() }, ask).await
    }

    async fn tenants(&self, page: PageQuery) -> Result<Page<Tenant>> {
        let ask = |mut client: Client, asked| async move { client.tenants(asked).await };
        self.ask(Repeat::Always, page, ask).await
    }

    async fn delete_tenant(&self, tenant: &TenantName, force: bool) -> Result<Changed<Tenant>> {
        let ask = |mut client: Client, asked| async move { client.delete_tenant(asked).await };
        self.ask(Repeat::Always, DeleteTenant { tenant: tenant.clone(), force }, ask).await
    }

    async fn create_user(&self, user: NewUser) -> Result<Changed<User>> {
        let ask = |mut client: Client, asked| async move { client.create_user(asked).await };
        self.ask(Repeat::Unsent, user, ask).await
    }

    async fn user(&self, user: &UserKey) -> Result<User> {
        let ask = |mut client: Client, asked| async move { client.user(asked).await };
        self.ask(Repeat::Always, user.clone(), ask).await
    }

    async fn users(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<User>> {
        let ask = |mut client: Client, asked| async move { client.users(asked).await };
        self.ask(Repeat::Always, PageOf { tenant: tenant.clone(), page }, ask).await
    }

    async fn set_role(&self, user: &UserKey, role: Role) -> Result<Changed<User>> {
        let ask = |mut client: Client, asked| async move { client.set_role(asked).await };
        self.ask(Repeat::Always, SetRole { user: user.clone(), role }, ask).await
    }

    async fn set_password(&self, password: NewPassword) -> Result<Changed<User>> {
        let ask = |mut client: Client, asked| async move { client.set_password(asked).await };
        self.ask(Repeat::Unsent, password, ask).await
    }

    async fn delete_user(&self, user: &UserKey) -> Result<Changed<()>> {
        let ask = |mut client: Client, asked| async move { client.delete_user(asked).await };
        self.ask(Repeat::Unsent, user.clone(), ask).await
    }

    async fn create_token(&self, token: NewToken) -> Result<Changed<Issued>> {
        let ask = |mut client: Client, asked| async move { client.create_token(asked).await };
        self.ask(Repeat::Unsent, token, ask).await
    }

    async fn token(&self, id: TokenId) -> Result<Token> {
        let ask = |mut client: Client, asked| async move { client.token(asked).await };
        self.ask(Repeat::Always, OfToken { id }, ask).await
    }

    async fn tokens(&self, query: TokenQuery) -> Result<Page<Token>> {
        let ask = |mut client: Client, asked| async move { client.tokens(asked).await };
        self.ask(Repeat::Always, query, ask).await
    }

    async fn delete_token(&self, id: TokenId) -> Result<Changed<()>> {
        let ask = |mut client: Client, asked| async move { client.delete_token(asked).await };
        self.ask(Repeat::Unsent, OfToken { id }, ask).await
    }

    async fn login(&self, login: Login) -> Result<Changed<Issued>> {
        let ask = |mut client: Client, asked| async move { client.login(asked).await };
        self.ask(Repeat::Unsent, login, ask).await
    }

    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEvent>> {
        let ask = |mut client: Client, asked| async move { client.audit(asked).await };
        self.ask(Repeat::Always, query, ask).await
    }

    async fn watch_grants(&self) -> Result<BoxStream<'static, Result<(u64, GrantEvent)>>> {
        let ask = |mut client: Client, asked| async move { client.watch_grants(asked).await };
        let items = self.ask(Repeat::Always, Nothing, ask).await?;
        Ok(self.peers.items(items).map(|item| item.map(|change| (change.revision, change.event))).boxed())
    }

    async fn record(&self, events: Vec<AuditEvent>) -> Result<()> {
        let ask = |mut client: Client, asked| async move { client.record(asked).await };
        self.ask(Repeat::Unsent, AuditEvents { events }, ask).await.map(drop)
    }
}

/// Adds the service by which others reach `accounts`.
pub fn add_accounts(routes: &mut RoutesBuilder, accounts: Arc<dyn Accounts>) {
    routes.add_service(AccountsServer::new(Served(accounts)));
}

struct Served(Arc<dyn Accounts>);

#[async_trait]
impl AccountsService for Served {
    type WatchGrantsStream = Items<GrantChange>;

    async fn create_tenant(&self, request: Request<OfTenant>) -> Result<Response<ChangedTenant>, Status> {
        let asked = request.into_inner();
        answer(self.0.create_tenant(&asked.tenant).await)
    }

    async fn tenant(&self, request: Request<OfTenant>) -> Result<Response<Tenant>, Status> {
        let asked = request.into_inner();
        answer(self.0.tenant(&asked.tenant).await)
    }

    async fn tenants(&self, request: Request<PageQuery>) -> Result<Response<TenantPage>, Status> {
        let asked = request.into_inner();
        answer(self.0.tenants(asked).await)
    }

    async fn delete_tenant(&self, request: Request<DeleteTenant>) -> Result<Response<ChangedTenant>, Status> {
        let asked = request.into_inner();
        answer(self.0.delete_tenant(&asked.tenant, asked.force).await)
    }

    async fn create_user(&self, request: Request<NewUser>) -> Result<Response<ChangedUser>, Status> {
        let asked = request.into_inner();
        answer(self.0.create_user(asked).await)
    }

    async fn user(&self, request: Request<UserKey>) -> Result<Response<User>, Status> {
        let asked = request.into_inner();
        answer(self.0.user(&asked).await)
    }

    async fn users(&self, request: Request<PageOf>) -> Result<Response<UserPage>, Status> {
        let asked = request.into_inner();
        answer(self.0.users(&asked.tenant, asked.page).await)
    }

    async fn set_role(&self, request: Request<SetRole>) -> Result<Response<ChangedUser>, Status> {
        let asked = request.into_inner();
        answer(self.0.set_role(&asked.user, asked.role).await)
    }

    async fn set_password(&self, request: Request<NewPassword>) -> Result<Response<ChangedUser>, Status> {
        let asked = request.into_inner();
        answer(self.0.set_password(asked).await)
    }

    async fn delete_user(&self, request: Request<UserKey>) -> Result<Response<Removed>, Status> {
        let asked = request.into_inner();
        answer(self.0.delete_user(&asked).await)
    }

    async fn create_token(&self, request: Request<NewToken>) -> Result<Response<ChangedToken>, Status> {
        let asked = request.into_inner();
        answer(self.0.create_token(asked).await)
    }

    async fn token(&self, request: Request<OfToken>) -> Result<Response<Token>, Status> {
        let asked = request.into_inner();
        answer(self.0.token(asked.id).await)
    }

    async fn tokens(&self, request: Request<TokenQuery>) -> Result<Response<TokenPage>, Status> {
        let asked = request.into_inner();
        answer(self.0.tokens(asked).await)
    }

    async fn delete_token(&self, request: Request<OfToken>) -> Result<Response<Removed>, Status> {
        let asked = request.into_inner();
        answer(self.0.delete_token(asked.id).await)
    }

    async fn login(&self, request: Request<Login>) -> Result<Response<ChangedToken>, Status> {
        let asked = request.into_inner();
        answer(self.0.login(asked).await)
    }

    async fn audit(&self, request: Request<AuditQuery>) -> Result<Response<AuditPage>, Status> {
        let asked = request.into_inner();
        answer(self.0.audit(asked).await)
    }

    async fn watch_grants(&self, _: Request<Nothing>) -> Result<Response<Items<GrantChange>>, Status> {
        let changes = self.0.watch_grants().await;
        let change = |(revision, event)| GrantChange { revision, event };
        answers(changes.map(|changes| changes.map(move |item| item.map(change)).boxed()))
    }

    async fn record(&self, request: Request<AuditEvents>) -> Result<Response<Nothing>, Status> {
        answer(self.0.record(request.into_inner().events).await.map(|()| Nothing))
    }
}
