//! The route table: every function, in memory, with a revision up to which it is complete.
//!
//! What must hold: a reader that has seen revision N sees every change up to N. Changes are shown in order of
//! revision; a subscriber misses none, or its stream ends with an error.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use lyra_types::function::VersionKey;
use lyra_types::{Code, Error, FunctionName, FunctionVersion, Result, TenantName};
use lyra_wire::control::{Route, RouteEvent};
use parking_lot::RwLock;
use tokio::sync::{broadcast, watch};

/// Changes that a slow subscriber may be behind.
const BEHIND: usize = 4_096;

type Routes = BTreeMap<FunctionName, Arc<Route>>;

/// Every function.
pub(crate) struct Table {
    tenants: RwLock<BTreeMap<TenantName, Routes>>,
    revision: watch::Sender<u64>,
    /// How often a function has changed: the revision goes on with anything in the store.
    changed: watch::Sender<u64>,
    changes: broadcast::Sender<(u64, RouteEvent)>,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            tenants: RwLock::default(),
            revision: watch::Sender::new(0),
            changed: watch::Sender::new(0),
            changes: broadcast::Sender::new(BEHIND),
        }
    }
}

impl Table {
    pub(crate) fn get(&self, tenant: &TenantName, function: &FunctionName) -> Option<Arc<Route>> {
        self.tenants.read().get(tenant)?.get(function).cloned()
    }

    /// The version, if it is still there.
    pub(crate) fn version(&self, key: &VersionKey) -> Option<Arc<FunctionVersion>> {
        let route = self.get(&key.tenant, &key.function)?;
        route.versions.get(&key.version).filter(|version| version.generation == key.generation).cloned()
    }

    pub(crate) fn list(&self, tenant: &TenantName, after: Bound<FunctionName>, limit: usize) -> Vec<Arc<Route>> {
        let tenants = self.tenants.read();
        let Some(routes) = tenants.get(tenant) else { return Vec::new() };
        routes.range((after, Bound::Unbounded)).take(limit).map(|(_, route)| Arc::clone(route)).collect()
    }

    /// How many functions a tenant has.
    pub(crate) fn count_of(&self, tenant: &TenantName) -> usize {
        self.tenants.read().get(tenant).map_or(0, BTreeMap::len)
    }

    /// Every function of a tenant.
    pub(crate) fn all_of(&self, tenant: &TenantName) -> Vec<Arc<Route>> {
        self.tenants.read().get(tenant).map(|routes| routes.values().cloned().collect()).unwrap_or_default()
    }

    /// Tenants that have functions.
    pub(crate) fn tenants(&self) -> Vec<TenantName> {
        self.tenants.read().keys().cloned().collect()
    }

    /// A tenant's functions.
    pub(crate) fn names_of(&self, tenant: &TenantName) -> Vec<FunctionName> {
        self.tenants.read().get(tenant).map(|routes| routes.keys().cloned().collect()).unwrap_or_default()
    }

    /// Every function of every tenant.
    pub(crate) fn all(&self) -> Vec<Arc<Route>> {
        self.tenants.read().values().flat_map(|routes| routes.values().cloned()).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.tenants.read().values().map(BTreeMap::len).sum()
    }

    /// Changes whenever a function has changed.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The revision up to which the table is complete.
    pub(super) fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Waits until the table is complete up to `revision`.
    pub(crate) async fn reaches(&self, revision: u64) {
        // Fails only when the sender is gone, and the sender is `self`.
        drop(self.revision.subscribe().wait_for(|now| *now >= revision).await);
    }

    /// Applies one change and shows it as part of `revision`.
    pub(super) fn apply(&self, revision: u64, event: RouteEvent) {
        let mut tenants = self.tenants.write();
        match &event {
            RouteEvent::Put(route) => {
                let routes = tenants.entry(route.tenant.clone()).or_default();
                if routes.get(&route.function).is_some_and(|known| known == route) {
                    return;
                }
                routes.insert(route.function.clone(), Arc::clone(route));
            }
            RouteEvent::Remove(tenant, function) => {
                let Some(routes) = tenants.get_mut(tenant) else { return };
                if routes.remove(function).is_none() {
                    return;
                }
                if routes.is_empty() {
                    tenants.remove(tenant);
                }
            }
            RouteEvent::Synced => return,
        }
        // Under the lock, so that a subscriber gets each change either with its first picture or after it.
        drop(self.changes.send((revision, event)));
        self.changed.send_modify(|count| *count += 1);
    }

    /// Says that every change up to `revision` was applied.
    pub(super) fn complete(&self, revision: u64) {
        let _table = self.tenants.write();
        self.revision.send_if_modified(|now| {
            let newer = revision > *now;
            *now = revision.max(*now);
            newer
        });
        drop(self.changes.send((revision, RouteEvent::Synced)));
    }

    /// Every route, then [`RouteEvent::Synced`], then each change. Each time that the table is complete up to a
    /// revision, `Synced` comes with it again.
    pub(crate) fn subscribe(&self) -> BoxStream<'static, Result<(u64, RouteEvent)>> {
        let (first, changes, revision) = {
            let tenants = self.tenants.read();
            let first: Vec<Arc<Route>> = tenants.values().flat_map(|routes| routes.values().cloned()).collect();
            (first, self.changes.subscribe(), self.revision())
        };
        let first = first.into_iter().map(RouteEvent::Put).chain([RouteEvent::Synced]);
        let first = futures::stream::iter(first.map(move |event| Ok((revision, event))));
        let rest = futures::stream::unfold(Some(changes), |changes| async move {
            let mut changes = changes?;
            match changes.recv().await {
                Ok(change) => Some((Ok(change), Some(changes))),
                Err(broadcast::error::RecvError::Closed) => None,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let detail = format!("the watcher was too slow and missed {missed} changes; watch again");
                    Some((Err(Error::new(Code::Unavailable, detail)), None))
                }
            }
        });
        Box::pin(first.chain(rest))
    }
}
