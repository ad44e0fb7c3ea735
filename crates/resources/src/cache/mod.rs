//! The watch cache of one kind: all of its objects, the last changes, and who follows them.
//!
//! The store's watch feeds it ([`feed`]). Readers and watchers never reach the store, and no watcher has a queue of its own:
//! each has a place in the one ring of changes, and whoever falls behind the ring's end has to list anew. So a writer never
//! waits for a reader.
//!
//! What must hold:
//! - Changes are in order of revision; `revision` is what a list that is made now shows, and a watch from it on misses nothing.
//! - For each change the object before it is known, so that a selector can tell what came into view and what left it.
//! - An object that was deleted and made anew is shown as deleted in between.

mod feed;
mod follow;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use lyra_types::TenantName;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub(crate) use self::feed::feed;
use self::follow::Subscriber;
pub use self::follow::{Key, Subscription};
pub(crate) use self::follow::{News, Place};
use crate::kind::Kind;

/// Changes that are kept for watchers.
const RING: usize = 8_192;

/// Longest time that a read waits for the cache to have seen a revision.
pub(crate) const CATCH_UP: Duration = Duration::from_secs(3);

/// An object as it is in the cache.
#[derive(Debug)]
pub struct Stored<K> {
    object: K,
    /// The revision that made the object: tells it from others that had its name.
    created: u64,
    modified: u64,
    json: OnceLock<Bytes>,
}

impl<K: Kind> Stored<K> {
    pub(crate) fn new(mut object: K, created: u64, modified: u64) -> Stored<K> {
        object.meta_mut().resource_version = modified.to_string();
        Stored { object, created, modified, json: OnceLock::new() }
    }

    /// An object that is not stored: the answer to a dry run.
    pub(crate) fn unsaved(object: K) -> Stored<K> {
        Stored { object, created: 0, modified: 0, json: OnceLock::new() }
    }

    /// The object.
    pub fn object(&self) -> &K {
        &self.object
    }

    /// The revision that last changed it.
    pub fn revision(&self) -> u64 {
        self.modified
    }

    /// The revision that made it.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// The object as JSON; made once, however many ask.
    pub fn json(&self) -> &Bytes {
        self.json.get_or_init(|| serde_json::to_vec(&self.object).expect("objects are JSON").into())
    }

    /// The object as it was, with the revision that deleted it.
    fn deleted(&self, revision: u64) -> Stored<K> {
        Stored::new(self.object.clone(), self.created, revision)
    }
}

impl<K> std::ops::Deref for Stored<K> {
    type Target = K;
    fn deref(&self) -> &K {
        &self.object
    }
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Change<K> {
    /// The revision that did it.
    pub(crate) revision: u64,
    /// The object after it; of a deleted one, its last state.
    pub(crate) object: Arc<Stored<K>>,
    /// Whether it is deleted.
    pub(crate) deleted: bool,
    /// The object before it, if it was there.
    pub(crate) before: Option<Arc<Stored<K>>>,
}

/// How far the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Progress {
    /// Number of changes ever.
    changes: u64,
    /// Every object is at least as new as this revision has it.
    complete: u64,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<Stored<K>>>,
    ring: VecDeque<Arc<Change<K>>>,
    /// Number of the first change in the ring.
    first: u64,
    /// Changes up to this revision are not in the ring.
    floor: u64,
    /// What the objects show.
    revision: u64,
    /// Whether the objects were listed.
    loaded: bool,
    /// Objects whose change was passed over because a newer one is known to come: the first such revision.
    awaited: HashMap<Key, u64>,
}

/// Objects by what was written, and by which revision.
type Written<K> = HashMap<(Key, u64), Arc<Stored<K>>>;

/// The cache of one kind.
pub(crate) struct Cache<K> {
    prefix: String,
    state: RwLock<State<K>>,
    progress: watch::Sender<Progress>,
    subscribers: Mutex<Vec<Weak<Subscriber>>>,
    /// Objects that this process has just written, so that they need not be read again.
    written: Mutex<Written<K>>,
}

impl<K: Kind> Cache<K> {
    pub(crate) fn new() -> Cache<K> {
        let state = State {
            objects: BTreeMap::new(),
            ring: VecDeque::new(),
            first: 0,
            floor: 0,
            revision: 0,
            loaded: false,
            awaited: HashMap::new(),
        };
        Cache {
            prefix: format!("resources/{}/", K::NAMES.plural),
            state: RwLock::new(state),
            progress: watch::Sender::new(Progress::default()),
            subscribers: Mutex::new(Vec::new()),
            written: Mutex::new(HashMap::new()),
        }
    }

    /// The store's key of an object.
    pub(crate) fn store_key(&self, key: &Key) -> String {
        format!("{}{}/{}", self.prefix, key.tenant, key.name)
    }

