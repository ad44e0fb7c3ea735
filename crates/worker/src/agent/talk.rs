//! One conversation with a control process, begun again whenever it breaks.
//!
//! Neither end makes the other wait: commands are carried out beside the conversation, a bounded number at a time, and what
//! can't be said within a lease ends it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_kit::retry::Backoff;
use lyra_types::{Code, Error, Result};
use lyra_wire::Registry;
use lyra_wire::registry::{Change, Command, FromNode, Registration, ToNode};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;

/// Waits between tries to join.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(3) };
/// Longest wait for an answer of control.
const WELCOME: Duration = Duration::from_secs(10);
/// A process that is talked with under another address is looked for again after so long.
const SAME: Duration = Duration::from_secs(30);
/// Tries to reach a control process that nobody but control itself has told of.
const TRIES: u32 = 100;
/// A sign of life is given at most so often.
const SOONEST: Duration = Duration::from_millis(10);
/// Of so many tries one is told of: the third, then about one a minute.
const SEVERAL: u32 = 20;
/// Commands that are carried out at once; more are refused.
const COMMANDS: usize = 2_048;
/// Words that wait to be sent.
const WORDS: usize = 64;

/// A conversation with one control process.
pub(super) struct Talk {
    pub(super) shared: Arc<Shared>,
    /// Its address; empty for the one in this very process.
    pub(super) address: String,
    pub(super) registry: Arc<dyn Registry>,
}

/// How a conversation ended.
enum End {
    /// The worker took leave.
    Left,
    /// The same process is talked with under another address.
    Same,
}

/// Notes that a process is talked with, for as long as it is.
struct Talking<'a> {
    shared: &'a Shared,
    process: u64,
}

impl Drop for Talking<'_> {
    fn drop(&mut self) {
        self.shared.talking.lock().remove(&self.process);
    }
}

