//! Triggers: functions that are called by events, a batch of them at a time, each batch as a durable job.
//!
//! # Layout in the store
//! ```text
//! triggers/{tenant}/{name}                      what was asked for
//! trigger-standings/{tenant}/{name}             how it stands, and what it has done
//! trigger-batches/{tenant}/{name}/{uid}/{job}   a batch of messages from NATS that is under way
//! trigger-leftovers/{tenant}/{uid}              a consumer at NATS that nobody needs any more
//! ```
//! Events that are posted ([`posting`]) become jobs at once, at whichever control process: what is answered is durable. Messages of NATS
//! are taken by the leader ([`leading`]), which acknowledges them once their job has ended.
//!
//! What must hold: a message is acknowledged only after its job has succeeded, or is where it can be redriven; and it is in one job,
//! whichever processes lead and whenever they die. So a batch is written down with its job's id before the job is handed in: whoever leads
//! next finds the same job by that id, and the messages that are in it by their numbers.

mod config;
mod event;
mod leading;
mod nats;
mod posting;
mod record;
mod s3;
mod tally;

use std::sync::Arc;

use lyra_kit::{Clock, Ids, Random, Tasks};
use lyra_store::objects::{Change, Check, Txn};
use lyra_store::{Objects, TxnError};
use lyra_types::api::Page;
use lyra_types::function::label;
use lyra_types::name::Qualifier;
use lyra_types::trigger::{MAX_TRIGGERS, MIN_TRIES, TriggerRequest, TriggerView};
use lyra_types::{Code, Error, FunctionVersion, Result, TenantName, TriggerName};
use lyra_wire::control::PageQuery;
use lyra_wire::hooks::{HookAnswer, TriggerAsk};

use crate::deliveries::address::Allowed;
use crate::functions::{Table, page_limit};
use crate::jobs::Jobs;
use crate::metrics::Metrics;
use crate::secrets::Secrets;
pub use config::TriggersConfig;
pub(crate) use record::of_tenant;
use record::{Leftover, Record, Standing, flights_of, key, leftover_key, parse_key, put, read, standing_key};
use tally::Tally;

/// Tries of a change that loses against others.
const TRIES: usize = 50;

/// Owner of triggers.
pub(crate) struct Triggers {
    objects: Arc<dyn Objects>,
    jobs: Arc<Jobs>,
    table: Arc<Table>,
    secrets: Arc<Secrets>,
    clock: Clock,
    random: Random,
    ids: Ids,
    metrics: Arc<Metrics>,
    config: TriggersConfig,
    allowed: Allowed,
    tally: Tally,
    lags: leading::Lags,
}

impl Triggers {
    pub(crate) fn new(
        deps: &crate::Deps,
        config: TriggersConfig,
        (jobs, table, secrets): (Arc<Jobs>, Arc<Table>, Arc<Secrets>),
        metrics: Arc<Metrics>,
    ) -> Triggers {
        Triggers {
            objects: Arc::clone(&deps.objects),
            jobs,
            table,
            secrets,
            clock: deps.clock.clone(),
            random: deps.random.clone(),
            ids: Ids::new(deps.clock.clone(), deps.random.clone()),
            metrics,
            allowed: Allowed(config.allow.clone().into()),
            config,
            tally: Tally::default(),
            lags: leading::Lags::default(),
        }
    }

    /// Checks what can be told of the settings before anything is connected to.
    ///
    /// # Errors
    /// [`Code::InvalidField`] with the setting at fault.
    pub(crate) fn check_settings(&self) -> Result<()> {
        self.config.ca_file.as_deref().map(nats::authorities).transpose().map(drop)
    }

    /// Writes down in the background what triggers do.
    pub(crate) fn start(self: &Arc<Self>, tasks: &Tasks) {
        let this = Arc::clone(self);
        tasks.every("write-down-triggers", tally::WRITE_EVERY, move || {
            let this = Arc::clone(&this);
            async move { this.write_down().await }
        });
    }

