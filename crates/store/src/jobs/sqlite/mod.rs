//! [`Jobs`] in an SQLite file of its own.
//!
//! One row for a job; events and results stand in a table of their own, so that lists do not read them. Triggers
//! keep the count of each status, so that nothing has to count rows, and when the first job of each function is due.

pub(super) mod accept;
pub(super) mod leases;
pub(super) mod lists;
pub(super) mod notices;
mod owner;
pub(super) mod row;
#[cfg(test)]
mod tests;
pub(super) mod turns;
pub(super) mod usage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::job::Job;
use lyra_types::usage::{Usage, UsageBatch, UsageQuery, UsageSum};
use lyra_types::{FunctionName, JobId, TenantName, Timestamp};
use tokio::sync::broadcast;

use super::{
    Accepted, Changed, Counts, Filter, Held, Jobs, JobsError, Lease, LeaseRequest, Leased, NewJob, Outcome, Owed,
    Retention,
};
use crate::sqlite::{CommitStats, Readers, Writer, open_writer};
use crate::{DirLock, StoreError};

const SCHEMA_VERSION: i64 = 4;
/// Queues follow their jobs by triggers, but not where a job is leased: a lease looks once at each queue that it took jobs of.
/// Statuses are numbers: their place in `JobStatus::ALL`. The literals here and in the queries must agree, or SQLite
/// does not use the partial indexes.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS jobs (
    tenant           TEXT NOT NULL,
    id               BLOB NOT NULL,
    function         TEXT NOT NULL,
    version          INTEGER NOT NULL,
    generation       INTEGER NOT NULL,
    status           INTEGER NOT NULL,
    attempts         INTEGER NOT NULL,
    max_attempts     INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    run_at           INTEGER,
    invocation       BLOB,
    error            TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    fence            INTEGER NOT NULL DEFAULT 0,
    owner            INTEGER,
    lease_until      INTEGER,
    event            INTEGER,
    result           INTEGER,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
