//! The life of one instance, in one task: it is charged for and started, gets ready, stands, serves sessions, and ends.
//!
//! What must hold: whatever way the task ends, the instance is gone then, what was charged for it is given back, and the
//! book knows; unless the worker leaves its instances to the next process. A session's deadline, its close and the program's end take
//! effect at once, wherever the instance is.

use std::sync::Arc;
use std::time::Duration;

use lyra_isolation::{Exit, Grant, Hosted};
use lyra_session::{End, Phase, SessionServer};
use lyra_types::{Code, Error, InstanceId, Result};
use lyra_wire::sessions::{AppVersion, SessionEnd, SessionPhase};
use lyra_wire::worker::InstanceState;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Shared;
use super::health::{Health, Unit};
use super::lines::Outlet;
use super::program;
use super::telling::Written;
use crate::pool::Room;
use crate::resources::Need;

/// How long a standing instance waits for memory, processors and GPUs before it is tried again later.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait for ports to be closed.
const HIDE: Duration = Duration::from_secs(2);

/// An instance, from before it is started until it is gone.
pub(super) struct Life {
    pub(super) shared: Arc<Shared>,
    pub(super) id: InstanceId,
    pub(super) app: Arc<AppVersion>,
    pub(super) bell: watch::Receiver<()>,
    /// It was found running when this worker began.
    pub(super) is_found: bool,
    /// What its session waits for, if it is something that others have to mend.
    pub(super) waits_for: Mutex<Option<String>>,
}

/// What keeps an instance from going on as it was.
pub(super) enum Stop {
    /// It is to end.
    End,
    /// Its session was not open in time.
    OpenTimeout(String),
    /// Its session is to be closed.
    Close,
}

/// How an instance ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parting {
    /// Its program is asked to end.
    Asked,
    /// It is killed.
    Killed,
    /// It is killed, and it is its own fault.
    Failed,
}

/// Books an instance as gone when its life is over, however it ended.
struct Gone {
    shared: Arc<Shared>,
    id: InstanceId,
    failed: bool,
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.shared.gone(self.id, self.failed);
    }
}

impl Life {
    /// Lives. `found`: it runs already.
    pub(super) async fn live(self, found: Option<Arc<dyn Hosted>>) {
        let mut gone = Gone { shared: Arc::clone(&self.shared), id: self.id, failed: true };
        gone.failed = self.whole(found).await == Parting::Failed;
    }

    async fn whole(&self, found: Option<Arc<dyn Hosted>>) -> Parting {
        let (mut room, unit, written) = match found {
            Some(hosted) => self.take_up(hosted),
            None => {
                let started = tokio::select! {
                    biased;
                    stop = self.stopped() => return self.stopped_early(stop),
                    started = self.start() => started,
                };
                match started {
                    Ok(started) => started,
                    Err(error) => return self.could_not_start(&error),
                }
            }
        };
        let (hosted, health) = (&*unit.hosted, &unit.health);
        let parting = tokio::select! {
            biased;
            parting = self.serve(&unit, &mut room, written) => parting,
            () = self.catch_up(&unit) => Parting::Failed,
            exit = hosted.wait() => self.exited(&unit, exit),
            () = health.until_dead() => self.failed_liveness(),
            () = health.follow(hosted, unit.service.as_ref(), &self.app, &self.shared.deps.clock) => Parting::Failed,
        };
        self.destroy(unit, parting).await;
        drop(room);
        parting
    }

    /// Waits until there is something that keeps the instance from going on.
    pub(super) async fn stopped(&self) -> Stop {
        let mut bell = self.bell.clone();
        loop {
            bell.mark_unchanged();
            let open_by = {
                let book = self.shared.book.lock();
                let Some(seat) = book.seats.get(&self.id) else { return Stop::End };
                if seat.ending && seat.session.is_none() {
                    return Stop::End;
                }
                match book.session_of(self.id).filter(|session| session.accepted) {
                    Some(session) if session.close_by.is_some() => return Stop::Close,
                    Some(session) if session.report.phase == SessionPhase::Starting => {
                        Some((session.open_by, session.report.key.uid.clone()))
                    }
                    _ => None,
                }
            };
            let rung = bell.changed();
            match open_by {
                Some((at, uid)) => tokio::select! {
                    _ = rung => {}
                    () = tokio::time::sleep_until(at) => return Stop::OpenTimeout(uid),
                },
                None => drop(rung.await),
            }
        }
    }

