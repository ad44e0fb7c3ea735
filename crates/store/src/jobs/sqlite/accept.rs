//! Accepting a job, with its idempotency key.

use lyra_types::JobId;
use lyra_types::quota::QuotaKey;
use rusqlite::{Connection, OptionalExtension, params};

use super::lists::queued;
use super::notices;
use super::row::{add_payload, drop_payload, find, job_id, key, load};
use crate::StoreError;
use crate::jobs::{Accepted, Idempotency, JobsError, NewJob};

pub(super) fn accept(conn: &Connection, job: &NewJob) -> Result<Accepted, JobsError> {
    if let Some(idempotency) = &job.idempotency {
        if let Some(known) = known(conn, job, idempotency)? {
            return Ok(known);
        }
        check_queue(conn, job)?;
        remember(conn, job, idempotency)?;
    } else {
        check_queue(conn, job)?;
    }
    let event = add_payload(conn, &job.event)?;
    let made = conn
        .prepare_cached(
            "INSERT INTO jobs (tenant, id, function, version, generation, status, attempts, max_attempts, created_at,
                           run_at, event)
         VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, ?6, ?7, ?7, ?8)
         ON CONFLICT (tenant, id) DO NOTHING",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                job.tenant.as_str(),
                key(job.id),
                job.function.as_str(),
                job.version,
                job.generation,
                job.max_attempts,
                job.now.millis(),
                event,
            ])
        })
        .map_err(StoreError::sqlite("accept a job"))?;
    if made == 0 {
        // Handed in before, by somebody who did not hear the answer.
        drop_payload(conn, event)?;
        let status = load(conn, &job.tenant, job.id)?.job.status;
        return Ok(Accepted { id: job.id, status, created: false });
    }
    if let Some(user) = &job.user {
        conn.prepare_cached("INSERT OR REPLACE INTO callers (tenant, id, user) VALUES (?1, ?2, ?3)")
            .and_then(|mut statement| statement.execute(params![job.tenant.as_str(), key(job.id), &**user]))
            .map_err(StoreError::sqlite("remember who called"))?;
    }
    notices::remember(conn, job)?;
    Ok(Accepted { id: job.id, status: lyra_types::job::JobStatus::Queued, created: true })
}

/// Refuses a job where as many wait as may.
pub(in crate::jobs) fn check_queue(conn: &Connection, job: &NewJob) -> Result<(), JobsError> {
    let (tenant, function) = (&job.tenant, &job.function);
    for (most, of) in [(job.most_queued.of_tenant, None), (job.most_queued.of_function, Some(function))] {
        if let Some(most) = most
            && queued(conn, tenant, of, most)? >= most
        {
            if find(conn, tenant, job.id)?.is_some() {
                // Handed in before: it is among those that wait, or did.
                return Ok(());
            }
            let key = QuotaKey { tenant: tenant.clone(), function: of.cloned() };
            return Err(JobsError::QueueFull { key, most });
        }
    }
    Ok(())
}

/// The job that the key was used for before, if it and the key are still there.
fn known(conn: &Connection, job: &NewJob, idempotency: &Idempotency) -> Result<Option<Accepted>, JobsError> {
    let found: Option<(JobId, Vec<u8>)> = conn
        .prepare_cached(
            "SELECT job, request FROM idempotency
             WHERE tenant = ?1 AND function = ?2 AND generation = ?3 AND key = ?4 AND expires_at > ?5",
        )
        .and_then(|mut statement| {
            let of =
                params![job.tenant.as_str(), job.function.as_str(), job.generation, idempotency.key, job.now.millis()];
            statement.query_row(of, |row| Ok((job_id(row, 0)?, row.get(1)?))).optional()
        })
        .map_err(StoreError::sqlite("look up an idempotency key"))?;
    let Some((id, request)) = found else { return Ok(None) };
    // A purged job takes its key's meaning with it.
    let Some(stored) = find(conn, &job.tenant, id)? else { return Ok(None) };
    if request != idempotency.request {
        return Err(JobsError::IdempotencyMismatch);
    }
    Ok(Some(Accepted { id, status: stored.job.status, created: false }))
}

fn remember(conn: &Connection, job: &NewJob, idempotency: &Idempotency) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO idempotency (tenant, function, generation, key, request, job, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .and_then(|mut statement| {
        statement.execute(params![
            job.tenant.as_str(),
            job.function.as_str(),
            job.generation,
            idempotency.key,
            idempotency.request,
            key(job.id),
            idempotency.expires_at.millis(),
        ])
    })
    .map_err(StoreError::sqlite("remember an idempotency key"))?;
    Ok(())
}
