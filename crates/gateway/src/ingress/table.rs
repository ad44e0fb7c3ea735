//! The table of open sessions.
//!
//! What must hold: a look-up takes no lock and allocates nothing; a session that is not in the table any more is refused at
//! once, and what was carried to it is cut; one that is reached elsewhere than before is another entry, so that nothing of the
//! former place is used for the new one.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lyra_types::resources::Protocol;
use lyra_types::{Code, Error, Result, TenantName};
use lyra_wire::sessions::{NodeEndpoint, SessionRoute};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::pool::Pool;

/// An open session, as one place where it is reached.
pub(crate) struct Session {
    /// Where it is.
    pub route: Arc<SessionRoute>,
    /// Cancelled when it has ended or moved: all that is carried to it is cut.
    pub life: CancellationToken,
    /// Places for what is carried to it.
    pub places: Arc<Semaphore>,
    /// Whether calls of a function found it by key: control is told of its use.
    pub(super) bound: AtomicBool,
    /// Whether control is to be told of its use.
    pub(super) touched: AtomicBool,
    /// Connections to its endpoints, in their order.
    pub pools: Vec<Pool>,
}

impl Session {
    /// A session; `life` ends what is carried to it.
    pub(super) fn new(route: Arc<SessionRoute>, places: usize, life: CancellationToken) -> Session {
        let pools = route.endpoints.iter().map(|_| Pool::default()).collect();
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Session { route, life, places, bound: AtomicBool::new(false), touched: AtomicBool::new(false), pools }
    }

    /// The endpoint at this place in the route.
    pub(super) fn endpoint(&self, index: usize) -> &NodeEndpoint {
        &self.route.endpoints[index].0
    }

    /// Which endpoint is meant for requests: the port of this name or number, or the first TCP port.
    ///
    /// # Errors
    /// [`Code::NotFound`] where there is none.
    pub(super) fn http_endpoint(&self, port: Option<&str>) -> Result<usize> {
        let named = |endpoint: &NodeEndpoint| {
            port.is_none_or(|port| endpoint.port.name == port || port.parse() == Ok(endpoint.port.port))
        };
        let is_meant = |endpoint: &NodeEndpoint| endpoint.port.protocol == Protocol::Tcp && named(endpoint);
        self.route.endpoints.iter().position(|(endpoint, _)| is_meant(endpoint)).ok_or_else(|| {
            let shown: String = port.unwrap_or_default().chars().take(80).collect();
            let what =
                if port.is_some() { format!("TCP port \"{}\"", shown.escape_debug()) } else { "TCP port".into() };
            Error::new(Code::NotFound, format!("session {} has no {what}", self.route.key.name))
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    tenant: TenantName,
    name: String,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        KeyRef { tenant: self.tenant.as_str(), name: &self.name }.hash(state);
    }
}

/// A key of borrowed text, so that a look-up needs no names of its own.
#[derive(Hash)]
struct KeyRef<'a> {
    tenant: &'a str,
    name: &'a str,
}

impl papaya::Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.name == key.name && self.tenant == key.tenant.as_str()
    }
}

/// Open sessions, by tenant and name. One task changes it, see [`super::follow`].
pub(crate) struct SessionTable {
    sessions: papaya::HashMap<Key, Arc<Session>>,
    synced: watch::Sender<bool>,
    put: Notify,
}

impl SessionTable {
    pub(super) fn new() -> SessionTable {
        SessionTable { sessions: papaya::HashMap::new(), synced: watch::Sender::new(false), put: Notify::new() }
    }

    /// The session of that name.
    pub(super) fn get(&self, tenant: &str, name: &str) -> Option<Arc<Session>> {
        self.sessions.pin().get(&KeyRef { tenant, name }).cloned()
    }

    /// The session of that name. Waits up to `wait` for the first complete table.
    ///
    /// # Errors
    /// [`Code::NotFound`], and [`Code::Unavailable`] when the table is not complete in time.
    pub(super) async fn find(&self, tenant: &str, name: &str, wait: Duration) -> Result<Arc<Session>> {
        if let Some(session) = self.get(tenant, name) {
            return Ok(session);
        }
        if !*self.synced.borrow() {
            let mut synced = self.synced.subscribe();
            let complete = tokio::time::timeout(wait, synced.wait_for(|synced| *synced)).await;
            if !matches!(complete, Ok(Ok(_))) {
                let detail = "the gateway is starting and does not know its sessions yet";
                return Err(Error::new(Code::Unavailable, detail).with_retry_after(Duration::from_secs(1)));
            }
        }
        self.get(tenant, name).ok_or_else(|| {
            let shown: String = name.chars().take(80).collect();
            Error::new(Code::NotFound, format!("there is no open session \"{}\"", shown.escape_debug()))
        })
    }

    /// Waits for the session of that name and identity.
    pub(super) async fn appears(&self, tenant: &str, name: &str, uid: &str) -> Arc<Session> {
        loop {
            let put = self.put.notified();
            if let Some(session) = self.get(tenant, name).filter(|session| session.route.key.uid == uid) {
                return session;
            }
            put.await;
        }
    }

    /// Puts a session under its name, and says which one was there.
    pub(super) fn insert(&self, session: &Arc<Session>) -> Option<Arc<Session>> {
        let key = &session.route.key;
        let key = Key { tenant: key.tenant.clone(), name: key.name.clone() };
        let former = self.sessions.pin().insert(key, Arc::clone(session)).cloned();
        self.put.notify_waiters();
        former
    }

    /// Takes a session out, unless another has its name by now.
    pub(super) fn remove(&self, session: &Arc<Session>) {
        let key = &session.route.key;
        let sessions = self.sessions.pin();
        let key = KeyRef { tenant: key.tenant.as_str(), name: &key.name };
        // One task changes the table, so nothing comes between the look and the removal.
        if sessions.get(&key).is_some_and(|found| Arc::ptr_eq(found, session)) {
            sessions.remove(&key);
        }
    }

    /// Closes the connections that wait for a next request.
    pub(super) fn clear_pools(&self) {
        self.sessions.pin().values().flat_map(|session| &session.pools).for_each(Pool::clear);
    }

    /// All sessions have been told.
    pub(super) fn set_synced(&self) {
        self.synced.send_replace(true);
    }
}
