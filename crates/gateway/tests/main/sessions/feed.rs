//! Open sessions as control tells them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_types::resources::Protocol;
use lyra_types::{Code, Error, Result, TenantName};
use lyra_wire::sessions::{AppPort, NodeEndpoint, SessionEvent, SessionKey, SessionRoute, name_by_key};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// A route of tenant `default`; its uid is its name, if nothing else is said.
pub fn route(name: &str, uid: &str, ports: &[(&str, Protocol, SocketAddr, Option<u16>)]) -> Arc<SessionRoute> {
    let endpoint = |(name, protocol, address, public): &(&str, Protocol, SocketAddr, Option<u16>)| {
        let port = AppPort { name: (*name).to_owned(), port: address.port(), protocol: *protocol };
        (NodeEndpoint { port, address: *address }, *public)
    };
    Arc::new(SessionRoute {
        key: SessionKey { tenant: TenantName::default_tenant(), name: name.to_owned(), uid: uid.to_owned() },
        application: "app".to_owned(),
        worker: "w1".to_owned(),
        endpoints: ports.iter().map(endpoint).collect(),
    })
}

/// What control knows of sessions, and who is told.
#[derive(Default)]
pub struct SessionFeed {
    open: Mutex<BTreeMap<String, Arc<SessionRoute>>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<Result<SessionEvent>>>>,
    /// Watches are refused.
    pub deaf: AtomicBool,
    pub watches: AtomicUsize,
    /// Where sessions are that are opened by key.
    pub program: Mutex<Option<SocketAddr>>,
    /// Sessions that were asked for by key.
    pub reached: AtomicUsize,
    /// Opening waits for this.
    pub hold: Mutex<Option<Arc<Notify>>>,
    /// Identities of sessions that were in use.
    pub touched: Mutex<Vec<String>>,
}

impl SessionFeed {
    pub fn open(&self, route: &Arc<SessionRoute>) {
        let mut open = self.open.lock();
        open.insert(route.key.uid.clone(), Arc::clone(route));
        self.tell(&SessionEvent::Put(Arc::clone(route)));
    }

    pub fn close(&self, uid: &str) {
        let mut open = self.open.lock();
        if let Some(route) = open.remove(uid) {
            self.tell(&SessionEvent::Remove(route.key.tenant.clone(), uid.to_owned()));
        }
    }

    pub fn tell(&self, event: &SessionEvent) {
        self.watchers.lock().retain(|watcher| watcher.send(Ok(event.clone())).is_ok());
    }

    /// Breaks every watch, and takes none until told.
    pub fn go_away(&self) {
        self.deaf.store(true, Ordering::SeqCst);
        for watcher in self.watchers.lock().drain(..) {
            drop(watcher.send(Err(Error::new(Code::Unavailable, "broken"))));
        }
    }

    pub fn come_back(&self) {
        self.deaf.store(false, Ordering::SeqCst);
    }

    /// The session of that key, opened at the [`SessionFeed::program`] where it is not.
    pub async fn reach(&self, application: &str, key: &str) -> Result<Arc<SessionRoute>> {
        let number = self.reached.fetch_add(1, Ordering::SeqCst);
        let hold = self.hold.lock().clone();
        if let Some(hold) = hold {
            hold.notified().await;
        }
        let name = name_by_key(application, key);
        if let Some(route) = self.open.lock().values().find(|route| route.key.name == name) {
            return Ok(Arc::clone(route));
        }
        let program = *self.program.lock();
        let address = program.ok_or_else(|| Error::new(Code::Overloaded, "as many sessions as there may be"))?;
        let mut route =
            SessionRoute::clone(&route(&name, &format!("{name}-{number}"), &[("", Protocol::Tcp, address, None)]));
        route.application = application.to_owned();
        let route = Arc::new(route);
        self.open(&route);
        Ok(route)
    }

    pub fn watch(&self) -> Result<BoxStream<'static, Result<SessionEvent>>> {
        self.watches.fetch_add(1, Ordering::SeqCst);
        if self.deaf.load(Ordering::SeqCst) {
            return Err(Error::new(Code::Unavailable, "deaf"));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let open = self.open.lock();
        for route in open.values() {
            drop(sender.send(Ok(SessionEvent::Put(Arc::clone(route)))));
        }
        drop(sender.send(Ok(SessionEvent::Synced)));
        self.watchers.lock().push(sender);
        Ok(UnboundedReceiverStream::new(receiver).boxed())
    }
}
