//! Schedules: functions that are called by themselves, each firing as a durable job.
//!
//! # Layout in the store
//! ```text
//! schedules/{tenant}/{name}      what was asked for, up to when it was dealt with, its last firings
//! ```
//! What must hold: each time of a schedule starts one job, whichever processes lead and whenever they die. The leader submits the job
//! under a key that is made of the schedule's identity and the time, then notes that it was dealt with, if nobody else has changed the
//! schedule since. Whoever finds the note missing submits again under the same key, and gets the same job. Such keys are
//! remembered for longer than times are made up for.
//!
//! The leader sleeps until the next time of any schedule, or until one is changed; it looks at those alone whose time has come.

mod due;
mod firing;
mod record;

use std::sync::Arc;

use lyra_kit::{Clock, Random};
use lyra_store::objects::{Change, Check, Txn};
use lyra_store::{Objects, TxnError};
use lyra_types::api::Page;
use lyra_types::name::Qualifier;
use lyra_types::schedule::{Firing, FiringOutcome, MAX_SCHEDULES, ScheduleRequest, ScheduleRun, ScheduleView};
use lyra_types::{Code, Error, JobId, Result, ScheduleName, TenantName, Timestamp};
use lyra_wire::control::{PageQuery, Submit};
use lyra_wire::hooks::{HookAnswer, ScheduleAsk};

use crate::functions::{Table, page_limit};
use crate::jobs::Jobs;
use crate::metrics::Metrics;
pub(crate) use record::of_tenant;
use record::{Record, key, parse_key, timetable};

/// Tries of a change that loses against others.
const TRIES: usize = 50;

/// Owner of schedules.
pub(crate) struct Schedules {
    objects: Arc<dyn Objects>,
    jobs: Arc<Jobs>,
    table: Arc<Table>,
    clock: Clock,
    random: Random,
    metrics: Arc<Metrics>,
}

impl Schedules {
    pub(crate) fn new(deps: &crate::Deps, jobs: Arc<Jobs>, table: Arc<Table>, metrics: Arc<Metrics>) -> Schedules {
        Schedules {
            objects: Arc::clone(&deps.objects),
            jobs,
            table,
            clock: deps.clock.clone(),
            random: deps.random.clone(),
            metrics,
        }
    }

    pub(crate) async fn answer(&self, tenant: &TenantName, ask: ScheduleAsk) -> Result<HookAnswer> {
        match ask {
            ScheduleAsk::Put(name, request) => {
                let (view, created) = self.put(tenant, &name, *request).await?;
                Ok(HookAnswer::Schedule(Box::new(view), created))
            }
            ScheduleAsk::Get(name) => {
                let record = self.read(tenant, &name).await?.0;
                Ok(HookAnswer::Schedule(Box::new(record.view(name, self.clock.now())?), false))
            }
            ScheduleAsk::List(page) => Ok(HookAnswer::Schedules(self.list(tenant, &page).await?)),
            ScheduleAsk::Delete(name) => {
                self.delete(tenant, &name).await?;
                Ok(HookAnswer::Done)
            }
            ScheduleAsk::Pause(name, paused) => {
                let view = self.pause(tenant, &name, paused).await?;
                Ok(HookAnswer::Schedule(Box::new(view), false))
            }
            ScheduleAsk::Run(name) => Ok(HookAnswer::Ran(self.run(tenant, &name).await?)),
        }
    }

    async fn put(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
        request: ScheduleRequest,
    ) -> Result<(ScheduleView, bool)> {
        request.check()?;
        let (table, now) = (timetable(&request)?, self.clock.now());
        if table.next(now).is_none() && table.last(now).is_none() {
            let reason = "means no time at all: there is no such day";
            return Err(Error::field(Code::InvalidField, "cron", reason));
        }
        self.version(tenant, &request.function)
            .map_err(|error| Error::field(Code::InvalidField, "function", error.detail))?;
        let key = key(tenant, name);
        for _ in 0..TRIES {
            let now = self.clock.now();
            let (check, record) = match self.objects.get(&key).await? {
                None => {
                    self.check_room(tenant).await?;
                    let record = Record {
                        uid: self.random.u64(),
                        schedule: request.clone(),
                        created_at: now,
                        updated_at: now,
                        last: now,
                        waiting: None,
                        history: Vec::new(),
                    };
                    (Check::Absent(key.clone()), record)
                }
                Some(entry) => {
                    let mut record = Record::read(&entry)?;
                    // Times that it did not have, or not fired at, were not missed.
                    if record.has_other_times(&request) || record.schedule.paused {
                        (record.last, record.waiting) = (now, None);
                    }
                    record.schedule = request.clone();
                    record.updated_at = now;
                    (Check::Modified(key.clone(), entry.modified), record)
                }
            };
            let created = matches!(check, Check::Absent(_));
            if self.commit(check, record.put(key.clone())?).await? {
                tracing::info!(%tenant, schedule = %name, created, "schedule put");
                return Ok((record.view(name.clone(), now)?, created));
            }
        }
        Err(too_many())
    }

