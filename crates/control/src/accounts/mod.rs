//! Accounts: tenants, their users, tokens, and the audit log.
//!
//! # Layout in the store
//! ```text
//! accounts/tenants/{tenant}         a tenant; `default` stands here once it has users or tokens, and is there before
//! accounts/users/{tenant}/{user}    a user, with the Argon2id hash of its password
//! accounts/tokens/{id}              a token: its SHA-256, whose it is, what it allows
//! audit/all/{time}{tie}             an entry of the audit log; the later, the smaller the key
//! audit/of/{tenant}/{time}{tie}     the same once more for its tenant, so that nobody's entries push out another's
//! ```
//! Tenants and users are stored with a number drawn when they are made, and what belongs to them with that number: what is left of one
//! is never the next one's of the same name. A user or token is made only if its tenant was not changed meanwhile, so nothing is added
//! to a tenant that is being deleted.
//!
//! Reads are answered from a book in memory ([`book`]), which follows the store by watch; gateways follow the book. No secret is stored,
//! and none is in a log or an error.

mod audit;
mod book;
mod clearing;
mod config;
mod follow;
mod keys;
mod login;
mod password;
mod record;
mod served;
mod tenants;
mod tokens;
mod users;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lyra_fleet::throttle::{Rate, Throttle};
use lyra_kit::{Clock, Ids, Random, Tasks};
use lyra_resources::ResourceApi;
use lyra_store::objects::{Change, Check, Txn};
use lyra_store::{Jobs, Objects, TxnError};
use lyra_types::{Code, Error, Result, TenantName};
use lyra_wire::accounts::{TenantState, UserKey};
use lyra_wire::control::{Changed, PageQuery};
use parking_lot::Mutex;

use crate::following::{Follows, follow};
use crate::functions::{Functions, page_limit};
use crate::leader::Term;
use crate::metrics::Metrics;
use book::Book;
pub use config::AccountsConfig;
use password::Passwords;
use record::TenantRecord;

/// Tries of a change that loses against others.
const TRIES: u32 = 50;
/// Most tenants.
const MAX_TENANTS: usize = 10_000;
/// Most users of a tenant.
const MAX_USERS: usize = 10_000;
/// Most tokens of a tenant, and of operators.
const MAX_TOKENS: usize = 10_000;
/// Changes in one transaction; etcd takes 128.
const CHUNK: usize = 100;

/// Tenants, users, tokens, audit log.
pub(crate) struct Accounts {
    config: AccountsConfig,
    objects: Arc<dyn Objects>,
    jobs: Arc<dyn Jobs>,
    functions: Arc<Functions>,
    /// There once control was started.
    resources: OnceLock<Arc<ResourceApi>>,
    /// There once the workflow role was found.
    workflows: Mutex<Option<Arc<dyn lyra_wire::Workflows>>>,
    /// Whether there will be one.
    expects_workflows: AtomicBool,
    book: Book,
    passwords: Passwords,
    tries_of_user: Throttle<UserKey>,
    tries_of_address: Throttle<IpAddr>,
    clock: Clock,
    random: Random,
    ids: Ids,
    metrics: Arc<Metrics>,
}

impl Accounts {
    pub(crate) fn new(
        config: AccountsConfig,
        deps: &crate::Deps,
        functions: Arc<Functions>,
        metrics: Arc<Metrics>,
    ) -> Accounts {
        let of_user = Rate { burst: config.login_tries, every: config.login_try_every };
        let of_address = Rate { burst: config.login_tries_of_address, every: config.login_try_of_address_every };
        Accounts {
            config,
            objects: Arc::clone(&deps.objects),
            jobs: Arc::clone(&deps.jobs),
            functions,
            resources: OnceLock::new(),
            workflows: Mutex::default(),
            expects_workflows: AtomicBool::new(false),
            book: Book::default(),
            passwords: Passwords::new(deps.random.clone()),
            tries_of_user: Throttle::new(of_user, deps.clock.clone()),
            tries_of_address: Throttle::new(of_address, deps.clock.clone()),
            clock: deps.clock.clone(),
            random: deps.random.clone(),
            ids: Ids::new(deps.clock.clone(), deps.random.clone()),
            metrics,
        }
    }

    /// Fills the book, then keeps it up to date in the background.
    pub(crate) async fn start(self: &Arc<Self>, resources: Arc<ResourceApi>, tasks: &Tasks) -> Result<()> {
        self.resources.get_or_init(|| resources);
        self.fill().await?;
        let this = Arc::clone(self);
        tasks.spawn_cancellable("follow-accounts", async move { follow(&*this, &*this.objects, &this.clock).await });
        Ok(())
    }

