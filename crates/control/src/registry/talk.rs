//! One conversation with a worker.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_types::{Code, Error, Result};
use lyra_wire::registry::{FromNode, Registration, ToNode, Workload};
use tokio::sync::mpsc;

use super::members::{Token, Verdict};
use super::{Inner, News, RegistryConfig};

type Messages = BoxStream<'static, Result<FromNode>>;
type Replies = mpsc::Sender<Result<ToNode>>;

impl Inner {
    /// Talks with one worker until it goes away.
    pub(super) async fn talk(self: Arc<Self>, mut messages: Messages, replies: Replies) {
        if replies.send(Ok(ToNode::Hello { process: self.process })).await.is_err() {
            return;
        }
        let first = tokio::time::timeout(self.config.lease, next(&mut messages, &replies));
        let (registration, workload) = match first.await.ok().flatten() {
            Some(Ok(FromNode::Register(registration, workload))) => (registration, workload),
            // It talks with this process already, or says nothing.
            None => return,
            Some(other) => {
                let error = other.err().unwrap_or_else(|| Error::new(Code::BadRequest, "a worker registers first"));
                let _ = replies.send(Err(error)).await;
                return;
            }
        };
        let name = registration.name.clone();
        let token = match self.register(*registration, workload) {
            Ok(token) => token,
            Err(error) => {
                self.metrics.refused();
                tracing::warn!(worker = name, %error, "a worker is refused");
                let _ = replies.send(Ok(ToNode::Refused(error))).await;
                return;
            }
        };
        self.metrics.joined();
        tracing::info!(worker = name, "a worker has joined");
        let RegistryConfig { heartbeat, lease, .. } = self.config;
        let welcome = ToNode::Welcome { heartbeat, lease };
        if replies.send(Ok(welcome)).await.is_ok() {
            let hang_up = self.commands.connect(&name, token, replies.clone());
            hang_up.run_until_cancelled(self.listen(&name, token, &mut messages, &replies)).await;
            self.commands.disconnect(&name, token);
        }
        self.change(|members| ((), members.hung_up(&name, token)));
    }

    fn register(&self, registration: Registration, workload: Workload) -> Result<Token> {
        let (now, name) = (self.clock.instant(), registration.name.clone());
        self.change(|members| match members.register(now, registration, workload) {
            Ok((token, events)) => {
                let _ = self.news.send(News::Worker(name.clone()));
                (Ok(token), events)
            }
            Err(error) => (Err(error), Vec::new()),
        })
    }

    async fn listen(&self, name: &str, token: Token, messages: &mut Messages, replies: &Replies) {
        let mut controls = self.controls.subscribe();
        controls.mark_changed();
        loop {
            let message = tokio::select! {
                message = next(messages, replies) => message,
                Ok(()) = controls.changed() => {
                    let controls = controls.borrow_and_update().clone();
                    if replies.try_send(Ok(ToNode::Controls(controls))).is_err() {
                        return;
                    }
                    continue;
                }
            };
            let Some(Ok(message)) = message else { return };
            let verdict = match message {
                FromNode::State(state, revision) => {
                    let now = self.clock.instant();
                    self.change(|members| members.heard(now, name, token, state, revision))
                }
                FromNode::Changed(revision, change) => {
                    self.change(|members| {
                        let (verdict, applied) = members.changed(name, token, revision, &change);
                        if applied {
                            // Under the members' lock, so that news come in the order of the changes.
                            self.tell_change(name, change);
                        }
                        (verdict, Vec::new())
                    })
                }
                FromNode::Workload(workload) => self.change(|members| {
                    let verdict = members.told_all(name, token, workload);
                    let _ = self.news.send(News::Worker(name.to_owned()));
                    (verdict, Vec::new())
                }),
                FromNode::Done(id, outcome) => {
                    self.commands.answered(id, token, outcome);
                    Verdict::Fine
                }
                FromNode::Leave => {
                    self.change(|members| ((), members.leave(name, token)));
                    tracing::info!(worker = name, "a worker has left");
                    return;
                }
                FromNode::Register(..) => return,
            };
            // Never waits for a worker that does not read: it would not be heard meanwhile.
            match verdict {
                Verdict::Fine => {}
                Verdict::Ask if replies.try_send(Ok(ToNode::FullSync)).is_ok() => {}
                Verdict::Ask | Verdict::Stranger => return,
            }
        }
    }
}

/// The next message, or `None` when either end is gone.
async fn next(messages: &mut Messages, replies: &Replies) -> Option<Result<FromNode>> {
    tokio::select! {
        message = messages.next() => message,
        () = replies.closed() => None,
    }
}
