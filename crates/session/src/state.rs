//! What a worker tells a session server, and what it learns from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_types::Timestamp;

/// A session to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Tells this session from every other one, also from a later one of the same name: the object's `metadata.uid`.
    /// At most 128 bytes.
    pub id: Arc<str>,
    /// Name of the session.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// Its application.
    pub application: String,
    /// Version of the application.
    pub application_version: u32,
    /// `spec.sessionData`, as it is.
    pub data: Bytes,
}

/// How a session stood when the worker that had it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// The program had not said that it is ready, and has this much time left.
    Opening(Duration),
    /// Open.
    Open,
    /// The program had been told to close it, and has this much time left.
    Closing(Duration),
}

/// Where a session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// No session has been opened yet.
    Idle,
    /// The program has been told, or will be when it is attached.
    Opening,
    /// The program says that it is ready.
    Open,
    /// The program has been told to close, or closes by itself.
    Closing,
    /// Over, for good.
    Ended(End),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The program closed it.
    Closed {
        /// What the program says of it; may be empty.
        reason: String,
        /// Exit code of the program behind a wrapper.
        exit_code: Option<i32>,
    },
    /// The program said that it can't open it, or that it broke.
    Failed {
        /// Why, as the program says; may be empty.
        reason: String,
    },
    /// The program was not ready in time; it has been told to close.
    NotReady,
    /// The program did not close it within the grace.
    Late,
    /// The program is gone.
    Gone(Why),
}

/// Why a program counts as gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It answered no ping.
    Silent,
    /// Its stream broke and it did not come back in time.
    Detached,
    /// Its worker saw it end.
    Exited,
    /// It came back and knew nothing of its session: it was started anew.
    Forgot,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Why::Silent => "the program answers no pings",
            Why::Detached => "the program's connection broke and it did not come back",
            Why::Exited => "the program has ended",
            Why::Forgot => "the program was started anew and knows nothing of its session",
        })
    }
}

/// What is known of an instance's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// The current session, or the last one.
    pub session: Option<Arc<str>>,
    /// Where it stands.
    pub phase: Phase,
    /// Whether the program ever said that it is ready.
    pub opened: bool,
    /// How many client sessions there are. More than none, and the session is in use.
    pub clients: usize,
    /// Rises with every change of the set of client sessions.
    pub clients_revision: u64,
    /// A session that the program has, and this server was not told of: [`crate::SessionHandle::resume`] it, or end the instance.
    pub found: Option<Arc<str>>,
    /// Set once the program is gone: the instance is of no use any more. A session that was not over has ended by it.
    pub gone: Option<Why>,
}

/// A client session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its id, as the program says.
    pub id: Arc<str>,
    /// When this server first heard of it.
    pub joined: Timestamp,
}

/// An application's configuration, with its version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) version: u64,
    pub(crate) data: Arc<BTreeMap<String, String>>,
}
