//! What a program sees: events that it takes, and the session that it speaks of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::local::{Local, Told};
use crate::protocol::{self, Phase};
use crate::{ADDRESS, Address, Error, connection};

/// How long [`Session::closed`] waits for the server to know.
const LAST_WORD: Duration = Duration::from_secs(5);
const SDK: &str = concat!("rust/", env!("CARGO_PKG_VERSION"));

/// What a program is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// A session is to be opened. Say [`Session::ready`], or [`Session::fail`], before [`Session::timeout`] has passed.
    Open(Session),
    /// The session is to be closed. Say [`Session::closed`] within the grace; after that the program is killed.
    Close(Close),
    /// The application's configuration has changed.
    Configuration(Configuration),
}

/// A session that is to be closed. May come again, with less time.
#[derive(Debug, Clone)]
pub struct Close {
    /// The session.
    pub session: Session,
    /// How much time there is.
    pub grace: Duration,
}

/// An application's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Rises with each change.
    pub version: u64,
    /// `spec.configData`.
    pub data: BTreeMap<String, String>,
}

impl From<protocol::Configuration> for Configuration {
    fn from(message: protocol::Configuration) -> Configuration {
        Configuration { version: message.version, data: message.data }
    }
}

/// What a program is told of a session.
#[derive(Debug, PartialEq)]
pub(crate) struct SessionInfo {
    pub(crate) id: Arc<str>,
    name: String,
    tenant: String,
    application: String,
    application_version: u32,
    data: Bytes,
    timeout: Duration,
    pub(crate) configuration: Configuration,
}

impl From<protocol::OpenSession> for SessionInfo {
    fn from(open: protocol::OpenSession) -> SessionInfo {
        let session = open.session.unwrap_or_default();
        SessionInfo {
            id: session.id.into(),
            name: session.name,
            tenant: session.tenant,
            application: session.application,
            application_version: session.application_version,
            data: open.data,
            timeout: Duration::from_millis(open.timeout_ms),
            configuration: open.configuration.unwrap_or_default().into(),
        }
    }
}

pub(crate) struct Shared {
    pub(crate) local: Mutex<Local>,
    /// There is something to be said.
    pub(crate) changed: Arc<Notify>,
    /// The server said something.
    pub(crate) heard: Notify,
    pub(crate) over: CancellationToken,
}

impl Shared {
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    fn say(&self, work: impl FnOnce(&mut Local)) {
        work(&mut self.local.lock());
        self.changed.notify_one();
    }
}

/// This program, as an instance of Lyra. Dropping it ends the connection.
pub struct Lyra {
    shared: Arc<Shared>,
}

impl Drop for Lyra {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl std::fmt::Debug for Lyra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lyra").finish_non_exhaustive()
    }
}

impl Lyra {
    /// Connects to the session server of this instance, in the background: a server that is not there yet is waited for. Call inside
    /// of a tokio runtime.
    ///
    /// # Errors
    /// When `LYRA_SESSION_ADDRESS` is not set, or is no address.
    pub fn connect() -> Result<Lyra, Error> {
        let address = std::env::var(ADDRESS).map_err(|_| Error::NotAnInstance(ADDRESS))?;
        Ok(Lyra::at(address.parse()?))
    }

    /// Connects to a session server at `address`.
    pub fn at(address: Address) -> Lyra {
        let shared = Arc::new(Shared {
            local: Mutex::new(Local::new(SDK)),
            changed: Arc::new(Notify::new()),
            heard: Notify::new(),
            over: CancellationToken::new(),
        });
        tokio::spawn(connection::run(address, Arc::downgrade(&shared)));
        Lyra { shared }
    }

