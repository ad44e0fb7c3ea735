//! What happens to a session, as a state machine without I/O and clock.
//!
//! It compares what the worker wants (the session, its phase) with what the program last said (its view) and draws the
//! conclusions in one place, [`Machine::reconcile`]: after a message, after a new stream, after a restart of the worker.
//! What must hold: an ended session never changes; at most one stream counts, and a message of another one does nothing;
//! a session in a phase that waits has a deadline.

mod session;
mod stream;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lyra_types::Timestamp;

pub(crate) use stream::Stream;
pub(crate) use view::{View, valid_id};

use session::Session;

use crate::protocol::to_program::Body;
use crate::protocol::{Ack, CloseSession, Phase as Told, Ping, Resync, ToProgram, Welcome};
use crate::settings::Settings;
use crate::state::{Client, Configuration, End, Open, Phase, Resumed, SessionState, Why};

/// A point in time, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    /// Since the server was started.
    pub(crate) since_start: Duration,
    pub(crate) wall: Timestamp,
}

/// What a program says on its stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// Its whole state.
    Hello(View),
    State(view::State),
    Clients {
        session: String,
        joined: Vec<String>,
        left: Vec<String>,
    },
    Pong(u64),
}

/// Why something that a program wants is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("this stream is not the current one any more")]
    Stale,
    #[error("messages before this one are missing: say hello again, with the whole state")]
    Gap,
    #[error("more client sessions than an instance may have")]
    TooManyClients,
    #[error("an id is empty or longer than 128 bytes")]
    BadId,
    #[error("this instance has been given up")]
    GivenUp,
}

/// Why a worker's wish is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Conflict {
    #[error("the instance has been given up: {0}")]
    Gone(Why),
    #[error("the instance already has the session {0}")]
    Busy(Arc<str>),
}

pub(crate) struct Machine {
    settings: Arc<Settings>,
    configuration: Configuration,
    stream: Option<Stream>,
    streams: u64,
    /// When the last stream broke, if none has come since.
    detached: Option<Duration>,
    hibernated: bool,
    session: Option<Session>,
    view: View,
    clients_revision: u64,
    gone: Option<Why>,
    out: Vec<ToProgram>,
}

impl Machine {
    pub(crate) fn new(settings: Arc<Settings>) -> Machine {
        Machine {
            settings,
            configuration: Configuration::default(),
            stream: None,
            streams: 0,
            detached: None,
            hibernated: false,
            session: None,
            view: View::default(),
            clients_revision: 0,
            gone: None,
            out: Vec::new(),
        }
    }

    /// Messages for the current stream, in order.
    pub(crate) fn take_out(&mut self) -> Vec<ToProgram> {
        std::mem::take(&mut self.out)
    }

    /// The current stream.
    pub(crate) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    pub(crate) fn state(&self) -> SessionState {
        let session = self.session.as_ref();
        SessionState {
            session: session.map(|session| Arc::clone(&session.open.id)),
            phase: session.map_or(Phase::Idle, |session| session.phase.clone()),
            opened: session.is_some_and(|session| session.opened),
            clients: self.view.clients.len(),
            clients_revision: self.clients_revision,
            found: self.found().cloned(),
            gone: self.gone,
        }
    }

    pub(crate) fn clients(&self) -> Vec<Client> {
        self.view.clients.iter().map(|(id, joined)| Client { id: Arc::clone(id), joined: *joined }).collect()
    }

    fn found(&self) -> Option<&Arc<str>> {
        let id = self.view.session.as_ref().filter(|_| self.view.is_active())?;
        let known = self.session.as_ref().is_some_and(|session| session.open.id == *id);
        (!known).then_some(id)
    }

    // What the worker wants.

    pub(crate) fn open(&mut self, open: Open, limit: Duration, at: At) -> Result<(), Conflict> {
        if self.session.as_ref().is_some_and(|session| session.open.id == open.id) {
            return Ok(());
        }
        self.check_free()?;
        self.forget_clients();
        self.session = Some(Session::new(open, Phase::Opening, Some(at.since_start.saturating_add(limit))));
        if let Some(stream) = &mut self.stream {
            stream.told_to_open = false;
            stream.told_to_close = false;
        }
        self.reconcile(at);
        Ok(())
    }

