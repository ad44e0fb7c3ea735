//! Reads: one job, lists, counts.

use bytes::Bytes;
use lyra_types::job::{Job, JobStatus};
use lyra_types::{FunctionName, JobId, TenantName};
use rusqlite::{Connection, params};

use super::row::{columns, find, key, payload, stored};
use crate::StoreError;
use crate::jobs::{Counts, Filter, status_number};

pub(super) fn get(
    conn: &Connection,
    tenant: &TenantName,
    id: JobId,
    with_result: bool,
) -> Result<Option<(Job, Option<Bytes>)>, StoreError> {
    let Some(stored) = find(conn, tenant, id)? else { return Ok(None) };
    let result = match stored.result {
        Some(seq) if with_result => Some(Bytes::from(payload(conn, seq)?)),
        _ => None,
    };
    Ok(Some((stored.job, result)))
}

pub(in crate::jobs) fn list(conn: &Connection, tenant: &TenantName, filter: &Filter) -> Result<Vec<Job>, StoreError> {
    // The status is a literal, so that the partial index can be used. Each of the few texts is prepared once.
    let by_function = if filter.function.is_some() { "INDEXED BY jobs_function" } else { "" };
    let (index, status) = match filter.status {
        Some(JobStatus::Succeeded) => (by_function, "AND status = 2".to_owned()),
        Some(status) => ("INDEXED BY jobs_status", format!("AND status = {} AND status <> 2", status_number(status))),
        None => (by_function, String::new()),
    };
    let function = if filter.function.is_some() { "AND function = ?4" } else { "AND ?4 IS NULL" };
    let sql = format!(
        concat!(
            "SELECT ",
            columns!(),
            " FROM jobs {index} WHERE tenant = ?1 AND id < ?2 {status} {function} ORDER BY id DESC LIMIT ?3"
        ),
        index = index,
        status = status,
        function = function,
    );
    let before = filter.before.map_or([0xff; 16], key);
    let function = filter.function.as_ref().map(FunctionName::as_str);
    conn.prepare_cached(&sql)
        .and_then(|mut statement| {
            let rows = statement.query_map(params![tenant.as_str(), before, filter.limit, function], stored)?;
            rows.map(|row| row.map(|stored| stored.job)).collect()
        })
        .map_err(StoreError::sqlite("list jobs"))
}

/// Jobs that wait, counted up to `limit`.
pub(in crate::jobs) fn queued(
    conn: &Connection,
    tenant: &TenantName,
    function: Option<&FunctionName>,
    limit: u64,
) -> Result<u64, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    conn.prepare_cached(
        "SELECT COUNT(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_status
         WHERE tenant = ?1 AND status = 0 AND status <> 2 AND (?2 IS NULL OR function = ?2) LIMIT ?3)",
    )
    .and_then(|mut statement| {
        let of = params![tenant.as_str(), function.map(FunctionName::as_str), limit];
        statement.query_row(of, |row| row.get(0))
    })
    .map_err(StoreError::sqlite("count the jobs that wait"))
}

pub(in crate::jobs) fn pinned(
    conn: &Connection,
    tenant: &TenantName,
    function: &FunctionName,
    generation: u64,
) -> Result<Vec<u64>, StoreError> {
    let mut versions = Vec::new();
    for status in [JobStatus::Queued, JobStatus::Running, JobStatus::Dead] {
        let sql = format!(
            "SELECT DISTINCT version FROM jobs INDEXED BY jobs_status
             WHERE tenant = ?1 AND status = {} AND status <> 2 AND function = ?2 AND generation = ?3",
            status_number(status)
        );
        let found: Vec<u64> = conn
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                let of = params![tenant.as_str(), function.as_str(), generation];
                statement.query_map(of, |row| row.get(0))?.collect()
            })
            .map_err(StoreError::sqlite("look for pinned versions"))?;
        versions.extend(found);
    }
    versions.sort_unstable();
    versions.dedup();
    Ok(versions)
}

pub(in crate::jobs) fn counts(conn: &Connection) -> Result<Counts, StoreError> {
    let mut counts = Counts::default();
    conn.prepare_cached("SELECT status, jobs FROM counts")
        .and_then(|mut statement| {
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let status: usize = row.get(0)?;
                if let Some(count) = counts.0.get_mut(status) {
                    *count = row.get(1)?;
                }
            }
            Ok(())
        })
        .map_err(StoreError::sqlite("count jobs"))?;
    Ok(counts)
}
