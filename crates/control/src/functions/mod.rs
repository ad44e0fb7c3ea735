//! The registry: functions, their versions and aliases.
//!
//! # Layout in the store
//! ```text
//! functions/{tenant}/{function}/meta                     generation, creation time, newest number ever given
//! functions/{tenant}/{function}/versions/{number}        a version; the number with 10 digits, so that keys sort
//! functions/{tenant}/{function}/aliases/{alias}          an alias: weights, and those before the last change
//! code-in-use/{digest}/{number}                          a deploy is about to make a version with this code
//! code-being-deleted/{digest}                            somebody is about to delete this code
//! ```
//! Names are DNS labels, so no key is a prefix of another function's. `meta` is written by every change of a
//! function and is its lock: a change is made from what was read, and happens only if `meta` was not modified since;
//! else it is made again from what is there now. A version's number is taken from `meta` and never given twice in a
//! generation, also when the version is gone. A generation is drawn at random when the function is made.
//!
//! Reads are answered from a table in memory ([`table`]), which follows the store by watch and reads again by key what
//! has changed. A change is answered when the table shows it.

mod alias;
mod archive;
mod code;
mod deploy;
mod follow;
mod keys;
mod lines;
mod record;
mod request;
mod table;
#[cfg(test)]
mod tests_support;

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::{Clock, Random, Tasks};
use lyra_store::objects::{Change, Check, Pins, Txn};
use lyra_store::{Blobs, Jobs, Objects, TxnError};
use lyra_types::api::Page;
use lyra_types::{Code, Error, FunctionName, Result, TenantName};
use lyra_wire::control::{Changed, PageQuery, Route};
use lyra_wire::{Logs, Worker};
use tokio::sync::Semaphore;

use crate::following::{Follows, follow};
use crate::leader::Term;
use crate::metrics::Metrics;
use crate::quotas::gate::Gate;
use crate::secrets::{Named, SecretTable};
use record::{Record, delete_alias, put_meta};
pub(crate) use table::Table;

/// Tries of a change that loses against others.
const TRIES: u32 = 200;
/// How long a change waits for the table to show it. The change itself is done by then.
const SHOWN: Duration = Duration::from_secs(10);
/// Items of a page when none are asked for.
const PAGE: usize = 100;
/// Most items of a page.
const MAX_PAGE: usize = 1_000;

/// What became of a change that depends on something.
enum Updated<T> {
    Done(Changed<T>),
    /// What it depends on is not there any more.
    Gone,
    /// Somebody else has passed the gate, or changed a secret.
    Overtaken,
}

/// What a change depends on beside the function itself.
#[derive(Default)]
struct While<'a> {
    /// An object that is there, and that the change takes away.
    there: Option<&'a str>,
    /// What limits it.
    gate: Option<&'a Gate>,
    /// The secrets that it names, as they were looked at.
    named: Option<&'a Named>,
}

/// The registry.
pub(crate) struct Functions {
    objects: Arc<dyn Objects>,
    blobs: Arc<dyn Blobs>,
    pins: Pins,
    jobs: Arc<dyn Jobs>,
    worker: Arc<dyn Worker>,
    logs: Arc<dyn Logs>,
    clock: Clock,
    random: Random,
    secrets: Arc<SecretTable>,
    metrics: Arc<Metrics>,
    config: crate::Config,
    table: Arc<Table>,
    /// Places of those whom code is handed out to: as much of it is in memory at once.
    handing_out: Arc<Semaphore>,
}

impl Functions {
    pub(crate) fn new(
        config: crate::Config,
        deps: &crate::Deps,
        secrets: Arc<SecretTable>,
        metrics: Arc<Metrics>,
    ) -> Functions {
        let (objects, blobs) = (Arc::clone(&deps.objects), Arc::clone(&deps.blobs));
        Functions {
            pins: Pins::new(objects, blobs, code::PINS, deps.clock.clone(), deps.random.clone()),
            objects: Arc::clone(&deps.objects),
            blobs: Arc::clone(&deps.blobs),
            jobs: Arc::clone(&deps.jobs),
            worker: Arc::clone(&deps.worker),
            logs: Arc::clone(&deps.logs),
            clock: deps.clock.clone(),
            random: deps.random.clone(),
            secrets,
            metrics,
            config,
            table: Arc::new(Table::default()),
            handing_out: Arc::new(Semaphore::new(code::HANDED_OUT)),
        }
    }

    /// Fills the table, then keeps it up to date in the background.
    pub(crate) async fn start(self: &Arc<Self>, tasks: &Tasks) -> Result<()> {
        self.fill().await?;
        let this = Arc::clone(self);
        tasks.spawn_cancellable("forget-lines", async move { this.forget_lines().await });
        let this = Arc::clone(self);
        tasks.spawn_cancellable("follow-functions", async move { follow(&*this, &*this.objects, &this.clock).await });
        Ok(())
    }

    /// What the leader does: deletes code that nobody uses.
    pub(crate) async fn lead(&self, term: &Term) {
        let duties = async {
            loop {
                self.sweep_code().await;
                self.clock.sleep(self.config.sweep_code_every).await;
            }
        };
        term.over.run_until_cancelled(duties).await;
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub(crate) fn get(&self, tenant: &TenantName, function: &FunctionName) -> Result<Arc<Route>> {
        self.table.get(tenant, function).ok_or_else(|| Error::not_found("function", function))
    }

    pub(crate) fn list(&self, tenant: &TenantName, page: PageQuery) -> Result<Page<Arc<Route>>> {
        let limit = page_limit(page.limit);
        let after = match &page.cursor {
            Some(cursor) => Bound::Excluded(
                FunctionName::new(cursor)
                    .map_err(|_| Error::field(Code::BadRequest, "cursor", "is not one that a list gave"))?,
            ),
            None => Bound::Unbounded,
        };
        let mut items = self.table.list(tenant, after, limit + 1);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|route| route.function.to_string());
        Ok(Page { items, next })
    }

