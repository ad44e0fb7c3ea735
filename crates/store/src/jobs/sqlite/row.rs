//! A job's row: how it is read, and how small things are stored.

use lyra_types::job::{Job, JobStatus};
use lyra_types::{Error, FunctionName, InvocationId, JobId, TenantName, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::StoreError;
use crate::jobs::{JobsError, life, status_number};

/// The columns that [`stored`] reads, in its order.
macro_rules! columns {
    () => {
        "tenant, id, function, version, generation, status, attempts, max_attempts, created_at, started_at, \
         finished_at, run_at, invocation, error, cancel_requested, fence, event, result"
    };
}
pub(super) use columns;

/// A job with what only the store knows of it.
pub(super) struct Stored {
    pub(super) job: Job,
    pub(super) fence: u64,
    /// Places of the event and the result among the payloads.
    pub(super) event: Option<i64>,
    pub(super) result: Option<i64>,
}

fn damaged(column: usize, what: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(what))
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<(u64, u128)> {
    let bytes: [u8; 16] = row.get(column)?;
    let number = u128::from_be_bytes(bytes);
    let millis = u64::try_from(number >> 80).unwrap_or_default();
    Ok((millis, number & ((1 << 80) - 1)))
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

pub(in crate::jobs) fn job_id(row: &Row<'_>, column: usize) -> rusqlite::Result<JobId> {
    number(row, column).map(|(millis, random)| JobId::from_parts(millis, random))
}

/// Reads a row of [`columns`].
pub(super) fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let tenant: String = row.get(0)?;
    let function: String = row.get(2)?;
    let status: usize = row.get(5)?;
    let invocation = match row.get_ref(12)? {
        rusqlite::types::ValueRef::Null => None,
        _ => number(row, 12).map(|(millis, random)| Some(InvocationId::from_parts(millis, random)))?,
    };
    let error: Option<String> = row.get(13)?;
    let job = Job {
        id: job_id(row, 1)?,
        tenant: TenantName::new(&tenant).map_err(|error| damaged(0, error))?,
        function: FunctionName::new(&function).map_err(|error| damaged(2, error))?,
        version: row.get(3)?,
        generation: row.get(4)?,
        status: JobStatus::ALL
            .get(status)
            .copied()
            .ok_or_else(|| damaged(5, Error::internal(format!("there is no status {status}"))))?,
        attempts: row.get(6)?,
        max_attempts: row.get(7)?,
        created_at: Timestamp::from_millis(row.get(8)?),
        started_at: time(row, 9)?,
        finished_at: time(row, 10)?,
        next_attempt_at: time(row, 11)?,
        invocation,
        error: error.map(|json| serde_json::from_str(&json)).transpose().map_err(|error| damaged(13, error))?,
        cancel_requested: row.get(14)?,
    };
    Ok(Stored { job, fence: row.get(15)?, event: row.get(16)?, result: row.get(17)? })
}

/// How an id is stored: bytes that sort as the id does.
pub(in crate::jobs) fn key(id: JobId) -> [u8; 16] {
    id.number().to_be_bytes()
}

/// The job, if it is there.
pub(super) fn find(conn: &Connection, tenant: &TenantName, id: JobId) -> Result<Option<Stored>, StoreError> {
    conn.prepare_cached(concat!("SELECT ", columns!(), " FROM jobs WHERE tenant = ?1 AND id = ?2"))
        .and_then(|mut statement| statement.query_row(params![tenant.as_str(), key(id)], stored).optional())
        .map_err(StoreError::sqlite("read a job"))
}

/// The job.
pub(super) fn load(conn: &Connection, tenant: &TenantName, id: JobId) -> Result<Stored, JobsError> {
    find(conn, tenant, id)?.ok_or(JobsError::NotFound(id))
}

/// Writes back everything of a job that can change; a job that is not running has no lease.
pub(super) fn save(conn: &Connection, stored: &Stored) -> Result<(), StoreError> {
    let job = &stored.job;
    let error = job.error.as_ref().map(|error| {
        serde_json::to_string(error).unwrap_or_else(|_| "{\"code\":\"internal\",\"detail\":\"unreadable\"}".to_owned())
    });
    conn.prepare_cached(
        "UPDATE jobs SET status = ?3, attempts = ?4, started_at = ?5, finished_at = ?6, run_at = ?7, invocation = ?8,
                error = ?9, cancel_requested = ?10, event = ?11, result = ?12,
                owner = iif(?3 = 1, owner, NULL), lease_until = iif(?3 = 1, lease_until, NULL)
         WHERE tenant = ?1 AND id = ?2",
    )
    .and_then(|mut statement| {
        statement.execute(params![
            job.tenant.as_str(),
            key(job.id),
            status_number(job.status),
            job.attempts,
            job.started_at.map(Timestamp::millis),
            job.finished_at.map(Timestamp::millis),
            job.next_attempt_at.map(Timestamp::millis),
            job.invocation.map(|id| id.number().to_be_bytes()),
            error,
            job.cancel_requested,
            stored.event,
            stored.result,
        ])
    })
    .map_err(StoreError::sqlite("write a job"))?;
    Ok(())
}

/// Ends the job. The event is kept only for a dead one, which may be redriven.
pub(super) fn end(
    conn: &Connection,
    stored: &mut Stored,
    status: JobStatus,
    now: Timestamp,
    error: Option<Error>,
) -> Result<(), StoreError> {
    life::end(&mut stored.job, status, now, error);
    drop_event(conn, stored)?;
    save(conn, stored)
}

/// Forgets the event of a job that has ended and can't be redriven.
pub(super) fn drop_event(conn: &Connection, stored: &mut Stored) -> Result<(), StoreError> {
    if stored.job.status != JobStatus::Dead
        && let Some(event) = stored.event.take()
    {
        drop_payload(conn, event)?;
    }
    Ok(())
}

pub(super) fn add_payload(conn: &Connection, body: &[u8]) -> Result<i64, StoreError> {
    conn.prepare_cached("INSERT INTO payloads (body) VALUES (?1)")
        .and_then(|mut statement| statement.insert([body]))
        .map_err(StoreError::sqlite("write a payload"))
}

pub(super) fn drop_payload(conn: &Connection, seq: i64) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM payloads WHERE seq = ?1")
        .and_then(|mut statement| statement.execute([seq]))
        .map_err(StoreError::sqlite("delete a payload"))?;
    Ok(())
}

pub(super) fn payload(conn: &Connection, seq: i64) -> Result<Vec<u8>, StoreError> {
    conn.prepare_cached("SELECT body FROM payloads WHERE seq = ?1")
        .and_then(|mut statement| statement.query_row([seq], |row| row.get(0)))
        .map_err(StoreError::sqlite("read a payload"))
}

/// Deletes the job with its payloads.
pub(super) fn remove(conn: &Connection, stored: &Stored) -> Result<(), StoreError> {
    for seq in [stored.event, stored.result].into_iter().flatten() {
        drop_payload(conn, seq)?;
    }
    conn.prepare_cached("DELETE FROM jobs WHERE tenant = ?1 AND id = ?2")
        .and_then(|mut statement| statement.execute(params![stored.job.tenant.as_str(), key(stored.job.id)]))
        .map_err(StoreError::sqlite("delete a job"))?;
    Ok(())
}
