//! One kind of object, to controllers and to the HTTP side: reads from the cache, writes to the store.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use lyra_kit::{Clock, Random};
use lyra_store::Objects;
use lyra_store::objects::{Change, Check, Txn, TxnError};
use lyra_types::TenantName;
use lyra_types::resources::Time;

use crate::admission::{Admission, Operation, Review};
use crate::api::{Deps, Settings};
use crate::cache::{Cache, Key, Stored, Subscription};
use crate::events::uuid;
use crate::kind::Kind;
use crate::validation::{GENERATED_PREFIX, Problems, check_metadata};
use crate::{Caller, Status};

/// Tries of a write that others write at the same time.
const TRIES: u32 = 16;
/// Tries to find a name that nobody has.
const NAMES_TRIED: u32 = 8;
/// Letters of generated names: none that make words or look alike.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// How a client wants something written.
#[derive(Debug, Clone)]
pub struct WriteOptions<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// Check everything, write nothing.
    pub dry_run: bool,
}

/// What must hold of an object for it to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preconditions {
    /// Its identity.
    pub uid: Option<String>,
    /// Its revision.
    pub resource_version: Option<String>,
}

/// How something is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// What must hold.
    pub preconditions: Preconditions,
    /// Seconds of grace; recorded in the object for its controller.
    pub grace_period_seconds: Option<i64>,
}

/// The objects of one kind.
pub struct Resources<K> {
    cache: Arc<Cache<K>>,
    objects: Arc<dyn Objects>,
    clock: Clock,
    random: Random,
    admission: Arc<dyn Admission>,
    settings: Settings,
    kind: PhantomData<K>,
}

/// Why a conditional write did not happen.
pub(crate) enum WriteError {
    /// Somebody else was there first.
    Conflict,
    Status(Status),
}

impl<K: Kind> Resources<K> {
    pub(crate) fn new(deps: &Deps, settings: Settings) -> Resources<K> {
        Resources {
            cache: Arc::new(Cache::new()),
            objects: deps.objects.clone(),
            clock: deps.clock.clone(),
            random: deps.random.clone(),
            admission: deps.admission.clone(),
            settings,
            kind: PhantomData,
        }
    }

    pub(crate) fn cache(&self) -> &Arc<Cache<K>> {
        &self.cache
    }

    /// An object, as the cache has it.
    pub fn get(&self, tenant: &TenantName, name: &str) -> Option<Arc<Stored<K>>> {
        self.cache.get(&Key::new(tenant, name))
    }

    /// An object by its key, as the cache has it.
    pub fn get_key(&self, key: &Key) -> Option<Arc<Stored<K>>> {
        self.cache.get(key)
    }

    /// The objects of a tenant, or of all, by tenant and name, as the cache has them.
    pub fn list(&self, tenant: Option<&TenantName>) -> Vec<Arc<Stored<K>>> {
        self.cache.list(tenant).0
    }

    /// Which objects to look at: all of them first, then each that changes.
    pub fn subscribe(&self) -> Subscription {
        self.cache.subscribe()
    }

    /// Waits until the cache shows all that was written up to this revision of the store, for a bounded time; false: it does not.
    pub async fn shows(&self, revision: u64) -> bool {
        self.cache.wait(revision).await
    }

    /// Makes sure that the cache has everything that was written before now, in any process.
    ///
    /// # Errors
    /// When the store can't be asked, or the cache does not follow in time.
    pub async fn refresh(&self) -> Result<(), Status> {
        if !self.settings.shared_store {
            // Nobody else writes, and writers wait for the cache.
            return Ok(());
        }
        let newest = self.objects.list("resources/.", 1, None).await.map_err(|error| Status::store(&error))?.revision;
        if self.cache.wait(newest).await { Ok(()) } else { Err(Status::unavailable("the watch of the store lags", 1)) }
    }

