//! What there is: versions of applications, their instances, and sessions. Pure: no clock, no waiting, nothing is told.
//!
//! What must hold: an instance has one session at most, and a session one instance; an instance that has a session, or is
//! to end, does not stand; only instances that stand and are ready are given to sessions before others, those that are
//! awake first, and of these the one that has stood for the shortest time, so that those beyond the need grow old.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lyra_isolation::Hosted;
use lyra_types::{InstanceId, Timestamp};
use lyra_wire::sessions::{AppKey, AppVersion, HostedReport, SessionEnd, SessionPhase, SessionReport};
use lyra_wire::worker::InstanceState;
use tokio::sync::watch;
use tokio::time::Instant;

use super::commands::Asked;
use crate::agent::entry::Terms;

/// All of it.
#[derive(Default)]
pub(super) struct Book {
    pub(super) apps: HashMap<AppKey, App>,
    pub(super) seats: BTreeMap<InstanceId, Seat>,
    pub(super) sessions: HashMap<String, Session>,
    /// Counts the times that an instance began to stand.
    stood: u64,
}

/// A version of an application.
pub(super) struct App {
    pub(super) version: Arc<AppVersion>,
    /// Standing instances that there shall be.
    pub(super) target: u32,
    /// It is stored.
    pub(super) stored: bool,
    /// Changes of `target` that are on their way to be stored.
    pub(super) orders: u32,
    pub(super) members: BTreeSet<InstanceId>,
    /// Of these: those that have no session and are not to end.
    pub(super) standing: BTreeSet<InstanceId>,
    /// Of these: those that are ready, by whether they are hibernated, and since when they stand.
    ready: BTreeMap<(bool, u64), InstanceId>,
    /// Of those that stand: the ones that had a session, and until when they stand beyond what was asked for, so that the
    /// leader can say whether it wants them.
    returned: BTreeMap<InstanceId, Instant>,
    /// Sessions that have not ended.
    pub(super) sessions: usize,
    /// Instances that failed one after the other.
    pub(super) failures: u32,
    /// When the next one may be started in place of one that failed.
    pub(super) not_before: Option<Instant>,
    /// When it is looked again.
    pub(super) retry: Option<Instant>,
}

/// An instance.
pub(super) struct Seat {
    pub(super) app: AppKey,
    pub(super) state: InstanceState,
    pub(super) since: Timestamp,
    /// Its place in [`App::ready`].
    place: Option<(bool, u64)>,
    /// Which time that an instance began to stand was its last one.
    stood: u64,
    pub(super) session: Option<String>,
    pub(super) memory: u64,
    /// Why it fails, where it does.
    pub(super) why: Option<String>,
    /// It was told to end.
    pub(super) ending: bool,
    pub(super) ready_since: Option<Instant>,
    /// Rung when there is something new for it.
    pub(super) bell: watch::Sender<()>,
    /// Its program, once it runs.
    pub(super) hosted: Option<Arc<dyn Hosted>>,
    /// Sessions that it has had.
    pub(super) served: u64,
    /// What it is to do while it stands.
    pub(super) asked: Vec<Asked>,
}

/// A session.
pub(super) struct Session {
    pub(super) report: SessionReport,
    pub(super) terms: Terms,
    pub(super) received: Instant,
    pub(super) open_by: Instant,
    pub(super) close_by: Option<(Instant, Timestamp)>,
    /// It is stored; before that nothing is done for it.
    pub(super) accepted: bool,
    pub(super) ended: Option<Instant>,
}

impl Session {
    pub(super) fn is_over(&self) -> bool {
        self.report.phase == SessionPhase::Closed
    }
}

impl App {
    fn new(version: Arc<AppVersion>) -> App {
        App {
            version,
            target: 0,
            stored: false,
            orders: 0,
            members: BTreeSet::new(),
            standing: BTreeSet::new(),
            ready: BTreeMap::new(),
            returned: BTreeMap::new(),
            sessions: 0,
            failures: 0,
            not_before: None,
            retry: None,
        }
    }

    /// An instance that is ready.
    pub(super) fn ready(&self) -> Option<InstanceId> {
        let awake = self.ready.range(..(true, 0)).next_back().map(|(_, id)| *id);
        awake.or_else(|| self.ready.range((true, 0)..).next_back().map(|(_, id)| *id))
    }

    /// The instance that goes first where there are too many: one that is not ready, the newest first; else the one that has
    /// stood for the longest time.
    pub(super) fn surplus(&self) -> Option<InstanceId> {
        let ready: BTreeSet<_> = self.ready.values().copied().collect();
        let unready = self.standing.iter().rev().find(|id| !ready.contains(id)).copied();
        let longest = || self.ready.iter().min_by_key(|((_, stood), _)| *stood).map(|(_, id)| *id);
        unready.or_else(longest)
    }

    /// How many stand beyond what was asked for since they had a session until now, and until when the first of them does.
    pub(super) fn lingering(&mut self, now: Instant) -> (usize, Option<Instant>) {
        self.returned.retain(|_, until| *until > now);
        (self.returned.len(), self.returned.values().min().copied())
    }

    /// An instance stands no more.
    fn leave(&mut self, id: InstanceId) {
        self.standing.remove(&id);
        self.returned.remove(&id);
    }

    /// Nothing is left of it.
    pub(super) fn is_bare(&self) -> bool {
        self.target == 0 && self.orders == 0 && self.members.is_empty() && self.sessions == 0
    }
}