    pub(crate) fn resume(&mut self, open: Open, how: Resumed, at: At) -> Result<(), Conflict> {
        if self.session.as_ref().is_some_and(|session| session.open.id == open.id) {
            return Ok(());
        }
        if let Some(why) = self.gone {
            return Err(Conflict::Gone(why));
        }
        if let Some(busy) = self.found().filter(|found| **found != open.id).or_else(|| self.active_id()) {
            return Err(Conflict::Busy(Arc::clone(busy)));
        }
        let now = at.since_start;
        let (phase, left) = match how {
            Resumed::Opening(left) => (Phase::Opening, Some(left)),
            Resumed::Open => (Phase::Open, None),
            Resumed::Closing(left) => (Phase::Closing, Some(left)),
        };
        let phase_waits_for_program = phase == Phase::Opening;
        let (opened, told_to_close) = (phase != Phase::Opening, phase == Phase::Closing);
        let session = Session::new(open, phase, left.map(|left| now.saturating_add(left)));
        self.session = Some(Session { opened, told_to_close, may_be_known: true, ..session });
        match self.stream {
            // The program said hello before.
            Some(_) => self.follow_hello(true, at),
            // Until an open is over, its own deadline bounds the wait for a program that may never have come.
            None if phase_waits_for_program => {}
            None => self.detached = Some(now),
        }
        Ok(())
    }

    /// Closes the session, if it is not over. A second call can only shorten the grace.
    pub(crate) fn close(&mut self, grace: Duration, at: At) {
        let deadline = at.since_start.saturating_add(grace);
        let Some(session) = &mut self.session else { return };
        match session.phase {
            Phase::Opening if !session.may_be_known => {
                let reason = "it was closed before the program heard of it".to_owned();
                return session.end(End::Closed { reason, exit_code: None });
            }
            Phase::Opening | Phase::Open => session.deadline = Some(deadline),
            Phase::Closing if !session.told_to_close => session.deadline = Some(deadline),
            Phase::Closing if session.deadline.is_none_or(|old| deadline < old) => session.deadline = Some(deadline),
            Phase::Closing | Phase::Ended(_) | Phase::Idle => return,
        }
        session.phase = Phase::Closing;
        session.told_to_close = true;
        self.say_close(at);
    }

    pub(crate) fn configure(&mut self, version: u64, data: Arc<BTreeMap<String, String>>) {
        if self.configuration.version == version && self.configuration.data == data {
            return;
        }
        self.configuration = Configuration { version, data };
        self.say(Body::Configuration(self.configuration.message()));
    }

    /// While an instance is hibernated its program can't answer, and is not asked.
    pub(crate) fn hibernate(&mut self, hibernated: bool, at: At) {
        if self.hibernated == hibernated {
            return;
        }
        self.hibernated = hibernated;
        if let Some(stream) = &mut self.stream {
            stream.restart_pings(at.since_start.saturating_add(self.settings.ping_interval));
        }
        if self.detached.is_some() {
            self.detached = Some(at.since_start);
        }
    }

    /// The program has ended, as its worker has seen.
    pub(crate) fn exited(&mut self) {
        if self.gone.is_none() {
            self.end_as_gone(Why::Exited);
        }
    }

    /// Asks for a sign of life now. `None` when no program is attached.
    pub(crate) fn ping(&mut self) -> Option<u64> {
        let number = self.stream.as_mut()?.send_ping();
        self.say(Body::Ping(Ping { number }));
        Some(number)
    }

    // What happens to streams.

    /// A program comes, with its whole state in a message of this number, on a stream that replaces any other one.
    pub(crate) fn attach(&mut self, view: View, sequence: u64, at: At) -> Result<u64, Refusal> {
        if self.gone.is_some() {
            return Err(Refusal::GivenUp);
        }
        view.check(self.settings.max_clients)?;
        self.out.clear();
        self.streams += 1;
        self.stream =
            Some(Stream::new(self.streams, sequence, at.since_start.saturating_add(self.settings.ping_interval)));
        self.detached = None;
        self.say(Body::Welcome(Welcome {
            stream: self.streams,
            ping_interval_ms: u64::try_from(self.settings.ping_interval.as_millis()).unwrap_or(u64::MAX),
            max_clients: u32::try_from(self.settings.max_clients).unwrap_or(u32::MAX),
        }));
        self.take_hello(view, true, at);
        Ok(self.streams)
    }

    /// The stream broke.
    pub(crate) fn detach(&mut self, number: u64, at: At) {
        if self.stream.as_ref().is_some_and(|stream| stream.number == number) {
            self.stream = None;
            self.out.clear();
            self.detached = Some(at.since_start);
        }
    }

