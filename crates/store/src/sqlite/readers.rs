//! A few read-only connections: reads neither wait for commits nor hold them up.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::StoreError;
use crate::sqlite::open_reader;

/// Reads that run at once.
const READERS: usize = 2;
/// Longest wait for a free reader.
const WAIT: Duration = Duration::from_secs(30);

/// Runs reads, each in a snapshot of its own.
pub(crate) struct Readers {
    free: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn open(path: &Path) -> Result<Readers, StoreError> {
        let free = (0..READERS).map(|_| open_reader(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Readers { free: Arc::new(Mutex::new(free)), permits: Arc::new(Semaphore::new(READERS)) })
    }

    /// Runs `work` in a read transaction. Dropping the future leaves the read to end by itself, unheard.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = tokio::time::timeout(WAIT, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| StoreError::Overloaded)?
            .map_err(|_| StoreError::Closed)?;
        let free = Arc::clone(&self.free);
        lyra_kit::tasks::blocking(move || {
            let conn = free.lock().pop().ok_or(StoreError::Closed)?;
            let conn = Returned { conn: Some(conn), free: &free };
            let outcome = conn.snapshot(work);
            drop(conn);
            drop(permit);
            outcome
        })
        .await
        .map_err(|_| StoreError::Closed)?
    }
}

/// Puts the connection back even when the work panics.
struct Returned<'a> {
    conn: Option<Connection>,
    free: &'a Mutex<Vec<Connection>>,
}

impl Returned<'_> {
    fn snapshot<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let Some(conn) = &self.conn else { return Err(StoreError::Closed) };
        // Ended by its drop: a read has nothing to commit.
        let transaction = conn.unchecked_transaction().map_err(StoreError::sqlite("begin a read"))?;
        work(&transaction)
    }
}

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        self.free.lock().extend(self.conn.take());
    }
}
