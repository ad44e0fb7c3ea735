//! [`Runs`] in an SQLite file of its own.
//!
//! One row for a run, one for each batch of its journal. Heads and outputs stand in a table of their own, so that lists
//! do not read them. Who owns what is a number in the row and a table of those who live.

pub(super) mod notices;
pub(super) mod read;
mod write;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::workflow::RunStatus;
use lyra_types::{RunId, TenantName, Timestamp};

use super::{Append, CreatedRun, NewRunRecord, OwedRun, RunFilter, RunRecord, Runs, RunsError, TakenRun};
use crate::sqlite::{CommitStats, Readers, Writer, open_writer};
use crate::{DirLock, StoreError};

const SCHEMA_VERSION: i64 = 2;
/// Statuses are numbers: their place in `RunStatus::ALL`; 0 and 1 are those that have not ended.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS runs (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant      TEXT NOT NULL,
    id          TEXT NOT NULL,
    workflow    TEXT NOT NULL,
    version     INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    owner       INTEGER NOT NULL,
    fence       INTEGER NOT NULL,
    batches     INTEGER NOT NULL,
    summary     BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS runs_id   ON runs (tenant, id);
CREATE INDEX IF NOT EXISTS runs_workflow    ON runs (tenant, workflow, number);
CREATE INDEX IF NOT EXISTS runs_status      ON runs (tenant, status, number);
CREATE INDEX IF NOT EXISTS runs_open        ON runs (owner) WHERE status < 2;
CREATE INDEX IF NOT EXISTS runs_ended       ON runs (ended_at) WHERE status >= 2;
CREATE TABLE IF NOT EXISTS batches (
    run    INTEGER NOT NULL,
    number INTEGER NOT NULL,
    body   BLOB NOT NULL,
    PRIMARY KEY (run, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heads (run INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS outputs (run INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS owners (owner INTEGER PRIMARY KEY, until INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS counts (status INTEGER PRIMARY KEY, runs INTEGER NOT NULL);
INSERT OR IGNORE INTO counts VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0);
CREATE TRIGGER IF NOT EXISTS runs_inserted AFTER INSERT ON runs BEGIN
    UPDATE counts SET runs = runs + 1 WHERE status = new.status;
END;
CREATE TRIGGER IF NOT EXISTS runs_deleted AFTER DELETE ON runs BEGIN
    UPDATE counts SET runs = runs - 1 WHERE status = old.status;
END;
CREATE TRIGGER IF NOT EXISTS runs_moved AFTER UPDATE OF status ON runs WHEN old.status <> new.status BEGIN
    UPDATE counts SET runs = runs - 1 WHERE status = old.status;
    UPDATE counts SET runs = runs + 1 WHERE status = new.status;
END;
CREATE TABLE IF NOT EXISTS memos (
    tenant TEXT NOT NULL,
    key    BLOB NOT NULL,
    until  INTEGER NOT NULL,
    result BLOB NOT NULL,
    PRIMARY KEY (tenant, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS memos_until ON memos (until);
CREATE TABLE IF NOT EXISTS notices (run INTEGER PRIMARY KEY, notice TEXT NOT NULL, owed INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS notices_owed ON notices (run) WHERE owed = 1;
CREATE TRIGGER IF NOT EXISTS notices_owed_at_the_end AFTER UPDATE OF status ON runs WHEN new.status >= 2 AND old.status < 2 BEGIN
    UPDATE notices SET owed = 1 WHERE run = new.number;
END;
CREATE TRIGGER IF NOT EXISTS notices_deleted AFTER DELETE ON runs BEGIN
    DELETE FROM notices WHERE run = old.number;
END;
";

/// [`Runs`] in an SQLite file.
pub struct SqliteRuns {
    writer: Writer,
    readers: Readers,
    /// Kept for as long as the file may be written.
    _lock: Option<Arc<DirLock>>,
}

impl SqliteRuns {
    /// Opens or makes the file. Blocks. `lock` is held until the store is dropped.
    ///
    /// # Errors
    /// When the file can't be opened, or was written by a newer program.
    pub fn open(path: &Path, lock: Option<Arc<DirLock>>) -> Result<SqliteRuns, StoreError> {
        let conn = open_writer(path, SCHEMA_VERSION, SCHEMA)?;
        let readers = Readers::open(path)?;
        Ok(SqliteRuns { writer: Writer::new(conn, |_| {})?, readers, _lock: lock })
    }

    /// Requests and commits so far.
    pub fn stats(&self) -> CommitStats {
        self.writer.stats()
    }

    /// Finishes what was asked, refuses the rest, and closes the file for writing.
    pub async fn close(&self) {
        self.writer.close().await;
    }

    /// Runs `work` in the next commit. An outcome that is not a fault of the store is part of the answer: such work
    /// must not have written anything.
    async fn write<T, F>(&self, work: F) -> Result<T, RunsError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, RunsError> + Send + 'static,
    {
        self.writer
            .write(|conn| match work(conn) {
                Ok(value) => Ok(Ok(value)),
                Err(RunsError::Store(error)) => Err(error),
                Err(other) => Ok(Err(other)),
            })
            .await?
    }
}

#[async_trait]
impl Runs for SqliteRuns {
    async fn create(&self, run: NewRunRecord) -> Result<CreatedRun, RunsError> {
        self.write(move |conn| write::create(conn, &run)).await
    }

    async fn append(&self, append: Append) -> Result<(), RunsError> {
        self.write(move |conn| write::append(conn, &append)).await
    }

    async fn get(
        &self,
        tenant: TenantName,
        id: RunId,
        with_output: bool,
    ) -> Result<(RunRecord, Option<Bytes>), RunsError> {
        let found = {
            let id = id.clone();
            self.readers.read(move |conn| read::get(conn, &tenant, &id, with_output)).await?
        };
        found.ok_or(RunsError::NotFound(id))
    }

    async fn journal(&self, tenant: TenantName, id: RunId) -> Result<(Bytes, Vec<Bytes>), RunsError> {
        let found = {
            let id = id.clone();
            self.readers.read(move |conn| read::journal_of(conn, &tenant, &id)).await?
        };
        found.ok_or(RunsError::NotFound(id))
    }

    async fn live(&self, tenant: TenantName, most: u64) -> Result<u64, RunsError> {
        Ok(self.readers.read(move |conn| read::live(conn, &tenant, most)).await?)
    }

    async fn list(&self, tenant: TenantName, filter: RunFilter) -> Result<Vec<RunRecord>, RunsError> {
        Ok(self.readers.read(move |conn| read::list(conn, &tenant, &filter)).await?)
    }

    async fn renew(&self, owner: u64, now: Timestamp, ttl: Duration) -> Result<(), RunsError> {
        self.write(move |conn| write::renew(conn, owner, now, ttl)).await
    }

    async fn take(&self, owner: u64, now: Timestamp, alone: bool, limit: usize) -> Result<Vec<TakenRun>, RunsError> {
        self.write(move |conn| write::take(conn, owner, now, alone, limit)).await
    }

    async fn reopen(&self, tenant: TenantName, id: RunId, owner: u64) -> Result<TakenRun, RunsError> {
        self.write(move |conn| write::reopen(conn, &tenant, &id, owner)).await
    }

    async fn owed(&self, limit: usize) -> Result<Vec<OwedRun>, RunsError> {
        Ok(self.readers.read(move |conn| notices::owed(conn, limit)).await?)
    }

    async fn passed_on(&self, tenant: TenantName, id: RunId, ended_at: Timestamp) -> Result<(), RunsError> {
        self.write(move |conn| Ok(notices::passed_on(conn, &tenant, &id, ended_at)?)).await
    }

    async fn ended(&self, before: Timestamp, limit: usize) -> Result<Vec<(TenantName, RunId)>, RunsError> {
        Ok(self.readers.read(move |conn| read::ended(conn, before, limit)).await?)
    }

    async fn forget(&self, tenant: TenantName, id: RunId, ended_before: Timestamp) -> Result<bool, RunsError> {
        self.write(move |conn| write::forget(conn, &tenant, &id, ended_before)).await
    }

    async fn all(&self, after: u64, limit: usize) -> Result<Vec<RunRecord>, RunsError> {
        Ok(self.readers.read(move |conn| read::all(conn, after, limit)).await?)
    }

    async fn forget_memos(&self, tenant: TenantName) -> Result<(), RunsError> {
        self.write(move |conn| write::forget_memos(conn, &tenant)).await
    }

    async fn sweep(&self, ended_before: Timestamp, limit: usize) -> Result<u64, RunsError> {
        self.write(move |conn| write::sweep(conn, ended_before, limit)).await
    }

    async fn counts(&self) -> Result<[u64; RunStatus::ALL.len()], RunsError> {
        Ok(self.readers.read(read::counts).await?)
    }

    async fn memo(&self, tenant: TenantName, key: [u8; 32], now: Timestamp) -> Result<Option<Bytes>, RunsError> {
        Ok(self.readers.read(move |conn| read::memo(conn, &tenant, &key, now)).await?)
    }

    async fn keep_memo(
        &self,
        tenant: TenantName,
        key: [u8; 32],
        result: Bytes,
        until: Timestamp,
    ) -> Result<(), RunsError> {
        self.write(move |conn| write::keep_memo(conn, &tenant, &key, &result, until)).await
    }
}
