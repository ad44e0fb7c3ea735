//! The program's side of a session: where it stands, and what the server has not been told yet.
//!
//! There is no queue of messages: what is told is the difference between what holds and what the server knows. So nothing
//! grows while the server is away, and a stream that breaks loses nothing.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::lyra::{Configuration, SessionInfo};
use crate::protocol::{Clients, Down, FromProgram, Hello, Number, Phase, SessionState, ToProgram, Up};

/// What the program is to be told.
#[derive(Debug, PartialEq)]
pub(crate) enum Told {
    Open(Arc<SessionInfo>),
    Close { id: Arc<str>, grace: Duration },
    Configuration(Configuration),
}

pub(crate) struct Local {
    sdk: &'static str,
    pub(crate) session: Option<Arc<SessionInfo>>,
    pub(crate) phase: Phase,
    reason: String,
    exit_code: Option<i32>,
    clients: BTreeSet<String>,
    max_clients: usize,
    configuration: Configuration,
    /// At most one of each kind.
    pub(crate) told: VecDeque<Told>,
    // What the server has not been told.
    sequence: u64,
    state_changed: bool,
    joined: BTreeSet<String>,
    left: BTreeSet<String>,
    pong: Option<u64>,
    /// A session that the server wants closed and this program does not have.
    unknown: Option<String>,
    hello_again: bool,
    /// Number of the message that told the state.
    state_told: u64,
    /// Whether the server has said that it has the state.
    pub(crate) state_known: bool,
}

impl Local {
    pub(crate) fn new(sdk: &'static str) -> Local {
        Local {
            sdk,
            session: None,
            phase: Phase::None,
            reason: String::new(),
            exit_code: None,
            clients: BTreeSet::new(),
            max_clients: 10_000,
            configuration: Configuration::default(),
            told: VecDeque::new(),
            sequence: 0,
            state_changed: false,
            joined: BTreeSet::new(),
            left: BTreeSet::new(),
            pong: None,
            unknown: None,
            hello_again: false,
            state_told: 0,
            state_known: true,
        }
    }

    fn id(&self) -> &str {
        self.session.as_ref().map(|session| &*session.id).unwrap_or_default()
    }

    fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Initializing | Phase::Open | Phase::Closing)
    }

    /// Whether `session` is the current one and not over.
    pub(crate) fn has(&self, session: &SessionInfo) -> bool {
        self.is_active() && self.id() == &*session.id
    }

    // What the program says.

    /// Goes on to `phase`, if that is further than where it stands.
    pub(crate) fn advance(&mut self, phase: Phase, reason: String, exit_code: Option<i32>) {
        let place = |phase| match phase {
            Phase::None => 0,
            Phase::Initializing => 1,
            Phase::Open => 2,
            Phase::Closing => 3,
            Phase::Closed | Phase::Failed => 4,
        };
        if place(phase) <= place(self.phase) {
            return;
        }
        (self.phase, self.reason, self.exit_code) = (phase, reason, exit_code);
        (self.state_changed, self.state_known) = (true, false);
        if !self.is_active() {
            self.clients.clear();
            self.joined.clear();
            self.left.clear();
        }
    }

    /// `false` when there are as many clients as there may be.
    pub(crate) fn join(&mut self, id: &str) -> bool {
        if self.clients.contains(id) {
            return true;
        }
        if self.clients.len() >= self.max_clients {
            return false;
        }
        self.clients.insert(id.to_owned());
        if !self.left.remove(id) {
            self.joined.insert(id.to_owned());
        }
        true
    }

    pub(crate) fn leave(&mut self, id: &str) {
        if self.clients.remove(id) && !self.joined.remove(id) {
            self.left.insert(id.to_owned());
        }
    }

    // What the server says.

    /// A new stream: everything is to be said again.
    pub(crate) fn hello(&mut self) -> FromProgram {
        self.sequence = 0;
        self.pong = None;
        self.unknown = None;
        self.say_hello()
    }

    fn say_hello(&mut self) -> FromProgram {
        self.hello_again = false;
        self.state_changed = false;
        self.joined.clear();
        self.left.clear();
        let hello = Hello {
            sdk: self.sdk.to_owned(),
            state: Some(self.state()),
            clients: self.clients.iter().cloned().collect(),
            configuration: self.configuration.version,
        };
        let message = self.message(Up::Hello(hello));
        self.state_told = message.sequence;
        message
    }

    fn state(&self) -> SessionState {
        SessionState {
            session: self.id().to_owned(),
            phase: self.phase.into(),
            reason: self.reason.clone(),
            exit_code: self.exit_code,
        }
    }

    fn message(&mut self, body: Up) -> FromProgram {
        self.sequence += 1;
        FromProgram { sequence: self.sequence, body: Some(body) }
    }

    pub(crate) fn hear(&mut self, message: ToProgram) {
        match message.body {
            Some(Down::Welcome(welcome)) => {
                self.max_clients = usize::try_from(welcome.max_clients).unwrap_or(usize::MAX);
                self.state_known = !self.state_changed;
            }
            Some(Down::Ack(ack)) => self.state_known |= ack.number >= self.state_told && !self.state_changed,
            Some(Down::Resync(_)) => self.hello_again = true,
            Some(Down::Ping(ping)) => self.pong = Some(ping.number),
            Some(Down::Configuration(configuration)) => self.configure(configuration.into()),
            Some(Down::Open(open)) => {
                let info = SessionInfo::from(open);
                if self.is_active() {
                    // The one that is being opened, again; the server opens no second one.
                    return;
                }
                self.configuration = info.configuration.clone();
                self.told.retain(|told| !matches!(told, Told::Configuration(_)));
                let info = Arc::new(info);
                self.session = Some(Arc::clone(&info));
                self.phase = Phase::None;
                self.advance(Phase::Initializing, String::new(), None);
                self.told.push_back(Told::Open(info));
            }
            Some(Down::Close(close)) => self.close(&close.session, Duration::from_millis(close.grace_ms)),
            // A newer server may say more.
            None => {}
        }
    }

    fn configure(&mut self, configuration: Configuration) {
        if configuration.version == self.configuration.version {
            return;
        }
        self.configuration = configuration.clone();
        self.told.retain(|told| !matches!(told, Told::Configuration(_)));
        self.told.push_back(Told::Configuration(configuration));
    }

    fn close(&mut self, id: &str, grace: Duration) {
        if self.id() != id {
            self.unknown = Some(id.to_owned());
            return;
        }
        if !self.is_active() {
            self.state_changed = true;
            return;
        }
        self.advance(Phase::Closing, String::new(), None);
        let id = Arc::from(id);
        self.told.retain(|told| !matches!(told, Told::Close { .. }));
        self.told.push_back(Told::Close { id, grace });
    }

    /// What is to be said now, in order.
    pub(crate) fn unsaid(&mut self) -> Vec<FromProgram> {
        let mut messages = Vec::new();
        if self.hello_again {
            messages.push(self.say_hello());
        }
        if let Some(number) = self.pong.take() {
            messages.push(self.message(Up::Pong(Number { number })));
        }
        if std::mem::take(&mut self.state_changed) {
            let message = self.message(Up::State(self.state()));
            self.state_told = message.sequence;
            messages.push(message);
        }
        if !self.joined.is_empty() || !self.left.is_empty() {
            let clients = Clients {
                session: self.id().to_owned(),
                joined: std::mem::take(&mut self.joined).into_iter().collect(),
                left: std::mem::take(&mut self.left).into_iter().collect(),
            };
            messages.push(self.message(Up::Clients(clients)));
        }
        if let Some(session) = self.unknown.take() {
            let state = SessionState { session, phase: Phase::Closed.into(), ..SessionState::default() };
            messages.push(self.message(Up::State(state)));
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{OpenSession, Resync, SessionName};

    fn open(local: &mut Local, id: &str) {
        let session = SessionName { id: id.to_owned(), ..SessionName::default() };
        let open = OpenSession { session: Some(session), ..OpenSession::default() };
        local.hear(ToProgram { sequence: 1, body: Some(Down::Open(open)) });
    }

    fn unsaid(local: &mut Local) -> Vec<Up> {
        local.unsaid().into_iter().filter_map(|message| message.body).collect()
    }

    #[test]
    fn only_the_difference_is_told() {
        let mut local = Local::new("test");
        local.hello();
        open(&mut local, "a");
        local.advance(Phase::Open, String::new(), None);
        for id in ["x", "y", "z"] {
            assert!(local.join(id));
        }
        local.leave("x");
        let [Up::State(state), Up::Clients(clients)] = &unsaid(&mut local)[..] else { panic!("two messages") };
        assert_eq!(state.phase(), Phase::Open);
        assert_eq!((clients.joined.as_slice(), clients.left.len()), (&["y".to_owned(), "z".to_owned()][..], 0));
        local.leave("y");
        local.join("y");
        assert!(unsaid(&mut local).is_empty());
    }

    #[test]
    fn a_new_stream_is_told_everything() {
        let mut local = Local::new("test");
        open(&mut local, "a");
        local.advance(Phase::Open, String::new(), None);
        local.join("x");
        let Some(Up::Hello(hello)) = local.hello().body else { panic!("a hello") };
        assert_eq!(hello.state.expect("a state").phase(), Phase::Open);
        assert_eq!(hello.clients, ["x"]);
        assert!(unsaid(&mut local).is_empty());
        local.join("y");
        local.hear(ToProgram { sequence: 2, body: Some(Down::Resync(Resync {})) });
        assert!(matches!(&unsaid(&mut local)[..], [Up::Hello(hello)] if hello.clients.len() == 2));
    }

    #[test]
    fn nothing_is_told_twice_to_the_program() {
        let mut local = Local::new("test");
        open(&mut local, "a");
        open(&mut local, "a");
        assert_eq!(local.told.len(), 1);
        for grace in [20, 10] {
            local.close("a", Duration::from_secs(grace));
        }
        assert_eq!(local.told.len(), 2);
        assert_eq!(local.told[1], Told::Close { id: "a".into(), grace: Duration::from_secs(10) });
        local.advance(Phase::Closed, String::new(), None);
        local.advance(Phase::Open, String::new(), None);
        assert_eq!(local.phase, Phase::Closed);
        open(&mut local, "b");
        assert_eq!(local.phase, Phase::Initializing);
    }

    #[test]
    fn a_session_that_is_not_there_is_closed() {
        let mut local = Local::new("test");
        local.close("z", Duration::ZERO);
        assert!(
            matches!(&unsaid(&mut local)[..], [Up::State(state)] if state.session == "z" && state.phase() == Phase::Closed)
        );
    }
}
