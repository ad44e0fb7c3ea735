//! What the leader clears away: what tenants had that are being deleted, tokens that have ended, old entries of the audit log.
//!
//! What must hold: whatever process dies when, a tenant that was marked is gone in the end, and its record is what goes last; so the next
//! leader finds it and goes on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lyra_resources::{Caller, DeleteOptions, WriteOptions};
use lyra_store::jobs::{Filter, JobsError};
use lyra_store::objects::Change;
use lyra_types::{Error, Result, TenantName, TokenId};
use lyra_wire::accounts::TenantState;

use super::{Accounts, keys};

/// Wait before another look at a tenant that still has something.
const AGAIN: Duration = Duration::from_millis(250);
/// Jobs that are deleted at once.
const JOBS: usize = 500;

impl Accounts {
    /// Clears away for ever.
    pub(super) async fn clear(&self) {
        let mut revisions = self.book.revisions();
        let mut swept = None;
        loop {
            let now = self.clock.instant();
            if swept.is_none_or(|at| now.duration_since(at) >= self.config.sweep_every) {
                swept = Some(now);
                self.sweep().await;
            }
            revisions.mark_unchanged();
            let mut wait = self.config.sweep_every;
            for tenant in self.marked() {
                match self.clear_tenant(&tenant).await {
                    Ok(true) => tracing::info!(%tenant, "tenant deleted"),
                    Ok(false) => wait = AGAIN,
                    Err(error) => {
                        tracing::warn!(%tenant, %error, "a tenant can't be cleared away yet");
                        wait = AGAIN * 4;
                    }
                }
            }
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return },
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    fn marked(&self) -> Vec<TenantName> {
        self.book.read(|accounts| {
            let marked = accounts.tenants.iter().filter(|(_, tenant)| tenant.state == TenantState::Deleting);
            marked.map(|(name, _)| name.clone()).collect()
        })
    }

    async fn sweep(&self) {
        let now = self.clock.now();
        let ended: Vec<TokenId> = self.book.read(|accounts| {
            let ended = accounts.tokens.iter().filter(|(_, token)| token.has_ended(now)).map(|(id, _)| *id);
            // Those of tenants that are being deleted go with them.
            ended.chain(accounts.orphans()).collect()
        });
        if let Err(error) = self.drop_tokens(ended).await {
            tracing::warn!(%error, "tokens that have ended can't be deleted now");
        }
        if let Err(error) = self.sweep_audit().await {
            tracing::warn!(%error, "old entries of the audit log can't be deleted now");
        }
    }

    /// Clears away some of what a tenant had; true once nothing is left of it.
    async fn clear_tenant(&self, tenant: &TenantName) -> Result<bool> {
        for function in self.functions.table().names_of(tenant) {
            match self.functions.delete(tenant, &function).await {
                Err(error) if error.code != lyra_types::Code::NotFound => return Err(error),
                _ => {}
            }
        }
        if !self.clear_objects(tenant).await? {
            return Ok(false);
        }
        // Before jobs, which tasks of runs may begin.
        let cleared = match self.workflows() {
            Some(workflows) => workflows.clear(tenant).await?,
            None => !self.expects_workflows.load(Ordering::Acquire),
        };
        if !cleared {
            return Ok(false);
        }
        if !self.clear_jobs(tenant).await? {
            return Ok(false);
        }
        let tokens = self.book.read(|accounts| {
            let of =
                accounts.tokens.iter().filter(|(_, token)| token.tenant.as_ref().is_some_and(|(of, _)| of == tenant));
            of.map(|(id, _)| *id).collect()
        });
        self.drop_tokens(tokens).await?;
        // A tenant of the same name is another one: it reads nothing of this one's past. Operators keep it.
        let mut rest = vec![
            Change::DeletePrefix(crate::schedules::of_tenant(tenant)),
            Change::DeletePrefix(keys::users(tenant)),
            Change::DeletePrefix(keys::audit_of(tenant)),
            Change::DeletePrefix(crate::quotas::of_tenant(tenant)),
            Change::DeletePrefix(crate::secrets::table::of_tenant(tenant)),
            Change::Delete(keys::tenant(tenant)),
        ];
        rest.extend(crate::deliveries::of_tenant(tenant).map(Change::DeletePrefix));
        rest.extend(crate::triggers::of_tenant(tenant).map(Change::DeletePrefix));
        self.commit(Vec::new(), rest, ()).await?;
        Ok(true)
    }

    /// Cancels jobs and deletes those that have ended; true once none is left.
    async fn clear_jobs(&self, tenant: &TenantName) -> Result<bool> {
        loop {
            let filter = Filter { limit: JOBS, ..Filter::default() };
            let found = self.jobs.list(tenant.clone(), filter).await?;
            if found.is_empty() {
                return Ok(true);
            }
            for job in found.iter().filter(|job| !job.status.is_final()) {
                // One that has gone or ended meanwhile is as good as cancelled.
                if let Err(JobsError::Store(error)) = self.jobs.cancel(tenant.clone(), job.id, self.clock.now()).await {
                    return Err(error.into());
                }
            }
            let ids = found.iter().map(|job| job.id).collect();
            if self.jobs.delete_ended(tenant.clone(), ids).await? == 0 {
                // Those that run end at their next heartbeat.
                return Ok(false);
            }
        }
    }

    /// Has sessions and applications closed; true once none is left.
    async fn clear_objects(&self, tenant: &TenantName) -> Result<bool> {
        let Some(api) = self.resources.get() else { return Ok(true) };
        let caller = Caller::operator("accounts");
        let delete = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        let (applications, sessions) = (api.applications().list(Some(tenant)), api.sessions().list(Some(tenant)));
        let left = |status: lyra_resources::Status| match status.code {
            404 => Ok(()),
            _ => Err(Error::new(lyra_types::Code::Unavailable, status.message)),
        };
        for session in sessions.iter().filter(|session| session.object().metadata.deletion_timestamp.is_none()) {
            let options = WriteOptions { caller: &caller, dry_run: false };
            let gone = api.sessions().delete(tenant, &session.object().metadata.name, &delete, options).await;
            gone.map(drop).or_else(left)?;
        }
        for application in applications.iter().filter(|app| app.object().metadata.deletion_timestamp.is_none()) {
            let options = WriteOptions { caller: &caller, dry_run: false };
            let gone = api.applications().delete(tenant, &application.object().metadata.name, &delete, options).await;
            gone.map(drop).or_else(left)?;
        }
        Ok(applications.is_empty() && sessions.is_empty())
    }
}
