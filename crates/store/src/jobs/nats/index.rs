//! What this process knows of the records: an index to find jobs by what they are, not only by name.
//!
//! It is a private SQLite database with the tables of [`crate::SqliteJobs`], made anew at each start and deleted at the end:
//! the records are the truth. What it shows can be a moment behind what other processes have just written;
//! whoever changes a record finds that out by its sequence.

use lyra_types::job::{Job, JobStatus};
use lyra_types::{FunctionName, JobId, TenantName, Timestamp};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::index_usage;
use super::record::{Name, Record, decode, encode};
use super::usage::Entry;
use crate::StoreError;
use crate::jobs::sqlite::notices::{self, not_owed};
use crate::jobs::sqlite::row::{job_id, key};
use crate::jobs::sqlite::{SCHEMA, accept, leases, lists, turns};
use crate::jobs::{Changed, Counts, Filter, JobsError, LeaseRequest, NewJob, Retention, status_number};

/// Beside those of `SqliteJobs`: the records themselves, the keys, and what was deleted.
const TABLES: &str = "
CREATE TABLE records (tenant TEXT NOT NULL, id BLOB NOT NULL, sequence INTEGER NOT NULL, record BLOB NOT NULL,
                      PRIMARY KEY (tenant, id)) WITHOUT ROWID;
