//! Schedules: workflows that start runs by themselves.
//!
//! What must hold: a tick starts one run, however many hosts look and whichever of them is killed: the run's id is made of the
//! workflow's name and the tick, and a second start with an id is the first one. Of ticks that were missed while nobody was
//! there the last one is made up for, not each.

use std::time::Duration;

use bytes::Bytes;
use lyra_kit::Timetable;
use lyra_store::TxnError;
use lyra_store::objects::{Change, Check, Entry, Pages, Txn};
use lyra_types::{Code, Error, Result, RunId, TenantName, Timestamp, WorkflowName};
use lyra_wire::Workflows;
use lyra_wire::workflows::{NewRun, Overlap, RunCommand, Schedule, ScheduledRun, WorkflowSchedule};
use serde::{Deserialize, Serialize};

use crate::service::{Origin, Service};

/// How often schedules are looked at: a run starts at most so late.
const LOOK: Duration = Duration::from_secs(1);
/// Schedules read at once.
const PAGE: usize = 1_000;
/// Times that the end of a tick is written where deploys come between.
const TRIES: usize = 4;
/// What all keys of schedules begin with.
const ALL: &str = "workflow-schedules/";

/// A schedule as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timed {
    pub schedule: Schedule,
    /// The last tick that was dealt with; of a new schedule: when it was made.
    pub last: Timestamp,
    /// The last run that it started, if it started one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The tick of that run; not there in what an earlier Lyra wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<Timestamp>,
}

impl Timed {
    /// What follows this one, of which there may be none, where a deploy says `schedule` at `now`. The run that it started is
    /// not forgotten, since it may not have ended; and the same times go on where they are: none of them is missed, and none
    /// has two runs.
    pub(crate) fn after(before: Option<Timed>, schedule: Schedule, now: Timestamp) -> Timed {
        let fresh = Timed { schedule, last: now, run: None, ran: None };
        let Some(before) = before else { return fresh };
        let (old, new) = (&before.schedule, &fresh.schedule);
        let same = old.cron == new.cron && old.time_zone == new.time_zone;
        Timed { last: if same { before.last } else { now }, run: before.run, ran: before.ran, ..fresh }
    }

    /// As people see it.
    pub(crate) fn shown(self, now: Timestamp) -> WorkflowSchedule {
        // Between a tick and the look that finds it, that tick is still to come.
        let next = parse(&self.schedule).ok().and_then(|times| times.next(self.last.max(now - LOOK)));
        let Schedule { cron, time_zone, overlap, input } = self.schedule;
        let last = self.run.map(|run| ScheduledRun { run, at: self.ran });
        WorkflowSchedule { cron, time_zone, overlap, input, next, last }
    }
}

pub(crate) fn key(tenant: &TenantName, name: &WorkflowName) -> String {
    format!("{ALL}{tenant}/{name}")
}

/// What the keys of a tenant's schedules begin with.
pub(crate) fn of_tenant(tenant: &TenantName) -> String {
    format!("{ALL}{tenant}/")
}

/// A schedule that is stored.
///
/// # Errors
/// When it is none.
pub(crate) fn read(entry: &Entry) -> Result<Timed> {
    serde_json::from_slice(&entry.value)
        .map_err(|error| Error::internal(format!("a stored schedule can't be read: {error}")))
}

/// Checks a schedule.
///
/// # Errors
/// [`Code::InvalidField`] with the field at fault.
pub(crate) fn check(schedule: &Schedule) -> Result<()> {
    parse(schedule).map(drop)
}

fn parse(schedule: &Schedule) -> Result<Timetable> {
    Timetable::new(&schedule.cron, schedule.time_zone.as_deref(), "schedule.")
}

/// The last tick up to `now`, if it is later than `last`.
fn due(schedule: &Schedule, last: Timestamp, now: Timestamp) -> Result<Option<Timestamp>> {
    // A pattern that never was has no tick.
    Ok(parse(schedule)?.last(now).filter(|tick| *tick > last))
}

/// The run of one tick.
fn run_of(name: &WorkflowName, tick: Timestamp) -> Result<RunId> {
    RunId::new(&format!("{name}.{}", tick.millis() / 1_000))
}

impl Service {
    /// Starts what is due, for ever.
    pub(crate) async fn follow_schedules(self) {
        loop {
            self.clock().sleep(LOOK).await;
            if let Err(error) = self.look_at_schedules().await {
                tracing::warn!(%error, "schedules of workflows can't be looked at");
            }
        }
    }

    async fn look_at_schedules(&self) -> Result<()> {
        let mut pages = Pages::of(self.objects(), ALL, PAGE);
        while let Some(entries) = pages.next().await? {
            for entry in &entries {
                if let Err(error) = self.look_at(entry).await {
                    tracing::warn!(key = %entry.key, %error, "a scheduled run could not be started; it is tried again");
                }
            }
        }
        Ok(())
    }