    /// Makes an object, as a client does: defaults, rules, [`Admission`]. A status that it brings is ignored.
    ///
    /// # Errors
    /// What a client would be answered: 409 AlreadyExists, 422 Invalid, the refusal of the admission, …
    pub async fn create(&self, mut object: K, options: WriteOptions<'_>) -> Result<Arc<Stored<K>>, Status> {
        let fresh = K::default();
        object.take_status(&fresh);
        let meta = object.meta_mut();
        let tenant = TenantName::new(&meta.namespace)
            .map_err(|error| Status::bad_request(format!("metadata.namespace: {}", error.detail)))?;
        meta.uid = uuid(self.random.u128());
        meta.creation_timestamp = Some(Time::from(self.clock.now()));
        meta.generation = 1;
        meta.resource_version.clear();
        meta.deletion_timestamp = None;
        meta.deletion_grace_period_seconds = None;
        let generated = meta.name.is_empty() && !meta.generate_name.is_empty();
        for _ in 0..NAMES_TRIED {
            let mut object = object.clone();
            if generated {
                let prefix: String = object.meta().generate_name.chars().take(GENERATED_PREFIX).collect();
                object.meta_mut().name = format!("{prefix}{}", self.letters());
            }
            let name = object.meta().name.clone();
            object.fill_in();
            check(&object, None)?;
            let review = Review {
                operation: Operation::Create,
                object: &mut object,
                old: None,
                caller: options.caller,
                dry_run: options.dry_run,
            };
            K::admit(&*self.admission, review).await?;
            let key = Key::new(&tenant, &name);
            if options.dry_run {
                return match self.cache.get(&key) {
                    Some(_) => Err(Status::already_exists::<K>(&name)),
                    None => Ok(Arc::new(Stored::unsaved(object))),
                };
            }
            match self.put(&key, object, None).await {
                Ok(stored) => return Ok(stored),
                Err(WriteError::Conflict) if generated => {}
                Err(WriteError::Conflict) => return Err(Status::already_exists::<K>(&name)),
                Err(WriteError::Status(status)) => return Err(status),
            }
        }
        let mut status = Status::already_exists::<K>(&object.meta().generate_name);
        status.details.retry_after_seconds = 1;
        Err(status)
    }

    /// Changes an object, for a controller: `change` is called with it, again when somebody else wrote at the same time,
    /// and its result is written as it is. Metadata other than labels, annotations, finalizers and owners stays as it is, `generation` follows
    /// the spec. A deleted object that has no finalizer left goes. `None` where there is no such object, or (with a `uid`)
    /// another one has its name.
    ///
    /// # Errors
    /// When the store fails, or others write too often.
    pub async fn update<F>(
        &self,
        tenant: &TenantName,
        name: &str,
        uid: Option<&str>,
        mut change: F,
    ) -> Result<Option<Arc<Stored<K>>>, Status>
    where
        F: FnMut(&mut K) + Send,
    {
        let key = Key::new(tenant, name);
        for attempt in 0..TRIES {
            let Some(old) = self.current(&key, attempt).await? else { return Ok(None) };
            if uid.is_some_and(|uid| uid != old.meta().uid) {
                return Ok(None);
            }
            let mut new = old.object().clone();
            change(&mut new);
            match self.replace(&key, &old, new, false).await {
                Ok(stored) => return Ok(Some(stored)),
                Err(WriteError::Conflict) => {}
                Err(WriteError::Status(status)) => return Err(status),
            }
        }
        Err(Status::conflict::<K>(name, "others change the object all the time; please try again"))
    }

