//! The leader's work on applications and sessions: one task that holds what it knows in memory and acts on what is there.
//!
//! Everything that happens (an object changes, a worker tells something, a command is answered, a time has come) only says
//! what is to be looked at: a session ([`look`](super::look)) or an application ([`pass`](super::pass)). Each look compares
//! what is with what is to be, and begins what is missing; so a message that is lost, late or doubled changes nothing in
//! the end. Nothing is waited for here: commands and writes are under way beside each other, one write of an object at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use lyra_resources::{Key, Status, Stored};
use lyra_types::resources::{ApplicationSession, Protocol, SessionStatus};
use lyra_types::{Error, Result, Timestamp};
use lyra_wire::registry::{Command, MemberState};
use lyra_wire::sessions::SessionCommand;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::Shared;
use super::app::App;
use super::field::{Field, Touched};
use super::ports::Ports;
use super::status::Reason;
use super::versions::{Fault, Version};

/// Longest wait for a worker to have stored a command.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// Wait before what failed is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
/// How long the store may take to show what was there when this term began.
const CATCH_UP: Duration = Duration::from_secs(1);
/// Looks without news come at least so often.
const ANYWAY: Duration = Duration::from_secs(60);

/// Where a session is.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) worker: String,
    pub(super) version: u64,
    pub(super) opening: Opening,
    /// It was given a standing instance, which the worker has not shown as taken yet.
    pub(super) takes_standing: bool,
}

/// How far the command to open a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// It is under way.
    Sent,
    /// The worker has stored it.
    Accepted,
    /// It may have been stored, or not: it is to be sent again.
    Uncertain,
}

/// A session as the leader knows it.
pub(super) struct Session {
    pub(super) key: Key,
    pub(super) object: Arc<Stored<ApplicationSession>>,
    /// Identity of its application, if there is one.
    pub(super) app: Option<String>,
    pub(super) bound: Option<Bound>,
    /// Why it has no instance.
    pub(super) reason: Reason,
    /// Workers that would not have it.
    pub(super) refused: BTreeSet<String>,
    pub(super) not_before: Option<Instant>,
    /// When this process first saw it.
    pub(super) seen: Instant,
    /// When it must have become available.
    pub(super) deadline: Instant,
    /// Its end, where its worker does not tell it.
    pub(super) over: Option<(SessionStatus, Reason)>,
    pub(super) writing: bool,
    /// A command to close or to forget it is under way.
    pub(super) commanding: bool,
    /// It was told to close.
    pub(super) closing: bool,
    /// Ports of gateways.
    pub(super) ports: Vec<Option<(Protocol, u16)>>,
}

/// What is to be looked at when its time has come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Wake {
    Session(String),
    App(String),
    Worker(String),
}

/// Something that was under way.
pub(super) enum Done {
    /// Versions of an application were read.
    Loaded(String, Result<BTreeMap<u64, Version>>),
    /// A version was made.
    Made(String, std::result::Result<Version, Fault>),
    /// Workers have the code of a version, or not.
    Preloaded(String, u64, Result<()>),
    /// An application's versions were deleted.
    Cleared(String, Result<()>),
    /// A command that says how many instances of a version stand.
    Stood(String, String, u64, Result<()>),
    /// A worker was told of an application's configuration.
    Configured(String, String, Arc<lyra_wire::sessions::AppConfig>, Result<()>),
    /// A command to open a session: of which application, on which worker, which version.
    Opened(String, (String, String, u64), Result<()>),
    /// A command to close or forget a session.
    Commanded(String, Result<()>),
    /// A session's object was written; as it is now, where that is known.
    WroteSession(String, std::result::Result<Option<Arc<Stored<ApplicationSession>>>, Status>),
    /// An application's object was written.
    WroteApp(String, std::result::Result<(), Status>),
    /// A worker follows this leader.
    Followed(String, Result<()>),
    /// Nothing that matters.
    Nothing,
}

