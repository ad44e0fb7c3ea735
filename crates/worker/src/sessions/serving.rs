//! What an instance does while its program runs: it gets ready, stands, and serves one session after the other.
//!
//! What must hold: a session is reported open only when its program is, and its ports are; once it is over its ports are
//! closed before that is reported, but where it ran out of time or its program is gone. The instance serves another session only if
//! the one before it was closed in good order.

use std::time::Duration;

use lyra_isolation::Exposed;
use lyra_session::{How, Resumed, SessionHandle};
use lyra_types::{Code, Error, Result, Runtime};
use lyra_wire::sessions::{NodeEndpoint, SessionEnd, SessionKey, SessionPhase};
use lyra_wire::worker::InstanceState;
use tokio::time::Instant;

use super::commands::Asked;
use super::health::Unit;
use super::life::{Life, Parting, Stop, need};
use super::program;
use super::stand::LINGER;
use super::telling::{Told, Written};
use crate::agent::entry::Entry;
use crate::pool::Room;

/// Least time between two reports of a session's clients.
const CLIENTS_EVERY: Duration = Duration::from_millis(200);
/// Most clients that are reported of one session.
const MOST_CLIENTS: usize = 1_000;
/// Longest wait for an instance to hibernate.
const HIBERNATE: Duration = Duration::from_secs(30);
/// Longest wait until an instance wakes that nobody needs yet: there may be no memory for it.
const WAKE: Duration = Duration::from_secs(5);

/// `SIGTERM`.
const TERMINATE: i32 = 15;

/// What comes after an instance has stood, or has served a session.
enum Next {
    /// It stands, if it is ready.
    Stand,
    /// It serves its session.
    Serve,
    /// It ends.
    End(Parting),
}

/// A session, as its instance's task sees it.
struct Served {
    key: SessionKey,
    data: String,
    phase: SessionPhase,
    received: Instant,
    open_by: Instant,
    close_by: Option<Instant>,
    reuse: bool,
}

impl Served {
    fn uid(&self) -> &str {
        &self.key.uid
    }

    fn told(&self) -> Told<'_> {
        Some((&self.key, &self.data))
    }
}

impl Life {
    /// Serves until the instance is to end.
    pub(super) async fn serve(&self, unit: &Unit, room: &mut Room, mut written: Written) -> Parting {
        if let (Some(service), Some(session)) = (&unit.service, self.session())
            && let Err(error) = self.resume(service, &session)
        {
            self.over(SessionEnd::InstanceLost, error.detail);
            return Parting::Killed;
        }
        let mut is_first = !self.is_found;
        loop {
            let is_open = self.session().is_some_and(|session| session.phase != SessionPhase::Starting);
            if !is_open && !unit.health.is_asleep() {
                if let Some(parting) = self.get_ready(unit, is_first).await {
                    return parting;
                }
                is_first = false;
            }
            let next = match self.session() {
                Some(session) => self.serve_session(unit, room, &session, &mut written).await,
                None => self.stand_by(unit, room, &mut written).await,
            };
            match next {
                Next::Stand | Next::Serve => {}
                Next::End(parting) => return parting,
            }
        }
    }

    fn session(&self) -> Option<Served> {
        let book = self.shared.book.lock();
        let session = book.session_of(self.id).filter(|session| session.accepted && !session.is_over())?;
        Some(Served {
            key: session.report.key.clone(),
            data: session.terms.data.clone(),
            phase: session.report.phase,
            received: session.received,
            open_by: session.open_by,
            close_by: session.close_by.map(|by| by.0),
            // Code that is called can't clean up after a session, and a fresh instance of it costs next to nothing.
            reuse: session.terms.reuse && !matches!(self.app.function.runtime, Runtime::Js | Runtime::Wasm),
        })
    }

