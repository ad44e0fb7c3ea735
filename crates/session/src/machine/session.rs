//! The session that a worker wants in an instance.

use std::time::Duration;

use crate::protocol;
use crate::state::{Configuration, End, Open, Phase};

pub(super) struct Session {
    pub(super) open: Open,
    pub(super) phase: Phase,
    /// Until when it may stay in this phase.
    pub(super) deadline: Option<Duration>,
    /// Whether the program ever said that it is ready.
    pub(super) opened: bool,
    /// Whether the worker wants it closed.
    pub(super) told_to_close: bool,
    /// Whether the program may know of it.
    pub(super) may_be_known: bool,
}

impl Session {
    pub(super) fn new(open: Open, phase: Phase, deadline: Option<Duration>) -> Session {
        Session { open, phase, deadline, opened: false, told_to_close: false, may_be_known: false }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    pub(super) fn end(&mut self, end: End) {
        self.phase = Phase::Ended(end);
        self.deadline = None;
    }

    /// Time left in this phase at `now`, in whole milliseconds.
    pub(super) fn left_ms(&self, now: Duration) -> u64 {
        let left = self.deadline.unwrap_or_default().saturating_sub(now);
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn open_message(&self, now: Duration, configuration: &Configuration) -> protocol::OpenSession {
        let session = protocol::Session {
            id: self.open.id.to_string(),
            name: self.open.name.clone(),
            tenant: self.open.tenant.clone(),
            application: self.open.application.clone(),
            application_version: self.open.application_version,
        };
        protocol::OpenSession {
            session: Some(session),
            data: self.open.data.clone(),
            timeout_ms: self.left_ms(now),
            configuration: Some(configuration.message()),
        }
    }
}

impl Configuration {
    pub(super) fn message(&self) -> protocol::Configuration {
        protocol::Configuration { version: self.version, data: (*self.data).clone() }
    }
}
