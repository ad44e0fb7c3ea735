//! What owners of runs want to happen when these have ended.
//!
//! A trigger of the schema makes a notice owed in the very statement that ends its run, and deletes it with the run.

use lyra_types::{RunId, TenantName, Timestamp};
use rusqlite::{Connection, params};

use super::read::{COLUMNS, record};
use crate::StoreError;
use crate::runs::{NewRunRecord, OwedRun};

/// That a run of this number is not owed: `runs` is the table around it.
macro_rules! not_owed {
    () => {
        "NOT EXISTS (SELECT 1 FROM notices WHERE notices.run = runs.number AND notices.owed = 1)"
    };
}
pub(in crate::runs) use not_owed;

/// Remembers the notice of a new run.
pub(super) fn remember(conn: &Connection, number: i64, run: &NewRunRecord) -> Result<(), StoreError> {
    let Some(notice) = &run.notice else { return Ok(()) };
    conn.prepare_cached("INSERT OR REPLACE INTO notices (run, notice) VALUES (?1, ?2)")
        .and_then(|mut statement| statement.execute(params![number, &**notice]))
        .map_err(StoreError::sqlite("remember a notice of a run"))?;
    Ok(())
}

/// Runs that are owed, with their notices.
pub(in crate::runs) fn owed(conn: &Connection, limit: usize) -> Result<Vec<OwedRun>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, notices.notice
         FROM notices INDEXED BY notices_owed JOIN runs ON runs.number = notices.run
         WHERE notices.owed = 1 AND runs.status >= 2 LIMIT ?1"
    );
    conn.prepare_cached(&sql)
        .and_then(|mut statement| {
            let one = |row: &rusqlite::Row<'_>| Ok(OwedRun { record: record(row)?, notice: row.get("notice")? });
            statement.query_map([limit], one)?.collect()
        })
        .map_err(StoreError::sqlite("look for runs that are owed"))
}

pub(super) fn passed_on(
    conn: &Connection,
    tenant: &TenantName,
    id: &RunId,
    ended_at: Timestamp,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "UPDATE notices SET owed = 0
         WHERE run = (SELECT number FROM runs WHERE tenant = ?1 AND id = ?2 AND ended_at = ?3)",
    )
    .and_then(|mut statement| statement.execute(params![tenant.as_str(), id.as_str(), ended_at.millis()]))
    .map_err(StoreError::sqlite("note that the end of a run was passed on"))?;
    Ok(())
}