    /// Tells a session service that begins of a session that is there.
    fn resume(&self, service: &SessionHandle, session: &Served) -> Result<()> {
        let left = |until: Instant| until.saturating_duration_since(self.shared.deps.clock.instant());
        let how = match session.phase {
            // It is opened anew, which the program takes for the same one.
            SessionPhase::Starting => return Ok(()),
            SessionPhase::Open => Resumed::Open,
            SessionPhase::Closing | SessionPhase::Closed => {
                Resumed::Closing(session.close_by.map(left).unwrap_or_default())
            }
        };
        service.resume(program::open(&session.key, &self.app.key, &session.data), how)
    }

    /// Waits until the instance is ready. Says how it ends where it does not get so far.
    async fn get_ready(&self, unit: &Unit, is_first: bool) -> Option<Parting> {
        if !*unit.health.ready.borrow() {
            let limit = self.shared.config.ready_timeout;
            tokio::select! {
                biased;
                () = unit.health.until_ready() => {}
                stop = self.stopped() => return Some(self.stopped_early(stop)),
                () = self.shared.deps.clock.sleep(limit) => {
                    tracing::warn!(instance = %self.id, app = %self.app.key, "an instance did not get ready in time and is replaced");
                    self.over(SessionEnd::InstanceLost, "its instance did not get ready".to_owned());
                    self.blame(format!("it did not get ready in {} s", limit.as_secs_f64()));
                    return Some(Parting::Failed);
                }
            }
        }
        if is_first {
            self.shared.deps.metrics.started(true);
        }
        self.enter(InstanceState::Standby);
        None
    }

    /// The instance enters a state; one with a session is active instead of standing by.
    fn enter(&self, state: InstanceState) {
        let (now, wall) = (self.shared.deps.clock.instant(), self.shared.deps.clock.now());
        self.shared.change(|book, entries| {
            let before = book.report(self.id);
            let Some(seat) = book.seats.get_mut(&self.id) else { return };
            if state == InstanceState::Standby {
                seat.ready_since.get_or_insert(now);
            }
            let has_session = seat.session.is_some();
            let state = if has_session && state == InstanceState::Standby { InstanceState::Active } else { state };
            book.enter(self.id, state, wall);
            entries.extend(book.report(self.id).filter(|now| before.as_ref() != Some(now)).map(Entry::Hosted));
        });
    }

