//! Applications and sessions on this worker: instances that stand by, sessions that own one each.
//!
//! `order` does what the leader says; `stand` keeps so many instances standing as were asked for, with
//! `starts` saying when one may be started; `life` is the life of one
//! instance, from its start to its end, in one task, with `serving` for the time of a session, `telling` for what its program is told,
//! and `health` for its probes;
//! `restart` takes up what a former process of this worker has left. All they know is in the `book`, and what others must know of
//! it is noted in the journal in the same order.
//!
//! What always holds: an instance is charged for before it is started and until it is gone; a session that was accepted is
//! stored, and told of until its end; it has one instance, which nobody else has; its deadlines are timers of their own.

mod book;
mod commands;
pub mod config;
mod health;
mod life;
mod lines;
mod metrics;
mod order;
mod program;
mod quiet;
mod restart;
mod serving;
mod stand;
mod starts;
mod telling;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use lyra_kit::{Clock, Ids, Tasks};
use lyra_types::{Error, InstanceId, Result};
use lyra_wire::Logs;
use lyra_wire::sessions::{AppKey, SessionCommand, SessionPhase};
use lyra_wire::worker::{InstanceState, InstanceStatus};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::agent::entry::Entry;
use crate::agent::journal::Journal;
use crate::pool::Pool;
use crate::secrets::Secrets;
use crate::start::Cordon;
use crate::templates::Templates;
use book::Book;
pub use config::Config;
pub(crate) use metrics::SessionMetrics;
use quiet::Quiet;
use starts::Starts;

/// How often ended sessions are looked over.
const SWEEP: Duration = Duration::from_secs(60);
/// Longest wait for tasks to end when the worker ends.
const STOPPING: Duration = Duration::from_secs(2);

/// What the sessions of a worker are made of.
pub(crate) struct SessionDeps {
    pub(crate) templates: Arc<Templates>,
    pub(crate) pool: Pool,
    pub(crate) cordon: Arc<Cordon>,
    pub(crate) logs: Arc<dyn Logs>,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
    pub(crate) metrics: SessionMetrics,
    pub(crate) secrets: Arc<Secrets>,
    /// Longest time for loading code and starting a program.
    pub(crate) start_timeout: Duration,
}

/// The applications and sessions of a worker. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sessions {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    deps: SessionDeps,
    book: Mutex<Book>,
    journal: OnceLock<Arc<Journal>>,
    tasks: Tasks,
    quiet: Quiet,
    /// For standing instances that are started.
    starts: Starts,
    /// The worker ends, its instances go on: nothing is noted any more.
    leaving: AtomicBool,
    /// The worker was drained: it holds no standing instances.
    drained: AtomicBool,
    /// Changes whenever a session or an instance has ended.
    ended: watch::Sender<u64>,
}

impl Sessions {
    pub(crate) fn new(config: Config, deps: SessionDeps) -> Sessions {
        let starts = Starts::new(config.parallel_starts);
        let shared = Shared {
            config,
            deps,
            book: Mutex::default(),
            journal: OnceLock::new(),
            tasks: Tasks::new(),
            quiet: Quiet::default(),
            starts,
            leaving: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            ended: watch::Sender::new(0),
        };
        Sessions { shared: Arc::new(shared) }
    }