    /// Waits for the next ring of the bell after `bell` has last seen one.
    pub(super) async fn rung(bell: &mut watch::Receiver<()>) {
        if bell.changed().await.is_err() {
            // The book has no such instance any more.
            std::future::pending::<()>().await;
        }
    }

    /// What there was for a session whose instance never ran, or was not ready.
    pub(super) fn stopped_early(&self, stop: Stop) -> Parting {
        match stop {
            Stop::End => Parting::Asked,
            Stop::OpenTimeout(uid) => {
                let detail = "its instance was not ready in time".to_owned();
                let detail = self.waits_for.lock().take().unwrap_or(detail);
                self.shared.over(&uid, SessionEnd::OpenTimeout, detail);
                Parting::Killed
            }
            Stop::Close => {
                self.over(SessionEnd::Closed, "it was closed before it was open".to_owned());
                Parting::Asked
            }
        }
    }

    /// Whether a line is to be written of how instances of this application fare; how many were left out.
    pub(super) fn may_say(&self, what: &'static str) -> Option<u64> {
        self.shared.quiet.say(&self.app.key, what, self.shared.deps.clock.instant())
    }

    fn could_not_start(&self, error: &Error) -> Parting {
        let Life { id, app, .. } = self;
        let why = self.masked(error.to_string());
        self.shared.deps.metrics.started(false);
        if let Some(left_out) = self.may_say("start") {
            tracing::warn!(instance = %id, app = %app.key, error = why, left_out, "an instance of an application can't be started");
        }
        self.over(SessionEnd::InstanceLost, format!("its instance could not be started: {}", error.detail));
        self.blame(self.masked(format!("it could not be started: {}", error.detail)));
        Parting::Failed
    }

    /// Charges for the instance, and starts it.
    async fn start(&self) -> Result<(Room, Unit, Written)> {
        let (shared, version) = (&self.shared, &self.app.function);
        let need = need(&self.app);
        if !shared.deps.pool.holds(&need) {
            return Err(Error::new(Code::Overloaded, too_large(&need)));
        }
        let _place = self.place_to_start().await;
        let secrets = self.await_secrets().await?;
        let room = shared.deps.pool.room(version, need);
        tokio::pin!(room);
        let room = loop {
            match tokio::time::timeout(PATIENCE, &mut room).await {
                Ok(room) => break room.ok(),
                // It waits for as long as its session may.
                Err(_) if self.has_session() => {}
                Err(_) => break None,
            }
        };
        let no_room = || Error::new(Code::Overloaded, "there is too little memory, processor time or GPUs for it");
        let room = room.ok_or_else(no_room)?;
        let starting = async {
            let template = shared.deps.templates.load(version).await?;
            let given = secrets.as_ref().map(|of| Arc::clone(&of.given));
            let grant = Grant { secrets: given, ..room.devices().cloned().unwrap_or_default() };
            template.host(self.id, version, &grant, program::hosting(&self.app, self.id, secrets.as_deref())).await
        };
        let limit = shared.deps.start_timeout;
        let slow = || Error::new(Code::Overloaded, format!("it did not start in {} s", limit.as_secs_f64()));
        let hosted = tokio::time::timeout(limit, starting).await.map_err(|_| slow())??;
        let unit = self.unit(Arc::from(hosted), false);
        self.listen(&unit);
        self.book_memory(room.memory());
        Ok((room, unit, Written::of(&self.app.config, secrets.as_deref())))
    }

