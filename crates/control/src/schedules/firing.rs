//! What the leader does: fires what is due.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_store::objects::{Batch, Check, Pages, WatchError};
use lyra_types::schedule::{Firing, FiringOutcome, OverlapPolicy};
use lyra_types::{Code, Error, JobId, Result, ScheduleName, TenantName, Timestamp};

use super::record::{ALL, Record, parse_key};
use super::{Schedules, due};
use crate::leader::Term;

/// Schedules read at once.
const PAGE: usize = 1_000;
/// Longest sleep: a clock that was put forward is noticed after it.
const LONGEST: Duration = Duration::from_secs(30);
/// Wait before the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a firing that waits looks whether the job before has ended.
const LOOK: Duration = Duration::from_secs(1);
/// Schedules that are dealt with at the same time.
const AT_ONCE: usize = 32;
/// Firings of one schedule whose jobs are looked at for one that has not ended.
const RECENT: usize = 5;

/// When to look at a schedule next; by key.
type Agenda = BTreeMap<String, Timestamp>;
type Changes = BoxStream<'static, Result<Batch, WatchError>>;

impl Schedules {
    /// Fires what is due, for as long as the term lasts.
    pub(crate) async fn lead(&self, term: &Term) {
        let duties = async {
            loop {
                if let Err(error) = self.follow().await {
                    tracing::warn!(%error, "schedules can't be followed");
                }
                self.clock.sleep(AGAIN).await;
            }
        };
        term.over.run_until_cancelled(duties).await;
    }

    /// Reads all schedules and fires, until the store fails or forgets.
    async fn follow(&self) -> Result<()> {
        let mut agenda = Agenda::new();
        let mut pages = Pages::of(self.objects.as_ref(), ALL, PAGE);
        while let Some(entries) = pages.next().await? {
            for entry in &entries {
                self.plan(&mut agenda, &entry.key, Record::read(entry));
            }
        }
        // What is changed while the pages are read is read again.
        let watched = self.objects.watch(ALL, pages.revision() + 1).await;
        let mut changes: Changes = watched.map_err(|error| Error::new(Code::Unavailable, error.to_string()))?;
        loop {
            self.fire_due(&mut agenda).await;
            let now = self.clock.now();
            let next = agenda.values().min().map_or(LONGEST, |at| at.since(now) + Duration::from_millis(1));
            tokio::select! {
                changed = changes.next() => match self.learn(&mut agenda, changed).await? {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(()) => return Ok(()),
                },
                () = self.clock.sleep(next.min(LONGEST)) => {}
            }
        }
    }

