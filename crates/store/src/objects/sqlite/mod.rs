//! [`Objects`] in an SQLite file.

mod leases;
mod tail;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::watch;

use self::leases::Leases;
use self::tail::{Recorded, Tail};
use super::{
    Batch, Change, Check, Entry, Event, EventKind, Granted, LeaseId, Listing, Objects, Txn, TxnError, WatchError,
    check_key, check_prefix, prefix_end,
};
use crate::sqlite::{CommitStats, Readers, Writer, open_writer};
use crate::{DirLock, StoreError};

const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
CREATE TABLE objects (
    key      TEXT PRIMARY KEY,
    value    BLOB NOT NULL,
    created  INTEGER NOT NULL,
    modified INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE history (
    revision INTEGER NOT NULL,
    key      TEXT NOT NULL,
    deleted  INTEGER NOT NULL,
    PRIMARY KEY (revision, key)
) WITHOUT ROWID;
-- revision: of the last transaction. compacted: history up to here is gone.
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL, compacted INTEGER NOT NULL);
INSERT INTO state VALUES (1, 0, 0);
";

/// Events of the file shown in one batch, unless one transaction alone has more.
const BATCH: i64 = 1_000;

/// How much history is kept for watchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Revisions kept at least; up to twice as many before the older ones go.
    pub revisions: u64,
}

impl Default for History {
    fn default() -> History {
        History { revisions: 10_000 }
    }
}

/// [`Objects`] in an SQLite file.
pub struct SqliteObjects {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Writer,
    readers: Arc<Readers>,
    /// The newest revision that is committed.
    newest: watch::Receiver<u64>,
    tail: Arc<Tail>,
    history: History,
    leases: Leases,
    /// Kept for as long as the file may be written.
    _lock: Option<Arc<DirLock>>,
}

impl SqliteObjects {
    /// Opens or makes the file. Blocks. `lock` is held until the store is dropped.
    ///
    /// # Errors
    /// When the file can't be opened, or was written by a newer program.
    pub fn open(path: &Path, history: History, lock: Option<Arc<DirLock>>) -> Result<SqliteObjects, StoreError> {
        let conn = open_writer(path, SCHEMA_VERSION, SCHEMA)?;
        leases::open(&conn, history)?;
        let revision = state(&conn)?.revision;
        let readers = Arc::new(Readers::open(path)?);
        let tail = Arc::new(Tail::new(revision, history.revisions));
        let (tell, newest) = watch::channel(revision);
        let written = Arc::clone(&tail);
        let writer = Writer::new(conn, move |committed| {
            if let Some(newest) = written.settle(committed) {
                tell.send_replace(newest);
            }
        })?;
        let leases = Leases::new();
        Ok(SqliteObjects { inner: Arc::new(Inner { writer, readers, newest, tail, history, leases, _lock: lock }) })
    }

    /// Requests and commits so far.
    pub fn stats(&self) -> CommitStats {
        self.inner.writer.stats()
    }

    /// Finishes what was asked, refuses the rest, and closes the file for writing.
    pub async fn close(&self) {
        self.inner.writer.close().await;
    }
}

impl Inner {
    /// Deletes the objects of a lease that has been taken off the list.
    async fn delete_leased(&self, lease: LeaseId) -> Result<(), StoreError> {
        let (tail, history) = (Arc::clone(&self.tail), self.history);
        self.writer
            .write(move |conn| {
                if let Some(recorded) = leases::delete(conn, Some(lease), history)? {
                    tail.stage(recorded);
                }
                Ok(())
            })
            .await
    }
}

struct State {
    revision: u64,
    compacted: u64,
}

fn state(conn: &Connection) -> Result<State, StoreError> {
    conn.prepare_cached("SELECT revision, compacted FROM state")
        .and_then(|mut statement| {
            statement.query_row([], |row| Ok(State { revision: row.get(0)?, compacted: row.get(1)? }))
        })
        .map_err(StoreError::sqlite("read the revision"))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get(0)?,
        value: Bytes::from(row.get::<_, Vec<u8>>(1)?),
        created: row.get(2)?,
        modified: row.get(3)?,
    })
}

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX - 1)
}

fn list(conn: &Connection, prefix: &str, limit: usize, after: Option<&str>) -> Result<Listing, StoreError> {
    let at = StoreError::sqlite("list objects");
    // Keys are ASCII: "\u{80}" comes after all of them.
    let end = prefix_end(prefix).unwrap_or_else(|| "\u{80}".to_owned());
    let mut statement = conn
        .prepare_cached(
            "SELECT key, value, created, modified FROM objects
             WHERE key >= ?1 AND key < ?2 AND key > ?3 ORDER BY key LIMIT ?4",
        )
        .map_err(&at)?;
    let rows =
        statement.query_map(params![prefix, end, after.unwrap_or(""), limit_of(limit) + 1], entry).map_err(&at)?;
    let mut entries = rows.collect::<rusqlite::Result<Vec<_>>>().map_err(&at)?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    Ok(Listing { entries, revision: state(conn)?.revision, more })
}