    /// Deletes an object, as a client does. While it has finalizers it stays, marked by `deletionTimestamp`, and is
    /// returned so; else its last state is.
    ///
    /// # Errors
    /// 404 NotFound, 409 Conflict for a precondition, the refusal of the admission, …
    pub async fn delete(
        &self,
        tenant: &TenantName,
        name: &str,
        delete: &DeleteOptions,
        options: WriteOptions<'_>,
    ) -> Result<Arc<Stored<K>>, Status> {
        let key = Key::new(tenant, name);
        for attempt in 0..TRIES {
            let Some(old) = self.current(&key, attempt).await? else { return Err(Status::not_found::<K>(name)) };
            check_preconditions(old.object(), &delete.preconditions)?;
            let mut new = old.object().clone();
            let review = Review {
                operation: Operation::Delete,
                object: &mut new,
                old: Some(old.object()),
                caller: options.caller,
                dry_run: options.dry_run,
            };
            K::admit(&*self.admission, review).await?;
            let mut new = old.object().clone();
            if !new.meta().finalizers.is_empty() && new.meta().deletion_timestamp.is_some() {
                return Ok(old);
            }
            let meta = new.meta_mut();
            meta.deletion_timestamp = Some(Time::from(self.clock.now()));
            meta.deletion_grace_period_seconds = Some(delete.grace_period_seconds.unwrap_or(0));
            meta.generation += 1;
            match self.replace(&key, &old, new, options.dry_run).await {
                Ok(stored) => return Ok(stored),
                Err(WriteError::Conflict) => {}
                Err(WriteError::Status(status)) => return Err(status),
            }
        }
        Err(Status::conflict::<K>(name, "others change the object all the time; please try again"))
    }

    /// Changes an object, for a client: as [`Resources::update`], with defaults, rules and [`Admission`]. `change` makes the new object out of the old one and may refuse.
    pub(crate) async fn change<F>(
        &self,
        key: &Key,
        options: &WriteOptions<'_>,
        subresource: bool,
        mut change: F,
    ) -> Result<Arc<Stored<K>>, Status>
    where
        F: FnMut(&Arc<Stored<K>>) -> Result<K, Status> + Send,
    {
        for attempt in 0..TRIES {
            let Some(old) = self.current(key, attempt).await? else { return Err(Status::not_found::<K>(&key.name)) };
            let mut new = change(&old)?;
            new.fill_in();
            check(&new, if subresource { None } else { Some(old.object()) })?;
            if subresource {
                new.keep_status(old.object());
            } else {
                let review = Review {
                    operation: Operation::Update,
                    object: &mut new,
                    old: Some(old.object()),
                    caller: options.caller,
                    dry_run: options.dry_run,
                };
                K::admit(&*self.admission, review).await?;
            }
            match self.replace(key, &old, new, options.dry_run).await {
                Ok(stored) => return Ok(stored),
                Err(WriteError::Conflict) => {}
                Err(WriteError::Status(status)) => return Err(status),
            }
        }
        Err(Status::conflict::<K>(&key.name, "others change the object all the time; please try again"))
    }

    /// The object to change: the cache's at first; the store's where that turned out to be too old.
    async fn current(&self, key: &Key, attempt: u32) -> Result<Option<Arc<Stored<K>>>, Status> {
        if attempt > 0 || self.cache.get(key).is_none() {
            let newest = self.objects.get(&self.cache.store_key(key)).await.map_err(|error| Status::store(&error))?;
            match newest {
                Some(entry) => {
                    if !self.cache.wait(entry.modified).await {
                        return Err(Status::unavailable("the watch of the store lags", 1));
                    }
                }
                None => return Ok(None),
            }
        }
        Ok(self.cache.get(key))
    }

    /// Writes `new` in place of `old`; deletes it where it is marked as deleted and nobody holds it.
    async fn replace(
        &self,
        key: &Key,
        old: &Arc<Stored<K>>,
        mut new: K,
        dry_run: bool,
    ) -> Result<Arc<Stored<K>>, WriteError> {
        keep_identity(old.object(), &mut new);
        if new.meta().deletion_timestamp.is_some() && new.meta().finalizers.is_empty() {
            return if dry_run { Ok(Arc::new(Stored::unsaved(new))) } else { self.remove(key, old, new).await };
        }
        if new == *old.object() {
            return Ok(Arc::clone(old));
        }
        if !new.same_spec(old.object()) {
            new.meta_mut().generation = old.meta().generation + 1;
        }
        if dry_run {
            return Ok(Arc::new(Stored::unsaved(new)));
        }
        self.put(key, new, Some(old)).await
    }