impl Talk {
    pub(super) async fn on_and_on(&self) {
        let mut tries = 0;
        loop {
            let mut joined = false;
            let mut wait = None;
            match self.once(&mut joined).await {
                Ok(End::Left) => return,
                Ok(End::Same) => wait = Some(SAME),
                Err(error) if error.code == Code::Conflict || error.code == Code::PermissionDenied => {
                    tracing::error!(%error, "control refuses this worker");
                }
                Err(error) if tries % SEVERAL == 2 => {
                    tracing::warn!(%error, address = self.address, "a control process can't be talked with");
                }
                Err(error) => tracing::debug!(%error, address = self.address, "a conversation with control broke off"),
            }
            tries = if joined { 1 } else { tries + 1 };
            if tries > TRIES && self.shared.forget(&self.address) {
                tracing::info!(address = self.address, "a control process is gone");
                return;
            }
            let wait = wait.unwrap_or_else(|| RETRY.delay(tries, &self.shared.random));
            let stopping = self.shared.tasks.stopping();
            tokio::select! {
                () = self.shared.clock.sleep(wait) => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    /// One conversation.
    async fn once(&self, joined: &mut bool) -> Result<End> {
        let shared = &self.shared;
        let (say, said) = mpsc::channel(WORDS);
        let mut heard = self.registry.join(ReceiverStream::new(said).boxed()).await?;
        let process = match answer(&mut heard).await? {
            ToNode::Hello { process } => process,
            _ => return Err(Error::new(Code::Internal, "control does not say who it is")),
        };
        let Some(_talking) = self.talks_with(process) else { return Ok(End::Same) };
        let (workload, mut news) = shared.desk.all();
        let register = FromNode::Register(Box::new(self.registration()), workload);
        say.send(Ok(register)).await.map_err(gone)?;
        let (heartbeat, lease) = match answer(&mut heard).await? {
            ToNode::Welcome { heartbeat, lease } => (heartbeat, lease),
            ToNode::Refused(error) => return Err(error),
            _ => return Err(Error::new(Code::Internal, "control does not answer a registration")),
        };
        *joined = true;
        tracing::info!(worker = shared.identity.name, address = self.address, "joined control");
        let mouth = Mouth { say, lease };
        let places = Arc::new(Semaphore::new(COMMANDS));
        let (followed, mut following) = mpsc::channel(WORDS);
        // Whatever control says: a clock does not tick every 0 s.
        let mut ticks = tokio::time::interval(heartbeat.max(SOONEST));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stopping = shared.tasks.stopping();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    // A change that is being stored is told after this, so the revision is never ahead of what was told.
                    let revision = shared.desk.revision();
                    self.tell_news(&mut news, &mouth).await?;
                    mouth.say(FromNode::State(shared.desk.state(), revision)).await?;
                }
                change = news.recv() => self.tell(change, &mut news, &mouth).await?,
                Some(id) = following.recv() => {
                    // Said here, so that nothing older comes after it.
                    self.tell_all(&mut news, &mouth).await?;
                    mouth.say(FromNode::Done(id, Ok(()))).await?;
                }
                word = heard.next() => match word {
                    Some(Ok(ToNode::Hello { .. } | ToNode::Welcome { .. })) => {}
                    Some(Ok(ToNode::Refused(error)) | Err(error)) => return Err(error),
                    Some(Ok(ToNode::Controls(controls))) => shared.told(&controls),
                    Some(Ok(ToNode::FullSync)) => self.tell_all(&mut news, &mouth).await?,
                    Some(Ok(ToNode::Command { id, epoch, command })) => {
                        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                            let busy = Error::new(Code::Overloaded, "this worker has too many commands to carry out");
                            mouth.say(FromNode::Done(id, Err(busy))).await?;
                            continue;
                        };
                        let follows = command == Command::Follow;
                        let (outcome, mouth, followed) = (shared.desk.obey(epoch, command), mouth.clone(), followed.clone());
                        shared.tasks.spawn_cancellable("carry-out", async move {
                            let outcome = outcome.await;
                            drop(place);
                            // Who asked sees a lost conversation for itself.
                            let _ = match follows && outcome.is_ok() {
                                true => followed.send(id).await.map_err(drop),
                                false => mouth.say(FromNode::Done(id, outcome)).await.map_err(drop),
                            };
                        });
                    }
                    None => return Err(Error::new(Code::Unavailable, "control hung up")),
                },
                () = stopping.cancelled() => {
                    mouth.say(FromNode::Leave).await?;
                    // Control ends the conversation once it has heard.
                    while heard.next().await.is_some() {}
                    return Ok(End::Left);
                }
            }
        }
    }

    /// Notes that this process is talked with, unless it is already, under another address.
    fn talks_with(&self, process: u64) -> Option<Talking<'_>> {
        let mut talking = self.shared.talking.lock();
        if talking.contains_key(&process) {
            return None;
        }
        talking.insert(process, self.address.clone());
        Some(Talking { shared: &self.shared, process })
    }

    async fn tell(
        &self,
        change: Result<(u64, Change), RecvError>,
        news: &mut broadcast::Receiver<(u64, Change)>,
        mouth: &Mouth,
    ) -> Result<()> {
        match change {
            Ok((revision, change)) => mouth.say(FromNode::Changed(revision, change)).await,
            Err(_) => self.tell_all(news, mouth).await,
        }
    }

    /// Tells what has happened so far.
    async fn tell_news(&self, news: &mut broadcast::Receiver<(u64, Change)>, mouth: &Mouth) -> Result<()> {
        loop {
            match news.try_recv() {
                Ok((revision, change)) => mouth.say(FromNode::Changed(revision, change)).await?,
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => return Ok(()),
                Err(broadcast::error::TryRecvError::Lagged(_)) => return self.tell_all(news, mouth).await,
            }
        }
    }

    async fn tell_all(&self, news: &mut broadcast::Receiver<(u64, Change)>, mouth: &Mouth) -> Result<()> {
        let (workload, from_now) = self.shared.desk.all();
        *news = from_now;
        mouth.say(FromNode::Workload(workload)).await
    }

    fn registration(&self) -> Registration {
        let shared = &self.shared;
        Registration {
            name: shared.identity.name.clone(),
            address: shared.identity.address.clone(),
            incarnation: shared.incarnation,
            backends: shared.desk.backends(),
            state: shared.desk.state(),
        }
    }
}

/// Says things, or gives up when nobody listens for the length of a lease.
#[derive(Clone)]
struct Mouth {
    say: mpsc::Sender<Result<FromNode>>,
    lease: Duration,
}

impl Mouth {
    async fn say(&self, word: FromNode) -> Result<()> {
        let said = tokio::time::timeout(self.lease, self.say.send(Ok(word))).await;
        said.map_err(|_| Error::new(Code::Unavailable, "control does not listen"))?.map_err(gone)
    }
}

/// Control's next word, which it is waited for.
async fn answer(heard: &mut BoxStream<'static, Result<ToNode>>) -> Result<ToNode> {
    match tokio::time::timeout(WELCOME, heard.next()).await {
        Ok(Some(word)) => word,
        Ok(None) => Err(Error::new(Code::Unavailable, "control hung up")),
        Err(_) => Err(Error::new(Code::Unavailable, "control did not answer in time")),
    }
}

fn gone<T>(_: mpsc::error::SendError<T>) -> Error {
    Error::new(Code::Unavailable, "control hung up")
}