    pub(crate) async fn answer(&self, tenant: &TenantName, ask: TriggerAsk) -> Result<HookAnswer> {
        match ask {
            TriggerAsk::Put(name, request) => {
                let (view, created) = self.put(tenant, &name, *request).await?;
                Ok(HookAnswer::Trigger(Box::new(view), created))
            }
            TriggerAsk::Get(name) => {
                let record = self.read(tenant, &name).await?.0;
                Ok(HookAnswer::Trigger(Box::new(self.view(tenant, name, &record).await?), false))
            }
            TriggerAsk::List(page) => Ok(HookAnswer::Triggers(self.list(tenant, &page).await?)),
            TriggerAsk::Delete(name) => {
                self.delete(tenant, &name).await?;
                Ok(HookAnswer::Done)
            }
            TriggerAsk::Pause(name, paused) => {
                let view = self.pause(tenant, &name, paused).await?;
                Ok(HookAnswer::Trigger(Box::new(view), false))
            }
            TriggerAsk::Post(name, posted) => Ok(HookAnswer::Posted(self.post(tenant, &name, *posted).await?)),
        }
    }

    async fn put(
        &self,
        tenant: &TenantName,
        name: &TriggerName,
        request: TriggerRequest,
    ) -> Result<(TriggerView, bool)> {
        request.check()?;
        self.version(tenant, &request.function)
            .map_err(|error| Error::field(Code::InvalidField, "function", error.detail))?;
        if let Some(nats) = request.source.nats() {
            nats::check(nats, &self.allowed)?;
        }
        let key = key(tenant, name);
        for _ in 0..TRIES {
            let now = self.clock.now();
            let mut changes = Vec::new();
            let (check, record) = match self.objects.get(&key).await? {
                None => {
                    self.check_room(tenant).await?;
                    let trigger = request.clone();
                    let record = Record { uid: self.random.u64(), trigger, created_at: now, updated_at: now };
                    (Check::Absent(key.clone()), record)
                }
                Some(entry) => {
                    let mut record: Record = read(&entry)?;
                    if record.trigger.source.nats() != request.source.nats() {
                        changes.extend(self.leave(tenant, name, &record)?);
                        record.uid = self.random.u64();
                    }
                    record.trigger = request.clone();
                    record.updated_at = now;
                    (Check::Modified(key.clone(), entry.modified), record)
                }
            };
            let created = matches!(check, Check::Absent(_));
            changes.push(put(key.clone(), &record)?);
            if self.commit(vec![check], changes).await? {
                tracing::info!(%tenant, trigger = %name, created, "trigger put");
                return Ok((self.view(tenant, name.clone(), &record).await?, created));
            }
        }
        Err(too_many())
    }

    /// What is to be written where a trigger no longer takes messages from where it did: its batches are of no interest any more, and
    /// its consumer is to go.
    fn leave(&self, tenant: &TenantName, name: &TriggerName, record: &Record) -> Result<Vec<Change>> {
        let mut changes = vec![Change::DeletePrefix(flights_of(tenant, name))];
        if let Some(source) = record.trigger.source.nats() {
            let leftover = Leftover { name: name.clone(), source: source.clone(), since: self.clock.now() };
            changes.push(put(leftover_key(tenant, record.uid), &leftover)?);
        }
        Ok(changes)
    }

    /// Refuses one trigger too many.
    async fn check_room(&self, tenant: &TenantName) -> Result<()> {
        let found = self.objects.list(&of_tenant(tenant)[0], MAX_TRIGGERS, None).await?;
        if found.entries.len() < MAX_TRIGGERS {
            return Ok(());
        }
        let detail = format!("tenant {tenant} has {MAX_TRIGGERS} triggers already, the most that it may; delete some");
        Err(Error::new(Code::LimitReached, detail))
    }

    async fn read(&self, tenant: &TenantName, name: &TriggerName) -> Result<(Record, u64)> {
        let entry = self.objects.get(&key(tenant, name)).await?;
        let entry = entry.ok_or_else(|| Error::not_found("trigger", name))?;
        Ok((read(&entry)?, entry.modified))
    }

    async fn view(&self, tenant: &TenantName, name: TriggerName, record: &Record) -> Result<TriggerView> {
        let entry = self.objects.get(&standing_key(tenant, &name)).await?;
        let standing: Option<Standing> = entry.as_ref().map(read).transpose()?;
        Ok(record.view(name, standing))
    }

