//! What the leader has a worker do for applications and sessions.
//!
//! What must hold: a command changes nothing until it is stored, but for the instance that a session is to have, which is set
//! aside for it before; where it is refused, that one stands again.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use lyra_types::{Code, Error, InstanceId, Result, TenantName};
use lyra_wire::sessions::{AppConfig, AppKey, AppVersion, OpenSession, SessionEnd, SessionPhase, SessionReport};

use super::Shared;
use super::book::Session;
use crate::agent::entry::{Entry, Terms};
use crate::agent::journal::Journal;

/// Most standing instances of one version; more are taken as so many.
const MOST: u32 = 10_000;
/// Longest identity of a session, in bytes.
const MAX_UID: usize = 128;

type Done = BoxFuture<'static, Result<()>>;

fn refused(error: Error) -> Done {
    std::future::ready(Err(error)).boxed()
}

impl Shared {
    pub(super) fn stand(
        self: &Arc<Self>,
        journal: &Arc<Journal>,
        epoch: u64,
        app: Arc<AppVersion>,
        instances: u32,
    ) -> Done {
        let instances = instances.min(MOST);
        let mut book = self.book.lock();
        let (known, _) = book.app(&app);
        // Until it is stored the version stays in the book, also when its last instance goes meanwhile.
        known.orders += 1;
        let (version, shared) = (Arc::clone(&known.version), Arc::clone(self));
        let then = move |stored: &Result<()>| {
            if let Some(app) = shared.book.lock().apps.get_mut(&app.key) {
                app.orders = app.orders.saturating_sub(1);
                if stored.is_ok() {
                    (app.target, app.stored) = (instances, true);
                }
            }
            shared.settle(&app.key);
        };
        journal.order(Some(epoch), vec![Entry::Stand(version, instances)], Some(Box::new(then))).boxed()
    }

    pub(super) fn dismiss(self: &Arc<Self>, journal: &Arc<Journal>, epoch: u64, key: AppKey) -> Done {
        let known = self.book.lock().apps.get(&key).map(|app| Arc::clone(&app.version));
        match known {
            Some(app) => self.stand(journal, epoch, app, 0),
            None => journal.order(Some(epoch), Vec::new(), None).boxed(),
        }
    }

    pub(super) fn configure(
        self: &Arc<Self>,
        journal: &Arc<Journal>,
        epoch: u64,
        tenant: &TenantName,
        uid: &str,
        config: &Arc<AppConfig>,
    ) -> Done {
        let book = self.book.lock();
        let meant = book.apps.values().filter(|app| app.version.key.uid == uid && app.version.key.tenant == *tenant);
        let older = meant.filter(|app| app.version.config.revision < config.revision);
        let versions: Vec<_> =
            older.map(|app| Arc::new(AppVersion { config: Arc::clone(config), ..(*app.version).clone() })).collect();
        let entries = versions.iter().cloned().map(Entry::Configured).collect();
        let shared = Arc::clone(self);
        let then = move |stored: &Result<()>| {
            if stored.is_err() {
                return;
            }
            let mut book = shared.book.lock();
            for version in versions {
                book.app(&version);
                let Some(app) = book.apps.get(&version.key) else { continue };
                app.members.iter().for_each(|id| book.ring(*id));
            }
        };
        journal.order(Some(epoch), entries, Some(Box::new(then))).boxed()
    }

    pub(super) fn open(self: &Arc<Self>, journal: &Arc<Journal>, epoch: u64, open: OpenSession) -> Done {
        let uid = open.key.uid.clone();
        if uid.is_empty() || uid.len() > MAX_UID {
            return refused(Error::field(Code::InvalidField, "uid", format!("must have 1 to {MAX_UID} bytes")));
        }
        let mut book = self.book.lock();
        if let Some(session) = book.sessions.get(&uid) {
            // What is stored of it is told again.
            let entries = session.accepted.then(|| Entry::Session(Box::new(session.report.clone())));
            let (again, shared) = (journal.order(Some(epoch), entries.into_iter().collect(), None), Arc::clone(self));
            return async move {
                again.await?;
                let is_there = shared.book.lock().sessions.contains_key(&uid);
                is_there.then_some(()).ok_or_else(|| Error::new(Code::Unavailable, "the session was not accepted"))
            }
            .boxed();
        }
        if let Err(error) = self.deps.cordon.check() {
            return refused(error);
        }
        let instances = open.standing.min(MOST);
        let (app, changed) = book.app(&open.app);
        let is_told = changed || !app.stored || app.target != instances;
        let version = Arc::clone(&app.version);
        app.sessions += 1;
        let mut entries = Vec::with_capacity(3);
        if is_told {
            entries.push(Entry::Stand(Arc::clone(&version), instances));
        }
        let (session, report, terms) = self.session_of(&open, &version);
        book.sessions.insert(uid.clone(), session);
        let standing = book.next_for_session(&version.key);
        let id = standing.unwrap_or_else(|| self.deps.ids.instance());
        if standing.is_none() {
            book.seat(id, &version.key, self.deps.clock.now());
        }
        book.bind(id, &uid);
        entries.push(Entry::Accepted(Box::new((SessionReport { instance: Some(id), ..report }, terms))));
        entries.extend(book.report(id).map(Entry::Hosted));
        let shared = Arc::clone(self);
        let (app, fresh) = (version, standing.is_none());
        let then = move |stored: &Result<()>| match stored {
            Ok(()) => shared.accepted(&app, instances, &uid, id, fresh),
            Err(_) => shared.undo_open(&app.key, &uid, id, fresh),
        };
        journal.order(Some(epoch), entries, Some(Box::new(then))).boxed()
    }

