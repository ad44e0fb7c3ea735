//! Quotas: what is in force for whom, who holds which share of it, and what counts against it.
//!
//! # Layout in the store
//! ```text
//! quotas/{tenant}/own                       the tenant's quota
//! quotas/{tenant}/functions/{function}      a function's, whether there is such a function or not
//! quota-gates/{tenant}                      written by every deploy that a quota could refuse
//! ```
//! A tenant without a quota of its own has that of the settings. Limits of calls are shared out by the leader ([`ledger`]); what control
//! itself stores is limited where it is stored ([`gate`]).

mod book;
mod cpu;
pub(crate) mod gate;
mod ledger;
mod served;
mod split;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use lyra_kit::{Clock, Tasks};
use lyra_store::{Jobs, Objects};
use lyra_types::quota::{Quota, QuotaKey};
use lyra_types::{Code, Error, FunctionName, Result, TenantName};
use lyra_wire::quotas::{Claim, Shares};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::following::{Follows, follow};
use crate::functions::Table;
use crate::leader::Term;
use crate::sessions::Census;
pub(crate) use book::of_tenant;
use cpu::Spent;
use ledger::Ledger;

/// All quotas.
pub(crate) struct Quotas {
    objects: Arc<dyn Objects>,
    jobs: Arc<dyn Jobs>,
    table: Arc<Table>,
    clock: Clock,
    /// Of tenants without one of their own.
    default: Quota,
    set: RwLock<BTreeMap<QuotaKey, Quota>>,
    revision: watch::Sender<u64>,
    /// While this process leads.
    ledger: Mutex<Option<Ledger>>,
    spent: RwLock<HashMap<QuotaKey, Spent>>,
    /// No other process has members.
    alone: bool,
    census: OnceLock<Arc<Census>>,
}

impl Quotas {
    pub(crate) fn new(default: Quota, deps: &crate::Deps, table: Arc<Table>) -> Quotas {
        Quotas {
            objects: Arc::clone(&deps.objects),
            jobs: Arc::clone(&deps.jobs),
            table,
            clock: deps.clock.clone(),
            default,
            set: RwLock::default(),
            revision: watch::Sender::new(0),
            ledger: Mutex::new(None),
            spent: RwLock::default(),
            alone: deps.address.is_empty(),
            census: OnceLock::new(),
        }
    }

    /// Where sessions are counted.
    pub(crate) fn knows(&self, census: &Arc<Census>) {
        self.census.get_or_init(|| Arc::clone(census));
    }

    /// Reads what is stored, then keeps up with it in the background.
    ///
    /// # Errors
    /// When the default can't be one, or the store can't be read.
    pub(crate) async fn start(self: &Arc<Self>, tasks: &Tasks) -> Result<()> {
        self.default.check(false).map_err(|error| {
            let fault = error.errors.first().map_or_else(|| error.detail.clone(), |fault| fault.reason.clone());
            let field = error.errors.first().map_or("", |fault| &fault.field);
            Error::field(Code::InvalidField, format!("quota.{field}"), fault)
        })?;
        self.fill().await?;
        let this = Arc::clone(self);
        tasks.spawn_cancellable("follow-quotas", async move { follow(&*this, &*this.objects, &this.clock).await });
        Ok(())
    }

    /// What the leader does: shares limits out, and watches what processor time is used.
    pub(crate) async fn lead(&self, term: &Term) {
        *self.ledger.lock() = Some(Ledger::new(term.epoch, self.clock.instant(), self.alone));
        term.over.run_until_cancelled(self.watch_cpu()).await;
        *self.ledger.lock() = None;
    }

    /// The tenant's quota that is in force.
    fn of_tenant(&self, tenant: &TenantName) -> Quota {
        let key = QuotaKey { tenant: tenant.clone(), function: None };
        self.set.read().get(&key).unwrap_or(&self.default).clone()
    }

    /// How many jobs of the tenant, and of the function, may wait.
    pub(crate) fn queued_jobs(&self, tenant: &TenantName, function: &FunctionName) -> (Option<u64>, Option<u64>) {
        let set = self.set.read();
        if set.is_empty() {
            return (self.default.queued_jobs, None);
        }
        let mut key = QuotaKey { tenant: tenant.clone(), function: None };
        let of_tenant = set.get(&key).unwrap_or(&self.default).queued_jobs;
        key.function = Some(function.clone());
        (of_tenant, set.get(&key).and_then(|quota| quota.queued_jobs))
    }

    /// How many sessions the tenant may have.
    pub(crate) fn sessions(&self, tenant: &TenantName) -> Option<u32> {
        let set = self.set.read();
        if set.is_empty() {
            return self.default.sessions;
        }
        set.get(&QuotaKey { tenant: tenant.clone(), function: None }).unwrap_or(&self.default).sessions
    }

    /// Every quota in force; that of the settings for each tenant that has functions.
    fn in_force(&self) -> BTreeMap<QuotaKey, Quota> {
        let mut all = self.set.read().clone();
        if !self.default.is_empty() {
            for tenant in self.table.tenants() {
                all.entry(QuotaKey { tenant, function: None }).or_insert_with(|| self.default.clone());
            }
        }
        all
    }

    /// Answers a member's claim.
    ///
    /// # Errors
    /// [`Code::Unavailable`] where this process does not lead.
    pub(crate) fn share(&self, claim: Claim) -> Result<Shares> {
        let spent = self.spent.read().iter().filter_map(|(key, spent)| Some((key.clone(), spent.until?))).collect();
        let limits = ledger::of_calls(self.in_force().into_iter(), &spent);
        let mut ledger = self.ledger.lock();
        let leads = ledger.as_mut().ok_or_else(does_not_lead)?;
        Ok(leads.claim(self.clock.instant(), claim, &limits))
    }
}

fn does_not_lead() -> Error {
    Error::new(Code::Unavailable, "this control process does not lead; the one that does shares quotas out")
}
