//! All secrets in memory, sealed, as the store has them: filled from a list, then kept up to date by watch.
//!
//! An event only says which object to read again. Values are opened only when a worker asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_kit::Clock;
use lyra_store::Objects;
use lyra_store::objects::{Batch, Change, Entry, Pages};
use lyra_types::{Error, Result, SecretName, TenantName, Timestamp};
use lyra_wire::secrets::SecretKey;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::seal::Sealed;
use crate::following::Follows;

/// What all keys of secrets in the store start with.
pub(super) const ALL: &str = "secrets/";
/// Objects read at once while the table is filled.
const PAGE: usize = 500;
/// How long a change waits for the table to show it. The change itself is done by then.
const SHOWN: Duration = Duration::from_secs(10);

/// A secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// How many values it has had.
    pub(super) version: u64,
    /// Drawn with each value.
    pub(super) stamp: u64,
    /// Bytes of the value.
    pub(super) size: usize,
    /// A variable can hold the value.
    pub(super) text: bool,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) sealed: Sealed,
}

impl Record {
    /// What the value of this record is bound to when it is sealed.
    pub(super) fn sealed_for<T>(key: &SecretKey, version: u64, stamp: u64, work: impl FnOnce(&[&str]) -> T) -> T {
        let (version, stamp) = (version.to_string(), stamp.to_string());
        work(&["secret", key.tenant.as_str(), key.name.as_str(), &version, &stamp])
    }

    /// Reads a record; one that can't be read is none, and the log says so.
    pub(super) fn read(entry: &Entry) -> Option<Record> {
        match serde_json::from_slice(&entry.value) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::error!(
                    key = entry.key,
                    line = error.line(),
                    column = error.column(),
                    "a secret can't be read"
                );
                None
            }
        }
    }

    /// The change that stores it.
    pub(super) fn put(&self, key: &SecretKey) -> Result<Change> {
        let json = serde_json::to_vec(self).map_err(|_| Error::internal("the secret can't be stored"))?;
        Ok(Change::Put(path(key), Bytes::from(json)))
    }
}

/// What the keys of all of a tenant's secrets in the store start with.
pub(crate) fn of_tenant(tenant: &TenantName) -> String {
    format!("{ALL}{tenant}/")
}

/// Where a secret is in the store.
pub(super) fn path(key: &SecretKey) -> String {
    format!("{ALL}{}/{}", key.tenant, key.name)
}

/// The secret at a place in the store.
pub(super) fn parse(path: &str) -> Option<SecretKey> {
    let (tenant, name) = path.strip_prefix(ALL)?.split_once('/')?;
    Some(SecretKey { tenant: TenantName::new(tenant).ok()?, name: SecretName::new(name).ok()? })
}

/// The secrets.
pub(crate) struct SecretTable {
    pub(super) objects: Arc<dyn Objects>,
    pub(super) clock: Clock,
    secrets: RwLock<BTreeMap<SecretKey, Arc<Record>>>,
    revision: watch::Sender<u64>,
    /// Counts changes of secrets; the revision counts those of everything.
    changes: watch::Sender<u64>,
}

impl Follows for SecretTable {
    const ALL: &'static str = ALL;
    const WHAT: &'static str = "secrets";

    fn shown_revision(&self) -> u64 {
        *self.revision.borrow()
    }

    async fn fill(&self) -> Result<()> {
        let (mut pages, mut found) = (Pages::of(self.objects.as_ref(), ALL, PAGE), BTreeMap::new());
        let read = |entry: &Entry| Some((parse(&entry.key)?, Arc::new(Record::read(entry)?)));
        while let Some(entries) = pages.next().await? {
            found.extend(entries.iter().filter_map(read));
        }
        *self.secrets.write() = found;
        self.revision.send_replace(pages.revision());
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn show(&self, batch: &Batch) -> Result<()> {
        let changed: BTreeSet<&str> = batch.events.iter().map(|event| event.key.as_str()).collect();
        let mut found = Vec::with_capacity(changed.len());
        for path in changed {
            let Some(key) = parse(path) else { continue };
            found.push((key, self.objects.get(path).await?.as_ref().and_then(Record::read)));
        }
        {
            let secrets = &mut *self.secrets.write();
            for (key, record) in found {
                match record {
                    Some(record) => drop(secrets.insert(key, Arc::new(record))),
                    None => drop(secrets.remove(&key)),
                }
            }
        }
        self.revision.send_replace(batch.revision);
        if !batch.events.is_empty() {
            self.changes.send_modify(|count| *count += 1);
        }
        Ok(())
    }
}

impl SecretTable {
    pub(crate) fn new(objects: Arc<dyn Objects>, clock: Clock) -> SecretTable {
        let (revision, changes) = (watch::Sender::new(0), watch::Sender::new(0));
        SecretTable { objects, clock, secrets: RwLock::default(), revision, changes }
    }

    /// Changes whenever a secret does.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether there is a secret, as far as is known here.
    pub(crate) fn has(&self, tenant: &TenantName, name: &SecretName) -> bool {
        self.get(&SecretKey { tenant: tenant.clone(), name: name.clone() }).is_some()
    }

    /// A secret; from the store where another process may just have made it.
    pub(super) async fn find(&self, key: &SecretKey) -> Result<Option<Arc<Record>>> {
        if let Some(known) = self.get(key) {
            return Ok(Some(known));
        }
        let entry = self.objects.get(&path(key)).await?;
        Ok(entry.as_ref().and_then(Record::read).map(Arc::new))
    }

    pub(super) fn get(&self, key: &SecretKey) -> Option<Arc<Record>> {
        self.secrets.read().get(key).cloned()
    }

    /// How many a tenant has.
    pub(super) fn count(&self, tenant: &TenantName) -> usize {
        self.secrets.read().keys().filter(|key| key.tenant == *tenant).count()
    }

    /// Up to `limit` of a tenant's, by name, after `after`.
    pub(super) fn list(
        &self,
        tenant: &TenantName,
        after: Option<SecretName>,
        limit: usize,
    ) -> Vec<(SecretKey, Arc<Record>)> {
        let secrets = self.secrets.read();
        let of = |key: &SecretKey| key.tenant == *tenant && after.as_ref().is_none_or(|after| key.name > *after);
        let from = after.clone().map(|name| SecretKey { tenant: tenant.clone(), name });
        let range = secrets.range((from.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let found = range.filter(|(key, _)| of(key)).take(limit);
        found.map(|(key, record)| (key.clone(), Arc::clone(record))).collect()
    }

    /// How many each key has sealed.
    pub(super) fn keys(&self) -> BTreeMap<String, u64> {
        let mut keys = BTreeMap::new();
        for record in self.secrets.read().values() {
            *keys.entry(record.sealed.key.clone()).or_default() += 1;
        }
        keys
    }

    /// Waits until the table is complete up to `revision`, for a bounded time.
    pub(super) async fn shown(&self, revision: u64) {
        let mut revisions = self.revision.subscribe();
        let reaches = async { revisions.wait_for(|reached| *reached >= revision).await.is_ok() };
        if !tokio::time::timeout(SHOWN, reaches).await.unwrap_or(false) {
            tracing::warn!(revision, "the table of secrets is behind");
        }
    }
}