DROP INDEX IF EXISTS jobs_due;
CREATE INDEX IF NOT EXISTS jobs_queue    ON jobs (tenant, function, run_at, id) WHERE status = 0;
CREATE INDEX IF NOT EXISTS jobs_leased   ON jobs (lease_until) WHERE status = 1;
CREATE INDEX IF NOT EXISTS jobs_finished ON jobs (finished_at) WHERE status BETWEEN 2 AND 5;
CREATE INDEX IF NOT EXISTS jobs_dead     ON jobs (finished_at) WHERE status = 6;
CREATE INDEX IF NOT EXISTS jobs_function ON jobs (tenant, function, id);
CREATE INDEX IF NOT EXISTS jobs_status   ON jobs (tenant, status, id) WHERE status <> 2;
CREATE TABLE IF NOT EXISTS payloads (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS idempotency (
    tenant     TEXT NOT NULL,
    function   TEXT NOT NULL,
    generation INTEGER NOT NULL,
    key        TEXT NOT NULL,
    request    BLOB NOT NULL,
    job        BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, function, generation, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idempotency_expires ON idempotency (expires_at);
CREATE TABLE IF NOT EXISTS counts (status INTEGER PRIMARY KEY, jobs INTEGER NOT NULL);
INSERT OR IGNORE INTO counts VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0);
CREATE TRIGGER IF NOT EXISTS jobs_inserted AFTER INSERT ON jobs BEGIN
    UPDATE counts SET jobs = jobs + 1 WHERE status = new.status;
END;
CREATE TRIGGER IF NOT EXISTS jobs_deleted AFTER DELETE ON jobs BEGIN
    UPDATE counts SET jobs = jobs - 1 WHERE status = old.status;
END;
CREATE TRIGGER IF NOT EXISTS jobs_moved AFTER UPDATE OF status ON jobs WHEN old.status <> new.status BEGIN
    UPDATE counts SET jobs = jobs - 1 WHERE status = old.status;
    UPDATE counts SET jobs = jobs + 1 WHERE status = new.status;
END;
CREATE TABLE IF NOT EXISTS queues (
    tenant   TEXT NOT NULL,
    function TEXT NOT NULL,
    due_at   INTEGER NOT NULL,
    ready    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, function)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS queues_ready ON queues (tenant, due_at) WHERE ready = 1;
CREATE INDEX IF NOT EXISTS queues_later ON queues (due_at) WHERE ready = 0;
INSERT OR IGNORE INTO queues (tenant, function, due_at)
    SELECT tenant, function, min(run_at) FROM jobs WHERE status = 0 AND run_at IS NOT NULL GROUP BY tenant, function;
CREATE TRIGGER IF NOT EXISTS queues_new AFTER INSERT ON jobs WHEN new.status = 0 AND new.run_at IS NOT NULL BEGIN
    INSERT INTO queues (tenant, function, due_at) VALUES (new.tenant, new.function, new.run_at)
        ON CONFLICT (tenant, function) DO UPDATE SET due_at = excluded.due_at, ready = 0 WHERE excluded.due_at < due_at;
END;
CREATE TRIGGER IF NOT EXISTS queues_again AFTER UPDATE OF status, run_at ON jobs WHEN new.status = 0 AND new.run_at IS NOT NULL BEGIN
    INSERT INTO queues (tenant, function, due_at) VALUES (new.tenant, new.function, new.run_at)
        ON CONFLICT (tenant, function) DO UPDATE SET due_at = excluded.due_at, ready = 0 WHERE excluded.due_at < due_at;
END;
CREATE TRIGGER IF NOT EXISTS queues_moved AFTER UPDATE OF status, run_at ON jobs WHEN old.status = 0 AND new.status <> 1 BEGIN
    DELETE FROM queues WHERE tenant = old.tenant AND function = old.function AND due_at = old.run_at AND NOT EXISTS
        (SELECT 1 FROM jobs WHERE status = 0 AND tenant = old.tenant AND function = old.function AND run_at >= old.run_at);
    UPDATE queues SET ready = 0, due_at =
        (SELECT min(run_at) FROM jobs WHERE status = 0 AND tenant = old.tenant AND function = old.function AND run_at >= old.run_at)
        WHERE tenant = old.tenant AND function = old.function AND due_at = old.run_at;
END;
CREATE TRIGGER IF NOT EXISTS queues_gone AFTER DELETE ON jobs WHEN old.status = 0 BEGIN
    DELETE FROM queues WHERE tenant = old.tenant AND function = old.function AND due_at = old.run_at AND NOT EXISTS
        (SELECT 1 FROM jobs WHERE status = 0 AND tenant = old.tenant AND function = old.function AND run_at >= old.run_at);
    UPDATE queues SET ready = 0, due_at =
        (SELECT min(run_at) FROM jobs WHERE status = 0 AND tenant = old.tenant AND function = old.function AND run_at >= old.run_at)
        WHERE tenant = old.tenant AND function = old.function AND due_at = old.run_at;
END;
CREATE TABLE IF NOT EXISTS callers (tenant TEXT NOT NULL, id BLOB NOT NULL, user TEXT NOT NULL, PRIMARY KEY (tenant, id)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS callers_deleted AFTER DELETE ON jobs BEGIN
    DELETE FROM callers WHERE tenant = old.tenant AND id = old.id;
END;
CREATE TABLE IF NOT EXISTS notices (
    tenant TEXT NOT NULL,
    id     BLOB NOT NULL,
    notice TEXT NOT NULL,
    owed   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS notices_owed ON notices (tenant, id) WHERE owed = 1;
CREATE TRIGGER IF NOT EXISTS notices_owed_at_the_end AFTER UPDATE OF status ON jobs WHEN new.status > 1 AND old.status < 2 BEGIN
    UPDATE notices SET owed = 1 WHERE tenant = new.tenant AND id = new.id;
END;
CREATE TRIGGER IF NOT EXISTS notices_deleted AFTER DELETE ON jobs BEGIN
    DELETE FROM notices WHERE tenant = old.tenant AND id = old.id;
END;
CREATE TABLE IF NOT EXISTS usage (
    tenant       TEXT NOT NULL,
    hour         INTEGER NOT NULL,
    function     TEXT NOT NULL,
    version      INTEGER NOT NULL,
    user         TEXT NOT NULL,
    invocations  INTEGER NOT NULL,
    failures     INTEGER NOT NULL,
    cold_starts  INTEGER NOT NULL,
    exec_us      INTEGER NOT NULL,
    cpu_us       INTEGER NOT NULL,
    mb_ms        INTEGER NOT NULL,
    egress_bytes INTEGER NOT NULL,
    PRIMARY KEY (tenant, hour, function, version, user)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage_sources (source TEXT PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID;
";

/// [`Jobs`] in an SQLite file.
pub struct SqliteJobs {
    writer: Writer,
    readers: Readers,
    /// Kept for as long as the file may be written.
    _lock: Option<Arc<DirLock>>,
}

impl SqliteJobs {
    /// Opens or makes the file. Blocks. `lock` is held until the store is dropped.
    ///
    /// # Errors
    /// When the file can't be opened, or was written by a newer program.
    pub fn open(path: &Path, lock: Option<Arc<DirLock>>) -> Result<SqliteJobs, StoreError> {
        let conn = open_writer(path, SCHEMA_VERSION, SCHEMA)?;
        let readers = Readers::open(path)?;
        Ok(SqliteJobs { writer: Writer::new(conn, |_| {})?, readers, _lock: lock })
    }

    /// Requests and commits so far.
    pub fn stats(&self) -> CommitStats {
        self.writer.stats()
    }

    /// Finishes what was asked, refuses the rest, and closes the file for writing.
    pub async fn close(&self) {
        self.writer.close().await;
    }

    /// Runs `work` in the next commit. An outcome that is not a fault of the store (`JobsError`) is part of the
    /// answer: such work must not have written anything.
    async fn write<T, F>(&self, work: F) -> Result<T, JobsError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, JobsError> + Send + 'static,
    {
        self.writer
            .write(|conn| match work(conn) {
                Ok(value) => Ok(Ok(value)),
                Err(JobsError::Store(error)) => Err(error),
                Err(other) => Ok(Err(other)),
            })
            .await?
    }
}

#[async_trait]
impl Jobs for SqliteJobs {
    async fn accept(&self, job: NewJob) -> Result<Accepted, JobsError> {
        self.write(move |conn| accept::accept(conn, &job)).await
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Leased, JobsError> {
        self.write(move |conn| leases::lease(conn, request)).await
    }

    async fn heartbeat(
        &self,
        owner: u64,
        leases: Vec<Lease>,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Vec<Held>, JobsError> {
        self.write(move |conn| leases::heartbeat(conn, owner, &leases, now + ttl)).await
    }

    async fn finish_with(&self, lease: Lease, now: Timestamp, outcome: Outcome, used: Usage) -> Result<Job, JobsError> {
        self.write(move |conn| leases::finish(conn, &lease, now, outcome, used)).await
    }

    async fn add_usage(&self, batch: UsageBatch) -> Result<bool, JobsError> {
        self.write(move |conn| Ok(usage::add_batch(conn, &batch)?)).await
    }

    async fn usage(&self, query: UsageQuery) -> Result<Vec<UsageSum>, JobsError> {
        Ok(self.readers.read(move |conn| usage::sums(conn, &query)).await?)
    }

    async fn cancel(&self, tenant: TenantName, id: JobId, now: Timestamp) -> Result<Job, JobsError> {
        self.write(move |conn| owner::cancel(conn, &tenant, id, now)).await
    }

    async fn queued(&self, tenant: TenantName, function: Option<FunctionName>, limit: u64) -> Result<u64, JobsError> {
        Ok(self.readers.read(move |conn| lists::queued(conn, &tenant, function.as_ref(), limit)).await?)
    }

    async fn get(&self, tenant: TenantName, id: JobId, with_result: bool) -> Result<(Job, Option<Bytes>), JobsError> {
        self.readers.read(move |conn| lists::get(conn, &tenant, id, with_result)).await?.ok_or(JobsError::NotFound(id))
    }

    async fn list(&self, tenant: TenantName, filter: Filter) -> Result<Vec<Job>, JobsError> {
        Ok(self.readers.read(move |conn| lists::list(conn, &tenant, &filter)).await?)
    }

    async fn redrive(&self, tenant: TenantName, id: JobId, now: Timestamp) -> Result<Job, JobsError> {
        self.write(move |conn| owner::redrive(conn, &tenant, id, now)).await
    }

    async fn redrive_some(&self, tenant: TenantName, now: Timestamp, limit: usize) -> Result<u64, JobsError> {
        self.write(move |conn| owner::redrive_some(conn, &tenant, now, limit)).await
    }

    async fn purge(&self, tenant: TenantName, id: JobId) -> Result<(), JobsError> {
        self.write(move |conn| owner::purge(conn, &tenant, id)).await
    }

    async fn purge_some(&self, tenant: TenantName, limit: usize) -> Result<u64, JobsError> {
        self.write(move |conn| owner::purge_some(conn, &tenant, limit)).await
    }

    async fn delete_ended(&self, tenant: TenantName, jobs: Vec<JobId>) -> Result<u64, JobsError> {
        self.write(move |conn| owner::delete_ended(conn, &tenant, &jobs)).await
    }

    async fn remove(&self, tenant: TenantName, id: JobId) -> Result<(), JobsError> {
        self.write(move |conn| owner::remove_one(conn, &tenant, id)).await
    }

    async fn delete_unbegun(
        &self,
        tenant: TenantName,
        function: FunctionName,
        generation: u64,
        limit: usize,
    ) -> Result<u64, JobsError> {
        self.write(move |conn| owner::delete_unbegun(conn, &tenant, &function, generation, limit)).await
    }

    async fn pinned(&self, tenant: TenantName, function: FunctionName, generation: u64) -> Result<Vec<u64>, JobsError> {
        Ok(self.readers.read(move |conn| lists::pinned(conn, &tenant, &function, generation)).await?)
    }

    async fn owners(&self) -> Result<Vec<u64>, JobsError> {
        Ok(self.readers.read(leases::owners).await?)
    }

    async fn recover(&self, owner: u64, now: Timestamp, limit: usize) -> Result<Vec<Job>, JobsError> {
        self.write(move |conn| leases::recover(conn, owner, now, limit)).await
    }

    async fn owed(&self, limit: usize) -> Result<Vec<Owed>, JobsError> {
        Ok(self.readers.read(move |conn| notices::owed(conn, limit)).await?)
    }

    async fn passed_on(&self, tenant: TenantName, id: JobId, finished_at: Timestamp) -> Result<(), JobsError> {
        self.write(move |conn| Ok(notices::passed_on(conn, &tenant, id, finished_at)?)).await
    }

    async fn sweep(&self, retention: Retention) -> Result<u64, JobsError> {
        self.write(move |conn| owner::sweep(conn, retention)).await
    }

    async fn counts(&self) -> Result<Counts, JobsError> {
        Ok(self.readers.read(lists::counts).await?)
    }

    fn others(&self) -> Option<broadcast::Receiver<Changed>> {
        None
    }
}
