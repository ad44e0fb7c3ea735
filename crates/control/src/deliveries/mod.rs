//! Who hears that a job or a run has ended: destinations, and the deliveries that tell them.
//!
//! # Layout in the store
//! ```text
//! destinations/{tenant}/{function}             who hears of the jobs of a function
//! destinations/{tenant}/workflow/{workflow}    who hears of the runs of a workflow
//! deliveries/{tenant}/{id}                     a delivery: what is sent where, its tries; later ones sort first
//! deliveries-pending/{tenant}/{id}             the mark of one that has not ended
//! ```
//! A job carries who hears of its end, as a notice that was pinned when it was accepted. The store of jobs makes it owed in the very
//! transaction that ends the job; the leader turns what is owed into deliveries ([`outbox`]), whose ids are made of the job and its end,
//! then notes that it was passed on. So an end has one delivery, whatever process dies when. The leader makes its tries
//! ([`sending`]): at least one that the other side has, under the same `webhook-id` each time. Runs are told of likewise; their store is
//! the workflow role's, which hands over what it owes ([`runs`]).

pub(crate) mod address;
pub(crate) mod config;
mod destinations;
mod outbox;
mod record;
mod runs;
mod sealed;
mod sending;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use lyra_kit::{Clock, Random, Tasks};
use lyra_store::objects::{Change, Check, Txn};
use lyra_store::{Jobs as JobStore, Objects, TxnError};
use lyra_types::api::Page;
use lyra_types::delivery::{DeliveryStatus, DeliveryView};
use lyra_types::{Code, Error, Result, TenantName, Timestamp};
use lyra_wire::hooks::{DeliveryAsk, DeliveryQuery, HookAnswer};
use tokio::sync::Notify;

use crate::functions::{Table, page_limit};
use crate::jobs::Jobs;
use crate::leader::Term;
use crate::metrics::Metrics;
use crate::secrets::Sealer;
pub use config::WebhooksConfig;
pub(crate) use destinations::Directory;
use record::{Delivery, Target, is_id, key, pending_key, put, read};
pub(crate) use record::{Subject, destinations_key, of_tenant};
use sealed::Vault;
use webhook::Caller;
#[cfg(test)]
pub(crate) use webhook::sign;

/// Deliveries looked at for one page of a list that is filtered.
const LOOKED_AT: usize = 10_000;
/// Deliveries read at once: each may hold a result.
const CHUNK: usize = 50;
/// How long tries may go on at shutdown.
const LET_GO: Duration = Duration::from_secs(2);
/// Of what is told in a test.
const TEST: &str = "webhook.test";

/// Owner of deliveries.
pub(crate) struct Deliveries {
    directory: Arc<Directory>,
    caller: Arc<Caller>,
    vault: Vault,
    objects: Arc<dyn Objects>,
    store: Arc<dyn JobStore>,
    jobs: Arc<Jobs>,
    table: Arc<Table>,
    clock: Clock,
    random: Random,
    metrics: Arc<Metrics>,
    config: WebhooksConfig,
    /// Set when a job has ended here.
    ended: Arc<Notify>,
    /// Tries that run.
    tries: Tasks,
}

/// Who hears of what, before there are jobs.
pub(crate) fn directory(
    deps: &crate::Deps,
    config: &WebhooksConfig,
    table: Arc<Table>,
    sealer: Arc<Sealer>,
) -> Arc<Directory> {
    let caller = Arc::new(Caller::new(config, deps.clock.clone()));
    Arc::new(Directory::new(deps, table, caller, Vault(sealer)))
}

impl Deliveries {
    pub(crate) fn new(
        deps: &crate::Deps,
        config: WebhooksConfig,
        directory: Arc<Directory>,
        jobs: Arc<Jobs>,
        table: Arc<Table>,
        metrics: Arc<Metrics>,
    ) -> Deliveries {
        Deliveries {
            caller: Arc::clone(&directory.caller),
            vault: directory.vault().clone(),
            directory,
            objects: Arc::clone(&deps.objects),
            store: Arc::clone(&deps.jobs),
            ended: jobs.ends(),
            jobs,
            table,
            clock: deps.clock.clone(),
            random: deps.random.clone(),
            metrics,
            config,
            tries: Tasks::new(),
        }
    }

    /// Reads who hears of what, then follows it in the background.
    pub(crate) async fn start(&self, tasks: &Tasks) -> Result<()> {
        self.directory.start(tasks).await
    }

