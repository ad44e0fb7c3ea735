//! The SQLite file: its tables, opening it, and moving a broken one aside.
//!
//! A line's key, `seq`, grows with every line and embeds the time: it is the larger of "one more than the
//! last" and the line's time in ms shifted by [`TIME_SHIFT`]. So the order of writing, "from this time on" and
//! "older than" are all ranges of the key, and one index for each function serves them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lyra_types::Timestamp;
use lyra_types::log::LogLine;
use rusqlite::{Connection, OpenFlags};

use crate::error::Error;

/// Layout of the tables; a file with another one is moved aside.
const LAYOUT: i64 = 1;
/// Bits below the time in a `seq`: a million lines a millisecond before keys run ahead of time.
const TIME_SHIFT: u32 = 20;
/// Bytes that a line counts as, beside its texts.
pub(crate) const ROW_OVERHEAD: u64 = 128;
/// What a row of `lines` counts as: [`bytes_of`], for lines that are there.
pub(crate) const ROW_BYTES: &str = "(octet_length(message) + 128 + coalesce(2 * octet_length(application), 0)
    + coalesce(2 * octet_length(session) + octet_length(session_uid), 0))";

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS sources (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    function TEXT NOT NULL,
    bytes INTEGER NOT NULL DEFAULT 0,
    trimmed INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, function)
) STRICT;
CREATE TABLE IF NOT EXISTS lines (
    seq INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    time INTEGER NOT NULL,
    level INTEGER NOT NULL,
    invocation BLOB NOT NULL,
    version INTEGER NOT NULL,
    instance BLOB,
    message TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS lines_by_source ON lines (source);
CREATE INDEX IF NOT EXISTS lines_by_invocation ON lines (invocation);
";

/// Columns of `lines` that a file of an earlier build lacks. Such a build goes on to read and write a file that has them, so they make
/// no new layout.
const LATER_COLUMNS: [&str; 3] = ["application", "session", "session_uid"];

/// Function lines are not in the first two, so they cost what they cost before.
const LATER_INDEXES: &str = "
CREATE INDEX IF NOT EXISTS lines_by_session ON lines (session, source) WHERE session IS NOT NULL;
CREATE INDEX IF NOT EXISTS lines_by_application ON lines (application, source) WHERE application IS NOT NULL;
CREATE INDEX IF NOT EXISTS lines_by_instance ON lines (instance, source) WHERE instance IS NOT NULL;
";

/// What a line counts as: its text, the names that it is found by once more for their index, and the rest of its row.
pub(crate) fn bytes_of(line: &LogLine) -> u64 {
    let application = line.application().map_or(0, |name| 2 * name.len());
    let session = line.session().map_or(0, |session| 2 * session.name.len() + session.uid.len());
    (line.message.len() + application + session) as u64 + ROW_OVERHEAD
}

/// Brings the tables of a file to what this build writes.
fn complete(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    for column in LATER_COLUMNS {
        let there: bool = connection.query_row(
            "SELECT count(*) > 0 FROM pragma_table_info('lines') WHERE name = ?1",
            [column],
            |row| row.get(0),
        )?;
        if !there {
            connection.execute_batch(&format!("ALTER TABLE lines ADD COLUMN {column} TEXT"))?;
        }
    }
    connection.execute_batch(LATER_INDEXES)
}

/// The smallest `seq` that a line of `time` or later can have.
pub(crate) fn first_seq(time: Timestamp) -> i64 {
    // Clamped so that the shift can't overflow; the upper end is the year 2109.
    time.millis().clamp(0, (1 << 42) - 1) << TIME_SHIFT
}

/// Path of the database in `dir`.
pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join("logs.db")
}

fn configure(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "temp_store", "memory")
}

/// Opens the database for writing, and makes it when it is not there.
pub(crate) fn open_writer(dir: &Path) -> Result<Connection, Error> {
    std::fs::create_dir_all(dir).map_err(|source| Error::File { path: dir.to_owned(), source })?;
    let connection = Connection::open(file(dir)).map_err(Error::Open)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(Error::Open)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).map_err(Error::Open)?;
    if found != LAYOUT && tables != 0 {
        return Err(Error::Layout { found, expected: LAYOUT });
    }
    let prepare = || {
        configure(&connection, 2_048)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
        complete(&connection)?;
        connection.pragma_update(None, "user_version", LAYOUT)
    };
    prepare().map_err(Error::Open)?;
    Ok(connection)
}

/// Opens the database for reading.
pub(crate) fn open_reader(dir: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file(dir), flags).map_err(Error::Read)?;
    configure(&connection, 1_024).map_err(Error::Read)?;
    Ok(connection)
}

/// Renames a broken database to `logs.db.broken`, over an earlier one, so that it can be looked at and
/// takes room only once.
pub(crate) fn move_aside(dir: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm"] {
        let from = dir.join(format!("logs.db{suffix}"));
        let to = dir.join(format!("logs.db.broken{suffix}"));
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => drop(std::fs::remove_file(&to)),
            Err(source) => return Err(Error::File { path: from, source }),
        }
    }
    Ok(())
}