fn holds(conn: &Connection, check: &Check) -> rusqlite::Result<bool> {
    let modified: Option<u64> = conn
        .prepare_cached("SELECT modified FROM objects WHERE key = ?1")?
        .query_row([check.key()], |row| row.get(0))
        .optional()?;
    Ok(match check {
        Check::Absent(_) => modified.is_none(),
        Check::Exists(_) => modified.is_some(),
        Check::Modified(_, revision) => modified == Some(*revision),
    })
}

/// Keys that the change touched, each with whether it is deleted.
fn apply(conn: &Connection, revision: u64, change: Change) -> rusqlite::Result<Vec<(String, bool)>> {
    let strings = |row: &Row<'_>| row.get::<_, String>(0);
    Ok(match change {
        Change::Put(key, value) => {
            conn.prepare_cached(
                "INSERT INTO objects (key, value, created, modified) VALUES (?1, ?2, ?3, ?3)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, modified = excluded.modified",
            )?
            .execute(params![key, &value[..], revision])?;
            leases::attach(conn, &key, None)?;
            vec![(key, false)]
        }
        Change::PutLeased(key, value, lease) => {
            let touched = apply(conn, revision, Change::Put(key.clone(), value))?;
            leases::attach(conn, &key, Some(lease))?;
            touched
        }
        Change::Delete(key) => {
            leases::attach(conn, &key, None)?;
            let deleted = conn.prepare_cached("DELETE FROM objects WHERE key = ?1")?.execute([&key])?;
            if deleted > 0 { vec![(key, true)] } else { Vec::new() }
        }
        Change::DeletePrefix(prefix) => {
            let end = prefix_end(&prefix).unwrap_or_else(|| "\u{80}".to_owned());
            let mut statement =
                conn.prepare_cached("DELETE FROM objects WHERE key >= ?1 AND key < ?2 RETURNING key")?;
            let keys = statement.query_map([&prefix, &end], strings)?.collect::<rusqlite::Result<Vec<_>>>()?;
            conn.prepare_cached("DELETE FROM leased WHERE key >= ?1 AND key < ?2")?.execute([&prefix, &end])?;
            keys.into_iter().map(|key| (key, true)).collect()
        }
    })
}

/// Carries out a transaction, or says which check failed.
fn transact(conn: &Connection, txn: Txn, history: History) -> Result<Result<Recorded, (usize, String)>, StoreError> {
    let at = StoreError::sqlite("write objects");
    for (index, check) in txn.checks.iter().enumerate() {
        if !holds(conn, check).map_err(&at)? {
            return Ok(Err((index, check.key().to_owned())));
        }
    }
    let before = state(conn)?;
    let revision = before.revision + 1;
    let mut changed = Vec::with_capacity(txn.changes.len());
    for change in txn.changes {
        changed.extend(apply(conn, revision, change).map_err(&at)?);
    }
    if changed.is_empty() {
        return Ok(Ok(Recorded { revision: before.revision, changed }));
    }
    record(conn, changed, history).map(Ok)
}

/// Writes down what the next revision has changed, and forgets what is too old.
fn record(conn: &Connection, changed: Vec<(String, bool)>, history: History) -> Result<Recorded, StoreError> {
    let at = StoreError::sqlite("write the history");
    let before = state(conn)?;
    let revision = before.revision + 1;
    for (key, deleted) in &changed {
        conn.prepare_cached("INSERT OR REPLACE INTO history (revision, key, deleted) VALUES (?1, ?2, ?3)")
            .and_then(|mut statement| statement.execute(params![revision, key, deleted]))
            .map_err(&at)?;
    }
    conn.prepare_cached("UPDATE state SET revision = ?1")
        .and_then(|mut statement| statement.execute([revision]))
        .map_err(&at)?;
    if revision - before.compacted > history.revisions.saturating_mul(2) {
        let upto = revision - history.revisions;
        conn.execute("DELETE FROM history WHERE revision <= ?1", [upto]).map_err(&at)?;
        conn.execute("UPDATE state SET compacted = ?1", [upto]).map_err(&at)?;
    }
    Ok(Recorded { revision, changed })
}

