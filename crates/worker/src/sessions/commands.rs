//! What an operator asks of one standing instance of an application: that it ends, sleeps, or wakes.
//!
//! What must hold: an instance that serves a session, or is to serve one, is left alone; whoever asked hears what became of it.

use std::sync::Arc;
use std::time::Duration;

use lyra_types::{Code, Error, InstanceId, Result};
use lyra_wire::worker::{InstanceCommand, InstanceState};
use tokio::sync::oneshot;

use super::book::Seat;
use super::{Sessions, Shared};
use crate::agent::entry::Entry;

/// Longest wait beyond what the instance itself may take.
const LATE: Duration = Duration::from_secs(35);

/// What the task of an instance is to do, and who waits for it.
pub(super) struct Asked {
    /// It is to sleep; else to wake.
    pub(super) sleep: bool,
    pub(super) done: oneshot::Sender<Result<()>>,
}

impl Sessions {
    /// Whether this is an instance of an application.
    pub(crate) fn has(&self, id: InstanceId) -> bool {
        self.shared.book.lock().seats.contains_key(&id)
    }

    /// Does something to a standing instance.
    ///
    /// # Errors
    /// [`Code::NotFound`]; [`Code::Conflict`] where it does not stand, or can't be hibernated; [`Code::Overloaded`] where there is no
    /// memory to wake it; [`Code::InstanceCrashed`] where it did not wake.
    pub(crate) async fn instruct(&self, id: InstanceId, command: InstanceCommand) -> Result<()> {
        match command {
            InstanceCommand::Terminate => self.shared.terminate(id).await,
            InstanceCommand::Hibernate => self.shared.ask(id, true).await,
            InstanceCommand::Activate => self.shared.ask(id, false).await,
        }
    }
}

impl Shared {
    async fn terminate(self: &Arc<Self>, id: InstanceId) -> Result<()> {
        let mut ended = self.ended.subscribe();
        let wall = self.deps.clock.now();
        self.change(|book, entries| -> Result<()> {
            stands(id, book.seats.get(&id))?;
            book.end(id);
            book.enter(id, InstanceState::Evacuating, wall);
            entries.extend(book.report(id).map(Entry::Hosted));
            book.ring(id);
            Ok(())
        })?;
        let gone = async {
            while self.book.lock().seats.contains_key(&id) {
                // The sender is this very value.
                let _ = ended.changed().await;
            }
        };
        let late = || Error::new(Code::Unavailable, format!("instance {id} is still ending; look again in a moment"));
        tokio::time::timeout(self.config.end_grace + LATE, gone).await.map_err(|_| late())
    }

    async fn ask(&self, id: InstanceId, sleep: bool) -> Result<()> {
        let (done, answer) = oneshot::channel();
        {
            let mut book = self.book.lock();
            let seat = book.seats.get_mut(&id);
            stands(id, seat.as_deref())?;
            let Some(seat) = seat else { return Err(Error::not_found("instance", id)) };
            if !matches!(seat.state, InstanceState::Standby | InstanceState::Hibernated) {
                let detail = format!("instance {id} is {}, not ready", seat.state.as_str());
                return Err(Error::new(Code::Conflict, detail));
            }
            seat.asked.push(Asked { sleep, done });
            book.ring(id);
        }
        let late =
            || Error::new(Code::Unavailable, format!("instance {id} does not do so yet; look again in a moment"));
        let answer = tokio::time::timeout(LATE, answer).await.map_err(|_| late())?;
        answer.unwrap_or_else(|_| Err(Error::new(Code::Conflict, format!("instance {id} does not stand any more"))))
    }
}

/// Refuses what may not be touched.
fn stands(id: InstanceId, seat: Option<&Seat>) -> Result<()> {
    let seat = seat.ok_or_else(|| Error::not_found("instance", id))?;
    let detail = match (&seat.session, seat.ending) {
        (Some(_), _) => format!("instance {id} serves a session; close that"),
        (None, true) => format!("instance {id} is ending already"),
        (None, false) => return Ok(()),
    };
    Err(Error::new(Code::Conflict, detail))
}
