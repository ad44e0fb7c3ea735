//! Commands to workers that were not answered yet, and the lines that they go over.
//!
//! Nothing here waits: a worker whose line is full is hung up on. A command whose caller has gone is forgotten.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use lyra_types::{Code, Error, Result};
use lyra_wire::registry::{Command, ToNode};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::members::Token;

/// Where the answer to a command goes.
type Answer = oneshot::Sender<Result<()>>;

/// To one worker.
struct Line {
    conversation: Token,
    messages: mpsc::Sender<Result<ToNode>>,
    hang_up: CancellationToken,
}

#[derive(Default)]
pub(super) struct Commands {
    lines: Mutex<BTreeMap<String, Line>>,
    unanswered: Mutex<BTreeMap<u64, (Token, Answer)>>,
    last: AtomicU64,
}

/// A command that a worker was sent.
pub(super) struct Sent<'a> {
    commands: &'a Commands,
    id: u64,
    outcome: oneshot::Receiver<Result<()>>,
}

impl Commands {
    /// From now on the worker is reached over this line, until what is returned is cancelled.
    pub(super) fn connect(
        &self,
        worker: &str,
        conversation: Token,
        messages: mpsc::Sender<Result<ToNode>>,
    ) -> CancellationToken {
        let hang_up = CancellationToken::new();
        let line = Line { conversation, messages, hang_up: hang_up.clone() };
        self.lines.lock().insert(worker.to_owned(), line);
        hang_up
    }

    /// The line is gone, and with it the answers that were to come over it.
    pub(super) fn disconnect(&self, worker: &str, conversation: Token) {
        let mut lines = self.lines.lock();
        if lines.get(worker).is_some_and(|line| line.conversation == conversation) {
            lines.remove(worker);
        }
        self.unanswered.lock().retain(|_, (of, _)| *of != conversation);
    }

    /// Sends a command.
    ///
    /// # Errors
    /// [`Code::Unavailable`] where there is no line, or it is full.
    pub(super) fn send(&self, worker: &str, epoch: u64, command: Command) -> Result<Sent<'_>> {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, outcome) = oneshot::channel();
        let lines = self.lines.lock();
        let Some(line) = lines.get(worker) else {
            return Err(Error::new(Code::Unavailable, format!("worker {worker} is not connected")));
        };
        self.unanswered.lock().insert(id, (line.conversation, answer));
        let sent = Sent { commands: self, id, outcome };
        if line.messages.try_send(Ok(ToNode::Command { id, epoch, command })).is_err() {
            line.hang_up.cancel();
            return Err(Error::new(Code::Unavailable, format!("worker {worker} does not take its commands")));
        }
        Ok(sent)
    }

    /// A worker's answer.
    pub(super) fn answered(&self, id: u64, conversation: Token, outcome: Result<()>) {
        let mut unanswered = self.unanswered.lock();
        // Another worker can't answer for it.
        if unanswered.get(&id).is_some_and(|(of, _)| *of == conversation)
            && let Some((_, answer)) = unanswered.remove(&id)
        {
            // Who asked may have given up.
            let _ = answer.send(outcome);
        }
    }
}

impl Sent<'_> {
    /// How it went; `None` when the line was lost before.
    pub(super) async fn outcome(mut self) -> Option<Result<()>> {
        (&mut self.outcome).await.ok()
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.commands.unanswered.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use lyra_types::InstanceId;
    use lyra_wire::worker::InstanceCommand;

    use super::*;

    fn command() -> Command {
        Command::Instance(InstanceId::from_parts(0, 1), InstanceCommand::Terminate)
    }

    #[tokio::test]
    async fn only_the_worker_that_was_asked_can_answer() {
        let (commands, (messages, mut line)) = (Commands::default(), mpsc::channel(4));
        let (asked, other) = (Token::new(1), Token::new(2));
        commands.connect("a", asked, messages);
        let sent = commands.send("a", 7, command()).unwrap();
        let Some(Ok(ToNode::Command { id, epoch: 7, .. })) = line.recv().await else { panic!("no command") };
        commands.answered(id, other, Ok(()));
        commands.answered(id, asked, Err(Error::internal("it can't")));
        assert_eq!(sent.outcome().await.unwrap().unwrap_err().detail, "it can't");
        assert!(commands.unanswered.lock().is_empty());
    }

    #[tokio::test]
    async fn a_lost_line_ends_the_wait_and_a_full_one_is_hung_up_on() {
        let (commands, (messages, _line)) = (Commands::default(), mpsc::channel(1));
        let hang_up = commands.connect("a", Token::new(1), messages);
        let sent = commands.send("a", 7, command()).unwrap();
        assert!(commands.send("a", 7, command()).is_err() && hang_up.is_cancelled());
        commands.disconnect("a", Token::new(1));
        assert!(sent.outcome().await.is_none());
        assert!(commands.send("a", 7, command()).is_err(), "it is not connected");
        assert!(commands.unanswered.lock().is_empty());
    }
}
