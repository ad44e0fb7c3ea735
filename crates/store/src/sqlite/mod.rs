//! What the SQLite implementations share: how a database is opened, its one writer with group commit,
//! its checkpoints, and its few readers.

mod checkpoints;
mod readers;
mod writer;

use std::path::Path;

use rusqlite::Connection;

use crate::StoreError;

pub use checkpoints::Checkpoints;
pub(crate) use readers::Readers;
pub use writer::CommitStats;
pub(crate) use writer::Writer;

/// Page cache of the writer, in KiB.
const WRITER_CACHE_KIB: i64 = 2_048;
/// Page cache of each reader, in KiB.
const READER_CACHE_KIB: i64 = 512;
/// The write-ahead log is cut back to this size after a checkpoint, in bytes.
const WAL_LIMIT: i64 = 16 << 20;
/// Prepared statements kept for each connection.
const STATEMENTS: usize = 64;

/// Opens (or makes) the database at `path` for writing and brings its schema to `version` with `schema`,
/// which must be idempotent.
pub(crate) fn open_writer(path: &Path, version: i64, schema: &str) -> Result<Connection, StoreError> {
    let at = StoreError::sqlite("open a database");
    let conn = Connection::open(path).map_err(&at)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.busy_timeout(std::time::Duration::from_secs(5)).map_err(&at)?;
    conn.pragma_update(None, "journal_mode", "WAL").map_err(&at)?;
    conn.pragma_update(None, "synchronous", "FULL").map_err(&at)?;
    conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB).map_err(&at)?;
    conn.pragma_update(None, "journal_size_limit", WAL_LIMIT).map_err(&at)?;
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(&at)?;
    if found > version {
        return Err(StoreError::Damaged {
            operation: "open a database",
            detail: format!("its schema {found} is newer than this program's {version}"),
        });
    }
    if found < version {
        let transaction = conn.unchecked_transaction().map_err(&at)?;
        transaction.execute_batch(schema).map_err(&at)?;
        transaction.pragma_update(None, "user_version", version).map_err(&at)?;
        transaction.commit().map_err(&at)?;
    }
    Ok(conn)
}

/// Opens the database at `path` for reading; the writer must have been opened before.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let at = StoreError::sqlite("open a database for reading");
    let conn = Connection::open(path).map_err(&at)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.busy_timeout(std::time::Duration::from_secs(5)).map_err(&at)?;
    conn.pragma_update(None, "cache_size", -READER_CACHE_KIB).map_err(&at)?;
    conn.pragma_update(None, "query_only", true).map_err(&at)?;
    Ok(conn)
}
