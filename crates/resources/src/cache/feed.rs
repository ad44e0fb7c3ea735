//! Feeding the cache: the store's watch tells which objects changed; they are read, and applied in order of revision.
//!
//! An event tells the key only, and what is read then may be newer than the event. Such an object is passed over: its newer
//! change has an event of its own, which is applied in its place. So no revision is shown before those below it are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use lyra_store::objects::{Batch, Entry, Event, EventKind, Pages, WatchError};
use lyra_store::{Objects, StoreError};

use super::{Cache, Change, Key, Progress, RING, State, Stored};
use crate::kind::Kind;

/// Objects that are read at once.
const READS: usize = 16;
/// Objects of one page of a list.
const PAGE: usize = 1_000;
/// Wait before the store is asked again after a fault.
const RETRY: Duration = Duration::from_millis(200);

/// Follows the store for ever.
pub(crate) async fn feed<K: Kind>(cache: Arc<Cache<K>>, objects: Arc<dyn Objects>) {
    loop {
        match follow(&cache, &*objects).await {
            WatchError::Compacted { oldest } => {
                tracing::info!(
                    kind = K::NAMES.kind,
                    oldest,
                    "changes were forgotten by the store, listing all objects"
                );
                while let Err(error) = cache.load(&*objects).await {
                    tracing::warn!(kind = K::NAMES.kind, %error, "objects can't be listed");
                    tokio::time::sleep(RETRY).await;
                }
            }
            WatchError::Store(error) => {
                tracing::warn!(kind = K::NAMES.kind, %error, "the watch of the store ended");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Applies what the store's watch says until it ends.
async fn follow<K: Kind>(cache: &Cache<K>, objects: &dyn Objects) -> WatchError {
    let from = cache.revision() + 1;
    let mut batches = match objects.watch(&cache.prefix, from).await {
        Ok(batches) => batches,
        Err(error) => return error,
    };
    loop {
        let batch = match batches.next().await {
            Some(Ok(batch)) => batch,
            Some(Err(error)) => return error,
            None => return WatchError::Store(StoreError::Remote { operation: "watch", detail: "it ended".to_owned() }),
        };
        if let Err(error) = cache.apply(batch, objects).await {
            return WatchError::Store(error);
        }
    }
}

/// What an event turned out to be.
enum Step<K> {
    Put(Arc<Stored<K>>),
    Delete,
    /// The object is newer by now: its change comes.
    Newer,
}

impl<K: Kind> Cache<K> {
    /// Brings the cache to what the store has now, whatever it had before.
    pub(crate) async fn load(&self, objects: &dyn Objects) -> Result<(), StoreError> {
        let mut pages = Pages::of(objects, &self.prefix, PAGE);
        let mut entries = Vec::new();
        while let Some(page) = pages.next().await? {
            let first = pages.revision();
            // What is newer than the first page comes by the watch.
            entries.extend(page.into_iter().map(|entry| (entry.modified <= first, entry)));
        }
        let revision = pages.revision();
        let mut there = HashSet::with_capacity(entries.len());
        let mut puts = Vec::new();
        let mut newer = Vec::new();
        for (settled, entry) in entries {
            let Some(key) = self.key_of(&entry.key) else { continue };
            there.insert(key.clone());
            let known = self.get(&key).map_or(0, |known| known.modified);
            if !settled {
                newer.push(key);
            } else if known < entry.modified {
                puts.extend(parse::<K>(entry).map(|object| (key, Arc::new(object))));
            }
        }
        puts.sort_by_key(|(_, object)| object.modified);
        self.catch_up(revision, &there, puts, newer);
        Ok(())
    }

    /// Applies a list: what changed, in order, and what is gone, each at a revision that nothing else was shown at.
    fn catch_up(&self, revision: u64, there: &HashSet<Key>, puts: Vec<(Key, Arc<Stored<K>>)>, newer: Vec<Key>) {
        let mut state = self.state.write();
        let taken: HashSet<u64> = puts.iter().map(|(_, object)| object.modified).collect();
        let mut free = (state.revision + 1..revision).filter(|candidate| !taken.contains(candidate));
        let mut steps: Vec<(u64, Key, Step<K>)> = Vec::with_capacity(puts.len());
        let replaced: Vec<_> = puts
            .iter()
            .filter(|(key, new)| state.objects.get(key).is_some_and(|old| old.created != new.created))
            .map(|(key, new)| (key.clone(), new.created))
            .collect();
        for (key, created) in replaced {
            // Its deletion was before the new one was made.
            let at = free.next().unwrap_or(revision).min(created.saturating_sub(1)).max(state.revision);
            steps.push((at, key, Step::Delete));
        }
        let gone: Vec<Key> = state.objects.keys().filter(|key| !there.contains(*key)).cloned().collect();
        steps.extend(gone.into_iter().map(|key| (free.next().unwrap_or(revision), key, Step::Delete)));
        drop(free);
        steps.extend(puts.into_iter().map(|(key, object)| (object.modified, key, Step::Put(object))));
        steps.sort_by_key(|(at, ..)| *at);
        state.awaited.clear();
        let seen = state.revision;
        steps.extend(newer.into_iter().map(|key| (seen + 1, key, Step::Newer)));
        // The first list is where the history of this process begins.
        let begins = !std::mem::replace(&mut state.loaded, true);
        self.apply_steps(&mut state, revision, steps);
        if begins {
            state.first += state.ring.len() as u64;
            state.ring.clear();
            state.floor = revision;
        }
    }

    /// Applies a batch of the store's watch.
    async fn apply(&self, batch: Batch, objects: &dyn Objects) -> Result<(), StoreError> {
        let mut last: HashMap<String, u64> = HashMap::with_capacity(batch.events.len());
        for event in &batch.events {
            last.insert(event.key.clone(), event.revision);
        }
        let reads: Vec<_> = batch
            .events
            .into_iter()
            .map(|event| {
                let newest = last.get(&event.key).copied() == Some(event.revision);
                self.step(event, newest, objects)
            })
            .collect();
        let steps: Vec<Option<(u64, Key, Step<K>)>> = stream::iter(reads).buffered(READS).try_collect().await?;
        let mut state = self.state.write();
        self.apply_steps(&mut state, batch.revision, steps.into_iter().flatten());
        drop(state);
        self.written.lock().retain(|(_, revision), _| *revision > batch.revision);
        Ok(())
    }

    /// Finds out what an event did.
    async fn step(
        &self,
        event: Event,
        newest: bool,
        objects: &dyn Objects,
    ) -> Result<Option<(u64, Key, Step<K>)>, StoreError> {
        let Some(key) = self.key_of(&event.key) else { return Ok(None) };
        if event.kind == EventKind::Delete {
            return Ok(Some((event.revision, key, Step::Delete)));
        }
        let written = self.written.lock().remove(&(key.clone(), event.revision));
        if let Some(object) = written {
            return Ok(Some((event.revision, key, Step::Put(object))));
        }
        let step = match newest {
            true => match objects.get(&event.key).await? {
                Some(entry) if entry.modified == event.revision => match parse(entry) {
                    Some(object) => Step::Put(Arc::new(object)),
                    None => return Ok(None),
                },
                _ => Step::Newer,
            },
            false => Step::Newer,
        };
        Ok(Some((event.revision, key, step)))
    }

    fn apply_steps(&self, state: &mut State<K>, revision: u64, steps: impl IntoIterator<Item = (u64, Key, Step<K>)>) {
        let mut touched = Vec::new();
        for (at, key, step) in steps {
            match step {
                Step::Newer => {
                    state.awaited.entry(key).or_insert(at);
                    continue;
                }
                Step::Delete => {
                    state.awaited.remove(&key);
                    delete(state, &key, at);
                }
                Step::Put(object) => {
                    state.awaited.remove(&key);
                    put(state, &key, object);
                }
            }
            touched.push(key);
        }
        state.revision = state.revision.max(revision);
        let complete = match state.awaited.values().min() {
            Some(first) => first - 1,
            None => state.revision,
        };
        let subscribers: Vec<_> = self.subscribers.lock().iter().filter_map(std::sync::Weak::upgrade).collect();
        if !touched.is_empty() {
            for subscriber in subscribers {
                subscriber.tell(touched.iter().cloned());
            }
        }
        let changes = state.first + state.ring.len() as u64;
        self.progress.send_if_modified(|progress| {
            let before = std::mem::replace(progress, Progress { changes, complete: complete.max(progress.complete) });
            before != *progress
        });
    }
}

fn delete<K: Kind>(state: &mut State<K>, key: &Key, revision: u64) {
    if let Some(old) = state.objects.remove(key) {
        let object = Arc::new(old.deleted(revision));
        record(state, Change { revision, object, deleted: true, before: Some(old) });
    }
}

fn put<K: Kind>(state: &mut State<K>, key: &Key, object: Arc<Stored<K>>) {
    let revision = object.modified;
    match state.objects.get(key) {
        // Shown already.
        Some(old) if old.modified >= revision => return,
        // Another object of the same name: the old one is gone, whether or not its end was seen.
        Some(old) if old.created != object.created => delete(state, key, revision),
        _ => {}
    }
    let before = state.objects.insert(key.clone(), Arc::clone(&object));
    record(state, Change { revision, object, deleted: false, before });
}

pub(super) fn record<K: Kind>(state: &mut State<K>, change: Change<K>) {
    state.ring.push_back(Arc::new(change));
    if state.ring.len() > RING
        && let Some(oldest) = state.ring.pop_front()
    {
        state.first += 1;
        state.floor = oldest.revision;
    }
}

/// Reads an object; one that can't be read is left out, and said.
fn parse<K: Kind>(entry: Entry) -> Option<Stored<K>> {
    match serde_json::from_slice(&entry.value) {
        Ok(object) => Some(Stored::new(object, entry.created, entry.modified)),
        Err(error) => {
            tracing::error!(key = entry.key, %error, "an object can't be read and is left out");
            None
        }
    }
}
