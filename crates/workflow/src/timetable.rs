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
use lyra_wire::workflows::{NewRun, Overlap, RunCommand, Schedule};
use serde::{Deserialize, Serialize};

use crate::service::{Origin, Service};

/// How often schedules are looked at: a run starts at most so late.
const LOOK: Duration = Duration::from_secs(1);
/// Schedules read at once.
const PAGE: usize = 1_000;
/// What all keys of schedules begin with.
const ALL: &str = "workflow-schedules/";

/// A schedule as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timed {
    pub schedule: Schedule,
    /// The last tick that was dealt with; of a new schedule: when it was made.
    pub last: Timestamp,
    /// The run that the last tick started, if it started one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

pub(crate) fn key(tenant: &TenantName, name: &WorkflowName) -> String {
    format!("{ALL}{tenant}/{name}")
}

/// What the keys of a tenant's schedules begin with.
pub(crate) fn of_tenant(tenant: &TenantName) -> String {
    format!("{ALL}{tenant}/")
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
        let timed: Timed = serde_json::from_slice(&entry.value)
            .map_err(|error| Error::internal(format!("a stored schedule can't be read: {error}")))?;
        let Some(tick) = due(&timed.schedule, timed.last, self.clock().now())? else { return Ok(()) };
        let names = entry.key.strip_prefix(ALL).and_then(|rest| rest.split_once('/'));
        let (tenant, name) = names.ok_or_else(|| Error::internal("a schedule's key names no workflow"))?;
        let (tenant, name) = (TenantName::new(tenant)?, WorkflowName::new(name)?);
        let run = self.fire(&tenant, &name, &timed, tick).await?;
        let next = Timed { last: tick, run: run.or_else(|| timed.run.clone()), ..timed };
        let value = serde_json::to_vec(&next).map_err(|error| Error::internal(error.to_string()))?;
        let txn = Txn {
            checks: vec![Check::Modified(entry.key.clone(), entry.modified)],
            changes: vec![Change::Put(entry.key.clone(), Bytes::from(value))],
        };
        match self.objects().txn(txn).await {
            // Another host was faster, or the schedule was changed: the tick has had its run either way.
            Ok(_) | Err(TxnError::Failed { .. }) => Ok(()),
            Err(TxnError::Store(error)) => Err(error.into()),
        }
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
            Ok(_) => Ok(Some(id)),
            // It would be refused again and again: the schedule goes on with its next tick.
            Err(error) if matches!(error.code, Code::InvalidField | Code::NotFound | Code::IdempotencyMismatch) => {
                tracing::warn!(%tenant, workflow = %name, %error, "a scheduled run is refused");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