impl Book {
    /// The version, made when it was not known. Says whether it is new, or its configuration is.
    pub(super) fn app(&mut self, version: &Arc<AppVersion>) -> (&mut App, bool) {
        let mut changed = !self.apps.contains_key(&version.key);
        let app = self.apps.entry(version.key.clone()).or_insert_with(|| App::new(Arc::clone(version)));
        if version.config.revision > app.version.config.revision {
            app.version = Arc::clone(version);
            changed = true;
        }
        (app, changed)
    }

    /// Adds an instance that is to be started.
    pub(super) fn seat(&mut self, id: InstanceId, app: &AppKey, now: Timestamp) {
        let seat = Seat {
            app: app.clone(),
            state: InstanceState::Creating,
            since: now,
            place: None,
            stood: 0,
            session: None,
            memory: 0,
            why: None,
            ending: false,
            ready_since: None,
            bell: watch::Sender::new(()),
            hosted: None,
            served: 0,
            asked: Vec::new(),
        };
        self.seats.insert(id, seat);
        if let Some(app) = self.apps.get_mut(app) {
            app.members.insert(id);
            app.standing.insert(id);
        }
    }

    /// The instance for the next session of the version: one that is ready, else the first of those that are started.
    pub(super) fn next_for_session(&self, app: &AppKey) -> Option<InstanceId> {
        let app = self.apps.get(app)?;
        let is_new = |id: &&InstanceId| self.seats.get(id).is_some_and(|seat| seat.ready_since.is_none());
        app.ready().or_else(|| app.standing.iter().find(is_new).copied())
    }

    /// Gives an instance to a session.
    pub(super) fn bind(&mut self, id: InstanceId, uid: &str) {
        self.unplace(id);
        let Some(seat) = self.seats.get_mut(&id) else { return };
        seat.session = Some(uid.to_owned());
        seat.asked.clear();
        if let Some(app) = self.apps.get_mut(&seat.app) {
            app.leave(id);
        }
        if let Some(session) = self.sessions.get_mut(uid) {
            session.report.instance = Some(id);
        }
    }

    /// Takes an instance from its session: it stands again, unless it is to end; until a time also where it is one too many.
    pub(super) fn unbind(&mut self, id: InstanceId, until: Option<Instant>) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        seat.session = None;
        if seat.ending {
            return;
        }
        if let Some(app) = self.apps.get_mut(&seat.app) {
            app.standing.insert(id);
            app.returned.extend(until.map(|until| (id, until)));
        }
        let state = seat.state;
        if matches!(state, InstanceState::Standby | InstanceState::Hibernated) {
            self.place(id, state == InstanceState::Hibernated);
        }
    }

    /// An instance enters a state.
    pub(super) fn enter(&mut self, id: InstanceId, state: InstanceState, now: Timestamp) {
        self.unplace(id);
        let Some(seat) = self.seats.get_mut(&id) else { return };
        if seat.state != state {
            (seat.state, seat.since) = (state, now);
        }
        if state == InstanceState::Creating {
            seat.asked.clear();
        }
        let stands = seat.session.is_none() && !seat.ending;
        if stands && matches!(state, InstanceState::Standby | InstanceState::Hibernated) {
            self.place(id, state == InstanceState::Hibernated);
        }
    }

    /// An instance is to end: it stands no more.
    pub(super) fn end(&mut self, id: InstanceId) {
        self.unplace(id);
        let Some(seat) = self.seats.get_mut(&id) else { return };
        seat.ending = true;
        seat.asked.clear();
        if let Some(app) = self.apps.get_mut(&seat.app) {
            app.leave(id);
        }
    }

    /// Takes an instance out that is gone.
    pub(super) fn remove(&mut self, id: InstanceId) -> Option<Seat> {
        self.unplace(id);
        let seat = self.seats.remove(&id)?;
        if let Some(app) = self.apps.get_mut(&seat.app) {
            app.members.remove(&id);
            app.leave(id);
        }
        Some(seat)
    }

    /// A session is over.
    pub(super) fn over(&mut self, uid: &str, end: SessionEnd, detail: String, now: Instant) -> bool {
        let Some(session) = self.sessions.get_mut(uid).filter(|session| !session.is_over()) else { return false };
        let report = &mut session.report;
        report.phase = SessionPhase::Closed;
        report.end = Some((end, detail));
        report.endpoints.clear();
        report.clients.clear();
        session.ended = Some(now);
        if let Some(app) = self.apps.get_mut(&report.app) {
            app.sessions -= 1;
        }
        true
    }

    fn place(&mut self, id: InstanceId, asleep: bool) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        // One that is hibernated has not stood anew.
        if !asleep || seat.stood == 0 {
            self.stood += 1;
            seat.stood = self.stood;
        }
        let stood = seat.stood;
        seat.place = Some((asleep, stood));
        if let Some(app) = self.apps.get_mut(&seat.app) {
            app.ready.insert((asleep, stood), id);
        }
    }

    fn unplace(&mut self, id: InstanceId) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        if let Some(place) = seat.place.take()
            && let Some(app) = self.apps.get_mut(&seat.app)
        {
            app.ready.remove(&place);
        }
    }

    /// What is told of an instance.
    pub(super) fn report(&self, id: InstanceId) -> Option<HostedReport> {
        let seat = self.seats.get(&id)?;
        Some(HostedReport {
            id,
            app: seat.app.clone(),
            state: seat.state,
            session: seat.session.clone(),
            memory: seat.memory,
            why: seat.why.clone(),
        })
    }

    /// The session of an instance.
    pub(super) fn session_of(&self, id: InstanceId) -> Option<&Session> {
        self.sessions.get(self.seats.get(&id)?.session.as_ref()?)
    }

    /// Has an instance look what there is for it.
    pub(super) fn ring(&self, id: InstanceId) {
        if let Some(seat) = self.seats.get(&id) {
            seat.bell.send_replace(());
        }
    }
}
