//! A program's stream from its hello to its end, whatever carries it.
//!
//! What must hold: a second stream replaces the first one only when that one gives no sign of life in time. A stream
//! that is dropped is detached.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::machine::{Refusal, Said, View};
use crate::protocol::ToProgram;
use crate::server::Shared;

/// Why a stream, or a message, is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    ByMachine(Refusal),
    #[error("another stream of this instance is alive")]
    Busy,
    #[error("another stream of this instance is being set up")]
    BeingSetUp,
    #[error("{0}")]
    Malformed(String),
    #[error("the message did not come in time")]
    Slow,
    #[error("a message is larger than {0} bytes")]
    TooLarge(usize),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused::ByMachine(refusal)
    }
}

/// A program's current stream.
pub(crate) struct Attached {
    shared: Arc<Shared>,
    pub(crate) number: u64,
    /// What to tell the program; ends when the stream is over.
    pub(crate) messages: mpsc::Receiver<ToProgram>,
}

impl Attached {
    /// Takes a program up. The caller has the permit of `shared.attaching`.
    pub(crate) async fn new(shared: &Arc<Shared>, view: View, sequence: u64) -> Result<Attached, Refused> {
        make_room(shared).await?;
        let (number, messages) = shared.act_and_open(|machine, at| machine.attach(view, sequence, at))?;
        tracing::debug!(stream = number, "a program is attached");
        Ok(Attached { shared: Arc::clone(shared), number, messages })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let number = self.number;
        self.shared.act(|machine, at| machine.detach(number, at));
    }
}

/// Waits until no stream is there, or the one that is has given no sign of life when asked for one.
async fn make_room(shared: &Shared) -> Result<(), Refused> {
    let asked = shared.act(|machine, _| {
        machine.ping();
        machine.stream().map(|stream| stream.number)
    });
    let Some(number) = asked else { return Ok(()) };
    let answered = async {
        loop {
            let heard = shared.heard.notified();
            tokio::pin!(heard);
            heard.as_mut().enable();
            let alive = shared.look(|machine| {
                machine.stream().filter(|old| old.number == number).map(crate::machine::Stream::is_alive)
            });
            match alive {
                None => return false,
                Some(true) => return true,
                Some(false) => heard.await,
            }
        }
    };
    match timeout(shared.settings.takeover, answered).await {
        Ok(true) => Err(Refused::Busy),
        Ok(false) | Err(_) => Ok(()),
    }
}

/// Takes one message of a stream, when it is its turn.
pub(crate) async fn hear(shared: &Shared, stream: u64, sequence: u64, said: Said) -> Result<bool, Refusal> {
    shared.messages.one().await;
    shared.act(|machine, at| machine.hear(stream, sequence, said, at))
}
