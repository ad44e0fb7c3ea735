//! What a worker does with an instance's session server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lyra_types::{Code, Error, Result, Timestamp};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::machine::Conflict;
use crate::server::Shared;
use crate::settings::MAX_ID;
use crate::state::{Client, End, Open, Phase, Resumed, SessionState, Why};

/// How long [`SessionHandle::stop`] waits for tasks to end.
const STOPPING: Duration = Duration::from_secs(1);
/// Beyond a deadline that the machine keeps itself, when a wait for it ends at any rate.
const SLACK: Duration = Duration::from_secs(5);

/// How a close ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The program closed the session within the grace, or there was none to be closed.
    Closed,
    /// It did not within the grace.
    Late,
    /// It is gone.
    Gone,
}

/// A running session server. Clones are the same one.
#[derive(Clone)]
pub struct SessionHandle {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.tasks.stopping().cancel();
    }
}

impl std::fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionHandle").field("state", &*self.owner.shared.state().borrow()).finish_non_exhaustive()
    }
}

impl SessionHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> SessionHandle {
        SessionHandle { owner: Arc::new(Owner { shared }) }
    }

    fn shared(&self) -> &Shared {
        &self.owner.shared
    }

    /// Since when a program is attached; `None` while none is.
    pub fn attached(&self) -> watch::Receiver<Option<Timestamp>> {
        self.shared().attached()
    }

    /// How the session stands. A reader sees the newest state, not each one.
    pub fn state(&self) -> watch::Receiver<SessionState> {
        self.shared().state()
    }

    /// The client sessions, by id.
    pub fn clients(&self) -> Vec<Client> {
        self.shared().look(crate::machine::Machine::clients)
    }

    /// Opens a session: returns when the program says that it is ready. A program that is not attached yet is waited for.
    /// Opening the session that is there already waits for that one.
    ///
    /// When the future is dropped the session stays as it is, and its deadline holds; [`SessionHandle::close`] it, or wait again.
    ///
    /// # Errors
    /// [`Code::Timeout`] when the program was not ready within `limit`; [`Code::FunctionError`] with its reason when
    /// it refused; [`Code::InstanceCrashed`] when it is gone; [`Code::Cancelled`] when the session was closed meanwhile;
    /// [`Code::Conflict`] when the instance has another session; [`Code::InvalidField`] for an id that is empty or too long.
    pub async fn open(&self, open: Open, limit: Duration) -> Result<()> {
        let id = Arc::clone(&open.id);
        check_id(&id)?;
        let mut state = self.state();
        self.shared().act(|machine, at| machine.open(open, limit, at)).map_err(|conflict| refused(&conflict))?;
        let settled = |state: &SessionState| state.session.as_ref() != Some(&id) || state.phase != Phase::Opening;
        let Ok(Ok(state)) = timeout(limit.saturating_add(SLACK), state.wait_for(settled)).await else {
            return Err(Error::internal("the session server was stopped"));
        };
        match &state.phase {
            _ if state.session.as_ref() != Some(&id) => Err(Error::new(Code::Conflict, "another session was opened")),
            // It was ready, whatever came then.
            _ if state.opened => Ok(()),
            Phase::Ended(End::Failed { reason }) => {
                Err(Error::new(Code::FunctionError, format!("the program refused the session: {reason}")))
            }
            Phase::Ended(End::NotReady) => {
                let ms = limit.as_millis();
                Err(Error::new(
                    Code::Timeout,
                    format!("the program did not say within {ms} ms that the session is ready"),
                ))
            }
            Phase::Ended(End::Gone(why)) => Err(gone(*why)),
            _ => Err(Error::new(Code::Cancelled, "the session was closed before it was open")),
        }
    }

    /// Takes up a session that was there before this server was started, as it stood then. What the program says of it counts,
    /// as soon as it is attached.
    ///
    /// # Errors
    /// [`Code::Conflict`] when the instance has another session; [`Code::InstanceCrashed`] when it has been given up.
    pub fn resume(&self, open: Open, how: Resumed) -> Result<()> {
        check_id(&open.id)?;
        self.shared().act(|machine, at| machine.resume(open, how, at)).map_err(|conflict| refused(&conflict))
    }

    /// Closes the session, whatever its phase: the program has `grace` to do so. A second call may shorten the grace.
    pub async fn close(&self, grace: Duration) -> How {
        let mut state = self.state();
        let id = self.shared().act(|machine, at| {
            machine.close(grace, at);
            machine.state().session
        });
        let over = |state: &SessionState| state.session != id || !state.phase.is_active();
        let over = timeout(grace.saturating_add(SLACK), state.wait_for(over)).await;
        let Ok(Ok(state)) = over else { return How::Late };
        match &state.phase {
            Phase::Ended(End::Late | End::NotReady) => How::Late,
            Phase::Ended(End::Gone(_)) => How::Gone,
            _ => How::Closed,
        }
    }

    /// Tells the program the application's configuration: now, and whenever it comes with another version.
    pub fn configure(&self, version: u64, data: Arc<BTreeMap<String, String>>) {
        self.shared().act(|machine, _| machine.configure(version, data));
    }

    /// While an instance is hibernated its program is not asked for signs of life, and not missed.
    pub fn hibernate(&self, hibernated: bool) {
        self.shared().act(|machine, at| machine.hibernate(hibernated, at));
    }

    /// Says that the instance's process has ended: its session, if it is not over, ends by that now and not when the program is
    /// missed.
    pub fn exited(&self) {
        self.shared().act(|machine, _| machine.exited());
    }

    /// Asks the program for a sign of life, and says how long it took.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when no program is attached, or it goes meanwhile; [`Code::Timeout`] when no answer came within the ping
    /// interval of the settings.
    pub async fn ping(&self) -> Result<Duration> {
        let shared = self.shared();
        let sent = shared.clock.instant();
        let detached = || Error::new(Code::Unavailable, "no program is attached");
        let asked = shared.act(|machine, _| {
            let ping = machine.ping()?;
            machine.stream().map(|stream| (stream.number, ping))
        });
        let (number, ping) = asked.ok_or_else(detached)?;
        let answered = async {
            loop {
                let heard = shared.heard.notified();
                tokio::pin!(heard);
                heard.as_mut().enable();
                let pongs =
                    shared.look(|machine| machine.stream().filter(|old| old.number == number).map(|old| old.pongs()));
                match pongs {
                    None => return Err(detached()),
                    Some(pongs) if pongs >= ping => return Ok(()),
                    Some(_) => heard.await,
                }
            }
        };
        timeout(shared.settings.ping_interval, answered)
            .await
            .map_err(|_| Error::new(Code::Timeout, "the program did not answer a ping"))??;
        Ok(shared.clock.instant() - sent)
    }

    /// Ends the server and its connections. The session stays as it is in the program, which looks for another server.
    pub async fn stop(&self) {
        self.shared().tasks.stop(STOPPING).await;
    }
}

impl Phase {
    /// Whether there is a session that is not over.
    pub fn is_active(&self) -> bool {
        matches!(self, Phase::Opening | Phase::Open | Phase::Closing)
    }
}

fn check_id(id: &str) -> Result<()> {
    if crate::machine::valid_id(id) {
        return Ok(());
    }
    Err(Error::field(Code::InvalidField, "id", format!("must have 1 to {MAX_ID} bytes")))
}

fn refused(conflict: &Conflict) -> Error {
    match conflict {
        Conflict::Gone(why) => gone(*why),
        Conflict::Busy(_) => Error::new(Code::Conflict, conflict.to_string()),
    }
}

fn gone(why: Why) -> Error {
    Error::new(Code::InstanceCrashed, format!("the session's instance is gone: {why}"))
}
