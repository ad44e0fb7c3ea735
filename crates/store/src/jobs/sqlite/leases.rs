//! Leases: given, prolonged, ended by their holder, lost.

use std::collections::HashMap;

use bytes::Bytes;
use lyra_types::job::{Job, JobStatus};
use lyra_types::quota::QuotaKey;
use lyra_types::usage::{Hour, Usage, UsageKey, UsageRow};
use lyra_types::{Error, JobId, TenantName, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::row::{Stored, add_payload, columns, drop_event, end, find, job_id, key, load, payload, save, stored};
use super::usage;
use crate::StoreError;
use crate::jobs::{Held, JobsError, Lease, LeaseRequest, Leased, LeasedJob, Outcome, life};

/// Lost leases dealt with in one request.
pub(in crate::jobs) const EXPIRED: usize = 1_000;
/// Due jobs looked at in one request when functions that run enough already stand before the others.
const SCANNED: usize = 10_000;

pub(super) fn lease(conn: &Connection, mut request: LeaseRequest) -> Result<Leased, JobsError> {
    let mut leased = Leased { ended: expire(conn, request.now)?, ..Leased::default() };
    let due = due(conn, &mut request)?;
    let mut bytes = 0;
    for (tenant, id) in due {
        let Some(mut stored) = find(conn, &tenant, id)? else { continue };
        let event = stored.event.map(|seq| payload(conn, seq)).transpose()?.unwrap_or_default();
        bytes += event.len();
        if bytes > request.max_bytes && !leased.jobs.is_empty() {
            break;
        }
        let Some(invocation) = request.invocations.pop() else { break };
        life::begin(&mut stored.job, invocation, request.now);
        stored.fence += 1;
        save(conn, &stored)?;
        conn.prepare_cached("UPDATE jobs SET owner = ?3, lease_until = ?4, fence = ?5 WHERE tenant = ?1 AND id = ?2")
            .and_then(|mut statement| {
                let until = (request.now + request.ttl).millis();
                statement.execute(params![tenant.as_str(), key(id), request.owner.cast_signed(), until, stored.fence])
            })
            .map_err(StoreError::sqlite("lease a job"))?;
        leased.jobs.push(LeasedJob { job: stored.job, event: Bytes::from(event), fence: stored.fence });
    }
    leased.next = next(conn, request.now)?;
    Ok(leased)
}

/// Due jobs, oldest first, no more of a function than may run.
pub(in crate::jobs) fn due(
    conn: &Connection,
    request: &mut LeaseRequest,
) -> Result<Vec<(TenantName, JobId)>, StoreError> {
    let at = StoreError::sqlite("look for due jobs");
    let mut rooms = Rooms::of(request);
    let limit = i64::try_from(SCANNED).unwrap_or(i64::MAX);
    // Those without any room are left out before rows are counted, so that many jobs of theirs stand in nobody's way.
    let sql = match rooms.closed.is_empty() {
        true => {
            "SELECT tenant, id, function FROM jobs WHERE status = 0 AND run_at <= ?1 ORDER BY run_at, function LIMIT ?2"
        }
        false => {
            "SELECT tenant, id, function FROM jobs WHERE status = 0 AND run_at <= ?1
             AND tenant NOT IN (SELECT value FROM json_each(?3)) AND tenant || '/' || function NOT IN (SELECT value FROM json_each(?3))
             ORDER BY run_at, function LIMIT ?2"
        }
    };
    let mut statement = conn.prepare_cached(sql).map_err(&at)?;
    let now = request.now.millis();
    let mut rows = match rooms.closed.is_empty() {
        true => statement.query(params![now, limit]),
        false => statement.query(params![now, limit, serde_json::to_string(&rooms.closed).unwrap_or_default()]),
    }
    .map_err(&at)?;
    let mut running: HashMap<(String, String), usize> =
        request.running.drain().map(|((tenant, function), count)| ((tenant.into(), function.into()), count)).collect();
    let mut due = Vec::new();
    while due.len() < request.invocations.len()
        && let Some(row) = rows.next().map_err(&at)?
    {
        let function: (String, String) = (row.get(0).map_err(&at)?, row.get(2).map_err(&at)?);
        let tenant = TenantName::new(&function.0);
        let of = function.1.clone();
        let count = running.entry(function).or_default();
        if let Ok(tenant) = tenant
            && *count < request.per_function
            && rooms.take(&tenant, &of)
        {
            *count += 1;
            due.push((tenant, job_id(row, 1).map_err(&at)?));
        }
    }
    Ok(due)
}

/// How many more jobs of some tenants and functions may be given.
struct Rooms {
    /// By tenant, and by tenant and function with a stroke between.
    left: HashMap<String, u64>,
    /// Those that have no room.
    closed: Vec<String>,
}

impl Rooms {
    fn of(request: &mut LeaseRequest) -> Rooms {
        let name = |key: QuotaKey| match key.function {
            None => key.tenant.to_string(),
            Some(function) => format!("{}/{function}", key.tenant),
        };
        let left: HashMap<String, u64> = request.rooms.drain(..).map(|(key, room)| (name(key), room)).collect();
        let closed = left.iter().filter(|(_, room)| **room == 0).map(|(name, _)| name.clone()).collect();
        Rooms { left, closed }
    }

    /// Takes a place, if there is one in both.
    fn take(&mut self, tenant: &TenantName, function: &str) -> bool {
        if self.left.is_empty() {
            return true;
        }
        let names = [tenant.to_string(), format!("{tenant}/{function}")];
        if names.iter().any(|name| self.left.get(name) == Some(&0)) {
            return false;
        }
        for name in &names {
            if let Some(left) = self.left.get_mut(name) {
                *left -= 1;
            }
        }
        true
    }
}

/// When something will become due. Jobs that are due now and were not given don't count: they can be given when one
/// of those that run has ended, and then the dispatcher asks anyway.
pub(in crate::jobs) fn next(conn: &Connection, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let at = StoreError::sqlite("look for the next due time");
    let first = |sql: &str, after: i64| -> Result<Option<i64>, StoreError> {
        conn.prepare_cached(sql)
            .and_then(|mut statement| statement.query_row([after], |row| row.get(0)).optional())
            .map_err(&at)
    };
    let due = first("SELECT run_at FROM jobs WHERE status = 0 AND run_at > ?1 ORDER BY run_at LIMIT 1", now.millis())?;
    let lost = first(
        "SELECT lease_until FROM jobs WHERE status = 1 AND lease_until > ?1 ORDER BY lease_until LIMIT 1",
        i64::MIN,
    )?;
    Ok([due, lost].into_iter().flatten().min().map(Timestamp::from_millis))
}

pub(super) fn heartbeat(
    conn: &Connection,
    owner: u64,
    leases: &[Lease],
    until: Timestamp,
) -> Result<Vec<Held>, JobsError> {
    let at = StoreError::sqlite("prolong a lease");
    let mut statement = conn
        .prepare_cached(
            "UPDATE jobs SET lease_until = ?5 WHERE tenant = ?1 AND id = ?2 AND fence = ?3 AND owner = ?4 AND status = 1
             RETURNING cancel_requested",
        )
        .map_err(&at)?;
    let mut held = Vec::with_capacity(leases.len());
    for lease in leases {
        let of = params![lease.tenant.as_str(), key(lease.id), lease.fence, owner.cast_signed(), until.millis()];
        let cancel: Option<bool> = statement.query_row(of, |row| row.get(0)).optional().map_err(&at)?;
        held.push(match cancel {
            Some(true) => Held::CancelRequested,
            Some(false) => Held::Yes,
            None => Held::No,
        });
    }
    Ok(held)
}

pub(super) fn finish(
    conn: &Connection,
    lease: &Lease,
    now: Timestamp,
    outcome: Outcome,
    used: Usage,
) -> Result<Job, JobsError> {
    let mut stored = load(conn, &lease.tenant, lease.id)?;
    if stored.job.status != JobStatus::Running || stored.fence != lease.fence {
        return Err(JobsError::Stale { id: lease.id, fence: lease.fence });
    }
    if !used.is_empty() {
        let job = &stored.job;
        let (tenant, function, hour) = (job.tenant.clone(), job.function.clone(), Hour::of(now));
        let user = caller(conn, &job.tenant, job.id)?;
        let key = UsageKey { tenant, function, version: job.version, user, hour };
        usage::add(conn, &UsageRow { key, usage: used })?;
    }
    match outcome {
        Outcome::Succeeded(result) => {
            stored.result = Some(add_payload(conn, &result)?);
            end(conn, &mut stored, JobStatus::Succeeded, now, None)?;
        }
        Outcome::Ended(status, error) => end(conn, &mut stored, status, now, Some(error))?,
        Outcome::Retry { .. } | Outcome::Released { .. } if stored.job.cancel_requested => {
            end(conn, &mut stored, JobStatus::Cancelled, now, Some(life::cancelled()))?;
        }
        Outcome::Retry { run_at, error } => queue(conn, &mut stored, run_at, Some(error))?,
        Outcome::Released { run_at, error } => {
            stored.job.attempts = stored.job.attempts.saturating_sub(1);
            queue(conn, &mut stored, run_at, error)?;
        }
    }
    Ok(stored.job)
}

/// Who called; empty where that is not known.
fn caller(conn: &Connection, tenant: &TenantName, id: JobId) -> Result<String, StoreError> {
    conn.prepare_cached("SELECT user FROM callers WHERE tenant = ?1 AND id = ?2")
        .and_then(|mut statement| statement.query_row(params![tenant.as_str(), key(id)], |row| row.get(0)).optional())
        .map(Option::unwrap_or_default)
        .map_err(StoreError::sqlite("look for who called"))
}

fn queue(conn: &Connection, stored: &mut Stored, run_at: Timestamp, error: Option<Error>) -> Result<(), StoreError> {
    life::queue(&mut stored.job, run_at, error);
    save(conn, stored)
}

/// Deals with leases that have run out; returns the jobs that ended by that.
fn expire(conn: &Connection, now: Timestamp) -> Result<Vec<Job>, StoreError> {
    let at = StoreError::sqlite("look for lost leases");
    let rows = conn
        .prepare_cached(concat!(
            "SELECT ",
            columns!(),
            " FROM jobs WHERE status = 1 AND lease_until <= ?1 ORDER BY lease_until LIMIT ?2"
        ))
        .and_then(|mut statement| {
            statement.query_map(params![now.millis(), EXPIRED], stored)?.collect::<rusqlite::Result<Vec<_>>>()
        })
        .map_err(at)?;
    let jobs = rows.into_iter().map(|stored| lose(conn, stored, now)).collect::<Result<Vec<_>, _>>()?;
    Ok(jobs.into_iter().filter(|job| job.status.is_final()).collect())
}

pub(in crate::jobs) fn owners(conn: &Connection) -> Result<Vec<u64>, StoreError> {
    conn.prepare_cached("SELECT DISTINCT owner FROM jobs WHERE status = 1 AND owner IS NOT NULL")
        .and_then(|mut statement| {
            let owner = |row: &Row<'_>| row.get::<_, i64>(0).map(i64::cast_unsigned);
            statement.query_map([], owner)?.collect()
        })
        .map_err(StoreError::sqlite("list the owners of leases"))
}

pub(super) fn recover(conn: &Connection, owner: u64, now: Timestamp, limit: usize) -> Result<Vec<Job>, JobsError> {
    let rows = conn
        .prepare_cached(concat!("SELECT ", columns!(), " FROM jobs WHERE status = 1 AND owner = ?1 LIMIT ?2"))
        .and_then(|mut statement| {
            statement.query_map(params![owner.cast_signed(), limit], stored)?.collect::<rusqlite::Result<Vec<_>>>()
        })
        .map_err(StoreError::sqlite("look for leases of a former owner"))?;
    Ok(rows.into_iter().map(|stored| lose(conn, stored, now)).collect::<Result<Vec<_>, _>>()?)
}

fn lose(conn: &Connection, mut stored: Stored, now: Timestamp) -> Result<Job, StoreError> {
    life::lose(&mut stored.job, now);
    if stored.job.status.is_final() {
        drop_event(conn, &mut stored)?;
    }
    save(conn, &stored)?;
    Ok(stored.job)
}
