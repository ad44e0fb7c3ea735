//! What owners of jobs want to happen when these have ended.
//!
//! A trigger of the schema makes a notice owed in the very statement that ends its job, and deletes it with the job.

use lyra_types::{JobId, TenantName, Timestamp};
use rusqlite::{Connection, params};

use super::row::{find, job_id, key};
use crate::StoreError;
use crate::jobs::{NewJob, Owed};

/// That a job of these columns is not owed: `jobs` is the table around it.
macro_rules! not_owed {
    () => {
        "NOT EXISTS (SELECT 1 FROM notices
                     WHERE notices.tenant = jobs.tenant AND notices.id = jobs.id AND notices.owed = 1)"
    };
}
pub(in crate::jobs) use not_owed;

/// Remembers the notice of a new job.
pub(super) fn remember(conn: &Connection, job: &NewJob) -> Result<(), StoreError> {
    let Some(notice) = &job.notice else { return Ok(()) };
    conn.prepare_cached("INSERT OR REPLACE INTO notices (tenant, id, notice) VALUES (?1, ?2, ?3)")
        .and_then(|mut statement| statement.execute(params![job.tenant.as_str(), key(job.id), &**notice]))
        .map_err(StoreError::sqlite("remember a notice"))?;
    Ok(())
}

/// Names of jobs that are owed.
pub(in crate::jobs) fn names(conn: &Connection, limit: usize) -> Result<Vec<(TenantName, JobId, String)>, StoreError> {
    let found: Vec<(String, JobId, String)> = conn
        .prepare_cached(
            "SELECT notices.tenant, notices.id, notices.notice
             FROM notices INDEXED BY notices_owed JOIN jobs USING (tenant, id)
             WHERE notices.owed = 1 AND jobs.status > 1 LIMIT ?1",
        )
        .and_then(|mut statement| {
            statement.query_map([limit], |row| Ok((row.get(0)?, job_id(row, 1)?, row.get(2)?)))?.collect()
        })
        .map_err(StoreError::sqlite("look for notices that are owed"))?;
    let found = found.into_iter();
    Ok(found.filter_map(|(tenant, id, notice)| Some((TenantName::new(&tenant).ok()?, id, notice))).collect())
}

pub(super) fn owed(conn: &Connection, limit: usize) -> Result<Vec<Owed>, StoreError> {
    let mut owed = Vec::new();
    for (tenant, id, notice) in names(conn, limit)? {
        if let Some(stored) = find(conn, &tenant, id)? {
            owed.push(Owed { job: stored.job, notice });
        }
    }
    Ok(owed)
}

pub(super) fn passed_on(
    conn: &Connection,
    tenant: &TenantName,
    id: JobId,
    finished_at: Timestamp,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "UPDATE notices SET owed = 0 WHERE tenant = ?1 AND id = ?2
         AND EXISTS (SELECT 1 FROM jobs WHERE tenant = ?1 AND id = ?2 AND finished_at = ?3)",
    )
    .and_then(|mut statement| statement.execute(params![tenant.as_str(), key(id), finished_at.millis()]))
    .map_err(StoreError::sqlite("note that a notice was passed on"))?;
    Ok(())
}