    /// What the leader does: passes on what is owed, makes tries, forgets old deliveries.
    pub(crate) async fn lead(self: &Arc<Self>, term: &Term) {
        term.over.run_until_cancelled(self.seal_what_is_clear()).await;
        tokio::join!(
            term.over.run_until_cancelled(self.pass_on()),
            term.over.run_until_cancelled(self.send()),
            term.over.run_until_cancelled(self.sweep())
        );
        // Tries that run end by themselves; how they went is written only where nobody else has written since.
    }

    /// Lets tries that run end for a moment. Others are made again by whoever leads next.
    pub(crate) async fn stop(&self) {
        if !self.tries.stop(LET_GO).await {
            tracing::info!("deliveries are being tried; they will be tried again");
        }
    }

    pub(crate) async fn answer(&self, tenant: &TenantName, ask: DeliveryAsk) -> Result<HookAnswer> {
        match ask {
            DeliveryAsk::PutDestinations(name, request) => self.put(tenant, Subject::Function(name), &request).await,
            DeliveryAsk::PutWorkflowDestinations(name, request) => {
                self.put(tenant, Subject::Workflow(name), &request).await
            }
            DeliveryAsk::Destinations(name) => self.show(tenant, Subject::Function(name)).await,
            DeliveryAsk::WorkflowDestinations(name) => self.show(tenant, Subject::Workflow(name)).await,
            DeliveryAsk::DeleteDestinations(name) => self.delete(tenant, Subject::Function(name)).await,
            DeliveryAsk::DeleteWorkflowDestinations(name) => self.delete(tenant, Subject::Workflow(name)).await,
            DeliveryAsk::Test(name) => self.test(tenant, &Subject::Function(name)).await,
            DeliveryAsk::TestWorkflow(name) => self.test(tenant, &Subject::Workflow(name)).await,
            DeliveryAsk::List(query) => Ok(HookAnswer::Deliveries(self.list(tenant, &query).await?)),
            DeliveryAsk::Get(id) => {
                let (delivery, _) = self.read(tenant, &id).await?;
                Ok(HookAnswer::Delivery(Box::new(delivery.view(id))))
            }
            DeliveryAsk::Redeliver(id) => Ok(HookAnswer::Delivery(Box::new(self.redeliver(tenant, &id).await?))),
        }
    }

    async fn put(
        &self,
        tenant: &TenantName,
        of: Subject,
        request: &lyra_types::delivery::DestinationsRequest,
    ) -> Result<HookAnswer> {
        let view = self.directory.put(tenant, &of, request).await?;
        Ok(HookAnswer::Destinations(Box::new(view)))
    }

    async fn show(&self, tenant: &TenantName, of: Subject) -> Result<HookAnswer> {
        let record = self.directory.get(tenant, &of).await?;
        Ok(HookAnswer::Destinations(Box::new(record.view(&of))))
    }

    async fn delete(&self, tenant: &TenantName, of: Subject) -> Result<HookAnswer> {
        self.directory.delete(tenant, &of).await?;
        Ok(HookAnswer::Done)
    }

    async fn read(&self, tenant: &TenantName, id: &str) -> Result<(Delivery, u64)> {
        let missing = || {
            let shown: String = id.chars().take(80).collect();
            Error::not_found("delivery", shown.escape_debug())
        };
        if !is_id(id) {
            return Err(missing());
        }
        let entry = self.objects.get(&key(tenant, id)).await?.ok_or_else(missing)?;
        Ok((read(&entry)?, entry.modified))
    }

    async fn list(&self, tenant: &TenantName, query: &DeliveryQuery) -> Result<Page<DeliveryView>> {
        let prefix = key(tenant, "");
        let limit = page_limit(query.page.limit);
        let mut after = match &query.page.cursor {
            Some(cursor) if is_id(cursor) => Some(key(tenant, cursor)),
            Some(_) => return Err(Error::field(Code::BadRequest, "cursor", "is not one that a list gave")),
            None => None,
        };
        let (mut items, mut looked) = (Vec::new(), 0);
        loop {
            let found = self.objects.list(&prefix, limit.min(CHUNK), after.as_deref()).await?;
            for entry in &found.entries {
                let delivery: Delivery = read(entry)?;
                looked += 1;
                after = Some(entry.key.clone());
                let fits = query.job.is_none_or(|job| delivery.job == Some(job))
                    && query.run.as_ref().is_none_or(|run| delivery.run.as_ref() == Some(run))
                    && query.status.is_none_or(|status| delivery.status == status);
                if fits {
                    items.push(delivery.view(entry.key[prefix.len()..].to_owned()));
                }
                if items.len() == limit || looked >= LOOKED_AT {
                    let next = after.map(|key| key[prefix.len()..].to_owned());
                    return Ok(Page { items, next });
                }
            }
            if !found.more {
                return Ok(Page { items, next: None });
            }
        }
    }

