//! One writer for each database, with group commit.
//!
//! What must hold: a request is answered only after the transaction that holds its changes was synced; a
//! request that fails leaves no trace and does not harm those beside it; a caller that goes away changes
//! nothing about its request, which is carried out or not as if it had stayed.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::Checkpoints;
use crate::StoreError;

/// Requests that may wait for the next commit; more wait outside.
const ROOM: usize = 4_096;
/// Requests in one transaction.
const BATCH: usize = 512;
/// Longest wait for room.
const WAIT: Duration = Duration::from_secs(30);

/// How many requests were carried out in how many commits, since the database was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommitStats {
    /// Requests answered.
    pub requests: u64,
    /// Transactions committed.
    pub commits: u64,
}

/// Hands requests to the writer.
pub(crate) struct Writer {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    room: Arc<Semaphore>,
    conn: Mutex<Option<Connection>>,
    checkpoints: Checkpoints,
    after_commit: Box<dyn Fn(bool) + Send + Sync>,
    requests: AtomicU64,
    commits: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<dyn Request>>,
    /// A blocking task is at work, or about to be.
    running: bool,
    closed: bool,
}

/// A request whose kind of answer is not known to the writer.
trait Request: Send {
    /// Carries it out and keeps the answer. False: its changes must be undone.
    fn run(&mut self, conn: &Connection) -> bool;
    /// Hands the answer over: the kept one, or `failed`.
    fn answer(self: Box<Self>, failed: Option<&str>);
}

struct Asked<F, T> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    _room: OwnedSemaphorePermit,
}

impl<F, T> Request for Asked<F, T>
where
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn run(&mut self, conn: &Connection) -> bool {
        let work = self.work.take();
        // A bug in one request must not take those beside it along: its changes are undone like any failed one's.
        let outcome = catch_unwind(AssertUnwindSafe(|| work.map(|work| work(conn))));
        self.outcome = outcome.unwrap_or(Some(Err(StoreError::Panicked)));
        matches!(self.outcome, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, failed: Option<&str>) {
        let outcome = match (failed, self.outcome) {
            (None, Some(outcome)) => outcome,
            // A request that failed by itself keeps its own error.
            (Some(_), Some(Err(error))) => Err(error),
            (Some(detail), _) => Err(StoreError::Commit { detail: detail.to_owned() }),
            (None, None) => Err(StoreError::Closed),
        };
        // The caller may be gone; what was done stays done.
        drop(self.reply.send(outcome));
    }
}

impl Writer {
    /// Writes through `conn`; tells `after_commit` of each commit whether it went well, before the answers go out.
    pub(crate) fn new(
        mut conn: Connection,
        after_commit: impl Fn(bool) + Send + Sync + 'static,
    ) -> Result<Writer, StoreError> {
        let path = PathBuf::from(conn.path().unwrap_or_default());
        let checkpoints = Checkpoints::new(&path, &mut conn).map_err(StoreError::sqlite("open a database"))?;
        Ok(Writer {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                room: Arc::new(Semaphore::new(ROOM)),
                conn: Mutex::new(Some(conn)),
                checkpoints,
                after_commit: Box::new(after_commit),
                requests: AtomicU64::new(0),
                commits: AtomicU64::new(0),
            }),
        })
    }

    /// Carries out `work` in the next transaction. When it returns `Ok`, its changes are durable; when it
    /// returns an error, they were undone.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let room = tokio::time::timeout(WAIT, Arc::clone(&self.shared.room).acquire_owned())
            .await
            .map_err(|_| StoreError::Overloaded)?
            .map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let start = {
            let mut queue = self.shared.queue.lock();
            if queue.closed {
                return Err(StoreError::Closed);
            }
            queue.waiting.push_back(Box::new(Asked { work: Some(work), outcome: None, reply, _room: room }));
            !std::mem::replace(&mut queue.running, true)
        };
        if start {
            let shared = Arc::clone(&self.shared);
            lyra_kit::tasks::start_blocking(move || shared.drain());
        }
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes no more requests, waits for those that are there, and closes the file.
    pub(crate) async fn close(&self) {
        self.shared.queue.lock().closed = true;
        let every = u32::try_from(ROOM).unwrap_or(u32::MAX);
        // All room free means that nothing waits and nothing runs.
        drop(self.shared.room.acquire_many(every).await);
        let shared = Arc::clone(&self.shared);
        drop(lyra_kit::tasks::blocking(move || shared.conn.lock().take()).await);
    }

    pub(crate) fn stats(&self) -> CommitStats {
        CommitStats {
            requests: self.shared.requests.load(Ordering::Relaxed),
            commits: self.shared.commits.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    fn drain(&self) {
        let mut conn = self.conn.lock();
        let mut at_work = AtWork { shared: self, done: false };
        loop {
            let batch: Vec<Box<dyn Request>> = {
                let mut queue = self.queue.lock();
                if queue.waiting.is_empty() {
                    queue.running = false;
                    at_work.done = true;
                    return;
                }
                let count = queue.waiting.len().min(BATCH);
                queue.waiting.drain(..count).collect()
            };
            match conn.as_mut() {
                Some(conn) => {
                    self.commit(conn, batch);
                    self.checkpoints.after_commit(conn);
                }
                None => drop(batch),
            }
        }
    }

    fn commit(&self, conn: &Connection, mut batch: Vec<Box<dyn Request>>) {
        let outcome = run_all(conn, &mut batch);
        if outcome.is_err() && !conn.is_autocommit() {
            drop(conn.execute_batch("ROLLBACK"));
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let failed = outcome.err().map(|error| error.to_string());
        if let Some(error) = &failed {
            tracing::error!(error, requests = batch.len(), "commit failed");
        }
        (self.after_commit)(failed.is_none());
        for request in batch {
            request.answer(failed.as_deref());
        }
    }
}

fn run_all(conn: &Connection, batch: &mut [Box<dyn Request>]) -> rusqlite::Result<()> {
    // Never there, unless a rollback failed before.
    if !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK")?;
    }
    let run = |sql| conn.prepare_cached(sql)?.execute([]);
    run("BEGIN IMMEDIATE")?;
    for request in batch {
        run("SAVEPOINT request")?;
        if !request.run(conn) {
            // SQLite ends the whole transaction by itself on a full disk or an I/O error.
            if conn.is_autocommit() {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK),
                    Some("a request beside this one ended the transaction".to_owned()),
                ));
            }
            run("ROLLBACK TO request")?;
        }
        run("RELEASE request")?;
    }
    run("COMMIT")?;
    Ok(())
}

/// Lets the next request start a new task when this one ends by a panic.
struct AtWork<'a> {
    shared: &'a Shared,
    done: bool,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        if !self.done {
            let mut queue = self.shared.queue.lock();
            queue.running = false;
            // Their callers hear that the store is closed; better than to wait for a request that may not come.
            let waiting = std::mem::take(&mut queue.waiting);
            drop(queue);
            drop(waiting);
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
