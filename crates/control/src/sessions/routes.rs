//! Where open sessions are, for gateways. Every control process knows it from what workers tell all of them, and so tells its
//! gateways at once, whoever leads; the ports of gateways are in the sessions' objects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_resources::Key;
use lyra_types::{Code, Error, Result, TenantName};
use lyra_wire::sessions::{SessionEvent, SessionPhase, SessionReport, SessionRoute};
use parking_lot::RwLock;
use tokio::sync::broadcast;

use super::Shared;
use crate::registry::News;

/// Changes that a gateway may be behind; then it has to watch anew.
const BEHIND: usize = 8_192;

/// Open sessions by identity.
pub(super) struct Routes {
    open: RwLock<HashMap<String, Arc<SessionRoute>>>,
    events: broadcast::Sender<SessionEvent>,
}

impl Default for Routes {
    fn default() -> Routes {
        Routes { open: RwLock::default(), events: broadcast::Sender::new(BEHIND) }
    }
}

impl Routes {
    fn put(&self, route: SessionRoute) {
        let mut open = self.open.write();
        if open.get(&route.key.uid).is_some_and(|known| **known == route) {
            return;
        }
        let route = Arc::new(route);
        open.insert(route.key.uid.clone(), Arc::clone(&route));
        // Under the lock, so that a watcher gets each change either with its first picture or after it.
        let _ = self.events.send(SessionEvent::Put(route));
    }

    /// The session is not open on this worker any more.
    fn remove(&self, worker: Option<&str>, uid: &str) {
        let mut open = self.open.write();
        let Some(route) = open.get(uid) else { return };
        if worker.is_some_and(|worker| worker != route.worker) {
            return;
        }
        let tenant: TenantName = route.key.tenant.clone();
        open.remove(uid);
        let _ = self.events.send(SessionEvent::Remove(tenant, uid.to_owned()));
    }

    /// Where the session is, if it is open.
    pub(super) fn get(&self, uid: &str) -> Option<Arc<SessionRoute>> {
        self.open.read().get(uid).cloned()
    }

    /// Every open session, then each change.
    pub(super) fn watch(&self) -> BoxStream<'static, Result<SessionEvent>> {
        let open = self.open.read();
        let first: Vec<_> = open.values().map(|route| Ok(SessionEvent::Put(Arc::clone(route)))).collect();
        let changes = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        drop(open);
        let behind = |_| Error::new(Code::Unavailable, "the watch is too far behind; watch anew");
        let first = futures::stream::iter(first.into_iter().chain([Ok(SessionEvent::Synced)]));
        first.chain(changes.map(move |change| change.map_err(behind))).boxed()
    }
}

/// Keeps the routes, and the census by which sessions are admitted, for ever.
pub(super) async fn keep(of: Arc<Shared>) {
    let mut news = of.registry.news();
    let (mut sessions, mut applications) = (of.api.sessions().subscribe(), of.api.applications().subscribe());
    look_at_all(&of);
    loop {
        tokio::select! {
            key = applications.next() => {
                for key in std::iter::once(key).chain(applications.take_all()) {
                    of.census.application(&key, of.api.applications().get_key(&key).as_ref().map(|of| of.object()));
                }
            }
            key = sessions.next() => {
                for key in std::iter::once(key).chain(sessions.take_all()) {
                    let object = of.api.sessions().get_key(&key);
                    of.census.session(&key, object.as_ref().map(|of| of.object()));
                    of.ages.changed(&key, object.as_ref().map(|of| of.object()));
                    // Its ports on gateways may be known now.
                    if let Some(object) = object
                        && let Some((worker, report)) = find(&of, &object.metadata.uid)
                    {
                        tell(&of, &worker, &report);
                    }
                    let _ = of.changed.send(key);
                }
            }
            heard = news.recv() => match heard {
                Ok(News::Session(worker, report)) => tell(&of, &worker, &report),
                Ok(News::Forgotten(worker, uid)) => of.routes.remove(Some(&worker), &uid),
                Ok(News::Worker(_)) | Err(broadcast::error::RecvError::Lagged(_)) => look_at_all(&of),
                Ok(News::State(name)) if of.registry.seen_of(&name).is_none() => look_at_all(&of),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            },
        }
    }
}

fn find(of: &Shared, uid: &str) -> Option<(String, SessionReport)> {
    let worker = of.routes.open.read().get(uid)?.worker.clone();
    let report = of.registry.seen_of(&worker)?.holdings.sessions.get(uid)?.clone();
    Some((worker, report))
}

fn look_at_all(of: &Shared) {
    let seen = of.registry.seen();
    let mut known: HashSet<&str> = HashSet::new();
    for worker in &seen {
        for report in worker.holdings.sessions.values() {
            known.insert(&report.key.uid);
            tell(of, &worker.member.registration.name, report);
        }
    }
    let gone: Vec<String> = of.routes.open.read().keys().filter(|uid| !known.contains(uid.as_str())).cloned().collect();
    gone.iter().for_each(|uid| of.routes.remove(None, uid));
}

fn tell(of: &Shared, worker: &str, report: &SessionReport) {
    if report.phase != SessionPhase::Open {
        return of.routes.remove(Some(worker), &report.key.uid);
    }
    let object = of.api.sessions().get(&report.key.tenant, &report.key.name);
    let object = object.filter(|object| object.metadata.uid == report.key.uid);
    let config = &of.config;
    let port = |at: usize| {
        let endpoint = object.as_ref()?.status.access_end_points.get(at)?;
        let ours = !config.ingress_address.is_empty() && endpoint.ip_address == config.ingress_address;
        let range = config.ingress_first_port..=config.ingress_last_port;
        u16::try_from(endpoint.port).ok().filter(|port| ours && range.contains(port))
    };
    let endpoints = report.endpoints.iter().enumerate().map(|(at, endpoint)| (endpoint.clone(), port(at)));
    let key = Key::new(&report.key.tenant, &report.key.name);
    of.routes.put(SessionRoute {
        key: report.key.clone(),
        application: report.app.application.clone(),
        worker: worker.to_owned(),
        endpoints: endpoints.collect(),
    });
    // Nobody may be waiting.
    let _ = of.changed.send(key);
}
