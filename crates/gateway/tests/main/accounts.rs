//! Scripted accounts: tokens, tenants, and what was written down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_types::account::TOKEN_PREFIX;
use lyra_types::api::Page;
use lyra_types::{Code, Error, Result, Role, Scope, Scopes, Secret, TenantName, Timestamp, TokenId};
use lyra_wire::Accounts;
use lyra_wire::accounts::*;
use lyra_wire::control::{Changed, PageQuery};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

type Event = Result<(u64, GrantEvent)>;

/// Accounts in memory. The password of everybody is `right`.
#[derive(Default)]
pub struct FakeAccounts {
    grants: Mutex<BTreeMap<TokenHash, Arc<Grant>>>,
    tenants: Mutex<BTreeMap<TenantName, TenantState>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<Event>>>,
    revision: AtomicU64,
    made: AtomicU64,
    pub recorded: Mutex<Vec<AuditEvent>>,
    /// The log can't be written.
    pub broken_log: AtomicBool,
    /// Watches say nothing more, and no new ones are let in.
    pub mute: AtomicBool,
    pub watches: AtomicUsize,
}

impl FakeAccounts {
    fn publish(&self, event: GrantEvent) -> u64 {
        let revision = self.revision.fetch_add(1, Ordering::SeqCst) + 1;
        let mut watchers = self.watchers.lock();
        watchers.retain(|watcher| {
            watcher.send(Ok((revision, event.clone()))).is_ok()
                && watcher.send(Ok((revision, GrantEvent::Synced))).is_ok()
        });
        revision
    }

    pub fn set_tenant(&self, tenant: &str, state: TenantState) {
        let tenant = TenantName::new(tenant).unwrap();
        self.tenants.lock().insert(tenant.clone(), state);
        self.publish(GrantEvent::Tenant(tenant, state));
    }

    /// A token of a tenant, or of operators.
    pub fn grant(&self, tenant: Option<&str>, user: Option<&str>, scopes: &[Scope]) -> Issued {
        self.grant_until(tenant, user, scopes, None, false).0
    }

    pub fn grant_until(
        &self,
        tenant: Option<&str>,
        user: Option<&str>,
        scopes: &[Scope],
        expires_at: Option<Timestamp>,
        login: bool,
    ) -> (Issued, u64) {
        let number = self.made.fetch_add(1, Ordering::SeqCst) + 1;
        let secret = format!("{TOKEN_PREFIX}{number:043}");
        let token = Token {
            id: TokenId::from_parts(number, 0),
            name: format!("t{number}"),
            tenant: tenant.map(|tenant| tenant.parse().unwrap()),
            user: user.map(|user| user.parse().unwrap()),
            scopes: Scopes::of(scopes),
            login,
            created_at: Timestamp::default(),
            expires_at,
        };
        let grant = Arc::new(Grant { hash: Sha256::digest(&secret).into(), token: token.clone() });
        self.grants.lock().insert(grant.hash, Arc::clone(&grant));
        let revision = self.publish(GrantEvent::Put(grant));
        (Issued { secret: Secret::new(secret), token }, revision)
    }

    /// Ends all watches.
    pub fn cut(&self) {
        self.watchers.lock().clear();
    }

    fn changed<T>(&self, value: T) -> Result<Changed<T>> {
        Ok(Changed { value, revision: self.revision.load(Ordering::SeqCst) })
    }

    fn shown(&self, tenant: &TenantName) -> Result<Tenant> {
        let state = self.tenants.lock().get(tenant).copied();
        let state = state.or_else(|| (*tenant == TenantName::default_tenant()).then_some(TenantState::Active));
        let state = state.ok_or_else(|| Error::not_found("tenant", tenant))?;
        Ok(Tenant { name: tenant.clone(), state, created_at: None })
    }

    fn somebody(user: &UserKey, role: Role) -> User {
        let UserKey { tenant, name } = user.clone();
        User { tenant, name, role, has_password: true, created_at: Timestamp::default() }
    }
}

#[async_trait]
impl Accounts for FakeAccounts {
    async fn create_tenant(&self, tenant: &TenantName) -> Result<Changed<Tenant>> {
        self.set_tenant(tenant.as_str(), TenantState::Active);
        self.changed(self.shown(tenant)?)
    }

    async fn tenant(&self, tenant: &TenantName) -> Result<Tenant> {
        self.shown(tenant)
    }

    async fn tenants(&self, _: PageQuery) -> Result<Page<Tenant>> {
        let names: Vec<TenantName> = self.tenants.lock().keys().cloned().collect();
        Ok(Page { items: names.iter().map(|name| self.shown(name).unwrap()).collect(), next: None })
    }

    async fn delete_tenant(&self, tenant: &TenantName, _: bool) -> Result<Changed<Tenant>> {
        let mut shown = self.shown(tenant)?;
        shown.state = TenantState::Deleting;
        self.changed(shown)
    }

