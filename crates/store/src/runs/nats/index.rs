//! What this process knows of the runs: an index to find them by what they are, not only by name.
//!
//! It is a private SQLite database with the tables of [`crate::SqliteRuns`], made anew at each start and deleted at the end:
//! the stream is the truth. What it shows can be a moment behind what other processes have just written;
//! whoever changes a run finds that out by its sequence.

use lyra_types::workflow::RunStatus;
use lyra_types::{RunId, TenantName, Timestamp};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::entry::{Name, Place, State};
use crate::StoreError;
use crate::runs::sqlite::{SCHEMA, notices, read};
use crate::runs::{OwedRun, RunFilter, RunRecord, status_number};

/// Beside those of `SqliteRuns`: which message of a run was heard last, and what was deleted.
const TABLES: &str = "
CREATE TABLE heard (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL, place TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE gone (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX gone_since ON gone (since);
";
/// In KiB; the rest spills to a file without a name.
const CACHE_KIB: i64 = 8_192;

/// Something that happened to a run.
#[derive(Debug, Clone)]
pub(super) enum News {
    Run { name: Name, state: Box<State>, sequence: u64 },
    Gone { name: Name, sequence: u64, since: Timestamp },
}

pub(super) struct Index {
    conn: Mutex<Connection>,
}

fn at(operation: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    StoreError::sqlite(operation)
}

const WRITE: &str = "write the index of runs";
const SEARCH: &str = "search the index of runs";

impl Index {
    pub(super) fn new() -> Result<Index, StoreError> {
        const OPERATION: &str = "make the index of runs";
        // An empty path: a database of its own, on disk where it grows large, gone when it is closed.
        let conn = Connection::open("").map_err(at(OPERATION))?;
        conn.set_prepared_statement_cache_capacity(64);
        conn.pragma_update(None, "cache_size", -CACHE_KIB).map_err(at(OPERATION))?;
        conn.execute_batch(SCHEMA).and_then(|()| conn.execute_batch(TABLES)).map_err(at(OPERATION))?;
        Ok(Index { conn: Mutex::new(conn) })
    }

    /// Takes in what happened. Older news than what is known change nothing.
    pub(super) fn apply(&self, news: impl IntoIterator<Item = News>) -> Result<(), StoreError> {
        let conn = self.conn.lock();
        let transaction = conn.unchecked_transaction().map_err(at(WRITE))?;
        for one in news {
            match one {
                News::Run { name, state, sequence } => put(&transaction, &name, &state, sequence)?,
                News::Gone { name, sequence, since } => remove(&transaction, &name, sequence, since)?,
            }
        }
        transaction.commit().map_err(at(WRITE))
    }

    /// Forgets everything, to be filled anew.
    pub(super) fn clear(&self) -> Result<(), StoreError> {
        let all = "DELETE FROM runs; DELETE FROM notices; DELETE FROM heard; DELETE FROM gone";
        self.conn.lock().execute_batch(all).map_err(at("clear the index of runs"))
    }

    /// Whether there is a run of this name, as far as it is known.
    pub(super) fn knows(&self, name: &Name) -> Result<bool, StoreError> {
        self.place(name).map(|place| place.is_some())
    }

    /// Where the payloads of a run stand, as far as it is known.
    pub(super) fn place(&self, name: &Name) -> Result<Option<Place>, StoreError> {
        self.conn
            .lock()
            .prepare_cached("SELECT place FROM heard WHERE name = ?1")
            .and_then(|mut statement| statement.query_row([name.to_string()], |row| row.get(0)).optional())
            .map(|place| place.map(Place))
            .map_err(at(SEARCH))
    }

    /// Owners of runs that have not ended, other than this one.
    pub(super) fn other_owners(&self, owner: u64) -> Result<Vec<u64>, StoreError> {
        self.conn
            .lock()
            .prepare_cached("SELECT DISTINCT owner FROM runs INDEXED BY runs_open WHERE status < 2 AND owner <> ?1")
            .and_then(|mut statement| {
                let owners = statement.query_map([owner.cast_signed()], |row| row.get::<_, i64>(0))?;
                owners.map(|owner| owner.map(i64::cast_unsigned)).collect()
            })
            .map_err(at(SEARCH))
    }

    /// Runs of an owner that have not ended.
    pub(super) fn open_of(&self, owner: u64, limit: usize) -> Result<Vec<Name>, StoreError> {
        self.names(
            "SELECT tenant, id FROM runs INDEXED BY runs_open WHERE status < 2 AND owner = ?1 ORDER BY number LIMIT ?2",
            params![owner.cast_signed(), limit],
        )
    }

    /// Runs that ended before this time.
    pub(super) fn ended(&self, before: Timestamp, limit: usize) -> Result<Vec<Name>, StoreError> {
        let found = read::ended(&self.conn.lock(), before, limit)?;
        Ok(found.into_iter().map(|(tenant, id)| Name { tenant, id }).collect())
    }

    /// Runs that are owed, as far as it is known.
    pub(super) fn owed(&self, limit: usize) -> Result<Vec<OwedRun>, StoreError> {
        notices::owed(&self.conn.lock(), limit)
    }

    /// How many runs of the tenant have not ended, as far as it is known.
    pub(super) fn live(&self, tenant: &TenantName, most: u64) -> Result<u64, StoreError> {
        read::live(&self.conn.lock(), tenant, most)
    }

    pub(super) fn all(&self, after: u64, limit: usize) -> Result<Vec<RunRecord>, StoreError> {
        read::all(&self.conn.lock(), after, limit)
    }

    fn names(&self, sql: &str, of: impl Params) -> Result<Vec<Name>, StoreError> {
        let name = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let found: Vec<(String, String)> = self
            .conn
            .lock()
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(of, name)?.collect())
            .map_err(at(SEARCH))?;
        let name = |(tenant, id): (String, String)| {
            Some(Name { tenant: TenantName::new(&tenant).ok()?, id: RunId::new(&id).ok()? })
        };
        Ok(found.into_iter().filter_map(name).collect())
    }

    /// Marks of runs that were deleted before `since`, with their sequences.
    pub(super) fn marks(&self, since: Timestamp, limit: usize) -> Result<Vec<(Name, u64)>, StoreError> {
        let found: Vec<(String, u64)> = self
            .conn
            .lock()
            .prepare_cached("SELECT name, sequence FROM gone WHERE since < ?1 ORDER BY since LIMIT ?2")
            .and_then(|mut statement| {
                statement.query_map(params![since.millis(), limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .map_err(at(SEARCH))?;
        Ok(found.into_iter().filter_map(|(name, sequence)| Some((Name::parse(&name)?, sequence))).collect())
    }

    /// Forgets a mark that is not in the stream any more.
    pub(super) fn forget(&self, name: &Name, sequence: u64) -> Result<(), StoreError> {
        self.conn
            .lock()
            .prepare_cached("DELETE FROM gone WHERE name = ?1 AND sequence = ?2")
            .and_then(|mut statement| statement.execute(params![name.to_string(), sequence]))
            .map_err(at(WRITE))?;
        Ok(())
    }

    pub(super) fn list(&self, tenant: &TenantName, filter: &RunFilter) -> Result<Vec<RunRecord>, StoreError> {
        read::list(&self.conn.lock(), tenant, filter)
    }

    pub(super) fn counts(&self) -> Result<[u64; RunStatus::ALL.len()], StoreError> {
        read::counts(&self.conn.lock())
    }
}

/// The sequence of the newest that is known of this name.
fn known(conn: &Connection, name: &str) -> Result<u64, StoreError> {
    conn.prepare_cached(
        "SELECT max(coalesce((SELECT sequence FROM heard WHERE name = ?1), 0),
                    coalesce((SELECT sequence FROM gone WHERE name = ?1), 0))",
    )
    .and_then(|mut statement| statement.query_row([name], |row| row.get(0)))
    .map_err(at(WRITE))
}

fn put(conn: &Connection, name: &Name, state: &State, sequence: u64) -> Result<(), StoreError> {
    let text = name.to_string();
    if known(conn, &text)? >= sequence {
        return Ok(());
    }
    conn.prepare_cached("DELETE FROM gone WHERE name = ?1")
        .and_then(|mut statement| statement.execute([&text]))
        .map_err(at(WRITE))?;
    conn.prepare_cached("INSERT OR REPLACE INTO heard (name, sequence, place) VALUES (?1, ?2, ?3)")
        .and_then(|mut statement| statement.execute(params![text, sequence, state.place.0]))
        .map_err(at(WRITE))?;
    // Not `REPLACE`, which would leave the triggers out that count.
    conn.prepare_cached(
        "INSERT INTO runs (number, tenant, id, workflow, version, status, fingerprint, created_at, ended_at, owner, fence,
                           batches, summary)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, x'', ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (tenant, id) DO UPDATE SET
             number = excluded.number, workflow = excluded.workflow, version = excluded.version,
             status = excluded.status, created_at = excluded.created_at, ended_at = excluded.ended_at,
             owner = excluded.owner, fence = excluded.fence, batches = excluded.batches, summary = excluded.summary",
    )
    .and_then(|mut statement| {
        statement.execute(params![
            state.order,
            name.tenant.as_str(),
            name.id.as_str(),
            state.workflow.as_str(),
            state.version,
            status_number(state.status),
            state.created_at.millis(),
            state.ended_at.map(Timestamp::millis),
            state.owner.cast_signed(),
            state.fence,
            state.batches,
            &state.summary()[..],
        ])
    })
    .map_err(at(WRITE))?;
    put_notice(conn, state)
}

/// Only those that are owed stand in the index. A run of the same id that was made later has another number.
fn put_notice(conn: &Connection, state: &State) -> Result<(), StoreError> {
    match state.notice.as_ref().filter(|_| state.owed) {
        Some(notice) => conn
            .prepare_cached("INSERT OR REPLACE INTO notices (run, notice, owed) VALUES (?1, ?2, 1)")
            .and_then(|mut statement| statement.execute(params![state.order, notice])),
        None => conn
            .prepare_cached("DELETE FROM notices WHERE run = ?1")
            .and_then(|mut statement| statement.execute([state.order])),
    }
    .map_err(at(WRITE))?;
    Ok(())
}

fn remove(conn: &Connection, name: &Name, sequence: u64, since: Timestamp) -> Result<(), StoreError> {
    let text = name.to_string();
    if known(conn, &text)? >= sequence {
        return Ok(());
    }
    conn.prepare_cached("DELETE FROM heard WHERE name = ?1")
        .and_then(|mut statement| statement.execute([&text]))
        .map_err(at(WRITE))?;
    conn.prepare_cached("DELETE FROM runs WHERE tenant = ?1 AND id = ?2")
        .and_then(|mut statement| statement.execute([name.tenant.as_str(), name.id.as_str()]))
        .map_err(at(WRITE))?;
    conn.prepare_cached("INSERT OR REPLACE INTO gone (name, sequence, since) VALUES (?1, ?2, ?3)")
        .and_then(|mut statement| statement.execute(params![text, sequence, since.millis()]))
        .map_err(at(WRITE))?;
    Ok(())
}