    /// Takes note of changes; `Break` where some may have been missed.
    async fn learn(&self, agenda: &mut Agenda, changed: Option<Result<Batch, WatchError>>) -> Result<ControlFlow<()>> {
        let Some(Ok(batch)) = changed else { return Ok(ControlFlow::Break(())) };
        for event in batch.events {
            match self.objects.get(&event.key).await? {
                Some(entry) => self.plan(agenda, &event.key, Record::read(&entry)),
                None => drop(agenda.remove(&event.key)),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Notes when to look at a schedule.
    fn plan(&self, agenda: &mut Agenda, key: &str, record: Result<Record>) {
        let at = record.and_then(|record| self.next_look(&record));
        match at {
            Ok(Some(at)) => drop(agenda.insert(key.to_owned(), at)),
            Ok(None) => drop(agenda.remove(key)),
            Err(error) => {
                tracing::error!(key, %error, "a schedule does not fire: it can't be read");
                agenda.remove(key);
            }
        }
    }

    fn next_look(&self, record: &Record) -> Result<Option<Timestamp>> {
        if record.schedule.paused {
            return Ok(None);
        }
        let waits = record.waiting.map(|_| self.clock.now() + LOOK);
        let next = record.timetable()?.next(record.last);
        Ok([waits, next].into_iter().flatten().min())
    }

    async fn fire_due(&self, agenda: &mut Agenda) {
        let now = self.clock.now();
        let keys: Vec<String> = agenda.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        let looks = keys.into_iter().map(|key| async move {
            let looked = match parse_key(&key) {
                Some((tenant, name)) => self.look_at(&tenant, &name).await,
                None => Ok(None),
            };
            (key, looked)
        });
        let mut looked = futures::stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some((key, looked)) = looked.next().await {
            match looked {
                Ok(Some(record)) => self.plan(agenda, &key, Ok(record)),
                Ok(None) => drop(agenda.remove(&key)),
                Err(error) => {
                    tracing::warn!(key, %error, "a schedule could not fire; it is tried again");
                    agenda.insert(key, now + AGAIN);
                }
            }
        }
    }

    /// Deals with what of a schedule is due, and returns it as it stands then; `None` where it is gone.
    async fn look_at(&self, tenant: &TenantName, name: &ScheduleName) -> Result<Option<Record>> {
        let (mut record, modified) = match self.read(tenant, name).await {
            Ok(found) => found,
            Err(error) if error.code == Code::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if record.schedule.paused {
            return Ok(Some(record));
        }
        let now = self.clock.now();
        let window = record.window().min(self.jobs.remembers());
        let (missed, most) = (record.schedule.missed, record.schedule.max_missed as usize);
        let due = due::due(&record.timetable()?, record.last, now, missed, window, most);
        if due.ticks.is_empty() && record.waiting.is_none() {
            return Ok(Some(record));
        }
        let before = record.clone();
        if let Some(tick) = record.waiting
            && self.unended(tenant, &record).await?.is_empty()
        {
            record.waiting = None;
            self.start(tenant, name, &mut record, tick).await?;
        }
        for tick in due.ticks {
            self.fire(tenant, name, &mut record, tick).await?;
        }
        record.last = due.until;
        if record == before {
            return Ok(Some(record));
        }
        let key = super::key(tenant, name);
        if self.commit(Check::Modified(key.clone(), modified), record.put(key)?).await? {
            return Ok(Some(record));
        }
        // Somebody changed it meanwhile. What was started here is found by its key when it is looked at again.
        match self.read(tenant, name).await {
            Ok((record, _)) => Ok(Some(record)),
            Err(error) if error.code == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fires a time, as the overlap policy has it.
    async fn fire(&self, tenant: &TenantName, name: &ScheduleName, record: &mut Record, tick: Timestamp) -> Result<()> {
        let policy = record.schedule.overlap;
        let running = match policy {
            OverlapPolicy::Allow => Vec::new(),
            _ => self.unended(tenant, record).await?,
        };
        if running.is_empty() && record.waiting.is_none() {
            return self.start(tenant, name, record, tick).await;
        }
        match policy {
            OverlapPolicy::Allow => self.start(tenant, name, record, tick).await,
            OverlapPolicy::Replace => {
                for job in running {
                    match self.jobs.cancel(tenant, job, Duration::ZERO).await {
                        Ok(_) => {}
                        Err(error) if error.code == Code::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
                self.start(tenant, name, record, tick).await
            }
            OverlapPolicy::Queue if record.waiting.is_none() => {
                record.waiting = Some(tick);
                self.note(name, record, tick, FiringOutcome::Waiting, None, None);
                Ok(())
            }
            OverlapPolicy::Queue | OverlapPolicy::Skip => {
                self.note(name, record, tick, FiringOutcome::Overlapped, None, None);
                Ok(())
            }
        }
    }

    /// Starts the job of a time.
    async fn start(
        &self,
        tenant: &TenantName,
        name: &ScheduleName,
        record: &mut Record,
        tick: Timestamp,
    ) -> Result<()> {
        match self.submit(tenant, record, Some(record.job_key(name, tick))).await {
            Ok(job) => self.note(name, record, tick, FiringOutcome::Started, Some(job), None),
            // There was a job of this time; the event was changed since.
            Err(error) if error.code == Code::IdempotencyMismatch => {
                self.note(name, record, tick, FiringOutcome::Started, None, None);
            }
            // No room or no store: it is tried again.
            Err(error) if matches!(error.code, Code::Overloaded | Code::Unavailable | Code::Internal) => {
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(%tenant, schedule = %name, %error, "a firing is refused");
                self.note(name, record, tick, FiringOutcome::Refused, None, Some(error.detail));
            }
        }
        Ok(())
    }

    fn note(
        &self,
        name: &ScheduleName,
        record: &mut Record,
        tick: Timestamp,
        outcome: FiringOutcome,
        job: Option<JobId>,
        error: Option<String>,
    ) {
        let now = self.clock.now();
        self.metrics.firings.with_label_values(&[outcome.as_str()]).inc();
        if outcome == FiringOutcome::Started {
            self.metrics.firing_delay.observe(now.since(tick).as_secs_f64());
        }
        tracing::debug!(schedule = %name, %tick, outcome = outcome.as_str(), "schedule fired");
        record.remember(Firing { scheduled_at: tick, fired_at: now, outcome, manual: false, job, error });
    }

    /// Jobs of the last firings that have not ended.
    async fn unended(&self, tenant: &TenantName, record: &Record) -> Result<Vec<JobId>> {
        let recent = record.history.iter().filter(|firing| !firing.manual).filter_map(|firing| firing.job);
        let mut running = Vec::new();
        for job in recent.take(RECENT) {
            match self.jobs.get(tenant, job, Duration::ZERO).await {
                Ok(found) if !found.job.status.is_final() => running.push(job),
                Ok(_) => {}
                Err(error) if error.code == Code::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(running)
    }
}