    async fn create_user(&self, user: NewUser) -> Result<Changed<User>> {
        self.changed(Self::somebody(&UserKey { tenant: user.tenant, name: user.name }, user.role))
    }

    async fn user(&self, user: &UserKey) -> Result<User> {
        Ok(Self::somebody(user, Role::Owner))
    }

    async fn users(&self, _: &TenantName, _: PageQuery) -> Result<Page<User>> {
        Ok(Page { items: Vec::new(), next: None })
    }

    async fn set_role(&self, user: &UserKey, role: Role) -> Result<Changed<User>> {
        self.changed(Self::somebody(user, role))
    }

    async fn set_password(&self, password: NewPassword) -> Result<Changed<User>> {
        self.changed(Self::somebody(&password.user, Role::Owner))
    }

    async fn delete_user(&self, _: &UserKey) -> Result<Changed<()>> {
        self.changed(())
    }

    async fn create_token(&self, token: NewToken) -> Result<Changed<Issued>> {
        let (tenant, user) = (token.tenant.map(String::from), token.user.map(String::from));
        let scopes: Vec<Scope> = token.scopes.unwrap_or(Scopes::OF_TENANT).iter().collect();
        let (value, revision) = self.grant_until(tenant.as_deref(), user.as_deref(), &scopes, None, false);
        Ok(Changed { value, revision })
    }

    async fn token(&self, id: TokenId) -> Result<Token> {
        let grants = self.grants.lock();
        let found = grants.values().find(|grant| grant.token.id == id);
        found.map(|grant| grant.token.clone()).ok_or_else(|| Error::not_found("token", id))
    }

    async fn tokens(&self, query: TokenQuery) -> Result<Page<Token>> {
        let grants = self.grants.lock();
        let of = grants.values().map(|grant| &grant.token).filter(|token| token.tenant == query.tenant);
        let of = of.filter(|token| query.user.is_none() || token.user == query.user);
        Ok(Page { items: of.cloned().collect(), next: None })
    }

    async fn delete_token(&self, id: TokenId) -> Result<Changed<()>> {
        let hash = self.grants.lock().values().find(|grant| grant.token.id == id).map(|grant| grant.hash);
        let hash = hash.ok_or_else(|| Error::not_found("token", id))?;
        self.grants.lock().remove(&hash);
        let revision = self.publish(GrantEvent::Remove(hash));
        Ok(Changed { value: (), revision })
    }

    async fn login(&self, login: Login) -> Result<Changed<Issued>> {
        if login.password.reveal() != "right" {
            return Err(Error::new(Code::Unauthenticated, "tenant, user or password is wrong"));
        }
        let (tenant, user) = (login.user.tenant.to_string(), login.user.name.to_string());
        let scopes = [Scope::Deploy, Scope::Read];
        let (value, revision) = self.grant_until(Some(&tenant), Some(&user), &scopes, None, true);
        Ok(Changed { value, revision })
    }

    async fn watch_grants(&self) -> Result<BoxStream<'static, Event>> {
        self.watches.fetch_add(1, Ordering::SeqCst);
        if self.mute.load(Ordering::SeqCst) {
            return Err(Error::new(Code::Unavailable, "control is away"));
        }
        let (sender, changes) = mpsc::unbounded_channel();
        let revision = self.revision.load(Ordering::SeqCst);
        for (tenant, state) in self.tenants.lock().iter() {
            sender.send(Ok((revision, GrantEvent::Tenant(tenant.clone(), *state)))).unwrap();
        }
        for grant in self.grants.lock().values() {
            sender.send(Ok((revision, GrantEvent::Put(Arc::clone(grant))))).unwrap();
        }
        sender.send(Ok((revision, GrantEvent::Synced))).unwrap();
        let beating = sender.downgrade();
        self.watchers.lock().push(sender);
        lyra_kit::tasks::spawn("beats", async move {
            while let Some(sender) = beating.upgrade() {
                if sender.send(Ok((revision, GrantEvent::Beat))).is_err() {
                    return;
                }
                drop(sender);
                tokio::time::sleep(BEAT).await;
            }
        });
        Ok(UnboundedReceiverStream::new(changes).boxed())
    }

    async fn record(&self, events: Vec<AuditEvent>) -> Result<()> {
        if self.broken_log.load(Ordering::SeqCst) {
            return Err(Error::new(Code::Unavailable, "the store is away"));
        }
        self.recorded.lock().extend(events);
        Ok(())
    }

    async fn audit(&self, query: AuditQuery) -> Result<Page<AuditEvent>> {
        let recorded = self.recorded.lock();
        let of = recorded.iter().rev().filter(|event| query.tenant.is_none() || event.tenant == query.tenant);
        Ok(Page { items: of.cloned().collect(), next: None })
    }
}
