//! Usage in the index: sums, made from records and entries (see [`super::usage`]).

use std::collections::BTreeMap;

use lyra_types::usage::{UsageQuery, UsageRow, UsageSum};
use lyra_types::{JobId, TenantName, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::index::Index;
use super::record::{Record, decode, encode};
use super::usage::{Entry, add_up};
use crate::StoreError;
use crate::jobs::sqlite::row::key;
use crate::jobs::sqlite::usage;

/// `counted`: how many of a job's items are in the sums, and how many an entry has. `entries`: what an entry brought;
/// `replaced_by` is empty, or `m` where its sums are in another one.
pub(super) const TABLES: &str = "
CREATE TABLE counted (tenant TEXT NOT NULL, id BLOB NOT NULL, items INTEGER NOT NULL, taken INTEGER NOT NULL,
                      PRIMARY KEY (tenant, id)) WITHOUT ROWID;
CREATE TABLE entries (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL, made INTEGER NOT NULL, rows BLOB NOT NULL,
                      sources BLOB NOT NULL, jobs BLOB NOT NULL, replaced INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX entries_made ON entries (made) WHERE replaced = 0;
CREATE INDEX entries_replaced ON entries (name) WHERE replaced = 1;
";

fn at(error: rusqlite::Error) -> StoreError {
    StoreError::sqlite("count usage in the index of jobs")(error)
}

/// Items of a job that are in the sums, and that an entry has.
fn counted(conn: &Connection, tenant: &TenantName, id: JobId) -> Result<(usize, usize), StoreError> {
    let found = conn
        .prepare_cached("SELECT items, taken FROM counted WHERE tenant = ?1 AND id = ?2")
        .and_then(|mut statement| {
            statement.query_row(params![tenant.as_str(), key(id)], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(at)?;
    Ok(found.unwrap_or_default())
}

fn set_counted(
    conn: &Connection,
    tenant: &TenantName,
    id: JobId,
    items: usize,
    taken: usize,
) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR REPLACE INTO counted (tenant, id, items, taken) VALUES (?1, ?2, ?3, ?4)")
        .and_then(|mut statement| statement.execute(params![tenant.as_str(), key(id), items, taken]))
        .map_err(at)?;
    Ok(())
}

/// Counts what a record holds that is not counted yet.
pub(super) fn count(conn: &Connection, record: &Record) -> Result<(), StoreError> {
    if record.used.is_empty() {
        return Ok(());
    }
    let (tenant, id) = (&record.job.tenant, record.job.id);
    let (items, taken) = counted(conn, tenant, id)?;
    for row in record.rows_from(items) {
        usage::add(conn, &row)?;
    }
    set_counted(conn, tenant, id, record.used.len().max(items), taken)
}

/// Takes an entry in, once.
pub(super) fn put_entry(
    conn: &Connection,
    name: &str,
    entry: &Entry,
    sequence: u64,
    made: Timestamp,
) -> Result<(), StoreError> {
    let known: Option<u64> = conn
        .prepare_cached("SELECT sequence FROM entries WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([name], |row| row.get(0)).optional())
        .map_err(at)?;
    if let Some(known) = known {
        if known == 0 {
            // Heard of by the entry that replaces it.
            conn.prepare_cached("UPDATE entries SET sequence = ?2 WHERE name = ?1")
                .and_then(|mut statement| statement.execute(params![name, sequence]))
                .map_err(at)?;
        }
        return Ok(());
    }
    for row in &entry.rows {
        usage::add(conn, row)?;
    }
    let mut all = entry.rows.clone();
    for taken in &entry.taken {
        let end = taken.from + taken.rows.len();
        let (items, before) = counted(conn, &taken.tenant, taken.id)?;
        for row in taken.rows.iter().skip(items.saturating_sub(taken.from)) {
            usage::add(conn, row)?;
        }
        set_counted(conn, &taken.tenant, taken.id, items.max(end), before.max(end))?;
        all.extend(taken.rows.iter().cloned());
    }
    for replaced in &entry.replaces {
        replace(conn, replaced)?;
    }
    for (source, sequence) in &entry.sources {
        usage::see_batch(conn, source, *sequence)?;
    }
    let jobs: Vec<(&TenantName, JobId)> = entry.taken.iter().map(|taken| (&taken.tenant, taken.id)).collect();
    conn.prepare_cached(
        "INSERT INTO entries (name, sequence, made, rows, sources, jobs, replaced) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)",
    )
    .and_then(|mut statement| {
        let bytes = |value: Result<bytes::Bytes, StoreError>| value.unwrap_or_default().to_vec();
        let (rows, sources, jobs) = (encode(&add_up(all)), encode(&entry.sources), encode(&jobs));
        statement.execute(params![name, sequence, made.millis(), bytes(rows), bytes(sources), bytes(jobs)])
    })
    .map_err(at)?;
    Ok(())
}

/// The sums of this entry are in another one now: takes out what it brought.
fn replace(conn: &Connection, name: &str) -> Result<(), StoreError> {
    let found: Option<(Vec<u8>, Vec<u8>, i64)> = conn
        .prepare_cached("SELECT rows, jobs, replaced FROM entries WHERE name = ?1")
        .and_then(|mut statement| {
            statement.query_row([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .map_err(at)?;
    match found {
        Some((rows, jobs, 0)) => {
            for row in decode::<Vec<UsageRow>>(&rows)? {
                usage::take_out(conn, &row)?;
            }
            // Their records are gone, and nobody tells of them any more.
            for (tenant, id) in decode::<Vec<(TenantName, JobId)>>(&jobs)? {
                conn.prepare_cached("DELETE FROM counted WHERE tenant = ?1 AND id = ?2")
                    .and_then(|mut statement| statement.execute(params![tenant.as_str(), key(id)]))
                    .map_err(at)?;
            }
            conn.prepare_cached("UPDATE entries SET replaced = 1, rows = x'', jobs = x'' WHERE name = ?1")
                .and_then(|mut statement| statement.execute([name]))
                .map_err(at)?;
        }
        Some(_) => {}
        None => {
            conn.prepare_cached(
                "INSERT INTO entries (name, sequence, made, rows, sources, jobs, replaced) VALUES (?1, 0, 0, x'', x'', x'', 1)",
            )
            .and_then(|mut statement| statement.execute([name]))
            .map_err(at)?;
        }
    }
    Ok(())
}

/// An entry was deleted.
pub(super) fn forget_entry(conn: &Connection, name: &str) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM entries WHERE name = ?1 AND replaced = 1")
        .and_then(|mut statement| statement.execute([name]))
        .map_err(at)?;
    Ok(())
}

/// An entry that may be replaced: name, sums, batches.
type Old = (String, Vec<UsageRow>, BTreeMap<String, u64>);

impl Index {
    /// The newest batch of this source.
    pub(super) fn newest_batch(&self, source: &str) -> Result<Option<u64>, StoreError> {
        usage::newest_batch(&self.lock(), source)
    }

    /// How many of a job's items an entry has.
    pub(super) fn taken(&self, tenant: &TenantName, id: JobId) -> Result<usize, StoreError> {
        Ok(counted(&self.lock(), tenant, id)?.1)
    }

    pub(super) fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageSum>, StoreError> {
        usage::sums(&self.lock(), query)
    }

    /// Entries made before this time, of which no record is left that they took anything from.
    pub(super) fn old_entries(&self, before: Timestamp, limit: usize) -> Result<Vec<Old>, StoreError> {
        type Found = (String, Vec<u8>, Vec<u8>, Vec<u8>);
        let conn = self.lock();
        let found: Vec<Found> = conn
            .prepare_cached(
                "SELECT name, rows, sources, jobs FROM entries WHERE replaced = 0 AND made < ?1 ORDER BY made LIMIT ?2",
            )
            .and_then(|mut statement| {
                let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                statement.query_map(params![before.millis(), limit], read)?.collect()
            })
            .map_err(at)?;
        let mut old = Vec::new();
        for (name, rows, sources, jobs) in found {
            let mut gone = true;
            for (tenant, id) in decode::<Vec<(TenantName, JobId)>>(&jobs)? {
                gone &= !conn
                    .prepare_cached("SELECT EXISTS (SELECT 1 FROM records WHERE tenant = ?1 AND id = ?2)")
                    .and_then(|mut statement| {
                        statement.query_row(params![tenant.as_str(), key(id)], |row| row.get::<_, bool>(0))
                    })
                    .map_err(at)?;
            }
            if gone {
                old.push((name, decode(&rows)?, decode(&sources)?));
            }
        }
        Ok(old)
    }

    /// Entries whose sums are in another one, and that are still there.
    pub(super) fn replaced(&self, limit: usize) -> Result<Vec<(String, u64)>, StoreError> {
        self.lock()
            .prepare_cached("SELECT name, sequence FROM entries WHERE replaced = 1 AND sequence > 0 LIMIT ?1")
            .and_then(|mut statement| statement.query_map([limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .map_err(at)
    }
}