    /// The object of a key of the store.
    fn key_of(&self, store_key: &str) -> Option<Key> {
        let (tenant, name) = store_key.strip_prefix(&self.prefix)?.split_once('/')?;
        Some(Key { tenant: TenantName::new(tenant).ok()?, name: name.into() })
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Stored<K>>> {
        self.state.read().objects.get(key).cloned()
    }

    /// The objects, of one tenant or of all, by key, and the revision that they show.
    pub(crate) fn list(&self, tenant: Option<&TenantName>) -> (Vec<Arc<Stored<K>>>, u64) {
        let state = self.state.read();
        (objects_of(&state.objects, tenant), state.revision)
    }

    /// The objects, and a place from which every later change is seen.
    pub(crate) fn snapshot(&self, tenant: Option<&TenantName>) -> (Vec<Arc<Stored<K>>>, Place) {
        let state = self.state.read();
        let place = Place { next: state.first + state.ring.len() as u64, revision: state.revision };
        (objects_of(&state.objects, tenant), place)
    }

    /// The objects as they were at `revision`, by key; `None` where the changes since then are not kept any more. What one
    /// page of a list showed, the next goes on with, in whatever process.
    pub(crate) fn as_of(&self, revision: u64, tenant: Option<&TenantName>) -> Option<Vec<Arc<Stored<K>>>> {
        let state = self.state.read();
        if revision < state.floor || revision > state.revision {
            return None;
        }
        let mut undone: BTreeMap<&Key, Option<&Arc<Stored<K>>>> = BTreeMap::new();
        let keys: Vec<Key> = state
            .ring
            .iter()
            .rev()
            .take_while(|change| change.revision > revision)
            .filter_map(|change| {
                let meta = change.object.meta();
                Some(Key { tenant: TenantName::new(&meta.namespace).ok()?, name: meta.name.as_str().into() })
            })
            .collect();
        for (key, change) in keys.iter().zip(state.ring.iter().rev()) {
            undone.insert(key, change.before.as_ref());
        }
        let mut objects: BTreeMap<&Key, &Arc<Stored<K>>> = state.objects.iter().collect();
        for (key, before) in undone {
            match before {
                Some(before) => objects.insert(key, before),
                None => objects.remove(key),
            };
        }
        let wanted = |key: &Key| tenant.is_none_or(|tenant| key.tenant == *tenant);
        Some(objects.into_iter().filter(|(key, _)| wanted(key)).map(|(_, object)| Arc::clone(object)).collect())
    }

    /// The number of objects of each tenant.
    pub(crate) fn tenants(&self) -> BTreeMap<TenantName, usize> {
        let mut tenants = BTreeMap::new();
        for key in self.state.read().objects.keys() {
            match tenants.get_mut(&key.tenant) {
                Some(count) => *count += 1,
                None => {
                    tenants.insert(key.tenant.clone(), 1);
                }
            }
        }
        tenants
    }

    /// Every object is at least as new as this revision has it.
    pub(crate) fn complete(&self) -> u64 {
        self.progress.borrow().complete
    }

    /// What the objects show.
    pub(crate) fn revision(&self) -> u64 {
        self.state.read().revision
    }

    /// Waits until the cache has seen `revision`; false where it has not within [`CATCH_UP`].
    pub(crate) async fn wait(&self, revision: u64) -> bool {
        let mut progress = self.progress.subscribe();
        let seen = progress.wait_for(|progress| progress.complete >= revision);
        matches!(tokio::time::timeout(CATCH_UP, seen).await, Ok(Ok(_)))
    }

    /// Hands over an object that this process has just written.
    pub(crate) fn wrote(&self, key: &Key, object: Arc<Stored<K>>) {
        let mut written = self.written.lock();
        if self.complete() < object.modified {
            written.insert((key.clone(), object.modified), object);
        }
    }

    /// Keys of objects that changed, for ever; begins with all of them.
    pub(crate) fn subscribe(&self) -> Subscription {
        let subscriber = Arc::new(Subscriber::default());
        // Under the lock of the state, so that no change falls between.
        let state = self.state.read();
        let mut subscribers = self.subscribers.lock();
        subscribers.retain(|known| known.strong_count() > 0);
        subscribers.push(Arc::downgrade(&subscriber));
        subscriber.tell(state.objects.keys().cloned());
        Subscription { subscriber }
    }
}

fn objects_of<K>(objects: &BTreeMap<Key, Arc<Stored<K>>>, tenant: Option<&TenantName>) -> Vec<Arc<Stored<K>>> {
    match tenant {
        None => objects.values().cloned().collect(),
        Some(tenant) => {
            let first = Key { tenant: tenant.clone(), name: "".into() };
            objects
                .range(first..)
                .take_while(|(key, _)| key.tenant == *tenant)
                .map(|(_, object)| object.clone())
                .collect()
        }
    }
}
