//! Keeps so many instances standing as were asked for, and books those that are gone.
//!
//! What must hold: whatever changes what there is of a version is followed by [`Shared::settle`], which starts what is
//! missing and ends what is too much. Where instances fail one after the other the next one waits, longer each time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lyra_isolation::Hosted;
use lyra_kit::Random;
use lyra_kit::retry::Backoff;
use lyra_types::InstanceId;
use lyra_wire::sessions::{AppKey, AppVersion, SessionEnd};
use lyra_wire::worker::InstanceState;
use parking_lot::Mutex;

use super::Shared;
use super::book::Book;
use super::life::Life;
use crate::agent::entry::Entry;

/// First wait after an instance failed.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How long an instance stands after a session, where it is one more than was asked for: the leader hears of it meanwhile
/// and says whether it is one too many.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// An instance that was ready for so long has not failed for the reason that those before it did.
const PROVEN: Duration = Duration::from_secs(60);

impl Shared {
    /// Brings every version to what it shall have.
    pub(super) fn settle_all(self: &Arc<Self>) {
        let keys: Vec<AppKey> = self.book.lock().apps.keys().cloned().collect();
        for key in keys {
            self.settle(&key);
        }
    }

    /// Brings a version to what it shall have.
    pub(super) fn settle(self: &Arc<Self>, key: &AppKey) {
        if self.is_leaving() {
            return;
        }
        let (now, wall) = (self.deps.clock.instant(), self.deps.clock.now());
        let is_drained = self.drained.load(Ordering::Acquire);
        let is_cordoned = self.deps.cordon.is_set();
        let mut begun = Vec::new();
        let wait = self.change(|book, entries| {
            let app = book.apps.get(key)?;
            let target = if is_drained { 0 } else { app.target as usize };
            let standing = app.standing.len();
            let wait = app.not_before.filter(|at| *at > now);
            if standing < target && wait.is_none() && !is_cordoned {
                for _ in standing..target {
                    let id = self.deps.ids.instance();
                    book.seat(id, key, wall);
                    entries.extend(book.report(id).map(Entry::Hosted));
                    begun.push((id, Arc::clone(&book.apps.get(key)?.version)));
                }
            }
            let (lingering, until) = match is_drained {
                true => (0, None),
                false => book.apps.get_mut(key)?.lingering(now),
            };
            for _ in target.saturating_add(lingering)..standing {
                let Some(id) = book.apps.get(key).and_then(super::book::App::surplus) else { break };
                book.end(id);
                book.enter(id, InstanceState::Evacuating, wall);
                entries.extend(book.report(id).map(Entry::Hosted));
                book.ring(id);
            }
            if book.apps.get(key)?.is_bare() {
                book.apps.remove(key);
                entries.push(Entry::Unknown(key.clone()));
            }
            let at = if standing < target { wait? } else { until.filter(|_| standing > target)? };
            let app = book.apps.get_mut(key)?;
            // One timer is enough.
            (app.retry.replace(at) != Some(at)).then_some(at)
        });
        for (id, app) in begun {
            self.begin_life(id, app, None);
        }
        if let Some(at) = wait {
            let (shared, key) = (Arc::clone(self), key.clone());
            self.tasks.spawn_cancellable("settle-again", async move {
                shared.deps.clock.sleep(at.saturating_duration_since(now)).await;
                shared.settle(&key);
            });
        }
    }

    /// Has an instance live, which is in the book already; `found` is one that a former process of this worker has left.
    pub(super) fn begin_life(self: &Arc<Self>, id: InstanceId, app: Arc<AppVersion>, found: Option<Arc<dyn Hosted>>) {
        let Some(bell) = self.book.lock().seats.get(&id).map(|seat| seat.bell.subscribe()) else { return };
        let is_found = found.is_some();
        let life = Life { shared: Arc::clone(self), id, app, bell, is_found, waits_for: Mutex::default() };
        self.tasks.spawn_cancellable("instance-life", life.live(found));
    }

    /// An instance is gone, with all that was charged for it.
    pub(super) fn gone(self: &Arc<Self>, id: InstanceId, failed: bool) {
        if self.is_leaving() {
            return;
        }
        let now = self.deps.clock.instant();
        let key = self.change(|book, entries| {
            let report = book.report(id);
            let seat = book.remove(id)?;
            if let Some(uid) = &seat.session
                && book.sessions.get(uid).is_some_and(|session| session.accepted)
            {
                let detail = "its instance ended".to_owned();
                self.end_in(book, entries, uid, SessionEnd::InstanceLost, detail);
            }
            if let Some(mut report) = report {
                report.state = InstanceState::Terminated;
                entries.push(Entry::Hosted(report));
            }
            if failed && let Some(app) = book.apps.get_mut(&seat.app) {
                let proven = seat.ready_since.is_some_and(|since| now.saturating_duration_since(since) >= PROVEN);
                app.failures = if proven { 1 } else { app.failures.saturating_add(1) };
                let backoff = Backoff { first: FIRST_WAIT, max: self.config.restart_max };
                // Its id was drawn, too.
                let random = Random::seeded(id.number() as u64);
                app.not_before = Some(now + backoff.delay(app.failures, &random));
            }
            Some(seat.app)
        });
        self.ended.send_modify(|count| *count += 1);
        if let Some(key) = key {
            self.settle(&key);
        }
    }

    /// A session is over.
    pub(super) fn over(self: &Arc<Self>, uid: &str, end: SessionEnd, detail: String) {
        self.change(|book, entries| self.end_in(book, entries, uid, end, detail));
        self.ended.send_modify(|count| *count += 1);
    }

    pub(super) fn end_in(&self, book: &mut Book, entries: &mut Vec<Entry>, uid: &str, end: SessionEnd, detail: String) {
        if !book.over(uid, end, detail, self.deps.clock.instant()) {
            return;
        }
        let Some(session) = book.sessions.get(uid) else { return };
        if session.report.available_micros.is_none() {
            self.deps.metrics.opened(end.as_str());
        }
        self.deps.metrics.ended(end.as_str());
        entries.push(Entry::Session(Box::new(session.report.clone())));
    }

    /// An instance is about to be ended.
    pub(super) fn leaves(self: &Arc<Self>, id: InstanceId, failed: bool) {
        let wall = self.deps.clock.now();
        let state = if failed { InstanceState::Failed } else { InstanceState::Terminating };
        let key = self.change(|book, entries| {
            book.end(id);
            book.enter(id, state, wall);
            entries.extend(book.report(id).map(Entry::Hosted));
            book.seats.get(&id).map(|seat| seat.app.clone())
        });
        // Another one may be started before this one is gone.
        if let Some(key) = key.filter(|_| !failed) {
            self.settle(&key);
        }
    }
}
