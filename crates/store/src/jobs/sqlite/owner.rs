//! What the owner of jobs does with them: cancel, redrive, purge; and what time does: retention.

use lyra_types::job::{Job, JobStatus};
use lyra_types::{FunctionName, JobId, TenantName, Timestamp};
use rusqlite::{Connection, Params, params};

use super::notices::not_owed;
use super::row::{Stored, columns, end, load, remove, save, stored};
use crate::StoreError;
use crate::jobs::{JobsError, Retention, life};

pub(super) fn cancel(conn: &Connection, tenant: &TenantName, id: JobId, now: Timestamp) -> Result<Job, JobsError> {
    let mut stored = load(conn, tenant, id)?;
    match stored.job.status {
        JobStatus::Queued => end(conn, &mut stored, JobStatus::Cancelled, now, Some(life::cancelled()))?,
        JobStatus::Running if !stored.job.cancel_requested => {
            stored.job.cancel_requested = true;
            save(conn, &stored)?;
        }
        _ => {}
    }
    Ok(stored.job)
}

pub(super) fn redrive(conn: &Connection, tenant: &TenantName, id: JobId, now: Timestamp) -> Result<Job, JobsError> {
    let mut stored = load(conn, tenant, id)?;
    if stored.job.status != JobStatus::Dead {
        return Err(JobsError::NotDead { id, status: stored.job.status });
    }
    put_back(conn, &mut stored, now)?;
    Ok(stored.job)
}

fn put_back(conn: &Connection, stored: &mut Stored, now: Timestamp) -> Result<(), StoreError> {
    life::redrive(&mut stored.job, now);
    save(conn, stored)
}

pub(super) fn redrive_some(
    conn: &Connection,
    tenant: &TenantName,
    now: Timestamp,
    limit: usize,
) -> Result<u64, JobsError> {
    let mut dead = dead(conn, tenant, limit)?;
    for stored in &mut dead {
        put_back(conn, stored, now)?;
    }
    Ok(dead.len() as u64)
}

pub(super) fn purge(conn: &Connection, tenant: &TenantName, id: JobId) -> Result<(), JobsError> {
    let stored = load(conn, tenant, id)?;
    if stored.job.status != JobStatus::Dead {
        return Err(JobsError::NotDead { id, status: stored.job.status });
    }
    Ok(remove(conn, &stored)?)
}

pub(super) fn remove_one(conn: &Connection, tenant: &TenantName, id: JobId) -> Result<(), JobsError> {
    let stored = load(conn, tenant, id)?;
    if stored.job.status == JobStatus::Running {
        return Err(JobsError::Runs(id));
    }
    Ok(remove(conn, &stored)?)
}

pub(super) fn purge_some(conn: &Connection, tenant: &TenantName, limit: usize) -> Result<u64, JobsError> {
    let dead = dead(conn, tenant, limit)?;
    for stored in &dead {
        remove(conn, stored)?;
    }
    Ok(dead.len() as u64)
}

pub(super) fn delete_ended(conn: &Connection, tenant: &TenantName, jobs: &[JobId]) -> Result<u64, JobsError> {
    let mut deleted = 0;
    for id in jobs {
        match load(conn, tenant, *id) {
            Ok(stored) if stored.job.status.is_final() => {
                remove(conn, &stored)?;
                deleted += 1;
            }
            Ok(_) | Err(JobsError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

pub(super) fn delete_unbegun(
    conn: &Connection,
    tenant: &TenantName,
    function: &FunctionName,
    generation: u64,
    limit: usize,
) -> Result<u64, JobsError> {
    // By status, not by function: what waits is few, what has ended can be millions.
    let unbegun = select(
        conn,
        concat!(
            "SELECT ",
            columns!(),
            " FROM jobs INDEXED BY jobs_status
             WHERE tenant = ?1 AND status = 0 AND status <> 2 AND function = ?2 AND generation = ?3 AND fence = 0 LIMIT ?4"
        ),
        params![tenant.as_str(), function.as_str(), generation, limit],
    )?;
    for stored in &unbegun {
        remove(conn, stored)?;
    }
    Ok(unbegun.len() as u64)
}

pub(super) fn sweep(conn: &Connection, retention: Retention) -> Result<u64, JobsError> {
    let limit = retention.limit;
    let mut old = select(
        conn,
        concat!(
            "SELECT ",
            columns!(),
            " FROM jobs WHERE status BETWEEN 2 AND 5 AND finished_at < ?1 AND ",
            not_owed!(),
            " ORDER BY finished_at LIMIT ?2"
        ),
        params![retention.finished_before.millis(), limit],
    )?;
    old.extend(select(
        conn,
        concat!(
            "SELECT ",
            columns!(),
            " FROM jobs WHERE status = 6 AND finished_at < ?1 AND ",
            not_owed!(),
            " ORDER BY finished_at LIMIT ?2"
        ),
        params![retention.dead_before.millis(), limit],
    )?);
    for stored in &old {
        remove(conn, stored)?;
    }
    conn.prepare_cached(
        "DELETE FROM idempotency WHERE (tenant, function, generation, key) IN
         (SELECT tenant, function, generation, key FROM idempotency WHERE expires_at < ?1 LIMIT ?2)",
    )
    .and_then(|mut statement| statement.execute(params![retention.now.millis(), limit]))
    .map_err(StoreError::sqlite("forget idempotency keys"))?;
    Ok(old.len() as u64)
}

fn dead(conn: &Connection, tenant: &TenantName, limit: usize) -> Result<Vec<Stored>, StoreError> {
    select(
        conn,
        concat!(
            "SELECT ",
            columns!(),
            " FROM jobs INDEXED BY jobs_status WHERE tenant = ?1 AND status = 6 AND status <> 2 ORDER BY id LIMIT ?2"
        ),
        params![tenant.as_str(), limit],
    )
}

fn select(conn: &Connection, sql: &str, of: impl Params) -> Result<Vec<Stored>, StoreError> {
    conn.prepare_cached(sql)
        .and_then(|mut statement| statement.query_map(of, stored)?.collect())
        .map_err(StoreError::sqlite("select jobs"))
}