    /// Standing instances start a few at a time, and let opens go first while others stand; one with a session does not wait.
    async fn place_to_start(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let starts = &self.shared.starts;
        let mut bell = self.bell.clone();
        loop {
            bell.mark_unchanged();
            if self.has_session() {
                return None;
            }
            let turn = async {
                let place = starts.place().await;
                if self.others_stand() {
                    starts.give_way(&self.shared.deps.clock).await;
                }
                place
            };
            tokio::select! {
                place = turn => return place,
                () = Life::rung(&mut bell) => {}
            }
        }
    }

    fn others_stand(&self) -> bool {
        self.shared.book.lock().apps.get(&self.app.key).is_some_and(|app| app.ready().is_some())
    }

    pub(super) fn has_session(&self) -> bool {
        self.shared.book.lock().session_of(self.id).is_some()
    }

    /// Takes up an instance that a former process of this worker has left.
    fn take_up(&self, hosted: Arc<dyn Hosted>) -> (Room, Unit, Written) {
        let asleep = {
            let book = self.shared.book.lock();
            book.seats.get(&self.id).is_some_and(|seat| seat.state == InstanceState::Hibernated)
        };
        let need = need(&self.app);
        let need = if asleep { Need { memory: hosted.usage().memory, cpu: 0, ..need } } else { need };
        let room = self.shared.deps.pool.room_of_found(need);
        let unit = self.unit(hosted, asleep);
        self.book_memory(room.memory());
        (room, unit, Written::default())
    }

    fn unit(&self, hosted: Arc<dyn Hosted>, asleep: bool) -> Unit {
        let shared = &self.shared;
        let session = {
            let book = shared.book.lock();
            book.session_of(self.id).filter(|session| session.accepted).map(|session| session.report.key.clone())
        };
        let lines = Outlet::new(shared, &self.app, self.id, session.as_ref());
        let service = self.app.service.then(|| hosted.service()).flatten().map(|listener| {
            let connections = lyra_session::tcp(listener);
            SessionServer::start(connections, shared.config.service.clone(), shared.deps.clock.clone())
        });
        if let Some(service) = &service {
            service.hibernate(asleep);
        }
        if let Some(seat) = shared.book.lock().seats.get_mut(&self.id) {
            seat.hosted = Some(Arc::clone(&hosted));
        }
        Unit { hosted, lines, service, health: Health::new(asleep) }
    }

    pub(super) fn book_memory(&self, memory: u64) {
        if let Some(seat) = self.shared.book.lock().seats.get_mut(&self.id) {
            seat.memory = memory;
        }
    }

    /// The instance's session is over, if it has one.
    pub(super) fn over(&self, end: SessionEnd, detail: String) {
        let uid = self.shared.book.lock().session_of(self.id).map(|session| session.report.key.uid.clone());
        if let Some(uid) = uid {
            self.shared.over(&uid, end, self.masked(detail));
        }
    }

    /// Notes why the instance fails.
    pub(super) fn blame(&self, why: impl Into<String>) {
        if let Some(seat) = self.shared.book.lock().seats.get_mut(&self.id) {
            seat.why.get_or_insert_with(|| why.into());
        }
    }

