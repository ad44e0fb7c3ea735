//! Leases of one process: who holds one is in memory, which objects stand under it is on disk.
//!
//! A lease is ended in two steps: it is taken off the list, so that nothing more can be put under it, and then its objects are
//! deleted. A process that is killed in between, or at any other time, leaves objects whose holders are gone
//! with it: they are deleted when the file is opened again.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lyra_kit::{Clock, Random, Tasks};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{History, Inner, Recorded, record};
use crate::StoreError;
use crate::objects::LeaseId;

/// Beside the objects, so that reads of those need not know of it.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS leased (key TEXT PRIMARY KEY, lease INTEGER NOT NULL) WITHOUT ROWID";

struct Held {
    until: Instant,
    ttl: Duration,
}

/// The leases that hold.
pub(super) struct Leases {
    held: Mutex<HashMap<u64, Held>>,
    /// Not waited for through the store, which would keep it open.
    changed: Arc<Notify>,
    /// The task that ends them, once there was one.
    tasks: Mutex<Option<Tasks>>,
    clock: Clock,
    random: Random,
}

impl Drop for Leases {
    fn drop(&mut self) {
        if let Some(tasks) = self.tasks.get_mut() {
            tasks.stopping().cancel();
        }
    }
}

impl Leases {
    pub(super) fn new() -> Leases {
        Leases {
            held: Mutex::new(HashMap::new()),
            changed: Arc::new(Notify::new()),
            tasks: Mutex::new(None),
            clock: Clock::system(),
            random: Random::system(),
        }
    }

    pub(super) fn grant(&self, store: &Arc<Inner>, ttl: Duration) -> LeaseId {
        // SQLite's integers have a sign.
        let id = self.random.u64() >> 1;
        self.held.lock().insert(id, Held { until: self.clock.instant() + ttl, ttl });
        self.tasks.lock().get_or_insert_with(|| {
            let tasks = Tasks::new();
            tasks.spawn_cancellable("leases of the store", end_them(Arc::downgrade(store)));
            tasks
        });
        self.changed.notify_one();
        LeaseId(id)
    }

    pub(super) fn renew(&self, lease: LeaseId) -> bool {
        let now = self.clock.instant();
        let mut held = self.held.lock();
        // One whose time has passed may have lost its objects already.
        let Some(held) = held.get_mut(&lease.0).filter(|held| held.until > now) else { return false };
        held.until = now + held.ttl;
        true
    }

    pub(super) fn holds(&self, lease: LeaseId) -> bool {
        self.held.lock().contains_key(&lease.0)
    }

    pub(super) fn take(&self, lease: LeaseId) -> bool {
        self.held.lock().remove(&lease.0).is_some()
    }

    /// Takes off those that have run out, and says when the next one does.
    fn run_out(&self) -> (Vec<LeaseId>, Option<Instant>) {
        let now = self.clock.instant();
        let mut held = self.held.lock();
        let over: Vec<u64> = held.iter().filter(|(_, held)| held.until <= now).map(|(id, _)| *id).collect();
        for id in &over {
            held.remove(id);
        }
        (over.into_iter().map(LeaseId).collect(), held.values().map(|held| held.until).min())
    }
}

/// Ends leases when their time has come, until the store is gone.
async fn end_them(store: Weak<Inner>) {
    loop {
        let Some(inner) = store.upgrade() else { return };
        let (over, next) = inner.leases.run_out();
        for lease in over {
            if let Err(error) = inner.delete_leased(lease).await {
                tracing::error!(%error, "objects of a lease that has ended can't be deleted");
            }
        }
        let changed = Arc::clone(&inner.leases.changed);
        // Held while waiting, the store would never be closed.
        drop(inner);
        match next {
            Some(next) => tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = changed.notified() => {}
            },
            None => changed.notified().await,
        }
    }
}

/// Makes the table, and deletes what holders of former processes left.
pub(super) fn open(conn: &Connection, history: History) -> Result<(), StoreError> {
    let at = StoreError::sqlite("open the leases");
    conn.execute_batch(TABLE).map_err(&at)?;
    let transaction = conn.unchecked_transaction().map_err(&at)?;
    delete(&transaction, None, history)?;
    transaction.commit().map_err(&at)
}

/// Notes under which lease an object stands now.
pub(super) fn attach(conn: &Connection, key: &str, lease: Option<LeaseId>) -> rusqlite::Result<()> {
    match lease {
        Some(lease) => conn
            .prepare_cached("INSERT OR REPLACE INTO leased (key, lease) VALUES (?1, ?2)")?
            .execute(params![key, lease.0])?,
        None => conn.prepare_cached("DELETE FROM leased WHERE key = ?1")?.execute([key])?,
    };
    Ok(())
}

/// Deletes the objects of one lease, or of all, by one revision; returns what it did, if there were any.
pub(super) fn delete(
    conn: &Connection,
    lease: Option<LeaseId>,
    history: History,
) -> Result<Option<Recorded>, StoreError> {
    let at = StoreError::sqlite("delete the objects of a lease");
    let name = |row: &Row<'_>| row.get::<_, String>(0);
    let keys = conn
        .prepare_cached("DELETE FROM leased WHERE ?1 IS NULL OR lease = ?1 RETURNING key")
        .and_then(|mut statement| {
            statement.query_map([lease.map(|lease| lease.0)], name)?.collect::<rusqlite::Result<Vec<_>>>()
        })
        .map_err(&at)?;
    let mut deleted = Vec::with_capacity(keys.len());
    for key in keys {
        let found = conn
            .prepare_cached("DELETE FROM objects WHERE key = ?1 RETURNING key")
            .and_then(|mut statement| statement.query_row([&key], name).optional())
            .map_err(&at)?;
        deleted.extend(found.map(|key| (key, true)));
    }
    if deleted.is_empty() { Ok(None) } else { record(conn, deleted, history).map(Some) }
}