/// The changes under `prefix` after revision `seen`, whole transactions only.
fn changes(conn: &Connection, prefix: &str, seen: u64) -> Result<Result<Batch, u64>, StoreError> {
    let at = StoreError::sqlite("read the history");
    let state = state(conn)?;
    if seen < state.compacted {
        return Ok(Err(state.compacted));
    }
    // The last revision that fits, so that no transaction is cut.
    let last: Option<u64> = conn
        .prepare_cached("SELECT revision FROM history WHERE revision > ?1 ORDER BY revision LIMIT 1 OFFSET ?2")
        .and_then(|mut statement| statement.query_row(params![seen, BATCH], |row| row.get(0)).optional())
        .map_err(&at)?;
    let revision = last.unwrap_or(state.revision);
    let end = prefix_end(prefix).unwrap_or_else(|| "\u{80}".to_owned());
    let mut statement = conn
        .prepare_cached(
            "SELECT revision, key, deleted FROM history
             WHERE revision > ?1 AND revision <= ?2 AND key >= ?3 AND key < ?4 ORDER BY revision, key",
        )
        .map_err(&at)?;
    let events = statement
        .query_map(params![seen, revision, prefix, end], |row| {
            let kind = if row.get(2)? { EventKind::Delete } else { EventKind::Put };
            Ok(Event { revision: row.get(0)?, key: row.get(1)?, kind })
        })
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .map_err(&at)?;
    Ok(Ok(Batch { events, revision }))
}

#[async_trait]
impl Objects for SqliteObjects {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.inner
            .readers
            .read(move |conn| {
                conn.prepare_cached("SELECT key, value, created, modified FROM objects WHERE key = ?1")
                    .and_then(|mut statement| statement.query_row([&key], entry).optional())
                    .map_err(StoreError::sqlite("get an object"))
            })
            .await
    }

    async fn list(&self, prefix: &str, limit: usize, after: Option<&str>) -> Result<Listing, StoreError> {
        check_prefix(prefix)?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.inner.readers.read(move |conn| list(conn, &prefix, limit, after.as_deref())).await
    }

    async fn txn(&self, txn: Txn) -> Result<u64, TxnError> {
        for check in &txn.checks {
            check_key(check.key())?;
        }
        for change in &txn.changes {
            match change {
                Change::Put(key, _) | Change::PutLeased(key, ..) | Change::Delete(key) => check_key(key)?,
                Change::DeletePrefix(prefix) => check_prefix(prefix)?,
            }
        }
        let history = self.inner.history;
        let inner = Arc::clone(&self.inner);
        let outcome = self
            .inner
            .writer
            .write(move |conn| {
                let ended =
                    |change: &Change| matches!(change, Change::PutLeased(.., lease) if !inner.leases.holds(*lease));
                if txn.changes.iter().any(ended) {
                    return Err(StoreError::LeaseEnded);
                }
                let outcome = transact(conn, txn, history)?;
                Ok(outcome.map(|recorded| {
                    let revision = recorded.revision;
                    inner.tail.stage(recorded);
                    revision
                }))
            })
            .await?;
        outcome.map_err(|(index, key)| TxnError::Failed { index, key })
    }

    async fn watch(
        &self,
        prefix: &str,
        from: u64,
    ) -> Result<BoxStream<'static, Result<Batch, WatchError>>, WatchError> {
        check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        let seen = from.saturating_sub(1);
        let probe = self.inner.readers.read(|conn| Ok(state(conn)?.compacted)).await?;
        if seen < probe {
            return Err(WatchError::Compacted { oldest: probe });
        }
        let (readers, tail) = (Arc::clone(&self.inner.readers), Arc::clone(&self.inner.tail));
        let watcher = Watcher { readers, tail, newest: self.inner.newest.clone(), prefix, seen };
        Ok(Box::pin(futures::stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(Some(batch)) => Some((Ok(batch), Some(watcher))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })))
    }

    async fn grant(&self, ttl: Duration) -> Result<Granted, StoreError> {
        Ok(Granted { id: self.inner.leases.grant(&self.inner, ttl), ttl })
    }

    async fn renew(&self, lease: LeaseId) -> Result<bool, StoreError> {
        Ok(self.inner.leases.renew(lease))
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        if self.inner.leases.take(lease) { self.inner.delete_leased(lease).await } else { Ok(()) }
    }
}

struct Watcher {
    readers: Arc<Readers>,
    tail: Arc<Tail>,
    newest: watch::Receiver<u64>,
    prefix: String,
    seen: u64,
}

impl Watcher {
    /// The next changes; `None` once the store is gone.
    async fn next(&mut self) -> Result<Option<Batch>, WatchError> {
        let seen = self.seen;
        if self.newest.wait_for(|newest| *newest > seen).await.is_err() {
            return Ok(None);
        }
        let batch = match self.tail.since(&self.prefix, seen) {
            Some(batch) => batch,
            None => {
                let prefix = self.prefix.clone();
                let read = self.readers.read(move |conn| changes(conn, &prefix, seen)).await?;
                read.map_err(|oldest| WatchError::Compacted { oldest })?
            }
        };
        self.seen = batch.revision;
        Ok(Some(batch))
    }
}

#[cfg(test)]
mod tests;