    /// The program has ended.
    fn exited(&self, unit: &Unit, exit: Exit) -> Parting {
        let found = {
            let book = self.shared.book.lock();
            let ending = book.seats.get(&self.id).is_none_or(|seat| seat.ending);
            (book.session_of(self.id).map(|session| session.report.phase), ending)
        };
        let said = unit.service.as_ref().map(|service| service.state().borrow().phase.clone());
        let (end, detail) = match (found, said) {
            ((None, true), _) => return Parting::Asked,
            ((None, false), _) => {
                if let Some(left_out) = self.may_say("end") {
                    let Life { id, app, .. } = self;
                    tracing::warn!(instance = %id, app = %app.key, left_out, "a standing instance ended: its program {exit}");
                }
                self.blame(format!("its program {exit}"));
                return Parting::Failed;
            }
            ((Some(SessionPhase::Closing), _), _) => (SessionEnd::Closed, format!("its program {exit}")),
            ((Some(SessionPhase::Starting), _), Some(Phase::Ended(End::Failed { reason }))) => {
                (SessionEnd::Refused, reason)
            }
            ((Some(SessionPhase::Starting), _), _) => {
                self.blame(format!("its program {exit}"));
                (SessionEnd::InstanceLost, format!("its program {exit} before the session was open"))
            }
            (_, Some(said)) => self.ended_by_program(&said).unwrap_or_else(|| lost_or_ended(exit)),
            (_, None) => lost_or_ended(exit),
        };
        let was_open = end != SessionEnd::InstanceLost || !matches!(found.0, Some(SessionPhase::Starting));
        self.over(end, detail);
        if was_open { Parting::Killed } else { Parting::Failed }
    }

    /// What it means for an open session that the program says so.
    pub(super) fn ended_by_program(&self, said: &Phase) -> Option<(SessionEnd, String)> {
        Some(match said {
            Phase::Ended(End::Closed { reason, .. } | End::Failed { reason }) => {
                (SessionEnd::ByProgram, reason.clone())
            }
            Phase::Ended(End::Gone(why)) => (SessionEnd::InstanceLost, why.to_string()),
            Phase::Ended(End::Late | End::NotReady) => {
                (SessionEnd::InstanceLost, "its program does not answer".to_owned())
            }
            Phase::Idle | Phase::Opening | Phase::Open | Phase::Closing => return None,
        })
    }

    fn failed_liveness(&self) -> Parting {
        if let Some(left_out) = self.may_say("probe") {
            let Life { id, app, .. } = self;
            tracing::warn!(instance = %id, app = %app.key, left_out, "an instance failed its liveness probe and is replaced");
        }
        self.over(SessionEnd::InstanceLost, "its instance failed its liveness probe".to_owned());
        self.blame("it failed its liveness probe");
        Parting::Failed
    }

    /// Ends the instance and waits until it is gone.
    async fn destroy(&self, unit: Unit, parting: Parting) {
        self.shared.leaves(self.id, parting == Parting::Failed);
        let Unit { hosted, service, .. } = unit;
        if hosted.exit().is_some() {
            return;
        }
        self.hide(&*hosted).await;
        if let Some(service) = service {
            // Its program shall not look for another one.
            drop(service);
        }
        match parting {
            Parting::Asked => drop(hosted.stop(self.shared.config.end_grace).await),
            Parting::Killed | Parting::Failed => {
                hosted.kill();
                hosted.wait().await;
            }
        }
    }

    /// Closes the instance's ports on the node.
    pub(super) async fn hide(&self, hosted: &dyn Hosted) {
        if hosted.exposed().is_empty() {
            return;
        }
        match tokio::time::timeout(HIDE, hosted.hide()).await {
            Ok(Ok(())) => {}
            // They go with the instance.
            Ok(Err(error)) => tracing::warn!(instance = %self.id, %error, "ports can't be closed"),
            Err(_) => tracing::warn!(instance = %self.id, "ports were not closed in time"),
        }
    }
}

fn lost_or_ended(exit: Exit) -> (SessionEnd, String) {
    let end = if exit.code == Some(0) { SessionEnd::ByProgram } else { SessionEnd::InstanceLost };
    (end, format!("its program {exit}"))
}

/// What an instance of an application is charged for.
pub(super) fn need(app: &AppVersion) -> Need {
    // A program that only waits for its clients needs no processor of its own: what is set aside is what was asked for.
    Need { cpu: u64::from(app.cpu_request), ..Need::of(&app.function).unwrap_or_default() }
}

fn too_large(need: &Need) -> String {
    let Need { memory, cpu, gpus } = need;
    let cores = *cpu as f64 / 1_000.0;
    format!("this worker has less than it asks for: {} MiB of memory, {cores} processors, {gpus} GPUs", memory >> 20)
}