    async fn look_at(&self, entry: &Entry) -> Result<()> {
        let timed = read(entry)?;
        let Some(tick) = due(&timed.schedule, timed.last, self.clock().now())? else { return Ok(()) };
        let names = entry.key.strip_prefix(ALL).and_then(|rest| rest.split_once('/'));
        let (tenant, name) = names.ok_or_else(|| Error::internal("a schedule's key names no workflow"))?;
        let (tenant, name) = (TenantName::new(tenant)?, WorkflowName::new(name)?);
        let run = self.fire(&tenant, &name, &timed, tick).await?;
        self.note(entry, timed, tick, run).await
    }

    /// Writes down that a tick was dealt with, and which run it has started: also where a deploy has changed the schedule
    /// meanwhile.
    async fn note(&self, entry: &Entry, mut timed: Timed, tick: Timestamp, run: Option<RunId>) -> Result<()> {
        let mut modified = entry.modified;
        for _ in 0..TRIES {
            timed.last = timed.last.max(tick);
            if run.is_some() {
                (timed.run, timed.ran) = (run.clone(), Some(tick));
            }
            let value = serde_json::to_vec(&timed).map_err(|error| Error::internal(error.to_string()))?;
            let txn = Txn {
                checks: vec![Check::Modified(entry.key.clone(), modified)],
                changes: vec![Change::Put(entry.key.clone(), Bytes::from(value))],
            };
            match self.objects().txn(txn).await {
                Ok(_) => return Ok(()),
                Err(TxnError::Store(error)) => return Err(error.into()),
                Err(TxnError::Failed { .. }) => {}
            }
            let Some(now) = self.objects().get(&entry.key).await? else { return Ok(()) };
            (timed, modified) = (read(&now)?, now.modified);
            if timed.last >= tick && (run.is_none() || timed.ran >= Some(tick)) {
                // Another host was faster.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Starts the run of a tick, unless the one before forbids it.
    async fn fire(
        &self,
        tenant: &TenantName,
        name: &WorkflowName,
        timed: &Timed,
        tick: Timestamp,
    ) -> Result<Option<RunId>> {
        let running = match &timed.run {
            Some(run) => match self.run(tenant, run, Duration::ZERO).await {
                Ok(run) => !run.status.is_final(),
                Err(error) if error.code == Code::NotFound => false,
                Err(error) => return Err(error),
            },
            None => false,
        };
        match (running, timed.schedule.overlap, &timed.run) {
            (true, Overlap::Skip, _) => {
                tracing::info!(%tenant, workflow = %name, "a scheduled run is left out: the one before has not ended");
                return Ok(None);
            }
            (true, Overlap::Replace, Some(before)) => {
                self.command(tenant, before, RunCommand::Cancel).await?;
            }
            _ => {}
        }
        let id = run_of(name, tick)?;
        let new = NewRun { input: timed.schedule.input.clone(), id: Some(id.clone()), ..NewRun::default() };
        let origin = Origin { schedule: Some(timed.schedule.cron.clone()), ..Origin::default() };
        match self.start_run(tenant, name, new, origin).await {
            // With another input it was started before, and the process that did was killed.
            Ok(_) | Err(Error { code: Code::IdempotencyMismatch, .. }) => Ok(Some(id)),
            // It would be refused again and again: the schedule goes on with its next tick.
            Err(error) if matches!(error.code, Code::InvalidField | Code::NotFound) => {
                tracing::warn!(%tenant, workflow = %name, %error, "a scheduled run is refused");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use lyra_wire::control::PageQuery;
    use lyra_wire::workflows::{NewWorkflow, RunQuery};

    use super::*;
    use crate::clearing::tests::Site;

    fn schedule(cron: &str, zone: Option<&str>) -> Schedule {
        let time_zone = zone.map(str::to_owned);
        Schedule { cron: cron.to_owned(), time_zone, overlap: Overlap::Skip, input: serde_json::Map::new() }
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a time")
    }

    #[test]
    fn the_last_tick_is_due_once_and_missed_ones_are_not_made_up_for_one_by_one() {
        let hourly = schedule("0 * * * *", None);
        let made = at("2026-11-21T10:30:00Z");
        assert_eq!(due(&hourly, made, at("2026-11-21T10:59:59Z")), Ok(None));
        let tick = at("2026-11-21T15:00:00Z");
        assert_eq!(due(&hourly, made, at("2026-11-21T15:20:00Z")), Ok(Some(tick)));
        assert_eq!(due(&hourly, tick, at("2026-11-21T15:20:01Z")), Ok(None));
    }

    #[test]
    fn a_deploy_forgets_neither_the_run_before_nor_the_times_that_were_dealt_with() {
        let (tick, now) = (at("2026-11-21T15:00:00Z"), at("2026-11-21T15:20:00Z"));
        let run = RunId::new("w.1").expect("an id");
        let before = Timed { schedule: schedule("0 * * * *", None), last: tick, run: Some(run), ran: Some(tick) };
        let mut same = before.schedule.clone();
        same.overlap = Overlap::Allow;
        let after = Timed::after(Some(before.clone()), same.clone(), now);
        assert_eq!(after, Timed { schedule: same, ..before.clone() });
        let other = Timed::after(Some(before.clone()), schedule("5 * * * *", None), now);
        assert_eq!((other.last, &other.run), (now, &before.run), "times of another pattern begin now");
        let fresh = Timed::after(None, before.schedule.clone(), now);
        assert_eq!((fresh.last, fresh.run), (now, None));
        let shown = before.shown(now);
        assert_eq!(shown.next, Some(at("2026-11-21T16:00:00Z")));
        assert_eq!(shown.last.and_then(|last| last.at), Some(tick));
    }

    const WAITS: &str = "
name: waits
workflowBody:
  - function: { name: ask, type: \"lyra:callback\", dataOuts: [{ name: ok, type: boolean }] }
dataOuts: [{ name: ok, type: boolean, source: ask/ok }]
";

    /// A deploy of a workflow whose runs end when somebody ends them.
    fn waits(more: &str, schedule: Option<Option<Schedule>>) -> NewWorkflow {
        let (name, definition) = (WorkflowName::new("waits").expect("a name"), format!("{WAITS}{more}"));
        NewWorkflow { name, definition, mappings: serde_json::json!([]), schedule }
    }

    #[tokio::test(start_paused = true)]
    async fn a_schedule_stays_over_deploys_with_the_run_that_it_started_until_it_is_removed() {
        let clock = lyra_kit::Clock::simulated(at("2026-11-21T10:00:00Z"));
        let site = Site::with(crate::Config::default(), clock).await;
        let (service, tenant) = (&site.service, TenantName::default_tenant());
        let name = WorkflowName::new("waits").expect("a name");
        let every_second = schedule("* * * * * *", None);
        service.deploy(&tenant, waits("", Some(Some(every_second.clone())))).await.expect("deployed");
        let page = PageQuery { limit: 100, cursor: None };
        let query = RunQuery { page: page.clone(), ..RunQuery::default() };
        let runs = async || service.runs(&tenant, query.clone()).await.expect("runs").items;
        let shown = loop {
            let shown = service.workflow(&tenant, &name, None).await.expect("shown").schedule.expect("a schedule");
            if shown.last.is_some() {
                break shown;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let first = runs().await.remove(0).id;
        assert_eq!((shown.cron.as_str(), shown.last.map(|last| last.run)), ("* * * * * *", Some(first)));
        assert!(shown.next.is_some_and(|next| next > at("2026-11-21T10:00:00Z")));
        assert_eq!(service.workflow(&tenant, &name, Some(1)).await.expect("shown").schedule, None);
        // Said again, and not said: the run before has not ended either way.
        for (more, said) in [("# two", Some(Some(every_second))), ("# three", None)] {
            let made = service.deploy(&tenant, waits(more, said)).await.expect("deployed");
            assert!(made.created);
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(runs().await.len(), 1, "a tick is left out while its run goes on");
            let listed = service.workflows(&tenant, page.clone()).await;
            assert!(listed.expect("listed").items[0].schedule.is_some(), "{more}");
        }
        assert!(!service.deploy(&tenant, waits("# three", None)).await.expect("deployed").created);
        service.command(&tenant, &runs().await[0].id, RunCommand::Cancel).await.expect("cancelled");
        while runs().await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let newest = runs().await.remove(0);
        assert_eq!((newest.version, newest.schedule.as_deref()), (3, Some("* * * * * *")));
        service.command(&tenant, &newest.id, RunCommand::Cancel).await.expect("cancelled");
        assert!(service.deploy(&tenant, waits("# three", Some(None))).await.expect("deployed").created);
        assert_eq!(service.workflow(&tenant, &name, None).await.expect("shown").schedule, None);
        let before = runs().await.len();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(runs().await.len(), before);
        service.stop(Duration::ZERO).await;
    }

    #[test]
    fn a_time_zone_moves_the_tick() {
        let daily = schedule("0 9 * * *", Some("Europe/Berlin"));
        let tick = due(&daily, at("2026-11-20T00:00:00Z"), at("2026-11-21T12:00:00Z"));
        assert_eq!(tick, Ok(Some(at("2026-11-21T08:00:00Z"))));
    }

    #[test]
    fn what_is_no_pattern_or_zone_is_refused_by_field() {
        for (schedule, field) in
            [(schedule("soon", None), "schedule.cron"), (schedule("0 * * * *", Some("Moon/Sea")), "schedule.time_zone")]
        {
            let error = check(&schedule).expect_err("refused");
            assert_eq!((error.code, error.errors[0].field.as_str()), (Code::InvalidField, field));
        }
    }
}