    /// What comes next. `None` when the server has given this instance up: then it is about to be ended. May be dropped and called
    /// again without losing anything.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let heard = self.shared.heard.notified();
            tokio::pin!(heard);
            heard.as_mut().enable();
            let told = self.shared.local.lock().told.pop_front();
            if let Some(event) = told.and_then(|told| self.event(told)) {
                return Some(event);
            }
            tokio::select! {
                biased;
                () = self.shared.over.cancelled() => return None,
                () = heard => {}
            }
        }
    }

    fn event(&self, told: Told) -> Option<Event> {
        let session = |info| Session { info, shared: Arc::clone(&self.shared) };
        Some(match told {
            Told::Open(info) => Event::Open(session(info)),
            Told::Configuration(configuration) => Event::Configuration(configuration),
            Told::Close { id, grace } => {
                let info = self.shared.local.lock().session.clone().filter(|info| info.id == id)?;
                Event::Close(Close { session: session(info), grace })
            }
        })
    }
}

/// As many client sessions are there as an instance may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many client sessions are there as an instance may have")]
pub struct TooManyClients;

/// A session. Clones are the same one. What is said of a session that is over does nothing.
#[derive(Clone)]
pub struct Session {
    info: Arc<SessionInfo>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.info.id).field("name", &self.info.name).finish_non_exhaustive()
    }
}

impl Session {
    /// Tells it from every other session, also from a later one of the same name.
    pub fn id(&self) -> &str {
        &self.info.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// Its tenant.
    pub fn tenant(&self) -> &str {
        &self.info.tenant
    }

    /// Its application.
    pub fn application(&self) -> &str {
        &self.info.application
    }

    /// Version of its application.
    pub fn application_version(&self) -> u32 {
        self.info.application_version
    }

    /// `spec.sessionData`, as it is.
    pub fn data(&self) -> &Bytes {
        &self.info.data
    }

    /// The application's configuration when the session was opened.
    pub fn configuration(&self) -> &Configuration {
        &self.info.configuration
    }

    /// How long opening it may take, from when the program was told.
    pub fn timeout(&self) -> Duration {
        self.info.timeout
    }

    /// Whether it is not over.
    pub fn is_active(&self) -> bool {
        self.shared.local.lock().has(&self.info)
    }

    fn say(&self, work: impl FnOnce(&mut Local)) {
        self.shared.say(|local| {
            if local.has(&self.info) {
                work(local);
            }
        });
    }

    /// Says that clients can come.
    pub fn ready(&self) {
        self.say(|local| local.advance(Phase::Open, String::new(), None));
    }

    /// Says that the session can't be opened, or broke, and why: its user sees that. It is over then.
    pub fn fail(&self, reason: impl Into<String>) {
        self.say(|local| local.advance(Phase::Failed, reason.into(), None));
    }

    /// Says that a client is there; its id is the program's choice, 1 to 128 bytes. A session with clients is in use.
    ///
    /// # Errors
    /// When there are as many as an instance may have; turn the client away.
    pub fn client_joined(&self, id: &str) -> Result<(), TooManyClients> {
        let mut joined = true;
        self.say(|local| joined = local.join(id));
        if joined { Ok(()) } else { Err(TooManyClients) }
    }

    /// Says that a client is gone.
    pub fn client_left(&self, id: &str) {
        self.say(|local| local.leave(id));
    }

    /// Says that the program is about to close the session by itself.
    pub fn closing(&self) {
        self.say(|local| local.advance(Phase::Closing, String::new(), None));
    }

    /// Says that the session is over, and waits until the server knows, 5 seconds at most: the program may exit then.
    pub async fn closed(&self) {
        self.closed_because(String::new(), None).await;
    }

    /// As [`Session::closed`], with a reason, and the exit code of a program that served it.
    pub async fn closed_because(&self, reason: impl Into<String>, exit_code: Option<i32>) {
        let reason = reason.into();
        self.say(|local| local.advance(Phase::Closed, reason, exit_code));
        let known = async {
            loop {
                let heard = self.shared.heard.notified();
                tokio::pin!(heard);
                heard.as_mut().enable();
                if self.shared.local.lock().state_known {
                    return;
                }
                heard.await;
            }
        };
        // Whoever does not know by then finds out by the end of the connection.
        let _ = timeout(LAST_WORD, known).await;
    }
}
