//! Following a cache: watchers, which see every change in order or learn that they are too late, and subscribers, which are
//! told which objects to look at.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexSet;
use lyra_types::TenantName;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{Cache, Change, Progress};
use crate::kind::Kind;

/// Changes that a watcher takes at once.
const BATCH: usize = 256;

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its tenant.
    pub tenant: TenantName,
    /// Its name.
    pub name: Arc<str>,
}

impl Key {
    /// The object of that name.
    pub fn new(tenant: &TenantName, name: &str) -> Key {
        Key { tenant: tenant.clone(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

/// How far a watcher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Number of the next change.
    pub(super) next: u64,
    /// All changes up to this revision were seen.
    pub(crate) revision: u64,
}

/// The changes that come next are not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lagged;

impl<K: Kind> Cache<K> {
    /// The place after `revision`, which the cache must have seen.
    pub(crate) fn place_after(&self, revision: u64) -> Result<Place, Lagged> {
        let state = self.state.read();
        if revision < state.floor {
            return Err(Lagged);
        }
        let skipped = state.ring.partition_point(|change| change.revision <= revision);
        Ok(Place { next: state.first + skipped as u64, revision })
    }

    /// The changes from `place` on, which moves past them; none where there is nothing new.
    pub(crate) fn changes(&self, place: &mut Place) -> Result<Vec<Arc<Change<K>>>, Lagged> {
        let state = self.state.read();
        let Some(skipped) = place.next.checked_sub(state.first) else { return Err(Lagged) };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let changes: Vec<_> = state.ring.iter().skip(skipped).take(BATCH).cloned().collect();
        place.next += changes.len() as u64;
        place.revision = match changes.last() {
            Some(last) if skipped + changes.len() < state.ring.len() => last.revision,
            _ => state.revision.max(place.revision),
        };
        Ok(changes)
    }

    /// Tells when there is something after a place.
    pub(crate) fn news(&self) -> News {
        News(self.progress.subscribe())
    }
}

/// Tells when there are changes.
pub(crate) struct News(watch::Receiver<Progress>);

impl News {
    /// Waits for a change after `place`. False when the cache is gone.
    pub(crate) async fn after(&mut self, place: Place) -> bool {
        self.0.wait_for(|progress| progress.changes > place.next).await.is_ok()
    }
}

/// What one subscriber has not looked at yet.
#[derive(Debug, Default)]
pub(super) struct Subscriber {
    keys: Mutex<IndexSet<Key>>,
    changed: Notify,
}

impl Subscriber {
    pub(super) fn tell(&self, keys: impl Iterator<Item = Key>) {
        self.keys.lock().extend(keys);
        self.changed.notify_one();
    }
}

/// Tells which objects to look at: all of them in the beginning, then each one that was made, changed or deleted. Changes of
/// one object that come before it was looked at are told once; none is ever lost.
#[derive(Debug)]
pub struct Subscription {
    pub(super) subscriber: Arc<Subscriber>,
}

impl Subscription {
    /// The next object to look at. May be dropped at any time: nothing is lost.
    pub async fn next(&mut self) -> Key {
        loop {
            if let Some(key) = self.take() {
                return key;
            }
            self.subscriber.changed.notified().await;
        }
    }

    /// The next object to look at, if there is one now.
    pub fn take(&mut self) -> Option<Key> {
        self.subscriber.keys.lock().shift_remove_index(0)
    }

    /// All objects to look at now.
    pub fn take_all(&mut self) -> Vec<Key> {
        std::mem::take(&mut *self.subscriber.keys.lock()).into_iter().collect()
    }

    /// The subscription as a stream without end.
    pub fn into_stream(self) -> impl futures::Stream<Item = Key> + Send {
        futures::stream::unfold(self, |mut this| async move { Some((this.next().await, this)) })
    }
}