    fn session_of(&self, open: &OpenSession, version: &Arc<AppVersion>) -> (Session, SessionReport, Terms) {
        let (clock, now) = (&self.deps.clock, self.deps.clock.instant());
        let report = SessionReport {
            key: open.key.clone(),
            app: version.key.clone(),
            instance: None,
            phase: SessionPhase::Starting,
            endpoints: Vec::new(),
            clients: Vec::new(),
            available_micros: None,
            end: None,
        };
        let terms = Terms {
            data: open.data.clone(),
            open_by: clock.now() + open.timeout,
            close_grace: open.close_grace,
            reuse: open.reuse,
        };
        let session = Session {
            report: report.clone(),
            terms: terms.clone(),
            received: now,
            open_by: now + open.timeout,
            close_by: None,
            accepted: false,
            ended: None,
        };
        (session, report, terms)
    }

    fn accepted(self: &Arc<Self>, app: &Arc<AppVersion>, instances: u32, uid: &str, id: InstanceId, fresh: bool) {
        let is_there = {
            let mut book = self.book.lock();
            if let Some(session) = book.sessions.get_mut(uid) {
                session.accepted = true;
            }
            if let Some(app) = book.apps.get_mut(&app.key) {
                (app.target, app.stored) = (instances, true);
            }
            book.ring(id);
            book.seats.contains_key(&id)
        };
        if fresh {
            self.begin_life(id, Arc::clone(app), None);
        } else if is_there {
            self.starts.opened(self.deps.clock.instant());
        } else {
            self.over(uid, SessionEnd::InstanceLost, "its instance ended before the session was open".to_owned());
        }
        self.settle(&app.key);
    }

    /// The session was not accepted: it has never been here.
    fn undo_open(self: &Arc<Self>, app: &AppKey, uid: &str, id: InstanceId, fresh: bool) {
        self.change(|book, entries| {
            book.sessions.remove(uid);
            if let Some(app) = book.apps.get_mut(app) {
                app.sessions -= 1;
            }
            if fresh {
                book.remove(id);
                return;
            }
            book.unbind(id, None);
            book.ring(id);
            // It may have been told of as this session's.
            entries.extend(book.report(id).map(Entry::Hosted));
        });
        self.settle(app);
    }

    /// `epoch`: of the leader that says so; the worker itself has none.
    pub(super) fn close(
        self: &Arc<Self>,
        journal: &Arc<Journal>,
        epoch: Option<u64>,
        uid: String,
        grace: Duration,
    ) -> Done {
        let (now, wall) = (self.deps.clock.instant(), self.deps.clock.now());
        let book = self.book.lock();
        let Some(session) = book.sessions.get(&uid).filter(|session| !session.is_over()) else {
            return journal.order(epoch, Vec::new(), None).boxed();
        };
        let asked = (now + grace, wall + grace);
        let by = session.close_by.filter(|before| before.0 <= asked.0).unwrap_or(asked);
        let shared = Arc::clone(self);
        let entries = vec![Entry::Close(uid.clone(), by.1)];
        let then = move |stored: &Result<()>| {
            if stored.is_err() {
                return;
            }
            shared.change(|book, entries| {
                let Some(session) = book.sessions.get_mut(&uid).filter(|session| !session.is_over()) else { return };
                let earlier = session.close_by.filter(|before| before.0 <= by.0);
                session.close_by = Some(earlier.unwrap_or(by));
                if session.report.phase != SessionPhase::Closing {
                    session.report.phase = SessionPhase::Closing;
                    entries.push(Entry::Session(Box::new(session.report.clone())));
                }
                if let Some(id) = session.report.instance {
                    book.ring(id);
                }
            });
        };
        journal.order(epoch, entries, Some(Box::new(then))).boxed()
    }

    pub(super) fn forget(self: &Arc<Self>, journal: &Arc<Journal>, epoch: u64, uid: String) -> Done {
        let book = self.book.lock();
        match book.sessions.get(&uid) {
            Some(session) if !session.is_over() => {
                return refused(Error::new(Code::Conflict, "the session has not ended"));
            }
            None => return journal.order(Some(epoch), Vec::new(), None).boxed(),
            Some(_) => {}
        }
        let (shared, entries) = (Arc::clone(self), vec![Entry::Forget(uid.clone())]);
        let then = move |stored: &Result<()>| {
            if stored.is_ok() {
                let removed = shared.book.lock().sessions.remove(&uid);
                if let Some(session) = removed {
                    shared.settle(&session.report.app);
                }
            }
        };
        journal.order(Some(epoch), entries, Some(Box::new(then))).boxed()
    }

    /// Forgets sessions that ended long ago.
    pub(super) fn forget_old(&self) {
        let now = self.deps.clock.instant();
        let keep = self.config.keep_ended;
        self.change(|book, entries| {
            let is_old = |session: &Session| session.ended.is_some_and(|at| now.saturating_duration_since(at) >= keep);
            book.sessions.retain(|uid, session| {
                if is_old(session) {
                    entries.push(Entry::Forget(uid.clone()));
                }
                !is_old(session)
            });
        });
    }
}