    /// Refuses one schedule too many.
    async fn check_room(&self, tenant: &TenantName) -> Result<()> {
        let found = self.objects.list(&of_tenant(tenant), MAX_SCHEDULES, None).await?;
        if found.entries.len() < MAX_SCHEDULES {
            return Ok(());
        }
        let detail = format!("tenant {tenant} has {MAX_SCHEDULES} schedules already, the most that it may");
        Err(Error::new(Code::LimitReached, detail))
    }

    async fn read(&self, tenant: &TenantName, name: &ScheduleName) -> Result<(Record, u64)> {
        let entry = self.objects.get(&key(tenant, name)).await?;
        let entry = entry.ok_or_else(|| Error::not_found("schedule", name))?;
        Ok((Record::read(&entry)?, entry.modified))
    }

    async fn list(&self, tenant: &TenantName, page: &PageQuery) -> Result<Page<ScheduleView>> {
        let prefix = of_tenant(tenant);
        let bad = |_| Error::field(Code::BadRequest, "cursor", "is not one that a list gave");
        let after = page.cursor.as_deref().map(ScheduleName::new).transpose().map_err(bad)?;
        let after = after.map(|name| key(tenant, &name));
        let found = self.objects.list(&prefix, page_limit(page.limit), after.as_deref()).await?;
        let now = self.clock.now();
        let mut items = Vec::with_capacity(found.entries.len());
        for entry in &found.entries {
            let Some((_, name)) = parse_key(&entry.key) else { continue };
            items.push(Record::read(entry)?.view(name, now)?);
        }
        let next = found.entries.last().filter(|_| found.more).map(|entry| entry.key[prefix.len()..].to_owned());
        Ok(Page { items, next })
    }

    async fn delete(&self, tenant: &TenantName, name: &ScheduleName) -> Result<()> {
        let key = key(tenant, name);
        if !self.commit(Check::Exists(key.clone()), Change::Delete(key)).await? {
            return Err(Error::not_found("schedule", name));
        }
        tracing::info!(%tenant, schedule = %name, "schedule deleted");
        Ok(())
    }

    async fn pause(&self, tenant: &TenantName, name: &ScheduleName, paused: bool) -> Result<ScheduleView> {
        self.change(tenant, name, |record, now| {
            if record.schedule.paused != paused {
                record.schedule.paused = paused;
                record.updated_at = now;
                // What comes while it is paused is not missed; what waited is let go.
                (record.last, record.waiting) = (now, None);
            }
        })
        .await
    }

    async fn run(&self, tenant: &TenantName, name: &ScheduleName) -> Result<ScheduleRun> {
        let (record, _) = self.read(tenant, name).await?;
        let job = self.submit(tenant, &record, None).await?;
        let asked = self.clock.now();
        let firing = Firing {
            scheduled_at: asked,
            fired_at: asked,
            outcome: FiringOutcome::Started,
            manual: true,
            job: Some(job),
            error: None,
        };
        self.metrics.firings.with_label_values(&["manual"]).inc();
        // The job is there, whether it can be noted or not.
        if let Err(error) = self.change(tenant, name, |record, _| record.remember(firing.clone())).await {
            tracing::warn!(%error, %tenant, schedule = %name, "a firing by hand can't be noted");
        }
        Ok(ScheduleRun { job })
    }

    /// Changes a schedule, again where another change came in between.
    async fn change(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
        mut change: impl FnMut(&mut Record, Timestamp),
    ) -> Result<ScheduleView> {
        let key = key(tenant, name);
        for _ in 0..TRIES {
            let (mut record, modified) = self.read(tenant, name).await?;
            let now = self.clock.now();
            change(&mut record, now);
            if self.commit(Check::Modified(key.clone(), modified), record.put(key.clone())?).await? {
                return record.view(name.clone(), now);
            }
        }
        Err(too_many())
    }

    /// Makes a change if the check holds; says whether it did.
    async fn commit(&self, check: Check, change: Change) -> Result<bool> {
        match self.objects.txn(Txn { checks: vec![check], changes: vec![change] }).await {
            Ok(_) => Ok(true),
            Err(TxnError::Failed { .. }) => Ok(false),
            Err(TxnError::Store(error)) => Err(error.into()),
        }
    }

    /// The version that a call of `function` gets now.
    fn version(&self, tenant: &TenantName, function: &str) -> Result<Arc<lyra_types::FunctionVersion>> {
        let (name, qualifier) = Qualifier::split(function)?;
        let route = self.table.get(tenant, &name).ok_or_else(|| Error::not_found("function", &name))?;
        route.resolve(&qualifier, self.random.u64()).cloned()
    }

    /// Submits a job, under the key where there is one.
    async fn submit(&self, tenant: &TenantName, record: &Record, key: Option<String>) -> Result<JobId> {
        let version = self.version(tenant, &record.schedule.function)?;
        let event = serde_json::to_vec(&record.schedule.event)
            .map_err(|_| Error::internal("the schedule's event can't be written"))?;
        let submit =
            Submit { id: None, version, event: event.into(), idempotency_key: key, user: None, destinations: None };
        Ok(self.jobs.submit(submit).await?.id)
    }
}

fn too_many() -> Error {
    Error::new(Code::Conflict, "the schedule is being changed by too many others; try again")
}