CREATE TABLE keys (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL, expires_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX keys_expire ON keys (expires_at);
CREATE TABLE gone (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX gone_since ON gone (since);
";
/// In KiB; the rest spills to a file without a name.
const CACHE_KIB: i64 = 8_192;

/// Something that happened to a record.
#[derive(Debug, Clone)]
pub(super) enum News {
    Job(Box<Record>, u64),
    /// A job that this process has written itself: the times of its record are by this process' clock.
    Written(Box<Record>, u64),
    Key {
        name: String,
        expires_at: Timestamp,
        sequence: u64,
    },
    Usage {
        name: String,
        entry: Box<Entry>,
        sequence: u64,
    },
    Gone {
        name: Name,
        sequence: u64,
        since: Timestamp,
    },
}

/// The mark of a deleted record.
pub(super) struct Mark {
    pub(super) name: Name,
    pub(super) sequence: u64,
}

pub(super) struct Index {
    conn: Mutex<Connection>,
}

fn at(operation: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    StoreError::sqlite(operation)
}

impl Index {
    pub(super) fn new() -> Result<Index, StoreError> {
        // An empty path: a database of its own, on disk where it grows large, gone when it is closed.
        let conn = Connection::open("").map_err(at("make the index of jobs"))?;
        conn.set_prepared_statement_cache_capacity(64);
        conn.pragma_update(None, "cache_size", -CACHE_KIB).map_err(at("make the index of jobs"))?;
        for tables in [SCHEMA, TABLES, index_usage::TABLES] {
            conn.execute_batch(tables).map_err(at("make the index of jobs"))?;
        }
        Ok(Index { conn: Mutex::new(conn) })
    }

    pub(super) fn lock(&self) -> parking_lot::MutexGuard<'_, Connection> {
        self.conn.lock()
    }

    /// Takes in what happened. Older news than what is known change nothing. Returns the jobs of which this was news.
    pub(super) fn apply(&self, news: impl IntoIterator<Item = News>) -> Result<Vec<Changed>, StoreError> {
        let conn = self.conn.lock();
        let transaction = conn.unchecked_transaction().map_err(at("write the index of jobs"))?;
        let mut changed = Vec::new();
        for one in news {
            match one {
                News::Job(record, sequence) => {
                    if put_job(&transaction, &record, sequence, sequence)? {
                        let Job { id, status, cancel_requested, .. } = record.job;
                        changed.push(Changed { id, status, cancel_requested });
                    }
                }
                // It may have been heard of already.
                News::Written(record, sequence) => {
                    put_job(&transaction, &record, sequence, sequence + 1)?;
                }
                News::Key { name, expires_at, sequence } => put_key(&transaction, &name, expires_at, sequence)?,
                News::Usage { name, entry, sequence } => {
                    if gone_since(&transaction, &Name::Usage(name.clone()).to_string())? < sequence {
                        let made = lyra_kit::Clock::system().now();
                        index_usage::put_entry(&transaction, &name, &entry, sequence, made)?;
                    }
                }
                News::Gone { name, sequence, since } => remove(&transaction, &name, sequence, since)?,
            }
        }
        transaction.commit().map_err(at("write the index of jobs"))?;
        Ok(changed)
    }

    /// Forgets everything, to be filled anew.
    pub(super) fn clear(&self) -> Result<(), StoreError> {
        let all = "DELETE FROM jobs; DELETE FROM records; DELETE FROM keys; DELETE FROM gone; DELETE FROM usage;
                   DELETE FROM usage_sources; DELETE FROM counted; DELETE FROM entries";
        self.conn.lock().execute_batch(all).map_err(at("clear the index of jobs"))
    }

    /// The record of this job, as far as it is known.
    pub(super) fn get(&self, tenant: &TenantName, id: JobId) -> Result<Option<(Record, u64)>, StoreError> {
        let found: Option<(Vec<u8>, u64)> = self
            .conn
            .lock()
            .prepare_cached("SELECT record, sequence FROM records WHERE tenant = ?1 AND id = ?2")
            .and_then(|mut statement| {
                statement.query_row(params![tenant.as_str(), key(id)], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(at("read the index of jobs"))?;
        found.map(|(record, sequence)| Ok((decode(&record)?, sequence))).transpose()
    }

    fn names(&self, sql: &str, of: impl Params) -> Result<Vec<(TenantName, JobId)>, StoreError> {
        let name = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, job_id(row, 1)?));
        let found: Vec<(String, JobId)> = self
            .conn
            .lock()
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(of, name)?.collect())
            .map_err(at("search the index of jobs"))?;
        Ok(found.into_iter().filter_map(|(tenant, id)| Some((TenantName::new(&tenant).ok()?, id))).collect())
    }

    pub(super) fn expired(&self, now: Timestamp) -> Result<Vec<(TenantName, JobId)>, StoreError> {
        self.names(
            "SELECT tenant, id FROM jobs WHERE status = 1 AND lease_until <= ?1 ORDER BY lease_until LIMIT ?2",
            params![now.millis(), leases::EXPIRED],
        )
    }

    pub(super) fn due(&self, request: &LeaseRequest) -> Result<Vec<(TenantName, JobId)>, StoreError> {
        turns::due(&self.conn.lock(), request)
    }

    pub(super) fn next(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        leases::next(&self.conn.lock(), now)
    }

    pub(super) fn owners(&self) -> Result<Vec<u64>, StoreError> {
        leases::owners(&self.conn.lock())
    }

    pub(super) fn leased_by(&self, owner: u64, limit: usize) -> Result<Vec<(TenantName, JobId)>, StoreError> {
        self.names(
            "SELECT tenant, id FROM jobs WHERE status = 1 AND owner = ?1 LIMIT ?2",
            params![owner.cast_signed(), limit],
        )
    }

    pub(super) fn owed(&self, limit: usize) -> Result<Vec<(TenantName, JobId, String)>, StoreError> {
        notices::names(&self.conn.lock(), limit)
    }

    pub(super) fn dead(&self, tenant: &TenantName, limit: usize) -> Result<Vec<(TenantName, JobId)>, StoreError> {
        self.names(
            "SELECT tenant, id FROM jobs INDEXED BY jobs_status
             WHERE tenant = ?1 AND status = 6 AND status <> 2 ORDER BY id LIMIT ?2",
            params![tenant.as_str(), limit],
        )
    }

    pub(super) fn unbegun(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        generation: u64,
        limit: usize,
    ) -> Result<Vec<(TenantName, JobId)>, StoreError> {
        self.names(
            "SELECT tenant, id FROM jobs INDEXED BY jobs_status
             WHERE tenant = ?1 AND status = 0 AND status <> 2 AND function = ?2 AND generation = ?3 AND fence = 0 LIMIT ?4",
            params![tenant.as_str(), function.as_str(), generation, limit],
        )
    }

    pub(super) fn old(&self, retention: &Retention) -> Result<Vec<(TenantName, JobId)>, StoreError> {
        let mut old = self.names(
            concat!(
                "SELECT tenant, id FROM jobs WHERE status BETWEEN 2 AND 5 AND finished_at < ?1 AND ",
                not_owed!(),
                " ORDER BY finished_at LIMIT ?2"
            ),
            params![retention.finished_before.millis(), retention.limit],
        )?;
        old.extend(self.names(
            concat!(
                "SELECT tenant, id FROM jobs WHERE status = 6 AND finished_at < ?1 AND ",
                not_owed!(),
                " ORDER BY finished_at LIMIT ?2"
            ),
            params![retention.dead_before.millis(), retention.limit],
        )?);
        Ok(old)
    }

    pub(super) fn expired_keys(&self, now: Timestamp, limit: usize) -> Result<Vec<(String, u64)>, StoreError> {
        self.conn
            .lock()
            .prepare_cached("SELECT name, sequence FROM keys WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2")
            .and_then(|mut statement| {
                statement.query_map(params![now.millis(), limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .map_err(at("look for expired keys"))
    }

    /// Marks of what was deleted before `since`.
    pub(super) fn marks(&self, since: Timestamp, limit: usize) -> Result<Vec<Mark>, StoreError> {
        let found: Vec<(String, u64)> = self
            .conn
            .lock()
            .prepare_cached("SELECT name, sequence FROM gone WHERE since < ?1 ORDER BY since LIMIT ?2")
            .and_then(|mut statement| {
                statement.query_map(params![since.millis(), limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .map_err(at("look for marks"))?;
        Ok(found
            .into_iter()
            .filter_map(|(name, sequence)| Some(Mark { name: Name::parse(&name)?, sequence }))
            .collect())
    }

    /// Forgets a mark that is not in the stream any more.
    pub(super) fn forget(&self, mark: &Mark) -> Result<(), StoreError> {
        self.conn
            .lock()
            .prepare_cached("DELETE FROM gone WHERE name = ?1 AND sequence = ?2")
            .and_then(|mut statement| statement.execute(params![mark.name.to_string(), mark.sequence]))
            .map_err(at("forget a mark"))?;
        Ok(())
    }

    /// Whether there is a job of this id, of any tenant, or was one whose mark still stands.
    pub(super) fn knows(&self, id: JobId) -> Result<bool, StoreError> {
        let conn = self.conn.lock();
        let there: bool = conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM records WHERE id = ?1)")
            .and_then(|mut statement| statement.query_row([key(id)], |row| row.get(0)))
            .map_err(at("look for a job"))?;
        let marked: bool = conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM gone WHERE name LIKE ?1)")
            .and_then(|mut statement| statement.query_row([format!("%.{id}")], |row| row.get(0)))
            .map_err(at("look for a job"))?;
        Ok(there || marked)
    }

    pub(super) fn list(&self, tenant: &TenantName, filter: &Filter) -> Result<Vec<Job>, StoreError> {
        lists::list(&self.conn.lock(), tenant, filter)
    }

    pub(super) fn queued(
        &self,
        tenant: &TenantName,
        function: Option<&FunctionName>,
        limit: u64,
    ) -> Result<u64, StoreError> {
        lists::queued(&self.conn.lock(), tenant, function, limit)
    }

    /// Says whether one more may wait.
    pub(super) fn check_queue(&self, job: &NewJob) -> Result<(), JobsError> {
        accept::check_queue(&self.conn.lock(), job)
    }

    pub(super) fn pinned(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        generation: u64,
    ) -> Result<Vec<u64>, StoreError> {
        lists::pinned(&self.conn.lock(), tenant, function, generation)
    }

    pub(super) fn counts(&self) -> Result<Counts, StoreError> {
        lists::counts(&self.conn.lock())
    }
}

fn gone_since(conn: &Connection, name: &str) -> Result<u64, StoreError> {
    let found: Option<u64> = conn
        .prepare_cached("SELECT sequence FROM gone WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([name], |row| row.get(0)).optional())
        .map_err(at("look for a mark"))?;
    Ok(found.unwrap_or(0))
}

/// Puts a record there, where what is known was written before `before`; says whether it was.
fn put_job(conn: &Connection, record: &Record, sequence: u64, before: u64) -> Result<bool, StoreError> {
    let job = &record.job;
    let known: Option<u64> = conn
        .prepare_cached("SELECT sequence FROM records WHERE tenant = ?1 AND id = ?2")
        .and_then(|mut statement| {
            statement.query_row(params![job.tenant.as_str(), key(job.id)], |row| row.get(0)).optional()
        })
        .map_err(at("write the index of jobs"))?;
    let name = Name::of(record).to_string();
    if known.unwrap_or(0) >= before || gone_since(conn, &name)? >= sequence {
        return Ok(false);
    }
    delete_job(conn, &job.tenant, job.id)?;
    conn.prepare_cached("DELETE FROM gone WHERE name = ?1")
        .and_then(|mut statement| statement.execute([&name]))
        .map_err(at("write the index of jobs"))?;
    conn.prepare_cached("INSERT INTO records (tenant, id, sequence, record) VALUES (?1, ?2, ?3, ?4)")
        .and_then(|mut statement| {
            let body = encode(record).unwrap_or_default();
            statement.execute(params![job.tenant.as_str(), key(job.id), sequence, &body[..]])
        })
        .map_err(at("write the index of jobs"))?;
    let error = job.error.as_ref().and_then(|error| serde_json::to_string(error).ok());
    conn.prepare_cached(
        "INSERT INTO jobs (tenant, id, function, version, generation, status, attempts, max_attempts, created_at, started_at,
                           finished_at, run_at, invocation, error, cancel_requested, fence, owner, lease_until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
    )
    .and_then(|mut statement| {
        let millis = |time: Option<Timestamp>| time.map(Timestamp::millis);
        statement.execute(params![
            job.tenant.as_str(),
            key(job.id),
            job.function.as_str(),
            job.version,
            job.generation,
            status_number(job.status),
            job.attempts,
            job.max_attempts,
            job.created_at.millis(),
            millis(job.started_at),
            millis(job.finished_at),
            millis(job.next_attempt_at),
            job.invocation.map(|id| id.number().to_be_bytes()),
            error,
            job.cancel_requested,
            record.fence,
            record.owner.filter(|_| job.status == JobStatus::Running).map(u64::cast_signed),
            millis(record.lease_until.filter(|_| job.status == JobStatus::Running)),
        ])
    })
    .map_err(at("write the index of jobs"))?;
    if let Some(notice) = record.notice.as_ref().filter(|_| record.owed) {
        conn.prepare_cached("INSERT INTO notices (tenant, id, notice, owed) VALUES (?1, ?2, ?3, 1)")
            .and_then(|mut statement| statement.execute(params![job.tenant.as_str(), key(job.id), notice]))
            .map_err(at("write the index of jobs"))?;
    }
    index_usage::count(conn, record)?;
    Ok(true)
}

/// Not `REPLACE`, which would leave the triggers out that count.
fn delete_job(conn: &Connection, tenant: &TenantName, id: JobId) -> Result<(), StoreError> {
    for sql in ["DELETE FROM records WHERE tenant = ?1 AND id = ?2", "DELETE FROM jobs WHERE tenant = ?1 AND id = ?2"] {
        conn.prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params![tenant.as_str(), key(id)]))
            .map_err(at("write the index of jobs"))?;
    }
    Ok(())
}

fn put_key(conn: &Connection, name: &str, expires_at: Timestamp, sequence: u64) -> Result<(), StoreError> {
    if gone_since(conn, &Name::Key(name.to_owned()).to_string())? >= sequence {
        return Ok(());
    }
    conn.prepare_cached("DELETE FROM gone WHERE name = ?1")
        .and_then(|mut statement| statement.execute([Name::Key(name.to_owned()).to_string()]))
        .map_err(at("write the index of jobs"))?;
    conn.prepare_cached(
        "INSERT INTO keys (name, sequence, expires_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET sequence = excluded.sequence, expires_at = excluded.expires_at
         WHERE excluded.sequence > sequence",
    )
    .and_then(|mut statement| statement.execute(params![name, sequence, expires_at.millis()]))
    .map_err(at("write the index of jobs"))?;
    Ok(())
}

fn remove(conn: &Connection, name: &Name, sequence: u64, since: Timestamp) -> Result<(), StoreError> {
    let known: Option<u64> = match name {
        Name::Job(tenant, id) => {
            conn.prepare_cached("SELECT sequence FROM records WHERE tenant = ?1 AND id = ?2").and_then(
                |mut statement| statement.query_row(params![tenant.as_str(), key(*id)], |row| row.get(0)).optional(),
            )
        }
        Name::Key(name) => conn
            .prepare_cached("SELECT sequence FROM keys WHERE name = ?1")
            .and_then(|mut statement| statement.query_row([name], |row| row.get(0)).optional()),
        // Nothing of it is in use when it goes.
        Name::Usage(_) => Ok(None),
    }
    .map_err(at("write the index of jobs"))?;
    if known.unwrap_or(0) >= sequence {
        return Ok(());
    }
    match name {
        Name::Job(tenant, id) => delete_job(conn, tenant, *id)?,
        Name::Usage(name) => index_usage::forget_entry(conn, name)?,
        Name::Key(name) => {
            conn.prepare_cached("DELETE FROM keys WHERE name = ?1")
                .and_then(|mut statement| statement.execute([name]))
                .map_err(at("write the index of jobs"))?;
        }
    }
    conn.prepare_cached(
        "INSERT INTO gone (name, sequence, since) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET sequence = excluded.sequence, since = excluded.since
         WHERE excluded.sequence > sequence",
    )
    .and_then(|mut statement| statement.execute(params![name.to_string(), sequence, since.millis()]))
    .map_err(at("write the index of jobs"))?;
    Ok(())
}
