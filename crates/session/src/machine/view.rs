//! What a program last said of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lyra_types::Timestamp;

use super::{Refusal, Said};
use crate::protocol::{self, Phase as Told};
use crate::settings::{MAX_ID, MAX_REASON};
use crate::state::Phase;

/// A program's side of a session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    pub(crate) session: Option<Arc<str>>,
    pub(crate) phase: Told,
    pub(crate) reason: String,
    pub(crate) exit_code: Option<i32>,
    /// With the time when each was first heard of.
    pub(crate) clients: BTreeMap<Arc<str>, Timestamp>,
    /// Version of the configuration that it has.
    pub(crate) configuration: u64,
}

impl Default for View {
    fn default() -> View {
        View {
            session: None,
            phase: Told::None,
            reason: String::new(),
            exit_code: None,
            clients: BTreeMap::new(),
            configuration: 0,
        }
    }
}

/// A program's phase, as it says. No session named: the current one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    pub(crate) session: Option<String>,
    pub(crate) phase: Told,
    pub(crate) reason: String,
    pub(crate) exit_code: Option<i32>,
}

pub(crate) fn valid_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID
}

/// The first bytes of a reason, at a character's boundary.
fn cut(mut reason: String) -> String {
    if reason.len() > MAX_REASON {
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        // What was longer must not be kept either.
        reason.shrink_to_fit();
    }
    reason
}

impl View {
    pub(crate) fn new(state: State, clients: Vec<String>, configuration: u64) -> View {
        View {
            session: state.session.filter(|id| !id.is_empty()).map(Arc::from),
            phase: state.phase,
            reason: cut(state.reason),
            exit_code: state.exit_code,
            clients: clients.into_iter().map(|id| (Arc::from(id), Timestamp::from_millis(0))).collect(),
            configuration,
        }
    }

    pub(super) fn check(&self, max_clients: usize) -> Result<(), Refusal> {
        if self.clients.len() > max_clients {
            return Err(Refusal::TooManyClients);
        }
        let ids = self.session.iter().chain(self.clients.keys());
        if ids.into_iter().all(|id| valid_id(id)) { Ok(()) } else { Err(Refusal::BadId) }
    }

    /// Whether the program has a session that is not over.
    pub(super) fn is_active(&self) -> bool {
        self.session.is_some() && matches!(self.phase, Told::Initializing | Told::Open | Told::Closing)
    }

    /// Takes what a hello says. Clients that were known keep their time.
    pub(super) fn replace(&mut self, new: View, now: Timestamp) {
        let mut known = std::mem::replace(self, new).clients;
        for (id, joined) in &mut self.clients {
            *joined = known.remove(id).unwrap_or(now);
        }
    }

    /// Takes a phase, where it is of the session `wanted` (or of one that the worker does not know) and can come after
    /// where that one stands. Says whether it was taken.
    pub(super) fn take_state(&mut self, state: State, wanted: Option<&Arc<str>>, stands: Option<&Phase>) -> bool {
        let named = state.session.as_deref().filter(|id| !id.is_empty());
        let ends = matches!(state.phase, Told::Closing | Told::Closed | Told::Failed);
        let is_viewed = self.is_active() && self.session.as_deref() == named;
        let session = match (wanted, named) {
            (Some(wanted), Some(named)) if **wanted != *named => {
                // Of one that it had from before, and ends now.
                if is_viewed && ends {
                    self.phase = state.phase;
                }
                return is_viewed && ends;
            }
            (Some(wanted), _) => Some(Arc::clone(wanted)),
            (None, Some(named)) if valid_id(named) => Some(Arc::from(named)),
            (None, Some(_)) => return false,
            (None, None) => self.session.clone(),
        };
        let goes_back = match stands {
            Some(Phase::Open) => matches!(state.phase, Told::None | Told::Initializing),
            Some(Phase::Closing) => matches!(state.phase, Told::None | Told::Initializing | Told::Open),
            Some(Phase::Opening) => state.phase == Told::None,
            // It may end what it still has, not begin anew.
            Some(Phase::Ended(_)) => !ends,
            Some(Phase::Idle) | None => false,
        };
        if goes_back {
            return false;
        }
        self.session = session;
        self.phase = state.phase;
        self.reason = cut(state.reason);
        self.exit_code = state.exit_code;
        true
    }

    /// Adds and removes clients. Says whether that changed anything; on an error, nothing is changed.
    pub(super) fn change_clients(
        &mut self,
        joined: Vec<String>,
        left: &[String],
        most: usize,
        now: Timestamp,
    ) -> Result<bool, Refusal> {
        let new: BTreeSet<&str> =
            joined.iter().map(String::as_str).filter(|id| !self.clients.contains_key(*id)).collect();
        let fewer = left.iter().filter(|id| self.clients.contains_key(id.as_str())).collect::<BTreeSet<_>>().len();
        if self.clients.len() + new.len() - fewer > most {
            return Err(Refusal::TooManyClients);
        }
        let mut changed = false;
        for id in left {
            changed |= self.clients.remove(id.as_str()).is_some();
        }
        for id in joined {
            self.clients.entry(Arc::from(id)).or_insert_with(|| {
                changed = true;
                now
            });
        }
        Ok(changed)
    }
}

impl From<protocol::Hello> for View {
    fn from(hello: protocol::Hello) -> View {
        View::new(hello.state.unwrap_or_default().into(), hello.clients, hello.configuration)
    }
}

impl From<protocol::SessionState> for State {
    fn from(state: protocol::SessionState) -> State {
        let phase = state.phase();
        State { session: Some(state.session), phase, reason: state.reason, exit_code: state.exit_code }
    }
}

impl From<protocol::Hello> for Said {
    fn from(hello: protocol::Hello) -> Said {
        Said::Hello(hello.into())
    }
}

impl From<protocol::SessionState> for Said {
    fn from(state: protocol::SessionState) -> Said {
        Said::State(state.into())
    }
}

impl From<protocol::Clients> for Said {
    fn from(clients: protocol::Clients) -> Said {
        Said::Clients { session: clients.session, joined: clients.joined, left: clients.left }
    }
}

impl From<protocol::Pong> for Said {
    fn from(pong: protocol::Pong) -> Said {
        Said::Pong(pong.number)
    }
}