/// The leader's work during one term.
pub(super) struct Leading {
    pub(super) of: Arc<Shared>,
    pub(super) epoch: u64,
    pub(super) field: Field,
    pub(super) apps: HashMap<String, App>,
    /// Identity of the application of a name.
    pub(super) names: HashMap<Key, String>,
    pub(super) sessions: HashMap<String, Session>,
    /// Identity of the session of a name.
    pub(super) keys: HashMap<Key, String>,
    pub(super) ports: Ports,
    /// Sessions that wait for a port of the gateways.
    pub(super) portless: BTreeSet<String>,
    pub(super) dirty_apps: BTreeSet<String>,
    pub(super) dirty_sessions: BTreeSet<String>,
    timers: BTreeSet<(Instant, Wake)>,
    /// When each of them is due.
    due: HashMap<Wake, Instant>,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Workers that refuse commands of leaders before this one.
    pub(super) followed: BTreeSet<String>,
    /// Workers that are told of this leader.
    following: BTreeSet<String>,
    /// Workers that were there before may have joined by now.
    pub(super) settled: Instant,
}

impl Leading {
    pub(super) fn new(of: Arc<Shared>, epoch: u64) -> Leading {
        let config = &of.config;
        let range =
            (!config.ingress_address.is_empty()).then_some(config.ingress_first_port..=config.ingress_last_port);
        Leading {
            settled: of.settled,
            ports: Ports::new(range),
            of,
            epoch,
            field: Field::default(),
            apps: HashMap::new(),
            names: HashMap::new(),
            sessions: HashMap::new(),
            keys: HashMap::new(),
            portless: BTreeSet::new(),
            dirty_apps: BTreeSet::new(),
            dirty_sessions: BTreeSet::new(),
            timers: BTreeSet::new(),
            due: HashMap::new(),
            under_way: FuturesUnordered::new(),
            followed: BTreeSet::new(),
            following: BTreeSet::new(),
        }
    }

