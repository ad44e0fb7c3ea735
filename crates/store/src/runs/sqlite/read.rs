//! Reads: one run, its journal, lists, counts.

use bytes::Bytes;
use lyra_types::workflow::RunStatus;
use lyra_types::{RunId, TenantName, Timestamp, WorkflowName};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::notices::not_owed;
use crate::StoreError;
use crate::runs::{RunFilter, RunRecord, status_number};

/// The columns that [`record`] reads, in its order.
pub(super) const COLUMNS: &str = "number, tenant, id, workflow, version, status, created_at, ended_at, summary";

fn damaged(at: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(error))
}

/// A run from a row of [`COLUMNS`].
pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<RunRecord> {
    let text = |at: usize| row.get_ref(at)?.as_str().map_err(|error| damaged(at, error));
    let status: usize = row.get(5)?;
    Ok(RunRecord {
        order: row.get(0)?,
        tenant: TenantName::new(text(1)?).map_err(|error| damaged(1, error))?,
        id: RunId::new(text(2)?).map_err(|error| damaged(2, error))?,
        workflow: WorkflowName::new(text(3)?).map_err(|error| damaged(3, error))?,
        version: row.get(4)?,
        status: *RunStatus::ALL.get(status).ok_or(rusqlite::Error::IntegralValueOutOfRange(5, status as i64))?,
        created_at: Timestamp::from_millis(row.get(6)?),
        ended_at: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_millis),
        summary: Bytes::from(row.get::<_, Vec<u8>>(8)?),
    })
}

pub(super) fn find(conn: &Connection, tenant: &TenantName, id: &RunId) -> Result<Option<RunRecord>, StoreError> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE tenant = ?1 AND id = ?2"))
        .and_then(|mut statement| statement.query_row(params![tenant.as_str(), id.as_str()], record).optional())
        .map_err(StoreError::sqlite("find a run"))
}

fn body(conn: &Connection, table: &str, run: u64) -> Result<Option<Bytes>, StoreError> {
    conn.prepare_cached(&format!("SELECT body FROM {table} WHERE run = ?1"))
        .and_then(|mut statement| statement.query_row([run], |row| row.get::<_, Vec<u8>>(0)).optional())
        .map(|found| found.map(Bytes::from))
        .map_err(StoreError::sqlite("read a body of a run"))
}

/// What a run was made with, and its batches.
pub(super) fn journal(conn: &Connection, run: u64) -> Result<(Bytes, Vec<Bytes>), StoreError> {
    let head = body(conn, "heads", run)?.unwrap_or_default();
    let batches = conn
        .prepare_cached("SELECT body FROM batches WHERE run = ?1 ORDER BY number")
        .and_then(|mut statement| {
            let rows = statement.query_map([run], |row| Ok(Bytes::from(row.get::<_, Vec<u8>>(0)?)))?;
            rows.collect()
        })
        .map_err(StoreError::sqlite("read a journal"))?;
    Ok((head, batches))
}

pub(super) fn journal_of(
    conn: &Connection,
    tenant: &TenantName,
    id: &RunId,
) -> Result<Option<(Bytes, Vec<Bytes>)>, StoreError> {
    let Some(found) = find(conn, tenant, id)? else { return Ok(None) };
    journal(conn, found.order).map(Some)
}

pub(super) fn get(
    conn: &Connection,
    tenant: &TenantName,
    id: &RunId,
    with_output: bool,
) -> Result<Option<(RunRecord, Option<Bytes>)>, StoreError> {
    let Some(found) = find(conn, tenant, id)? else { return Ok(None) };
    let output = if with_output { body(conn, "outputs", found.order)? } else { None };
    Ok(Some((found, output)))
}

