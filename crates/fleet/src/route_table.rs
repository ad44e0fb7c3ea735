//! The route table: every function with its versions and aliases, learned from the control role by watch.
//!
//! What must hold: a look-up takes no lock and allocates nothing; an old table is better than none, so it is kept
//! while the watch is being made again; a function that was deleted meanwhile is gone once the new watch
//! has told everything.
//!
//! Gateways route by it, and the workflow role calls functions by it.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lyra_kit::retry::Backoff;
use lyra_kit::{Clock, Random};
use lyra_types::{Code, Error, FunctionName, Result, TenantName};
use lyra_wire::Control;
use lyra_wire::control::{Route, RouteEvent};
use tokio::sync::watch;

/// Waits between tries to watch.
const RECONNECT: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(1) };

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    tenant: TenantName,
    function: FunctionName,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        KeyRef { tenant: self.tenant.as_str(), function: self.function.as_str() }.hash(state);
    }
}

/// A key of borrowed text, so that a look-up needs no names of its own.
#[derive(Hash)]
struct KeyRef<'a> {
    tenant: &'a str,
    function: &'a str,
}

impl papaya::Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.function == key.function.as_str() && self.tenant == key.tenant.as_str()
    }
}

/// Every function, by tenant and name.
pub struct RouteTable {
    routes: papaya::HashMap<Key, Arc<Route>>,
    /// The revision that the table has applied; `None` until it is complete for the first time.
    applied: watch::Sender<Option<u64>>,
    clock: Clock,
}

impl RouteTable {
    /// An empty table; [`RouteTable::follow`] fills it.
    pub fn new(clock: Clock) -> RouteTable {
        RouteTable { routes: papaya::HashMap::new(), applied: watch::Sender::new(None), clock }
    }

    /// Number of functions.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no function.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Whether the table has been complete.
    pub fn is_synced(&self) -> bool {
        self.applied.borrow().is_some()
    }

    fn get(&self, tenant: &str, function: &str) -> Option<Arc<Route>> {
        self.routes.pin().get(&KeyRef { tenant, function }).cloned()
    }

    /// The function's route. Waits up to `wait` for the first complete table.
    ///
    /// # Errors
    /// [`Code::InvalidName`] where the names break the rule, [`Code::NotFound`], and [`Code::Unavailable`] when
    /// the table is not complete in time.
    pub async fn find(&self, tenant: &str, function: &str, wait: Duration) -> Result<Arc<Route>> {
        if let Some(route) = self.get(tenant, function) {
            return Ok(route);
        }
        let (tenant, function) = (TenantName::new(tenant)?, FunctionName::new(function)?);
        if !self.is_synced() {
            let mut applied = self.applied.subscribe();
            let synced = tokio::time::timeout(wait, applied.wait_for(Option::is_some)).await;
            if !matches!(synced, Ok(Ok(_))) {
                let detail = "Lyra is starting and does not know its functions yet";
                return Err(Error::new(Code::Unavailable, detail).with_retry_after(Duration::from_secs(1)));
            }
        }
        self.get(tenant.as_str(), function.as_str()).ok_or_else(|| Error::not_found("function", &function))
    }

    /// Waits until the table has applied `revision`, up to `wait`. Says whether it has.
    pub async fn wait_for(&self, revision: u64, wait: Duration) -> bool {
        let reached = |applied: &Option<u64>| applied.is_some_and(|applied| applied >= revision);
        let mut applied = self.applied.subscribe();
        let reached = tokio::time::timeout(wait, applied.wait_for(reached)).await;
        matches!(reached, Ok(Ok(_)))
    }

    /// Follows the control role for ever.
    pub async fn follow(&self, control: &dyn Control, random: &Random) {
        let mut tries = 0;
        loop {
            let begun = self.clock.instant();
            match self.follow_once(control).await {
                Ok(()) => tracing::debug!("the watch of routes ended"),
                Err(error) => tracing::warn!(%error, "the watch of routes broke"),
            }
            // One that lived for a while was a good one: begin with short waits again.
            tries = if self.clock.instant().duration_since(begun) > RECONNECT.max { 1 } else { tries + 1 };
            self.clock.sleep(RECONNECT.delay(tries, random)).await;
        }
    }

    async fn follow_once(&self, control: &dyn Control) -> Result<()> {
        let mut events = control.watch_routes().await?;
        let mut told: Option<HashSet<Key>> = Some(HashSet::new());
        while let Some(event) = events.next().await {
            let (revision, event) = event?;
            match event {
                RouteEvent::Put(route) => {
                    let key = Key { tenant: route.tenant.clone(), function: route.function.clone() };
                    if let Some(told) = &mut told {
                        told.insert(key.clone());
                    }
                    self.routes.pin().insert(key, route);
                }
                RouteEvent::Remove(tenant, function) => {
                    let key = Key { tenant, function };
                    if let Some(told) = &mut told {
                        told.remove(&key);
                    }
                    self.routes.pin().remove(&key);
                }
                RouteEvent::Synced => {
                    if let Some(told) = told.take() {
                        self.routes.pin().retain(|key, _| told.contains(key));
                    }
                }
            }
            if told.is_none() {
                self.applied.send_replace(Some(revision));
            }
        }
        Ok(())
    }
}
