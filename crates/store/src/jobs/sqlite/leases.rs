//! Leases: given, prolonged, ended by their holder, lost.

use std::collections::BTreeSet;

use bytes::Bytes;
use lyra_types::job::{Job, JobStatus};
use lyra_types::usage::{Hour, Usage, UsageKey, UsageRow};
use lyra_types::{Error, JobId, TenantName, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::row::{Stored, add_payload, columns, drop_event, end, find, key, load, payload, save, stored};
use super::{turns, usage};
use crate::StoreError;
use crate::jobs::{Held, JobsError, Lease, LeaseRequest, Leased, LeasedJob, Outcome, life};

/// Lost leases dealt with in one request.
pub(in crate::jobs) const EXPIRED: usize = 1_000;

pub(super) fn lease(conn: &Connection, mut request: LeaseRequest) -> Result<Leased, JobsError> {
    let mut leased = Leased { ended: expire(conn, request.now)?, ..Leased::default() };
    let due = turns::due(conn, &request)?;
    let (mut bytes, mut kept_back) = (0, false);
    for (tenant, id) in due {
        let Some(mut stored) = find(conn, &tenant, id)? else { continue };
        let event = stored.event.map(|seq| payload(conn, seq)).transpose()?.unwrap_or_default();
        bytes += event.len();
        kept_back = bytes > request.max_bytes && !leased.jobs.is_empty();
        if kept_back {
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
    let queues: BTreeSet<_> = leased.jobs.iter().map(|leased| (&leased.job.tenant, &leased.job.function)).collect();
    for (tenant, function) in queues {
        turns::moved(conn, tenant.as_str(), function.as_str(), request.now)?;
    }
    leased.next = if kept_back { Some(request.now) } else { next(conn, request.now)? };
    Ok(leased)
}

/// When something will become due, or a lease runs out.
pub(in crate::jobs) fn next(conn: &Connection, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let lost: Option<i64> = conn
        .prepare_cached(
            "SELECT lease_until FROM jobs WHERE status = 1 AND lease_until > ?1 ORDER BY lease_until LIMIT 1",
        )
        .and_then(|mut statement| statement.query_row([i64::MIN], |row| row.get(0)).optional())
        .map_err(StoreError::sqlite("look for the next end of a lease"))?;
    Ok([turns::next(conn, now)?, lost].into_iter().flatten().min().map(Timestamp::from_millis))
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