    async fn put(&self, key: &Key, mut new: K, old: Option<&Stored<K>>) -> Result<Arc<Stored<K>>, WriteError> {
        // The revision is the store's to tell.
        new.meta_mut().resource_version.clear();
        let value: Bytes = serde_json::to_vec(&new).expect("objects are JSON").into();
        let store_key = self.cache.store_key(key);
        let check = match old {
            None => Check::Absent(store_key.clone()),
            Some(old) => Check::Modified(store_key.clone(), old.revision()),
        };
        let txn = Txn { checks: vec![check], changes: vec![Change::Put(store_key, value)] };
        let revision = self.write(txn).await?;
        let created = old.map_or(revision, Stored::created);
        let stored = Arc::new(Stored::new(new, created, revision));
        self.cache.wrote(key, Arc::clone(&stored));
        self.seen(revision).await;
        Ok(stored)
    }

    async fn remove(&self, key: &Key, old: &Stored<K>, last: K) -> Result<Arc<Stored<K>>, WriteError> {
        let store_key = self.cache.store_key(key);
        let check = Check::Modified(store_key.clone(), old.revision());
        let txn = Txn { checks: vec![check], changes: vec![Change::Delete(store_key)] };
        let revision = self.write(txn).await?;
        self.seen(revision).await;
        Ok(Arc::new(Stored::new(last, old.created(), revision)))
    }

    async fn write(&self, txn: Txn) -> Result<u64, WriteError> {
        self.objects.txn(txn).await.map_err(|error| match error {
            TxnError::Failed { .. } => WriteError::Conflict,
            TxnError::Store(error) => WriteError::Status(Status::store(&error)),
        })
    }

    /// Waits until the cache shows what was written. It was written in any case.
    async fn seen(&self, revision: u64) {
        if !self.cache.wait(revision).await {
            tracing::warn!(kind = K::NAMES.kind, revision, "a write is not in the watch cache yet");
        }
    }

    /// What is added to a `generateName`.
    fn letters(&self) -> String {
        let mut number = self.random.u64();
        let mut letters = String::with_capacity(5);
        for _ in 0..5 {
            let count = LETTERS.len() as u64;
            letters.push(char::from(LETTERS[usize::try_from(number % count).unwrap_or(0)]));
            number /= count;
        }
        letters
    }
}

/// Checks metadata and spec.
fn check<K: Kind>(object: &K, old: Option<&K>) -> Result<(), Status> {
    let mut problems = Problems::default();
    check_metadata(object.meta(), &mut problems);
    object.validate(old, &mut problems);
    if let Some(old) = old
        && old.meta().deletion_timestamp.is_some()
        && object.meta().finalizers.iter().any(|finalizer| !old.meta().finalizers.contains(finalizer))
    {
        problems.forbidden("metadata.finalizers", "no new finalizers can be added if the object is being deleted");
    }
    match problems.into_causes() {
        causes if causes.is_empty() => Ok(()),
        causes => Err(Status::invalid::<K>(&object.meta().name, causes)),
    }
}

/// What no writer may change of an object's metadata. Its deletion may be marked, never unmarked.
fn keep_identity<K: Kind>(old: &K, new: &mut K) {
    let (old, new) = (old.meta(), new.meta_mut());
    new.name.clone_from(&old.name);
    new.namespace.clone_from(&old.namespace);
    new.generate_name.clone_from(&old.generate_name);
    new.uid.clone_from(&old.uid);
    new.creation_timestamp = old.creation_timestamp;
    new.generation = new.generation.max(old.generation).min(old.generation + 1);
    new.resource_version.clone_from(&old.resource_version);
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp = old.deletion_timestamp;
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
        new.generation = old.generation;
    } else if new.deletion_timestamp.is_none() {
        new.generation = old.generation;
    }
}

pub(crate) fn check_preconditions<K: Kind>(object: &K, preconditions: &Preconditions) -> Result<(), Status> {
    let meta = object.meta();
    for (what, wanted, is) in [
        ("UID", &preconditions.uid, &meta.uid),
        ("ResourceVersion", &preconditions.resource_version, &meta.resource_version),
    ] {
        if let Some(wanted) = wanted
            && wanted != is
        {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({is}). The object might \
                 have been deleted and then recreated"
            );
            return Err(Status::conflict::<K>(&meta.name, &why));
        }
    }
    Ok(())
}
