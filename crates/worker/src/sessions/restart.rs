//! What a worker makes of what it was when it ended: its instances that go on are taken up, with their sessions.
//!
//! What must hold: an instance that the store does not know, or that has nothing to do any more, is ended before anything
//! is started; a session whose instance is gone has ended, and that is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lyra_isolation::Hosted;
use lyra_types::{InstanceId, Timestamp};
use lyra_wire::sessions::{AppVersion, HostedReport, SessionEnd, SessionPhase};
use lyra_wire::worker::InstanceState;

use super::book::{Book, Session};
use super::program;
use super::{Sessions, Shared};
use crate::agent::SavedSessions;
use crate::agent::entry::{Entry, SavedSession};
use crate::agent::journal::Journal;

/// Instances by id.
type Found = BTreeMap<InstanceId, Box<dyn Hosted>>;
/// One that goes on.
type Living = (InstanceId, Arc<AppVersion>, Arc<dyn Hosted>);

impl Sessions {
    /// Takes up what was stored and what still runs. From then on commands are obeyed.
    pub(crate) async fn take_up(&self, saved: SavedSessions, journal: &Arc<Journal>) {
        let shared = &self.shared;
        let mut found = shared.found().await;
        let living = {
            let mut book = shared.book.lock();
            if shared.journal.set(Arc::clone(journal)).is_err() {
                tracing::error!("this worker speaks with control already");
                return;
            }
            let mut entries = Vec::new();
            let living = shared.match_up(saved, &mut found, &mut book, &mut entries);
            journal.note(entries);
            living
        };
        if !living.is_empty() {
            tracing::info!(
                instances = living.len(),
                "instances of applications have gone on while the worker was away"
            );
        }
        for (id, stray) in found {
            tracing::info!(instance = %id, "an instance that nobody knows, or that is of no use any more, is ended");
            drop(stray);
        }
        for (id, app, hosted) in living {
            shared.begin_life(id, app, Some(hosted));
        }
        shared.settle_all();
        shared.begin_sweep();
    }
}

impl Shared {
    /// What the back ends have kept.
    async fn found(&self) -> Found {
        let mut found = Found::new();
        for backend in self.deps.templates.backends() {
            for hosted in backend.adopt().await {
                found.insert(hosted.id(), hosted);
            }
        }
        found
    }

    fn match_up(
        &self,
        saved: SavedSessions,
        found: &mut Found,
        book: &mut Book,
        entries: &mut Vec<Entry>,
    ) -> Vec<Living> {
        let SavedSessions { stands, hosted, sessions } = saved;
        for (version, target) in &stands {
            let (app, _) = book.app(version);
            (app.target, app.stored) = (*target, true);
        }
        for session in sessions {
            self.remember(session, book);
        }
        let wall = self.deps.clock.now();
        let mut living = Vec::new();
        for report in hosted {
            match take(&report, found, book) {
                Some((version, hosted)) => {
                    book.seat(report.id, &report.app, wall);
                    if let Some(uid) = &report.session {
                        book.bind(report.id, uid);
                    }
                    book.enter(report.id, report.state, wall);
                    living.push((report.id, version, hosted));
                }
                None => entries.push(Entry::Hosted(HostedReport { state: InstanceState::Terminated, ..report })),
            }
        }
        let lost = |session: &&Session| {
            !session.is_over() && session.report.instance.is_none_or(|id| !book.seats.contains_key(&id))
        };
        let lost: Vec<String> =
            book.sessions.values().filter(lost).map(|session| session.report.key.uid.clone()).collect();
        for uid in lost {
            let detail = "its instance was gone when its worker began again".to_owned();
            self.end_in(book, entries, &uid, SessionEnd::InstanceLost, detail);
        }
        living
    }

    fn remember(&self, saved: SavedSession, book: &mut Book) {
        let SavedSession { report, terms, close_by } = saved;
        let (now, wall) = (self.deps.clock.instant(), self.deps.clock.now());
        let at = |time: Timestamp| now + left(time, wall);
        let is_over = report.phase == SessionPhase::Closed;
        if let Some(app) = book.apps.get_mut(&report.app) {
            app.sessions += usize::from(!is_over);
        }
        let session = Session {
            received: now,
            open_by: at(terms.open_by),
            close_by: close_by.map(|by| (at(by), by)),
            accepted: true,
            ended: is_over.then_some(now),
            report,
            terms,
        };
        book.sessions.insert(session.report.key.uid.clone(), session);
    }
}

fn left(until: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(until.millis().saturating_sub(now.millis())).unwrap_or(0))
}

/// The instance of a report, when it still runs and has something to do.
fn take(report: &HostedReport, found: &mut Found, book: &Book) -> Option<(Arc<AppVersion>, Arc<dyn Hosted>)> {
    let version = &book.apps.get(&report.app)?.version;
    let has_something = match &report.session {
        Some(uid) => book.sessions.get(uid).is_some_and(|session| !session.is_over()),
        None => matches!(report.state, InstanceState::Creating | InstanceState::Standby | InstanceState::Hibernated),
    };
    let is_it =
        |hosted: &dyn Hosted| hosted.exit().is_none() && program::is_label_of(hosted.label(), report.id, &report.app);
    found.get(&report.id).filter(|hosted| is_it(hosted.as_ref()) && has_something)?;
    Some((Arc::clone(version), Arc::from(found.remove(&report.id)?)))
}
