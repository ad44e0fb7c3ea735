//! Quotas as other roles ask for them.

use std::time::Duration;

use async_trait::async_trait;
use lyra_store::TxnError;
use lyra_store::objects::{Change, Check, Txn};
use lyra_types::api::{Page, QuotaUse, QuotaView};
use lyra_types::quota::{Quota, QuotaKey};
use lyra_types::{Code, Error, FunctionName, Result, TenantName};
use lyra_wire::control::PageQuery;
use lyra_wire::quotas::{Claim, Shares};

use super::{Quotas, book, does_not_lead, gate};
use crate::Service;
use crate::functions::page_limit;

/// Tries of a change that loses against others.
const TRIES: u32 = 50;
/// Most quotas of functions that a tenant may have.
const MAX_OF_FUNCTIONS: usize = 1_000;
/// Longest wait for what those who run workflows count.
const ASKED: Duration = Duration::from_secs(2);
/// Jobs that wait are counted up to here.
const COUNTED: u64 = 10_000;

impl Quotas {
    /// A quota with what counts against it; `own`: as it was set.
    async fn view(&self, key: &QuotaKey, own: Option<Quota>) -> Result<QuotaView> {
        let is_default = own.is_none();
        let quota = own.unwrap_or_else(|| self.default.clone());
        let used = self.used(key, &quota).await?;
        Ok(QuotaView {
            tenant: key.tenant.to_string(),
            function: key.function.as_ref().map(ToString::to_string),
            quota,
            is_default,
            used,
            functions: Vec::new(),
        })
    }

    async fn used(&self, key: &QuotaKey, quota: &Quota) -> Result<QuotaUse> {
        let routes = match &key.function {
            None => self.table.all_of(&key.tenant),
            Some(function) => self.table.get(&key.tenant, function).into_iter().collect(),
        };
        let versions = routes.iter().flat_map(|route| route.versions.values()).map(|version| &**version);
        let stored_bytes = gate::stored(versions);
        let queued_jobs = self.jobs.queued(key.tenant.clone(), key.function.clone(), COUNTED).await?;
        let calls = self.ledger.lock().as_ref().ok_or_else(does_not_lead)?.used(key);
        let cpu_ms = self.spent.read().get(key).map(|spent| spent.used);
        Ok(QuotaUse {
            rate: quota.rate.map(|_| (calls.rate * 10.0).round() / 10.0),
            concurrency: quota.concurrency.map(|_| calls.calls),
            memory_mb: quota.memory_mb.map(|_| calls.memory_mb),
            stored_bytes,
            functions: routes.len() as u64,
            sessions: match (&key.function, self.census.get()) {
                (None, Some(census)) => census.open_of(&key.tenant).into(),
                _ => 0,
            },
            workflows: None,
            runs: None,
            queued_jobs,
            cpu_ms: quota.cpu_ms.map(|_| cpu_ms.unwrap_or(0)),
        })
    }

    fn set_of(&self, key: &QuotaKey) -> Option<Quota> {
        self.set.read().get(key).cloned()
    }

    /// The functions of a tenant that have quotas.
    fn functions_of(&self, tenant: &TenantName) -> Vec<(QuotaKey, Quota)> {
        let set = self.set.read();
        let of = set.iter().filter(|(key, _)| key.tenant == *tenant && key.function.is_some());
        of.map(|(key, quota)| (key.clone(), quota.clone())).collect()
    }

    fn check(&self, key: &QuotaKey, quota: &Quota) -> Result<()> {
        quota.check(key.function.is_some())?;
        if key.function.is_none() {
            return Ok(());
        }
        quota.check_within(&self.of_tenant(&key.tenant))?;
        let known = self.functions_of(&key.tenant);
        if known.len() >= MAX_OF_FUNCTIONS && !known.iter().any(|(of, _)| of == key) {
            let detail = format!("{MAX_OF_FUNCTIONS} functions of the tenant have quotas, the most that may");
            return Err(Error::new(Code::Conflict, detail));
        }
        Ok(())
    }
}