    /// Says that there will be a workflow role: until it is known no tenant goes.
    pub(crate) fn expect_workflows(&self) {
        self.expects_workflows.store(true, Ordering::Release);
    }

    /// Who has the workflows of tenants, if that is known.
    pub(crate) fn workflows(&self) -> Option<Arc<dyn lyra_wire::Workflows>> {
        self.workflows.lock().clone()
    }

    /// Says who has the workflows of tenants that are deleted. In one process they keep control, so they are let go when
    /// control stops.
    pub(crate) fn set_workflows(&self, workflows: Option<Arc<dyn lyra_wire::Workflows>>) {
        *self.workflows.lock() = workflows;
    }

    /// What the leader does: clears away what tenants that are being deleted had, what has ended, and old entries of the log.
    pub(crate) async fn lead(&self, term: &Term) {
        // Large, and rare.
        term.over.run_until_cancelled(Box::pin(self.clear())).await;
    }

    /// A tenant's record, made up where it is the default one's and not stored; with the check that it is still so.
    async fn tenant_record(&self, name: &TenantName) -> Result<(TenantRecord, Check, Option<Change>)> {
        let key = keys::tenant(name);
        if let Some(entry) = self.objects.get(&key).await? {
            let unreadable = || Error::internal(format!("what is stored of tenant {name} can't be read"));
            let tenant: TenantRecord = record::read(&entry).ok_or_else(unreadable)?;
            return match tenant.state {
                TenantState::Active => Ok((tenant, Check::Modified(key, entry.modified), None)),
                TenantState::Deleting => {
                    Err(Error::new(Code::Conflict, format!("tenant {name} is being deleted; wait for its end")))
                }
            };
        }
        if *name != TenantName::default_tenant() {
            return book::no_tenant(name);
        }
        let tenant = self.new_tenant();
        let change = record::put(key.clone(), &tenant)?;
        Ok((tenant, Check::Absent(key), Some(change)))
    }

    /// What must hold of a tenant's record, and what is to be written of it, where something is given to the tenant.
    pub(crate) async fn holder(&self, name: &TenantName) -> Result<(Check, Option<Change>)> {
        let (_, check, change) = self.tenant_record(name).await?;
        Ok((check, change))
    }

    /// That a tenant has no record.
    pub(crate) fn absent(name: &TenantName) -> Check {
        Check::Absent(keys::tenant(name))
    }

    fn new_tenant(&self) -> TenantRecord {
        TenantRecord { uid: self.random.u64(), created_at: self.clock.now(), state: TenantState::Active }
    }

    /// Carries out a transaction and waits until the book shows it. `None`: a check failed, and it may be made again.
    async fn commit<T>(&self, checks: Vec<Check>, changes: Vec<Change>, value: T) -> Result<Option<Changed<T>>> {
        match self.objects.txn(Txn { checks, changes }).await {
            Ok(revision) => {
                self.book.shown(revision).await;
                Ok(Some(Changed { value, revision }))
            }
            Err(TxnError::Failed { .. }) => Ok(None),
            Err(TxnError::Store(error)) => Err(error.into()),
        }
    }
}

/// What a change is answered that lost too often.
fn too_many_changes<T>() -> Result<T> {
    Err(Error::new(Code::Conflict, "others change the same account all the time; try again"))
}

/// What is said where a limit of accounts is reached.
fn full(what: &str, most: usize) -> Error {
    Error::new(Code::LimitReached, format!("there are {most} {what}, the most that there may be; delete some"))
        .with_retry_after(Duration::from_secs(60))
}

/// A page of what was looked up with one more than `limit`, by the name of the last one.
fn page<T>(mut items: Vec<T>, limit: usize, name: impl Fn(&T) -> String) -> lyra_types::api::Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(name);
    lyra_types::api::Page { items, next }
}

/// How many items a page gets, and where it begins.
///
/// # Errors
/// [`Code::BadRequest`] for a cursor that is none.
fn begin<T>(page: &PageQuery, read: impl Fn(&str) -> Result<T>) -> Result<(usize, Option<T>)> {
    let cursor = page.cursor.as_deref().map(read).transpose();
    let cursor = cursor.map_err(|_| Error::field(Code::BadRequest, "cursor", "is not one that a list gave"))?;
    Ok((page_limit(page.limit), cursor))
}