    /// Leads until it is dropped.
    pub(super) async fn run(mut self) {
        let of = Arc::clone(&self.of);
        // What another leader did before this term is in the store: nobody is ended because he is not known yet.
        while !(of.api.applications().shows(self.epoch).await && of.api.sessions().shows(self.epoch).await) {
            of.clock.sleep(CATCH_UP).await;
        }
        let mut news = of.registry.news();
        let (mut apps, mut sessions) = (of.api.applications().subscribe(), of.api.sessions().subscribe());
        let mut functions = of.table.changed();
        let mut secrets = of.secrets.changed();
        for key in apps.take_all() {
            self.application_changed(&key);
        }
        for key in sessions.take_all() {
            self.session_changed(&key);
        }
        let touched = self.field.load(&of.registry, self.now());
        self.touch(touched);
        self.follow_all();
        loop {
            self.work_off();
            let next = self.timers.first().map(|(at, _)| *at);
            let next = next.unwrap_or_else(|| self.now() + ANYWAY);
            tokio::select! {
                key = apps.next() => {
                    self.application_changed(&key);
                    apps.take_all().iter().for_each(|key| self.application_changed(key));
                }
                key = sessions.next() => {
                    self.session_changed(&key);
                    sessions.take_all().iter().for_each(|key| self.session_changed(key));
                }
                heard = news.recv() => {
                    let mut heard = Some(heard);
                    while let Some(word) = heard.take() {
                        let touched = match word {
                            Ok(word) => self.field.hear(&of.registry, word, self.of.clock.instant()),
                            Err(RecvError::Lagged(_)) => self.field.load(&of.registry, self.of.clock.instant()),
                            // The registry lives as long as this process.
                            Err(RecvError::Closed) => return,
                        };
                        self.touch(touched);
                        heard = news.try_recv().ok().map(Ok);
                    }
                }
                Some(done) = self.under_way.next() => {
                    self.done(done);
                    while let Some(Some(done)) = self.under_way.next().now_or_never() {
                        self.done(done);
                    }
                }
                Ok(()) = functions.changed() => {
                    let others = self.apps.iter().filter(|(_, app)| app.fault.is_some() || self.is_outdated(app));
                    let others: Vec<String> = others.map(|(uid, _)| uid.clone()).collect();
                    for uid in others {
                        if let Some(app) = self.apps.get_mut(&uid) {
                            app.not_before = None;
                        }
                        self.dirty_apps.insert(uid);
                    }
                }
                Ok(()) = secrets.changed() => self.secrets_changed(),
                () = tokio::time::sleep_until(next) => {}
            }
            self.wake();
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.of.clock.instant()
    }

    pub(super) fn time(&self) -> Timestamp {
        self.of.clock.now()
    }

    /// Has something looked at when its time has come.
    pub(super) fn at(&mut self, at: Instant, wake: Wake) {
        // A look says again when the next one is to be, so that one of them, the earliest, is enough.
        match self.due.get(&wake) {
            Some(known) if *known <= at => return,
            Some(known) => drop(self.timers.remove(&(*known, wake.clone()))),
            None => {}
        }
        self.due.insert(wake.clone(), at);
        self.timers.insert((at, wake));
    }

    fn wake(&mut self) {
        let now = self.now();
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, wake)) = self.timers.pop_first() else { return };
            self.due.remove(&wake);
            match wake {
                Wake::Session(uid) => drop(self.dirty_sessions.insert(uid)),
                Wake::App(uid) => drop(self.dirty_apps.insert(uid)),
                Wake::Worker(name) => self.follow(&name),
            }
        }
    }

    fn work_off(&mut self) {
        // A look may make another necessary; each does so once at most.
        for _ in 0..4 {
            for uid in std::mem::take(&mut self.dirty_sessions) {
                self.look(&uid);
            }
            for uid in std::mem::take(&mut self.dirty_apps) {
                self.pass(&uid);
            }
            if self.dirty_sessions.is_empty() && self.dirty_apps.is_empty() {
                return;
            }
        }
    }

    /// Begins something.
    pub(super) fn begin(&self, work: impl Future<Output = Done> + Send + 'static) {
        self.under_way.push(work.boxed());
    }

    /// Has a worker do something.
    pub(super) fn command(
        &self,
        worker: &str,
        command: SessionCommand,
        done: impl FnOnce(Result<()>) -> Done + Send + 'static,
    ) {
        let (of, worker, epoch) = (Arc::clone(&self.of), worker.to_owned(), self.epoch);
        self.begin(async move {
            let outcome = of.registry.command(&worker, epoch, Command::Session(command), ANSWER).await;
            if let Err(error) = &outcome {
                tracing::debug!(%error, worker, "a worker does not do as it is told");
            }
            done(outcome)
        });
    }

    fn touch(&mut self, touched: Touched) {
        for uid in &touched.spread {
            if let Some(app) = self.apps.get_mut(uid) {
                app.is_configured = false;
            }
        }
        for uid in &touched.ready {
            if let Some(app) = self.apps.get_mut(uid) {
                app.failing = None;
            }
        }
        for (uid, why) in touched.failed {
            self.failed(&uid, why);
        }
        if let Some(of) = touched.returned
            && let Some(app) = self.apps.get_mut(&of.app.uid)
        {
            app.returned(of);
        }
        self.dirty_apps.extend(touched.apps);
        self.dirty_sessions.extend(touched.sessions);
        if let Some(worker) = touched.worker {
            if self.field.nodes.get(&worker).is_none_or(|node| node.state == MemberState::Lost) {
                // Should it come back, it may have been another leader's meanwhile.
                self.followed.remove(&worker);
            }
            self.follow(&worker);
            self.preload_at(&worker);
            // Where instances can be has changed, and who was away may not know the configuration.
            self.apps.values_mut().for_each(|app| app.is_configured = false);
            self.dirty_apps.extend(self.apps.keys().cloned());
            let uids = self.sessions.iter().filter(|(_, of)| of.bound.as_ref().is_some_and(|of| of.worker == worker));
            self.dirty_sessions.extend(uids.map(|(uid, _)| uid.clone()));
        }
    }

    fn follow_all(&mut self) {
        let names: Vec<String> = self.field.nodes.keys().cloned().collect();
        names.iter().for_each(|name| self.follow(name));
        self.at(self.settled, Wake::Worker(String::new()));
    }

    /// Tells a worker that this leader has begun.
    fn follow(&mut self, name: &str) {
        if name.is_empty() {
            self.dirty_apps.extend(self.apps.keys().cloned());
            return;
        }
        let lives = self.field.nodes.get(name).is_some_and(|node| node.state != MemberState::Lost);
        if !lives || self.followed.contains(name) || !self.following.insert(name.to_owned()) {
            return;
        }
        let (of, epoch, name) = (Arc::clone(&self.of), self.epoch, name.to_owned());
        self.begin(async move {
            let outcome = of.registry.command(&name, epoch, Command::Follow, ANSWER).await;
            Done::Followed(name, outcome)
        });
    }

    /// Whether all that another leader may have had opened is known.
    pub(super) fn knows_all(&self) -> bool {
        self.now() >= self.settled && all_follow(&self.field, &self.followed)
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Loaded(uid, outcome) => self.loaded(&uid, outcome),
            Done::Made(uid, outcome) => self.made(&uid, outcome),
            Done::Preloaded(uid, number, outcome) => self.preloaded(&uid, number, outcome),
            Done::Cleared(uid, outcome) => self.cleared(&uid, outcome),
            Done::Stood(uid, worker, version, outcome) => self.stood(&uid, &worker, version, outcome),
            Done::Configured(uid, worker, config, outcome) => {
                if let Some(app) = self.apps.get_mut(&uid)
                    && (outcome.is_err() || app.config != config)
                {
                    app.configured.remove(&worker);
                    app.is_configured = false;
                    self.again(uid);
                }
            }
            Done::Opened(uid, (app, worker, version), outcome) => {
                self.uncount_command(&app, &worker, version);
                self.opened(&uid, &worker, outcome);
            }
            Done::Commanded(uid, outcome) => {
                if let Some(session) = self.sessions.get_mut(&uid) {
                    session.commanding = false;
                    // What did not reach its worker is said again.
                    session.closing &= outcome.is_ok();
                }
                if outcome.is_err() {
                    let at = self.now() + AGAIN;
                    self.at(at, Wake::Session(uid));
                } else {
                    self.dirty_sessions.insert(uid);
                }
            }
            Done::WroteSession(uid, outcome) => self.wrote_session(uid, outcome),
            Done::WroteApp(uid, outcome) => {
                if let Some(app) = self.apps.get_mut(&uid) {
                    app.writing = false;
                }
                self.after_write(outcome, Wake::App(uid));
            }
            Done::Followed(name, outcome) => self.told(name, outcome),
            Done::Nothing => {}
        }
    }

    fn told(&mut self, name: String, outcome: Result<()>) {
        self.following.remove(&name);
        match outcome {
            Ok(()) => {
                self.followed.insert(name);
                if self.knows_all() {
                    self.dirty_apps.extend(self.apps.keys().cloned());
                }
            }
            Err(error) => {
                tracing::warn!(%error, worker = name, "a worker does not follow this leader yet");
                let at = self.now() + AGAIN / 2;
                self.at(at, Wake::Worker(name));
            }
        }
    }

    fn wrote_session(
        &mut self,
        uid: String,
        outcome: std::result::Result<Option<Arc<Stored<ApplicationSession>>>, Status>,
    ) {
        let Some(session) = self.sessions.get_mut(&uid) else { return };
        session.writing = false;
        let outcome = outcome.map(|written| {
            let Some(written) = written.filter(|of| of.revision() > session.object.revision()) else { return };
            let meta = &written.metadata;
            if meta.deletion_timestamp.is_some() && meta.finalizers.is_empty() {
                // It is gone, which the watch of the store will say.
                session.writing = true;
            } else if meta.uid == uid {
                // What was written is not written again, however long the watch of the store takes to show it.
                session.object = written;
            }
        });
        self.after_write(outcome, Wake::Session(uid));
    }

    pub(super) fn after_write(&mut self, outcome: std::result::Result<(), Status>, wake: Wake) {
        match outcome {
            Ok(()) => {
                let now = self.now();
                self.at(now, wake);
            }
            Err(status) => {
                tracing::warn!(%status, "the status of an application or session can't be written yet");
                let at = self.now() + AGAIN;
                self.at(at, wake);
            }
        }
    }

    /// Has an application looked at again in a while.
    pub(super) fn again(&mut self, uid: String) {
        let at = self.now() + AGAIN;
        if let Some(app) = self.apps.get_mut(&uid) {
            app.not_before = Some(at);
        }
        self.at(at, Wake::App(uid));
    }
}

/// Whether the error says for sure that nothing was done.
pub(super) fn is_refusal(error: &Error) -> bool {
    error.code != lyra_types::Code::WorkerLost
}

/// Whether all workers that live refuse commands of other leaders.
pub(super) fn all_follow(field: &Field, followed: &BTreeSet<String>) -> bool {
    let mut living = field.nodes.iter().filter(|(_, node)| node.state != MemberState::Lost);
    living.all(|(name, _)| followed.contains(name))
}