impl Service {
    /// The same with what those who run workflows count. They may be away: what they count is left out then.
    async fn with_workflows(&self, mut view: QuotaView, key: &QuotaKey) -> QuotaView {
        let (None, Some(workflows)) = (&key.function, self.workflows_of_tenants()) else { return view };
        match tokio::time::timeout(ASKED, workflows.usage(&key.tenant)).await {
            Ok(Ok(used)) => (view.used.workflows, view.used.runs) = (Some(used.workflows), Some(used.runs)),
            Ok(Err(error)) => tracing::debug!(tenant = %key.tenant, %error, "workflows and runs can't be counted now"),
            Err(_) => tracing::debug!(tenant = %key.tenant, "workflows and runs were not counted in time"),
        }
        view
    }
}

#[async_trait]
impl lyra_wire::Quotas for Service {
    async fn quota(&self, key: &QuotaKey) -> Result<QuotaView> {
        let quotas = self.quota_book();
        let own = quotas.set_of(key);
        match &key.function {
            Some(function) if own.is_none() => {
                Err(Error::new(Code::NotFound, format!("function {function} has no quota of its own")))
            }
            Some(_) => quotas.view(key, own).await,
            None => {
                self.tenant_is_there(&key.tenant)?;
                let mut view = self.with_workflows(quotas.view(key, own).await?, key).await;
                for (key, quota) in quotas.functions_of(&key.tenant) {
                    view.functions.push(quotas.view(&key, Some(quota)).await?);
                }
                Ok(view)
            }
        }
    }

    async fn quotas(&self, page: PageQuery) -> Result<Page<QuotaView>> {
        let limit = page_limit(page.limit);
        let bad = || Error::field(Code::BadRequest, "cursor", "is not one that a list gave");
        let after = page.cursor.as_deref().map(|text| read_cursor(text).ok_or_else(bad)).transpose()?;
        let quotas = self.quota_book();
        let mut found: Vec<(QuotaKey, Quota)> = {
            let set = quotas.set.read();
            let later = set.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after));
            later.take(limit + 1).map(|(key, quota)| (key.clone(), quota.clone())).collect()
        };
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|(key, _)| cursor(key));
        let mut items = Vec::with_capacity(found.len());
        for (key, quota) in found {
            items.push(quotas.view(&key, Some(quota)).await?);
        }
        Ok(Page { items, next })
    }

    async fn set_quota(&self, key: &QuotaKey, quota: Quota) -> Result<QuotaView> {
        let quotas = self.quota_book();
        quotas.check(key, &quota)?;
        for _ in 0..TRIES {
            // Nothing is added to a tenant that is being deleted.
            let (check, change) = self.holder_of_quota(&key.tenant).await?;
            let changes = change.into_iter().chain([book::put(key, &quota)?]).collect();
            match quotas.objects.txn(Txn { checks: vec![check], changes }).await {
                Ok(revision) => {
                    quotas.shown(revision).await;
                    tracing::info!(of = %key, "quota set");
                    return Ok(self.with_workflows(quotas.view(key, Some(quota)).await?, key).await);
                }
                Err(TxnError::Failed { .. }) => {}
                Err(TxnError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::new(Code::Conflict, "others change the tenant all the time; try again"))
    }

    async fn remove_quota(&self, key: &QuotaKey) -> Result<()> {
        let (quotas, stored) = (self.quota_book(), book::key(key));
        let txn = Txn { checks: vec![Check::Exists(stored.clone())], changes: vec![Change::Delete(stored)] };
        match quotas.objects.txn(txn).await {
            Ok(revision) => {
                quotas.shown(revision).await;
                tracing::info!(of = %key, "quota removed");
                Ok(())
            }
            Err(TxnError::Failed { .. }) => Err(Error::new(Code::NotFound, format!("no quota was set for {key}"))),
            Err(TxnError::Store(error)) => Err(error.into()),
        }
    }

    async fn share(&self, claim: Claim) -> Result<Shares> {
        self.quota_book().share(claim)
    }
}

fn cursor(key: &QuotaKey) -> String {
    match &key.function {
        None => key.tenant.to_string(),
        Some(function) => format!("{}.{function}", key.tenant),
    }
}

fn read_cursor(text: &str) -> Option<QuotaKey> {
    let (tenant, function) = match text.split_once('.') {
        None => (text, None),
        Some((tenant, function)) => (tenant, Some(FunctionName::new(function).ok()?)),
    };
    Some(QuotaKey { tenant: TenantName::new(tenant).ok()?, function })
}