pub(in crate::runs) fn list(
    conn: &Connection,
    tenant: &TenantName,
    filter: &RunFilter,
) -> Result<Vec<RunRecord>, StoreError> {
    let workflow = if filter.workflow.is_some() { "AND workflow = ?3" } else { "AND ?3 IS NULL" };
    let status = if filter.status.is_some() { "AND status = ?4" } else { "AND ?4 IS NULL" };
    let sql = format!(
        "SELECT {COLUMNS} FROM runs WHERE tenant = ?1 AND number < ?2 {workflow} {status} ORDER BY number DESC LIMIT ?5"
    );
    let before = filter.before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
    conn.prepare_cached(&sql)
        .and_then(|mut statement| {
            let of = params![
                tenant.as_str(),
                before,
                filter.workflow.as_ref().map(WorkflowName::as_str),
                filter.status.map(status_number),
                filter.limit
            ];
            let rows = statement.query_map(of, record)?;
            rows.collect()
        })
        .map_err(StoreError::sqlite("list runs"))
}

/// How many runs of the tenant have not ended, up to `most`.
pub(in crate::runs) fn live(conn: &Connection, tenant: &TenantName, most: u64) -> Result<u64, StoreError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let sql = "SELECT count(*) FROM
         (SELECT 1 FROM runs INDEXED BY runs_status WHERE tenant = ?1 AND status IN (0, 1) LIMIT ?2)";
    conn.prepare_cached(sql)
        .and_then(|mut statement| statement.query_row(params![tenant.as_str(), most], |row| row.get(0)))
        .map_err(StoreError::sqlite("count the runs of a tenant"))
}

pub(in crate::runs) fn counts(conn: &Connection) -> Result<[u64; RunStatus::ALL.len()], StoreError> {
    let mut counts = [0; RunStatus::ALL.len()];
    let rows: Vec<(usize, u64)> = conn
        .prepare_cached("SELECT status, runs FROM counts")
        .and_then(|mut statement| {
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
        .map_err(StoreError::sqlite("count runs"))?;
    for (status, runs) in rows {
        if let Some(count) = counts.get_mut(status) {
            *count = runs;
        }
    }
    Ok(counts)
}

/// Runs that ended before this time and are owed no more.
pub(in crate::runs) fn ended(
    conn: &Connection,
    before: Timestamp,
    limit: usize,
) -> Result<Vec<(TenantName, RunId)>, StoreError> {
    let sql = concat!(
        "SELECT tenant, id FROM runs INDEXED BY runs_ended WHERE status >= 2 AND ended_at < ?1 AND ",
        not_owed!(),
        " LIMIT ?2"
    );
    conn.prepare_cached(sql)
        .and_then(|mut statement| {
            let rows = statement.query_map(params![before.millis(), limit], |row| {
                let text = |at: usize| row.get_ref(at)?.as_str().map_err(|error| damaged(at, error));
                let tenant = TenantName::new(text(0)?).map_err(|error| damaged(0, error))?;
                Ok((tenant, RunId::new(text(1)?).map_err(|error| damaged(1, error))?))
            })?;
            rows.collect()
        })
        .map_err(StoreError::sqlite("look for runs that ended long ago"))
}

/// Runs of all tenants, oldest first.
pub(in crate::runs) fn all(conn: &Connection, after: u64, limit: usize) -> Result<Vec<RunRecord>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM runs WHERE number > ?1 ORDER BY number LIMIT ?2");
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    conn.prepare_cached(&sql)
        .and_then(|mut statement| {
            let rows = statement.query_map(params![after, limit], record)?;
            rows.collect()
        })
        .map_err(StoreError::sqlite("list all runs"))
}

pub(super) fn memo(
    conn: &Connection,
    tenant: &TenantName,
    key: &[u8; 32],
    now: Timestamp,
) -> Result<Option<Bytes>, StoreError> {
    conn.prepare_cached("SELECT result FROM memos WHERE tenant = ?1 AND key = ?2 AND until > ?3")
        .and_then(|mut statement| {
            let of = params![tenant.as_str(), key.as_slice(), now.millis()];
            statement.query_row(of, |row| row.get::<_, Vec<u8>>(0)).optional()
        })
        .map(|found| found.map(Bytes::from))
        .map_err(StoreError::sqlite("look up a kept result"))
}