    /// Reads a function, changes it with `change`, and stores it; again from the start when another change came in
    /// between. `change` gets `None` for a function that does not exist.
    async fn update<T>(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        change: impl FnMut(Option<&Record>) -> Result<(Vec<Change>, T)>,
    ) -> Result<Changed<T>> {
        match self.update_while(While::default(), tenant, function, change).await? {
            Updated::Done(changed) => Ok(changed),
            Updated::Gone | Updated::Overtaken => {
                Err(Error::internal("a change without a condition was not made for one"))
            }
        }
    }

    /// As [`Functions::update`], while what it depends on is as it was; else nothing is done.
    async fn update_while<T>(
        &self,
        While { there, gate, named }: While<'_>,
        tenant: &TenantName,
        function: &FunctionName,
        mut change: impl FnMut(Option<&Record>) -> Result<(Vec<Change>, T)>,
    ) -> Result<Updated<T>> {
        for _ in 0..TRIES {
            let record = self.read(tenant, function).await?;
            let (mut changes, value) = change(record.as_ref())?;
            changes.extend(there.map(|key| Change::Delete(key.to_owned())));
            changes.extend(gate.map(Gate::change));
            changes.extend(named.iter().flat_map(|named| &named.changes).cloned());
            let meta = keys::meta(tenant, function);
            let check = match &record {
                Some(record) => Check::Modified(meta, record.modified),
                None => Check::Absent(meta),
            };
            let there = there.map(|key| Check::Exists(key.to_owned()));
            let mut checks: Vec<Check> = [check].into_iter().chain(there).collect();
            checks.extend(gate.map(|gate| gate.check.clone()));
            checks.extend(named.iter().flat_map(|named| &named.checks).cloned());
            match self.objects.txn(Txn { checks, changes }).await {
                Ok(revision) => {
                    self.shown(revision).await;
                    return Ok(Updated::Done(Changed { value, revision }));
                }
                Err(TxnError::Failed { index: 0, .. }) => {}
                Err(TxnError::Failed { key, .. })
                    if gate.is_some_and(|gate| gate.check.key() == key)
                        || named.is_some_and(|named| named.checks.iter().any(|check| check.key() == key)) =>
                {
                    return Ok(Updated::Overtaken);
                }
                Err(TxnError::Failed { .. }) => return Ok(Updated::Gone),
                Err(TxnError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::new(Code::Conflict, format!("function {function} is being changed by too many others; try again")))
    }

    async fn shown(&self, revision: u64) {
        if tokio::time::timeout(SHOWN, self.table.reaches(revision)).await.is_err() {
            tracing::warn!(revision, "the route table is behind");
        }
    }

    /// Deletes a function, and what belongs to it. What can't be cleared away now does no harm: jobs that are left
    /// end with an error when their turn comes, and code is swept later.
    pub(crate) async fn delete(&self, tenant: &TenantName, function: &FunctionName) -> Result<Changed<()>> {
        self.delete_if(tenant, function, |_| Ok(())).await
    }

    /// Takes the alias `live` away, so that no call that names no version finds the function; returns the revision from
    /// which that is seen. Jobs that are pinned to a version run on.
    pub(crate) async fn retire(&self, tenant: &TenantName, function: &FunctionName) -> Result<u64> {
        let retired = self
            .update(tenant, function, |record| {
                let record = record.ok_or_else(|| Error::not_found("function", function))?;
                let live = lyra_types::AliasName::live();
                let changes = match record.route.aliases.contains_key(&live) {
                    true => vec![put_meta(tenant, function, record.meta)?, delete_alias(tenant, function, &live)],
                    false => Vec::new(),
                };
                Ok((changes, ()))
            })
            .await?;
        Ok(retired.revision)
    }

    /// Deletes a function that was retired, and was not deployed anew since.
    pub(crate) async fn delete_retired(&self, tenant: &TenantName, function: &FunctionName) -> Result<Changed<()>> {
        self.delete_if(tenant, function, |record| match record.route.aliases.contains_key("live") {
            true => Err(Error::new(Code::Conflict, format!("function {function} is in use again"))),
            false => Ok(()),
        })
        .await
    }

    async fn delete_if(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        may: impl Fn(&Record) -> Result<()>,
    ) -> Result<Changed<()>> {
        let changed = self
            .update(tenant, function, |record| {
                let record = record.ok_or_else(|| Error::not_found("function", function))?;
                may(record)?;
                let codes: Vec<_> = record.route.versions.values().map(|version| version.code.clone()).collect();
                let gone = vec![
                    Change::DeletePrefix(keys::function(tenant, function)),
                    Change::Delete(crate::deliveries::destinations_key(tenant, function)),
                ];
                Ok((gone, (record.route.generation, codes)))
            })
            .await?;
        let (generation, codes) = changed.value;
        loop {
            let limit = 1_000;
            match self.jobs.delete_unbegun(tenant.clone(), function.clone(), generation, limit).await {
                Ok(deleted) if deleted < limit as u64 => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, %tenant, %function, "jobs of a deleted function are left");
                    break;
                }
            }
        }
        self.have_forgotten(generation, None).await;
        self.drop_unused(codes).await;
        tracing::info!(%tenant, %function, "function deleted");
        Ok(Changed { value: (), revision: changed.revision })
    }
}

/// The number of items that a page gets.
pub(crate) fn page_limit(asked: usize) -> usize {
    if asked == 0 { PAGE } else { asked.min(MAX_PAGE) }
}