    /// Does what the leader of this epoch says. Commands begin in the order in which this is called; the future says when
    /// one is done, and may be dropped.
    pub(crate) fn obey(&self, epoch: u64, command: SessionCommand) -> BoxFuture<'static, Result<()>> {
        let shared = &self.shared;
        let Some(journal) = shared.journal.get() else {
            let early = Error::new(lyra_types::Code::Unavailable, "this worker is starting");
            return std::future::ready(Err(early)).boxed();
        };
        match command {
            SessionCommand::Preload(app) => {
                let (accepted, shared) = (journal.order(Some(epoch), Vec::new(), None), Arc::clone(shared));
                async move {
                    accepted.await?;
                    shared.deps.templates.load(&app.function).await.map(drop)
                }
                .boxed()
            }
            SessionCommand::Stand(app, instances) => shared.stand(journal, epoch, app, instances),
            SessionCommand::Dismiss(app) => shared.dismiss(journal, epoch, app),
            SessionCommand::Open(open) => shared.open(journal, epoch, *open),
            SessionCommand::Close(uid, grace) => shared.close(journal, Some(epoch), uid, grace),
            SessionCommand::Configure { tenant, uid, config } => {
                shared.configure(journal, epoch, &tenant, &uid, &config)
            }
            SessionCommand::Forget(uid) => shared.forget(journal, epoch, uid),
        }
    }

    /// The worker takes work again after it was cordoned.
    pub(crate) fn resume(&self) {
        self.shared.drained.store(false, Ordering::Release);
        self.shared.settle_all();
    }

    /// Holds no standing instances any more, waits up to `limit` for sessions to end, then closes those that are left, each with
    /// its own grace. Says whether all ended by themselves, how many are left, and how many standing instances were ended.
    pub(crate) async fn drain(&self, limit: Duration) -> (bool, usize, usize) {
        let shared = &self.shared;
        shared.drained.store(true, Ordering::Release);
        let standing: usize = shared.book.lock().apps.values().map(|app| app.standing.len()).sum();
        shared.settle_all();
        let by_themselves = shared.wait_for_sessions(limit).await;
        if !by_themselves {
            let grace = shared.close_all();
            shared.wait_for_sessions(grace + shared.config.end_grace).await;
        }
        (by_themselves, shared.open_sessions(), standing)
    }

    /// The worker ends: what runs goes on, for the next process of this worker to take up.
    pub(crate) async fn leave(&self) {
        let shared = &self.shared;
        let left = {
            let book = shared.book.lock();
            shared.leaving.store(true, Ordering::Release);
            let hosted = book.seats.values().filter_map(|seat| seat.hosted.as_ref());
            hosted.map(|hosted| hosted.leave()).count()
        };
        if left > 0 {
            tracing::info!(instances = left, "instances of applications go on for the next process of this worker");
        }
        if !shared.tasks.stop(STOPPING).await {
            tracing::warn!("work on instances of applications did not end in time");
        }
        // What is left now goes on.
        shared.book.lock().seats.clear();
    }

    /// Its instances, in the order of their ids.
    pub(crate) fn instances(&self) -> Vec<InstanceStatus> {
        let book = self.shared.book.lock();
        let status = |(id, seat): (&InstanceId, &book::Seat)| {
            let version = &book.apps.get(&seat.app)?.version.function;
            Some(InstanceStatus {
                id: *id,
                tenant: version.tenant.clone(),
                function: version.function.clone(),
                version: version.version,
                runtime: version.runtime,
                state: seat.state,
                since: seat.since,
                memory: seat.memory,
                served: seat.served,
                gpus: Vec::new(),
                application: Some(format!("{}@{}", seat.app.application, seat.app.version)),
                session: book.session_of(*id).map(|session| session.report.key.name.clone()),
            })
        };
        book.seats.iter().filter_map(status).collect()
    }

    /// Versions of applications that have instances.
    pub(crate) fn applications(&self) -> HashSet<AppKey> {
        self.shared.book.lock().seats.values().map(|seat| seat.app.clone()).collect()
    }

    /// Has all instances of these look at what there is for them.
    pub(crate) fn ring_all(&self, apps: &[AppKey]) {
        let book = self.shared.book.lock();
        let members = apps.iter().filter_map(|app| book.apps.get(app)).flat_map(|app| &app.members);
        members.for_each(|id| book.ring(*id));
    }

    /// Sets the gauges.
    pub(crate) fn refresh_metrics(&self) {
        let book = self.shared.book.lock();
        let mut states = [0; InstanceState::ALL.len()];
        for seat in book.seats.values() {
            states[seat.state as usize] += 1;
        }
        let mut phases = [0; 4];
        for session in book.sessions.values() {
            let phase = match session.report.phase {
                SessionPhase::Starting => 0,
                SessionPhase::Open if session.report.clients.is_empty() => 1,
                SessionPhase::Open => 2,
                SessionPhase::Closing => 3,
                SessionPhase::Closed => continue,
            };
            phases[phase] += 1;
        }
        drop(book);
        self.shared.deps.metrics.refresh(&states, phases);
    }
}

impl Shared {
    /// Looks at the book and changes it; what has changed is noted in the order in which it did.
    fn change<R>(&self, change: impl FnOnce(&mut Book, &mut Vec<Entry>) -> R) -> R {
        let mut book = self.book.lock();
        let mut entries = Vec::new();
        let result = change(&mut book, &mut entries);
        if !self.is_leaving()
            && let Some(journal) = self.journal.get()
        {
            journal.note(entries);
        }
        result
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Where ports of sessions are reached.
    fn address(&self) -> IpAddr {
        self.config.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    fn open_sessions(&self) -> usize {
        self.book.lock().apps.values().map(|app| app.sessions).sum()
    }

    /// Waits up to `limit` until no session is open; says whether none is.
    async fn wait_for_sessions(&self, limit: Duration) -> bool {
        let mut ended = self.ended.subscribe();
        let none_left = async {
            while self.open_sessions() > 0 {
                // The sender is this very value.
                let _ = ended.changed().await;
            }
        };
        tokio::time::timeout(limit, none_left).await.is_ok()
    }

    /// Closes every session, and returns the longest grace.
    fn close_all(self: &Arc<Self>) -> Duration {
        let open: Vec<(String, Duration)> = {
            let book = self.book.lock();
            let open = book.sessions.values().filter(|session| !session.is_over());
            open.map(|session| (session.report.key.uid.clone(), session.terms.close_grace)).collect()
        };
        let longest = open.iter().map(|(_, grace)| *grace).max().unwrap_or_default();
        if let Some(journal) = self.journal.get() {
            for (uid, grace) in open {
                // It is in the journal's queue; whoever waits sees its end.
                drop(self.close(journal, None, uid, grace));
            }
        }
        longest
    }

    /// Begins the work that goes on for as long as the worker does.
    fn begin_sweep(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        self.tasks.every("sessions-sweep", SWEEP, move || {
            shared.forget_old();
            std::future::ready(())
        });
    }
}