    async fn list(&self, tenant: &TenantName, page: &PageQuery) -> Result<Page<TriggerView>> {
        let prefix = &of_tenant(tenant)[0];
        let bad = |_| Error::field(Code::BadRequest, "cursor", "is not one that a list gave");
        let after = page.cursor.as_deref().map(TriggerName::new).transpose().map_err(bad)?;
        let after = after.map(|name| key(tenant, &name));
        let found = self.objects.list(prefix, page_limit(page.limit), after.as_deref()).await?;
        let mut items = Vec::with_capacity(found.entries.len());
        for entry in &found.entries {
            let Some((_, name)) = parse_key(&entry.key) else { continue };
            items.push(self.view(tenant, name, &read(entry)?).await?);
        }
        let next = found.entries.last().filter(|_| found.more).map(|entry| entry.key[prefix.len()..].to_owned());
        Ok(Page { items, next })
    }

    async fn delete(&self, tenant: &TenantName, name: &TriggerName) -> Result<()> {
        let key = key(tenant, name);
        for _ in 0..TRIES {
            let (record, modified) = self.read(tenant, name).await?;
            let mut changes = self.leave(tenant, name, &record)?;
            changes.push(Change::Delete(standing_key(tenant, name)));
            changes.push(Change::Delete(key.clone()));
            if self.commit(vec![Check::Modified(key.clone(), modified)], changes).await? {
                tracing::info!(%tenant, trigger = %name, "trigger deleted");
                return Ok(());
            }
        }
        Err(too_many())
    }

    async fn pause(&self, tenant: &TenantName, name: &TriggerName, paused: bool) -> Result<TriggerView> {
        let key = key(tenant, name);
        for _ in 0..TRIES {
            let (mut record, modified) = self.read(tenant, name).await?;
            if record.trigger.paused == paused {
                return self.view(tenant, name.clone(), &record).await;
            }
            record.trigger.paused = paused;
            record.updated_at = self.clock.now();
            if self.commit(vec![Check::Modified(key.clone(), modified)], vec![put(key.clone(), &record)?]).await? {
                tracing::info!(%tenant, trigger = %name, paused, "trigger paused or resumed");
                return self.view(tenant, name.clone(), &record).await;
            }
        }
        Err(too_many())
    }

    /// Makes the changes if the checks hold; says whether they did.
    async fn commit(&self, checks: Vec<Check>, changes: Vec<Change>) -> Result<bool> {
        match self.objects.txn(Txn { checks, changes }).await {
            Ok(_) => Ok(true),
            Err(TxnError::Failed { .. }) => Ok(false),
            Err(TxnError::Store(error)) => Err(error.into()),
        }
    }

    /// The version that a call of `function` gets now.
    fn version(&self, tenant: &TenantName, function: &str) -> Result<Arc<FunctionVersion>> {
        let (name, qualifier) = Qualifier::split(function)?;
        let route = self.table.get(tenant, &name).ok_or_else(|| Error::not_found("function", &name))?;
        let version = route.resolve(&qualifier, self.random.u64())?;
        if version.sessions.is_some() || version.labels.contains_key(label::CLASSIC) {
            let what =
                if version.sessions.is_some() { "is served by sessions" } else { "is one of the classic routes" };
            let detail = format!("function {name} {what}, and triggers can't call such ones");
            return Err(Error::new(Code::Conflict, detail));
        }
        Ok(Arc::clone(version))
    }

    /// The version that a batch is handed to, with the tries that the trigger grants it.
    fn version_for(&self, tenant: &TenantName, request: &TriggerRequest) -> Result<Arc<FunctionVersion>> {
        let version = self.version(tenant, &request.function)?;
        let tries = request.max_attempts.unwrap_or(version.max_attempts).max(MIN_TRIES);
        if version.max_attempts == tries {
            return Ok(version);
        }
        Ok(Arc::new(FunctionVersion { max_attempts: tries, ..(*version).clone() }))
    }
}

fn too_many() -> Error {
    Error::new(Code::Conflict, "the trigger is being changed by too many others; try again")
}
