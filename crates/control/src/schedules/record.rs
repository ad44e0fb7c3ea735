//! A schedule as it is stored, and what changes it.

use std::time::Duration;

use bytes::Bytes;
use lyra_kit::Timetable;
use lyra_store::objects::{Change, Entry};
use lyra_types::schedule::{Firing, KEPT_FIRINGS, ScheduleRequest, ScheduleView};
use lyra_types::{Error, Result, ScheduleName, TenantName, Timestamp};
use serde::{Deserialize, Serialize};

/// What the keys of all schedules begin with.
pub(super) const ALL: &str = "schedules/";
/// Next times that are shown.
const SHOWN: usize = 5;

/// A schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Drawn when it was made: the firings of another one of this name, before or after, are not this one's.
    pub(super) uid: u64,
    pub(super) schedule: ScheduleRequest,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    /// Times up to here were dealt with.
    pub(super) last: Timestamp,
    /// A time that waits for the job of the one before to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) waiting: Option<Timestamp>,
    /// Newest first.
    pub(super) history: Vec<Firing>,
}

/// What the keys of a tenant's schedules begin with.
pub(crate) fn of_tenant(tenant: &TenantName) -> String {
    format!("{ALL}{tenant}/")
}

pub(super) fn key(tenant: &TenantName, name: &ScheduleName) -> String {
    format!("{ALL}{tenant}/{name}")
}

/// Takes a key apart.
pub(super) fn parse_key(key: &str) -> Option<(TenantName, ScheduleName)> {
    let (tenant, name) = key.strip_prefix(ALL)?.split_once('/')?;
    Some((TenantName::new(tenant).ok()?, ScheduleName::new(name).ok()?))
}

impl Record {
    pub(super) fn read(entry: &Entry) -> Result<Record> {
        serde_json::from_slice(&entry.value).map_err(|error| {
            tracing::error!(key = %entry.key, %error, "a schedule can't be read");
            Error::internal("a stored schedule can't be read")
        })
    }

    pub(super) fn put(&self, key: String) -> Result<Change> {
        let json = serde_json::to_vec(self).map_err(|_| Error::internal("the schedule can't be stored"))?;
        Ok(Change::Put(key, Bytes::from(json)))
    }

    pub(super) fn timetable(&self) -> Result<Timetable> {
        timetable(&self.schedule)
    }

    /// Whether it was replaced in a way that gives it other times.
    pub(super) fn has_other_times(&self, other: &ScheduleRequest) -> bool {
        (&self.schedule.cron, &self.schedule.time_zone) != (&other.cron, &other.time_zone)
    }

    /// Remembers a firing; one that waited has now had its end.
    pub(super) fn remember(&mut self, firing: Firing) {
        let same = |of: &Firing| of.scheduled_at == firing.scheduled_at && of.manual == firing.manual;
        self.history.retain(|known| !same(known));
        self.history.insert(0, firing);
        self.history.truncate(KEPT_FIRINGS);
    }

    /// The key by which a job is the one of this time, however often it is submitted.
    pub(super) fn job_key(&self, name: &ScheduleName, tick: Timestamp) -> String {
        format!("schedule/{name}/{:016x}/{}", self.uid, tick.millis())
    }

    /// For how long missed times are made up for.
    pub(super) fn window(&self) -> Duration {
        Duration::from_secs(self.schedule.catch_up_seconds)
    }

    pub(super) fn view(&self, name: ScheduleName, now: Timestamp) -> Result<ScheduleView> {
        let mut next = Vec::new();
        if !self.schedule.paused {
            let table = self.timetable()?;
            let mut after = now;
            while next.len() < SHOWN
                && let Some(tick) = table.next(after)
            {
                next.push(tick);
                after = tick;
            }
        }
        Ok(ScheduleView {
            name,
            schedule: self.schedule.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            next,
            history: self.history.clone(),
        })
    }
}

/// The timetable of a schedule.
///
/// # Errors
/// With the field at fault.
pub(super) fn timetable(schedule: &ScheduleRequest) -> Result<Timetable> {
    Timetable::new(&schedule.cron, schedule.time_zone.as_deref(), "")
}
