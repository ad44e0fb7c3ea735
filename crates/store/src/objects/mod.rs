//! Versioned objects: a small key/value store in the manner of etcd, so that etcd can stand in for it.
//!
//! What must hold, for every implementation (`tests/objects` checks it):
//! - Every transaction that changes something gets the next revision; all of its changes share it.
//! - A list is of one revision, which it names: watching from the next one misses nothing.
//! - A watch shows each change once, in order of revision, and never part of a transaction. A watch that
//!   starts too far back, or falls too far behind, ends with [`WatchError::Compacted`]; list again then.
//! - Objects that were put under a lease are deleted together, by one revision, soon after the lease has ended; never
//!   before its time has passed since it was granted or last renewed.
//! - An event names the key and nothing of the value: who watches reads the object again, and so acts on what
//!   is there now, not on what was there once.
//!
//! Not for large values (a few KiB; code belongs in [`crate::Blobs`]) nor for many writes.

mod election;
mod etcd;
mod pages;
mod pins;
pub mod presence;
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use election::{Election, Leader, Leadership};
pub use etcd::{EtcdObjects, EtcdSettings};
pub use pages::Pages;
pub use pins::{Pin, Pins};
pub use presence::Presence;
pub use sqlite::{History, SqliteObjects};

use crate::StoreError;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 512;

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// The revision that made the object.
    pub created: u64,
    /// The revision that last changed it.
    pub modified: u64,
}

/// Some of the objects under a prefix, by key, as of one revision.
///
/// Who reads several pages watches from the first one's revision on: what changed between the pages is shown then. Where a
/// lease's end deletes objects, the list can be newer than it says, never older.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The objects.
    pub entries: Vec<Entry>,
    /// The store's revision that this list shows.
    pub revision: u64,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// What must hold for a transaction to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// There is no object of this key.
    Absent(String),
    /// There is one, whatever its revision.
    Exists(String),
    /// There is one, and it was last changed by this revision.
    Modified(String, u64),
}

impl Check {
    /// The key that it is about.
    pub fn key(&self) -> &str {
        match self {
            Check::Absent(key) | Check::Exists(key) | Check::Modified(key, _) => key,
        }
    }
}

/// A promise that somebody is alive: the objects that were put under a lease go when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub u64);

/// A lease, as it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The lease.
    pub id: LeaseId,
    /// How long it holds without being renewed: what was asked for, or more where the store knows no shorter ones.
    pub ttl: Duration,
}

/// What a transaction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets the object of this key.
    Put(String, Bytes),
    /// Sets the object of this key until the lease ends or the object is put without one.
    PutLeased(String, Bytes, LeaseId),
    /// Deletes the object of this key, if there is one.
    Delete(String),
    /// Deletes every object under this prefix.
    DeletePrefix(String),
}

/// All of the changes if all of the checks hold; else nothing. A key may be changed once in a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// What must hold.
    pub checks: Vec<Check>,
    /// What to do.
    pub changes: Vec<Change>,
}

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum TxnError {
    /// A check failed: the first in the list that did.
    #[error("the check on {key} failed")]
    Failed {
        /// Its place in [`Txn::checks`].
        index: usize,
        /// Its key.
        key: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How an object changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Made or changed.
    Put,
    /// Deleted.
    Delete,
}

/// A change of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The revision that did it.
    pub revision: u64,
    /// The object's key.
    pub key: String,
    /// How it changed.
    pub kind: EventKind,
}

/// Some changes, in order; all changes under the prefix up to `revision` that were not shown before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The changes; empty where only other prefixes changed.
    pub events: Vec<Event>,
    /// Complete up to here.
    pub revision: u64,
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The changes from the asked revision on are not kept any more.
    #[error("changes up to revision {oldest} are not kept any more")]
    Compacted {
        /// The newest revision that was forgotten.
        oldest: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps versioned objects.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// The object of this key.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// Up to `limit` objects whose keys start with `prefix`, by key, from the first one after `after`.
    async fn list(&self, prefix: &str, limit: usize, after: Option<&str>) -> Result<Listing, StoreError>;

    /// Carries out a transaction; returns its revision (the current one where it changes nothing).
    ///
    /// # Errors
    /// [`StoreError::LeaseEnded`] when it puts an object under a lease that has ended. After
    /// [`StoreError::Indeterminate`] and [`StoreError::Commit`] it is not known whether it happened.
    async fn txn(&self, txn: Txn) -> Result<u64, TxnError>;

    /// Every change under `prefix` from revision `from` on, for ever.
    async fn watch(&self, prefix: &str, from: u64)
    -> Result<BoxStream<'static, Result<Batch, WatchError>>, WatchError>;

    /// Makes a lease that holds for `ttl`, and for as much again after each renewal.
    async fn grant(&self, ttl: Duration) -> Result<Granted, StoreError>;

    /// Renews a lease; false when it has ended.
    async fn renew(&self, lease: LeaseId) -> Result<bool, StoreError>;

    /// Ends a lease now. One that has ended already is none.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;
}

/// The first key after all keys that start with `prefix`; `None` for the empty prefix.
fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.as_bytes().to_vec();
    let last = end.last_mut()?;
    // Keys are printable ASCII, so this is at most 0x7f.
    *last += 1;
    String::from_utf8(end).ok()
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(StoreError::InvalidKey { key: key.chars().take(64).collect() });
    }
    Ok(())
}

fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    if prefix.is_empty() { Ok(()) } else { check_key(prefix) }
}