    /// Takes a message. `Ok(true)` when it said something, `Ok(false)` when it was known or comes too late to matter.
    pub(crate) fn hear(&mut self, number: u64, sequence: u64, said: Said, at: At) -> Result<bool, Refusal> {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.number == number) else {
            return Err(Refusal::Stale);
        };
        stream.is_heard();
        let is_hello = matches!(said, Said::Hello(_));
        let wants_ack = sequence > 0 && matches!(said, Said::Hello(_) | Said::State(_));
        match stream.take(sequence, is_hello) {
            stream::Taken::New => {}
            stream::Taken::Known => {
                if wants_ack {
                    self.say(Body::Ack(Ack { sequence }));
                }
                return Ok(false);
            }
            stream::Taken::AfterGap { first } => {
                if first {
                    self.say(Body::Resync(Resync {}));
                }
                return Err(Refusal::Gap);
            }
        }
        if wants_ack {
            self.say(Body::Ack(Ack { sequence }));
        }
        let Some(stream) = &mut self.stream else { return Err(Refusal::Stale) };
        match said {
            Said::Hello(view) => {
                view.check(self.settings.max_clients)?;
                self.take_hello(view, false, at);
            }
            Said::Pong(pong) => stream.answered(pong),
            Said::Clients { session, joined, left } => return self.take_clients(&session, joined, &left, at),
            Said::State(state) => {
                let known = self.session.as_ref().map(|session| &session.open.id);
                // Of a session before the current one, or not allowed from here: too late to matter.
                if !self.view.take_state(state, known, self.session.as_ref().map(|session| &session.phase)) {
                    return Ok(false);
                }
                self.reconcile(at);
                if !self.view.is_active() {
                    self.forget_clients();
                }
            }
        }
        Ok(true)
    }

    fn take_hello(&mut self, view: View, fresh: bool, at: At) {
        let configuration = view.configuration;
        self.view.replace(view, at.wall);
        self.clients_revision += 1;
        if configuration != self.configuration.version {
            self.say(Body::Configuration(self.configuration.message()));
        }
        if let Some(stream) = &mut self.stream {
            stream.told_to_open = false;
            stream.told_to_close = false;
        }
        self.follow_hello(fresh, at);
    }

    /// Draws the conclusions of the whole state of a program. Only on a `fresh` stream, nothing that it was told can still
    /// be on the way to it.
    fn follow_hello(&mut self, fresh: bool, at: At) {
        self.follow_hello_of_session(fresh, at);
        if !self.view.is_active() || self.session.as_ref().is_some_and(Session::is_over) && self.found().is_none() {
            self.forget_clients();
        }
    }

    fn follow_hello_of_session(&mut self, fresh: bool, at: At) {
        let Some(session) = &mut self.session else { return };
        let is_same = self.view.session.as_ref() == Some(&session.open.id);
        let begins = matches!(self.view.phase, Told::None | Told::Initializing);
        match session.phase {
            Phase::Open if !is_same || begins => return self.end_as_gone(Why::Forgot),
            Phase::Closing if !is_same && fresh => {
                let reason = "the program has it no more".to_owned();
                session.end(End::Closed { reason, exit_code: None });
                session.may_be_known = false;
            }
            Phase::Ended(_) if !is_same && fresh => session.may_be_known = false,
            Phase::Closing if session.told_to_close && self.view.is_active() => self.say_close(at),
            _ => {}
        }
        self.reconcile(at);
    }

    fn take_clients(&mut self, session: &str, joined: Vec<String>, left: &[String], at: At) -> Result<bool, Refusal> {
        let current = self.session.as_ref().map(|session| &session.open.id).or(self.view.session.as_ref());
        let over = self.session.as_ref().is_some_and(Session::is_over);
        if over || !current.is_some_and(|current| session.is_empty() || **current == *session) {
            return Ok(false);
        }
        if joined.iter().any(|id| !valid_id(id)) {
            return Err(Refusal::BadId);
        }
        let changed = self.view.change_clients(joined, left, self.settings.max_clients, at.wall)?;
        self.clients_revision += u64::from(changed);
        Ok(changed)
    }

    // Time.

    /// When [`Machine::tick`] must be called next.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        if self.gone.is_some() {
            return None;
        }
        let of_session = self.session.as_ref().and_then(|session| session.deadline);
        let of_stream = self.stream.as_ref().filter(|_| !self.hibernated).map(|stream| stream.next_ping);
        [of_session, of_stream, self.reattach_deadline()].into_iter().flatten().min()
    }

    fn reattach_deadline(&self) -> Option<Duration> {
        self.detached.filter(|_| !self.hibernated).map(|since| since.saturating_add(self.settings.reattach))
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, at: At) {
        let now = at.since_start;
        if self.gone.is_some() {
            return;
        }
        if self.reattach_deadline().is_some_and(|deadline| deadline <= now) {
            return self.end_as_gone(Why::Detached);
        }
        if let Some(stream) = self.stream.as_mut().filter(|stream| !self.hibernated && stream.next_ping <= now) {
            if stream.count_miss() >= self.settings.ping_misses {
                return self.end_as_gone(Why::Silent);
            }
            let number = stream.send_ping();
            stream.next_ping = now.saturating_add(self.settings.ping_interval);
            self.say(Body::Ping(Ping { number }));
        }
        let Some(session) = self.session.as_mut().filter(|session| session.deadline.is_some_and(|due| due <= now))
        else {
            return;
        };
        match session.phase {
            Phase::Opening => {
                session.end(End::NotReady);
                self.forget_clients();
                self.say_close(at);
            }
            Phase::Closing => {
                session.end(End::Late);
                self.forget_clients();
            }
            _ => session.deadline = None,
        }
    }

    // Conclusions.

    /// Makes the session follow what the program says, and says to the program what it does not know yet.
    fn reconcile(&mut self, at: At) {
        let (step, Some(session)) = (self.next_step(), &mut self.session) else { return };
        match step {
            Step::None => {}
            Step::End(end) => {
                session.end(end);
                self.forget_clients();
            }
            Step::Opened => {
                session.phase = Phase::Open;
                session.opened = true;
                session.deadline = None;
            }
            Step::Closing => {
                session.phase = Phase::Closing;
                session.deadline = Some(at.since_start.saturating_add(self.settings.closing));
            }
            Step::TellOpen => {
                session.may_be_known = true;
                let message = session.open_message(at.since_start, &self.configuration);
                if let Some(stream) = &mut self.stream {
                    stream.told_to_open = true;
                }
                self.say(Body::Open(message));
            }
            Step::TellClose => self.say_close(at),
            Step::TellCloseOther => {
                let session = self.view.session.as_deref().unwrap_or_default().to_owned();
                self.say_close_of(session, 0);
            }
        }
    }

    fn next_step(&self) -> Step {
        let Some(session) = &self.session else { return Step::None };
        let is_same = self.view.session.as_ref() == Some(&session.open.id);
        let told = |flag: fn(&Stream) -> bool| self.stream.as_ref().is_none_or(flag);
        match (&session.phase, self.view.phase) {
            (Phase::Ended(_), _) if is_same && self.view.is_active() && !told(|stream| stream.told_to_close) => {
                Step::TellClose
            }
            (Phase::Ended(_) | Phase::Idle, _) => Step::None,
            (_, Told::Closed) if is_same => {
                Step::End(End::Closed { reason: self.view.reason.clone(), exit_code: self.view.exit_code })
            }
            (_, Told::Failed) if is_same => Step::End(End::Failed { reason: self.view.reason.clone() }),
            (Phase::Opening, Told::Open) if is_same => Step::Opened,
            (Phase::Opening | Phase::Open, Told::Closing) if is_same => Step::Closing,
            // It has another one from before: that one first.
            (Phase::Opening, _) if !is_same && self.view.is_active() => {
                if told(|stream| stream.told_to_close) {
                    Step::None
                } else {
                    Step::TellCloseOther
                }
            }
            (Phase::Opening, _) if !is_same && !told(|stream| stream.told_to_open) => Step::TellOpen,
            _ => Step::None,
        }
    }

    fn active_id(&self) -> Option<&Arc<str>> {
        self.session.as_ref().filter(|session| !session.is_over()).map(|session| &session.open.id)
    }

    /// A session that is over, and the program may not know that it is.
    fn lingering(&self) -> Option<&Arc<str>> {
        let session = self.session.as_ref().filter(|session| session.is_over() && session.may_be_known)?;
        let is_same = self.view.session.as_ref() == Some(&session.open.id);
        let knows = is_same && matches!(self.view.phase, Told::Closed | Told::Failed);
        (!knows).then_some(&session.open.id)
    }

    /// Whether another session can be opened.
    fn check_free(&self) -> Result<(), Conflict> {
        if let Some(why) = self.gone {
            return Err(Conflict::Gone(why));
        }
        match self.active_id().or_else(|| self.found()).or_else(|| self.lingering()) {
            Some(busy) => Err(Conflict::Busy(Arc::clone(busy))),
            None => Ok(()),
        }
    }

    fn end_as_gone(&mut self, why: Why) {
        self.gone = Some(why);
        self.stream = None;
        self.out.clear();
        self.detached = None;
        if let Some(session) = self.session.as_mut().filter(|session| !session.is_over()) {
            session.end(End::Gone(why));
        }
        self.forget_clients();
    }

    fn forget_clients(&mut self) {
        if !self.view.clients.is_empty() {
            self.view.clients.clear();
            self.clients_revision += 1;
        }
    }

    fn say(&mut self, body: Body) {
        if let Some(stream) = &mut self.stream {
            self.out.push(ToProgram { sequence: stream.next_sequence(), body: Some(body) });
        }
    }

    fn say_close(&mut self, at: At) {
        let Some(session) = &self.session else { return };
        self.say_close_of(session.open.id.to_string(), session.left_ms(at.since_start));
    }

    fn say_close_of(&mut self, session: String, grace_ms: u64) {
        if let Some(stream) = &mut self.stream {
            stream.told_to_close = true;
        }
        self.say(Body::Close(CloseSession { session, grace_ms }));
    }
}

/// A conclusion.
enum Step {
    None,
    End(End),
    Opened,
    Closing,
    TellOpen,
    TellClose,
    TellCloseOther,
}