    /// Stands until there is a session, or the instance ends, or is not ready any more.
    async fn stand_by(&self, unit: &Unit, room: &mut Room, written: &mut Written) -> Next {
        let (mut bell, clock) = (self.bell.clone(), &self.shared.deps.clock);
        let mut may_sleep = self.shared.config.hibernate_after.filter(|_| !unit.health.is_asleep());
        loop {
            bell.mark_unchanged();
            if self.session().is_some() {
                return Next::Serve;
            }
            {
                let book = self.shared.book.lock();
                if book.seats.get(&self.id).is_none_or(|seat| seat.ending) {
                    return Next::End(Parting::Asked);
                }
            }
            if self.is_outdated(unit) {
                return Next::End(Parting::Asked);
            }
            let asked = self.asked();
            let was_asked = !asked.is_empty();
            for asked in asked {
                let done = match asked.sleep {
                    true => self.hibernate(unit, room).await,
                    false => self.rise(unit, room).await,
                };
                let lost = done.as_ref().is_err_and(|error| error.code == Code::InstanceCrashed);
                // Whoever asked may be gone.
                drop(asked.done.send(done));
                if lost {
                    return Next::End(Parting::Failed);
                }
            }
            if was_asked {
                may_sleep = self.shared.config.hibernate_after.filter(|_| !unit.health.is_asleep());
                // There may be a session meanwhile.
                continue;
            }
            if !unit.health.is_asleep() {
                self.refresh(unit, written, None).await;
            }
            let drowsy = async {
                match may_sleep {
                    Some(after) => clock.sleep(after).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = Life::rung(&mut bell) => {}
                () = unit.health.until_not_ready(), if !unit.health.is_asleep() => {
                    self.enter(InstanceState::Creating);
                    return Next::Stand;
                }
                () = broken(unit.service.as_ref()) => {
                    self.blame("it does not speak with the session service any more");
                    return Next::End(Parting::Failed);
                }
                () = written.due(), if !unit.health.is_asleep() => {}
                () = drowsy => {
                    may_sleep = None;
                    if let Err(error) = self.hibernate(unit, room).await {
                        tracing::debug!(instance = %self.id, app = %self.app.key, %error, "it stays awake");
                    }
                }
            }
        }
    }

    /// What an operator asks of the instance.
    fn asked(&self) -> Vec<Asked> {
        let mut book = self.shared.book.lock();
        book.seats.get_mut(&self.id).map(|seat| std::mem::take(&mut seat.asked)).unwrap_or_default()
    }

    /// Wakes the instance, for nobody in particular.
    async fn rise(&self, unit: &Unit, room: &mut Room) -> Result<()> {
        let waking = tokio::time::timeout(WAKE, self.wake(unit, room));
        waking.await.map_err(|_| Error::new(Code::Overloaded, "there is no memory to wake it; try again later"))??;
        self.enter(InstanceState::Standby);
        Ok(())
    }

    async fn hibernate(&self, unit: &Unit, room: &mut Room) -> Result<()> {
        if unit.health.is_asleep() {
            return Ok(());
        }
        // Before it sleeps, so that a session takes another one.
        self.enter(InstanceState::Hibernated);
        unit.health.sleep(true);
        if let Some(service) = &unit.service {
            service.hibernate(true);
        }
        let sleeps = tokio::time::timeout(HIBERNATE, unit.hosted.hibernate()).await.unwrap_or(false);
        if sleeps {
            room.shrink(unit.hosted.usage().memory);
            self.book_memory(room.memory());
            self.enter(InstanceState::Hibernated);
            return Ok(());
        }
        unit.health.sleep(false);
        if let Some(service) = &unit.service {
            service.hibernate(false);
        }
        self.enter(InstanceState::Standby);
        Err(Error::new(Code::Conflict, format!("instance {} can't be hibernated, or not in time", self.id)))
    }

    /// Wakes the instance, when it is hibernated.
    async fn wake(&self, unit: &Unit, room: &mut Room) -> Result<()> {
        if !unit.health.is_asleep() {
            return Ok(());
        }
        let more = self.shared.deps.pool.room(&self.app.function, room.missing(&need(&self.app))).await;
        room.absorb(more.map_err(|_| Error::new(Code::Unavailable, "this worker is shutting down"))?);
        self.book_memory(room.memory());
        if !unit.hosted.wake().await {
            return Err(Error::new(Code::InstanceCrashed, "its hibernated instance did not wake"));
        }
        unit.health.sleep(false);
        if let Some(service) = &unit.service {
            service.hibernate(false);
        }
        Ok(())
    }

    async fn serve_session(&self, unit: &Unit, room: &mut Room, session: &Served, written: &mut Written) -> Next {
        if session.phase == SessionPhase::Starting {
            self.enter(InstanceState::Standby);
            unit.lines.turn(&*unit.hosted, Some(&session.key));
            let opened = tokio::select! {
                biased;
                stop = self.stopped() => return self.stopped_opening(unit, session, stop).await,
                opened = self.open(unit, room, session, written) => opened,
            };
            match opened {
                Ok(endpoints) => self.opened(session, endpoints),
                Err(error) => {
                    self.over(why_not_open(&error), error.detail);
                    return Next::End(Parting::Killed);
                }
            }
        }
        let mut bell = self.bell.clone();
        let mut state = unit.service.as_ref().map(SessionHandle::state);
        let mut clients = Clients::default();
        loop {
            bell.mark_unchanged();
            if self.session().is_none_or(|now| now.close_by.is_some()) {
                return self.close(unit, session).await;
            }
            self.refresh(unit, written, session.told()).await;
            if let (Some(service), Some(state)) = (&unit.service, &mut state) {
                let now = state.borrow_and_update().clone();
                if now.session.as_deref() == Some(session.uid())
                    && let Some((end, detail)) = self.ended_by_program(&now.phase)
                {
                    self.hide(&*unit.hosted).await;
                    self.over(end, detail);
                    return self.after(unit, session, end == SessionEnd::ByProgram).await;
                }
                clients.note(now.clients_revision);
                if clients.is_due(self.shared.deps.clock.instant()) {
                    self.joined(session, service);
                }
            }
            let changed = async {
                match &mut state {
                    Some(state) => drop(state.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = Life::rung(&mut bell) => {}
                () = changed => {}
                () = clients.due() => {}
                () = written.due() => {}
            }
        }
    }

    /// Opens the session: the program is told, and its ports are opened meanwhile.
    async fn open(
        &self,
        unit: &Unit,
        room: &mut Room,
        session: &Served,
        written: &mut Written,
    ) -> Result<Vec<NodeEndpoint>> {
        let shared = &self.shared;
        self.wake(unit, room).await?;
        let clock = &shared.deps.clock;
        let begun = clock.instant();
        let exposing = async {
            if self.app.ports.is_empty() {
                return Ok((Vec::new(), Duration::ZERO));
            }
            let exposed = unit.hosted.expose(shared.address(), shared.config.ports.ports()).await?;
            Ok((exposed, clock.instant() - begun))
        };
        let telling = async {
            self.introduce(unit, written, session.told()).await?;
            if let Some(service) = &unit.service {
                let left = session.open_by.saturating_duration_since(clock.instant());
                service.open(program::open(&session.key, &self.app.key, &session.data), left).await?;
            }
            Ok::<_, Error>(clock.instant() - begun)
        };
        let ((exposed, endpoint), program) = tokio::try_join!(exposing, telling)?;
        shared.deps.metrics.took(begun.saturating_duration_since(session.received), endpoint, program);
        let endpoint = |(port, exposed): (_, Exposed)| NodeEndpoint { port, address: exposed.address };
        Ok(self.app.ports.iter().cloned().zip(exposed).map(endpoint).collect())
    }

    fn opened(&self, session: &Served, endpoints: Vec<NodeEndpoint>) {
        let wall = self.shared.deps.clock.now();
        self.shared.deps.metrics.opened("Open");
        self.shared.change(|book, entries| {
            let Some(of) = book.sessions.get_mut(session.uid()) else { return };
            let report = &mut of.report;
            report.available_micros = Some(wall.millis().saturating_mul(1_000));
            report.endpoints = endpoints;
            // It may have been told to close at this very moment.
            if report.phase == SessionPhase::Starting {
                report.phase = SessionPhase::Open;
            }
            entries.push(Entry::Session(Box::new(report.clone())));
            if let Some(app) = book.apps.get_mut(&self.app.key) {
                app.failures = 0;
            }
            if let Some(seat) = book.seats.get_mut(&self.id) {
                seat.served += 1;
            }
        });
    }

    /// Reports the clients that the program says are in its session.
    fn joined(&self, session: &Served, service: &SessionHandle) {
        let clients: Vec<String> =
            service.clients().into_iter().take(MOST_CLIENTS).map(|client| client.id.to_string()).collect();
        self.shared.change(|book, entries| {
            let Some(of) = book.sessions.get_mut(session.uid()).filter(|of| !of.is_over()) else { return };
            if of.report.clients != clients {
                of.report.clients = clients;
                entries.push(Entry::Session(Box::new(of.report.clone())));
            }
        });
    }

    async fn stopped_opening(&self, unit: &Unit, session: &Served, stop: Stop) -> Next {
        match stop {
            Stop::Close => {
                let next = self.close(unit, session).await;
                // What state its program is in is not known.
                if matches!(next, Next::Stand) { Next::End(Parting::Asked) } else { next }
            }
            Stop::OpenTimeout(uid) => {
                let detail = match unit.health.is_asleep() {
                    true => "there was no room in time to wake the instance that was to have it",
                    false => "its program did not open it in time",
                };
                let detail = self.waits_for.lock().take().unwrap_or_else(|| detail.to_owned());
                self.shared.over(&uid, SessionEnd::OpenTimeout, detail);
                Next::End(Parting::Killed)
            }
            Stop::End => Next::End(Parting::Asked),
        }
    }

    /// Closes the session: its program is asked to, and the instance killed when it does not within the grace.
    async fn close(&self, unit: &Unit, session: &Served) -> Next {
        let mut bell = self.bell.clone();
        let keeps_program = unit.service.is_none() && session.reuse;
        if unit.service.is_none() && !keeps_program {
            unit.hosted.signal(TERMINATE);
        }
        let in_order = loop {
            bell.mark_unchanged();
            let now = self.shared.deps.clock.instant();
            let by = self.session().and_then(|session| session.close_by).unwrap_or(now);
            let closing = async {
                match &unit.service {
                    Some(service) => service.close(by.saturating_duration_since(now)).await == How::Closed,
                    None if keeps_program => true,
                    None => {
                        // Its end is seen elsewhere.
                        tokio::time::sleep_until(by).await;
                        false
                    }
                }
            };
            tokio::select! {
                in_order = closing => break in_order,
                // The grace may be shorter now.
                () = Life::rung(&mut bell) => {}
            }
        };
        if !in_order {
            unit.hosted.kill();
        }
        self.hide(&*unit.hosted).await;
        let detail =
            if in_order { "it was closed" } else { "its program did not close it within the grace and was killed" };
        self.over(SessionEnd::Closed, detail.to_owned());
        self.after(unit, session, in_order).await
    }

    /// What becomes of the instance after its session.
    async fn after(&self, unit: &Unit, session: &Served, in_order: bool) -> Next {
        if !in_order {
            return Next::End(Parting::Killed);
        }
        if !session.reuse {
            return Next::End(Parting::Asked);
        }
        if !self.clear(unit).await {
            return Next::End(Parting::Asked);
        }
        unit.lines.turn(&*unit.hosted, None);
        self.shared.change(|book, entries| {
            let (now, wall) = (self.shared.deps.clock.instant(), self.shared.deps.clock.now());
            book.unbind(self.id, Some(now + LINGER));
            book.enter(self.id, InstanceState::Standby, wall);
            entries.extend(book.report(self.id).map(Entry::Hosted));
        });
        self.shared.settle(&self.app.key);
        Next::Stand
    }
}

/// Waits until the program of an instance without a session is of no use any more.
async fn broken(service: Option<&SessionHandle>) {
    let Some(service) = service else { return std::future::pending().await };
    // The handle is borrowed: its state goes on.
    let _ = service.state().wait_for(|state| state.gone.is_some() || state.found.is_some()).await;
}

fn why_not_open(error: &Error) -> SessionEnd {
    match error.code {
        Code::Timeout => SessionEnd::OpenTimeout,
        Code::FunctionError => SessionEnd::Refused,
        Code::Cancelled => SessionEnd::ByProgram,
        _ => SessionEnd::InstanceLost,
    }
}

/// When the clients of a session are to be reported: at once, but not too often.
#[derive(Default)]
struct Clients {
    reported: Option<(u64, Instant)>,
    revision: u64,
}

impl Clients {
    fn note(&mut self, revision: u64) {
        self.revision = revision;
    }

    fn next(&self) -> Option<Instant> {
        match self.reported {
            None => None,
            Some((revision, _)) if revision == self.revision => None,
            Some((_, at)) => Some(at + CLIENTS_EVERY),
        }
    }

    /// Whether they are to be reported now; then they are.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = match self.reported {
            None => self.revision > 0,
            Some(_) => self.next().is_some_and(|at| at <= now),
        };
        if is_due {
            self.reported = Some((self.revision, now));
        }
        is_due
    }

    async fn due(&self) {
        match self.next() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}