    /// Has a delivery tried again that has ended.
    async fn redeliver(&self, tenant: &TenantName, id: &str) -> Result<DeliveryView> {
        let (mut delivery, modified) = self.read(tenant, id).await?;
        let now = self.clock.now();
        if delivery.status != DeliveryStatus::Pending {
            delivery.status = DeliveryStatus::Pending;
            (delivery.attempts, delivery.since) = (0, now);
            delivery.finished_at = None;
        }
        delivery.next_attempt_at = Some(now);
        let key = key(tenant, id);
        let check = Check::Modified(key.clone(), modified);
        let changes = vec![put(key, &delivery)?, Change::Put(pending_key(tenant, id), "1".into())];
        if !self.commit(vec![check], changes).await? {
            return Err(Error::new(Code::Conflict, "the delivery is being tried at this moment; ask again"));
        }
        Ok(delivery.view(id.to_owned()))
    }

    /// Sends a message of no meaning to each destination of a function or a workflow.
    async fn test(&self, tenant: &TenantName, of: &Subject) -> Result<HookAnswer> {
        let destinations = self.directory.get(tenant, of).await?;
        let now = self.clock.now();
        let mut items = Vec::new();
        for target in [destinations.on_success, destinations.on_failure].into_iter().flatten() {
            let id = record::id(now, &self.random.u128().to_string());
            let data = serde_json::json!({(of.kind()): of.name()});
            let body = serde_json::json!({"id": id, "type": TEST, "timestamp": now, "data": data});
            let delivery = new_delivery(TEST, of, target, body.to_string(), now);
            self.make(tenant, &id, &delivery).await?;
            items.push(delivery.view(id));
        }
        Ok(HookAnswer::Deliveries(Page { items, next: None }))
    }

    /// What is pinned to a job or a run may be sealed with a key that is gone by its end: what its function or workflow has for the same
    /// URL now is as good.
    fn openable(&self, tenant: &TenantName, of: &Subject, target: Target) -> Target {
        let Target::Url { url, secret } = &target else { return target };
        if self.vault.has_key_of(secret) {
            return target;
        }
        self.directory.current(tenant, of, url).unwrap_or(target)
    }

    /// Stores a new delivery, unless it is there.
    async fn make(&self, tenant: &TenantName, id: &str, delivery: &Delivery) -> Result<()> {
        let key = key(tenant, id);
        let check = Check::Absent(key.clone());
        let mut changes = vec![put(key, delivery)?];
        if delivery.status == DeliveryStatus::Pending {
            changes.push(Change::Put(pending_key(tenant, id), "1".into()));
        }
        self.commit(vec![check], changes).await.map(drop)
    }

    /// Makes the changes if the checks hold; says whether they did.
    async fn commit(&self, checks: Vec<Check>, changes: Vec<Change>) -> Result<bool> {
        match self.objects.txn(Txn { checks, changes }).await {
            Ok(_) => Ok(true),
            Err(TxnError::Failed { .. }) => Ok(false),
            Err(TxnError::Store(error)) => Err(error.into()),
        }
    }
}

/// A delivery of which nothing was tried yet.
fn new_delivery(kind: &str, of: &Subject, target: Target, body: String, now: Timestamp) -> Delivery {
    let (function, workflow) = match of.clone() {
        Subject::Function(name) => (Some(name), None),
        Subject::Workflow(name) => (None, Some(name)),
    };
    Delivery {
        kind: kind.to_owned(),
        function,
        job: None,
        workflow,
        run: None,
        target,
        body,
        depth: 0,
        status: DeliveryStatus::Pending,
        attempts: 0,
        created_at: now,
        since: now,
        next_attempt_at: Some(now),
        finished_at: None,
        started_job: None,
        log: Vec::new(),
    }
}
