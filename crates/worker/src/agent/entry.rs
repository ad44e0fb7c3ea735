//! What changes in a worker's memory of itself: one entry for each thing that is stored, and mostly told as well.

use std::sync::Arc;

use lyra_types::InstanceId;
use lyra_types::function::VersionKey;
use lyra_types::{FunctionVersion, Timestamp};
use lyra_wire::registry::{Change, Hold, InstanceReport};
use lyra_wire::sessions::{AppKey, AppVersion, HostedReport, SessionPhase, SessionReport, Stand};
use lyra_wire::worker::InstanceState;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A version that the worker was told to hold up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) version: Arc<FunctionVersion>,
    pub(crate) instances: u32,
    pub(crate) schedule: bool,
}

impl Held {
    pub(super) fn report(&self) -> Hold {
        Hold { version: self.version.key(), instances: self.instances, schedule: self.schedule }
    }
}

/// What a worker must know of a session to go on with it after a restart, beside what is reported of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// What the program is given.
    pub(crate) data: String,
    /// Until when it must have become available.
    pub(crate) open_by: Timestamp,
    /// Time that the program is given to end where the worker closes the session by itself.
    pub(crate) close_grace: Duration,
    /// Whether the instance may serve another session afterwards.
    pub(crate) reuse: bool,
}

/// A session as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SavedSession {
    pub(crate) report: SessionReport,
    pub(crate) terms: Terms,
    /// Until when its program has to end it, once it was told to close.
    pub(crate) close_by: Option<Timestamp>,
}

/// One thing that is stored.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// An instance that is kept between calls; gone where it says [`InstanceState::Terminated`].
    Instance(InstanceReport),
    /// A version to be held up.
    Hold(Held),
    /// One that is held up no more.
    Release(VersionKey),
    /// Standing instances to be held of this version of an application.
    Stand(Arc<AppVersion>, u32),
    /// The configuration of this version is another one now.
    Configured(Arc<AppVersion>),
    /// Nothing is left of this version of an application.
    Unknown(AppKey),
    /// An instance of an application; gone where it says [`InstanceState::Terminated`].
    Hosted(HostedReport),
    /// A session is accepted.
    Accepted(Box<(SessionReport, Terms)>),
    /// A session has changed.
    Session(Box<SessionReport>),
    /// A session is to be closed by then.
    Close(String, Timestamp),
    /// A session that has ended is forgotten.
    Forget(String),
}

impl Entry {
    /// What is told of it.
    pub(super) fn change(&self) -> Option<Change> {
        Some(match self {
            Entry::Instance(of) => Change::Instance(of.clone()),
            Entry::Hold(held) => Change::Hold(held.report()),
            Entry::Release(version) => Change::Hold(Hold { version: version.clone(), instances: 0, schedule: false }),
            Entry::Stand(app, instances) => Change::Stand(Stand { app: app.key.clone(), instances: *instances }),
            Entry::Hosted(of) => Change::Hosted(of.clone()),
            Entry::Accepted(of) => Change::Session(Box::new(of.0.clone())),
            Entry::Session(of) => Change::Session(of.clone()),
            Entry::Forget(uid) => Change::Forgotten(uid.clone()),
            Entry::Configured(_) | Entry::Unknown(_) | Entry::Close(..) => return None,
        })
    }

    /// Whether a later entry makes this one needless: it says nothing that must be told in between.
    pub(super) fn is_overtaken_by(&self, later: &Entry) -> bool {
        match (self, later) {
            (Entry::Hosted(one), Entry::Hosted(other)) => one.id == other.id && one.state != InstanceState::Terminated,
            (Entry::Session(one), Entry::Session(other)) => {
                one.key.uid == other.key.uid && one.phase != SessionPhase::Closed
            }
            _ => false,
        }
    }

    /// The instance that it says to be gone.
    pub(super) fn gone(&self) -> Option<InstanceId> {
        match self {
            Entry::Instance(of) if of.state == InstanceState::Terminated => Some(of.id),
            Entry::Hosted(of) if of.state == InstanceState::Terminated => Some(of.id),
            _ => None,
        }
    }
}
