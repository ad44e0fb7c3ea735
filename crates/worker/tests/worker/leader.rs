//! A control process of one, as the test plays it: it leads, and believes only what the worker tells in order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_types::{Error, InstanceId, Result};
use lyra_wire::Registry;
use lyra_wire::registry::{Change, Command, FromNode, MemberEvent, Reception, ToNode, Workload, receive};
use lyra_wire::sessions::{AppKey, HostedReport, SessionCommand, SessionReport};
use lyra_wire::worker::InstanceState;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// What the worker has told.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) node: u64,
    pub(crate) revision: u64,
    pub(crate) stands: BTreeMap<AppKey, u32>,
    pub(crate) hosted: BTreeMap<InstanceId, HostedReport>,
    pub(crate) sessions: BTreeMap<String, SessionReport>,
}

impl Told {
    fn of(workload: Workload) -> Told {
        Told {
            node: workload.node,
            revision: workload.revision,
            stands: workload.stands.into_iter().map(|of| (of.app, of.instances)).collect(),
            hosted: workload.hosted.into_iter().map(|of| (of.id, of)).collect(),
            sessions: workload.sessions.into_iter().map(|of| (of.key.uid.clone(), of)).collect(),
        }
    }

    fn apply(&mut self, revision: u64, change: Change) {
        match receive(self.revision, revision) {
            Reception::Apply => self.revision = revision,
            Reception::Duplicate | Reception::Stale => return,
            Reception::Gap => panic!("revision {revision} came after {}", self.revision),
        }
        match change {
            Change::Instance(_) | Change::Hold(_) => {}
            Change::Stand(of) if of.instances == 0 => drop(self.stands.remove(&of.app)),
            Change::Stand(of) => drop(self.stands.insert(of.app, of.instances)),
            Change::Hosted(of) if of.state == InstanceState::Terminated => {
                assert!(self.hosted.remove(&of.id).is_some(), "{} was gone already", of.id);
            }
            Change::Hosted(of) => drop(self.hosted.insert(of.id, of)),
            Change::Session(of) => {
                let before = self.sessions.insert(of.key.uid.clone(), (*of).clone());
                if let Some(before) = before.filter(|before| before.end.is_some()) {
                    assert_eq!(before.end, of.end, "a session ends once");
                }
            }
            Change::Forgotten(uid) => drop(self.sessions.remove(&uid)),
        }
    }

    /// Instances in this state.
    pub(crate) fn instances(&self, state: InstanceState) -> usize {
        self.hosted.values().filter(|of| of.state == state).count()
    }
}

type Answers = Mutex<HashMap<u64, oneshot::Sender<Result<()>>>>;

/// The leader.
#[derive(Clone, Default)]
pub(crate) struct Leader(Arc<Inner>);

struct Inner {
    told: watch::Sender<Told>,
    talk: watch::Sender<Option<mpsc::UnboundedSender<Result<ToNode>>>>,
    answers: Answers,
    next: AtomicU64,
    epoch: AtomicU64,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner {
            told: watch::Sender::default(),
            talk: watch::Sender::new(None),
            answers: Answers::default(),
            next: AtomicU64::new(1),
            epoch: AtomicU64::new(1),
        }
    }
}

impl Leader {
    /// What was told so far.
    pub(crate) fn told(&self) -> Told {
        self.0.told.borrow().clone()
    }

    /// Waits until what was told is as `is_it` says.
    pub(crate) async fn until(&self, what: &str, is_it: impl Fn(&Told) -> bool) -> Told {
        let mut told = self.0.told.subscribe();
        let found = tokio::time::timeout(Duration::from_secs(3_600), told.wait_for(|told| is_it(told))).await;
        match found {
            Ok(told) => told.expect("the leader is there").clone(),
            Err(_) => panic!("not within an hour: {what}; told was {:#?}", self.told()),
        }
    }

    /// The session of this identity, once it is as `is_it` says.
    pub(crate) async fn session(&self, uid: &str, is_it: impl Fn(&SessionReport) -> bool) -> SessionReport {
        let told = self.until(uid, |told| told.sessions.get(uid).is_some_and(&is_it)).await;
        told.sessions[uid].clone()
    }

    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.0.epoch.store(epoch, Ordering::SeqCst);
    }

    /// Says something without waiting for the answer.
    pub(crate) fn say(&self, command: Command) -> oneshot::Receiver<Result<()>> {
        let (answer, answered) = oneshot::channel();
        let id = self.0.next.fetch_add(1, Ordering::SeqCst);
        self.0.answers.lock().insert(id, answer);
        let word = ToNode::Command { id, epoch: self.0.epoch.load(Ordering::SeqCst), command };
        let talk = self.0.talk.borrow();
        let talk = talk.as_ref().expect("the worker has joined");
        let _ = talk.send(Ok(word));
        answered
    }

    pub(crate) async fn command(&self, command: Command) -> Result<()> {
        let mut talk = self.0.talk.subscribe();
        talk.wait_for(Option::is_some).await.expect("the leader is there");
        let answered = tokio::time::timeout(Duration::from_secs(3_600), self.say(command)).await;
        answered.expect("an answer").unwrap_or_else(|_| Err(Error::internal("the conversation ended")))
    }

    pub(crate) async fn order(&self, command: SessionCommand) -> Result<()> {
        self.command(Command::Session(command)).await
    }

    fn hear(&self, word: FromNode) {
        let inner = &self.0;
        match word {
            FromNode::Register(_, workload) | FromNode::Workload(workload) => {
                inner.told.send_replace(Told::of(workload));
            }
            FromNode::Changed(revision, change) => inner.told.send_modify(|told| told.apply(revision, change)),
            FromNode::Done(id, outcome) => {
                if let Some(answer) = inner.answers.lock().remove(&id) {
                    let _ = answer.send(outcome);
                }
            }
            FromNode::State(_, revision) => {
                let known = inner.told.borrow().revision;
                assert!(revision <= known, "the worker says {revision}, but told {known} only");
            }
            FromNode::Leave => drop(inner.talk.send_replace(None)),
        }
    }
}

#[async_trait]
impl Registry for Leader {
    async fn join(
        &self,
        mut messages: BoxStream<'static, Result<FromNode>>,
    ) -> Result<BoxStream<'static, Result<ToNode>>> {
        let (say, said) = mpsc::unbounded_channel();
        let _ = say.send(Ok(ToNode::Hello { process: 1 }));
        let leader = self.clone();
        drop(lyra_kit::tasks::spawn("leader", async move {
            while let Some(Ok(word)) = messages.next().await {
                if matches!(word, FromNode::Register(..)) {
                    let (heartbeat, lease) = (Duration::from_secs(1), Duration::from_secs(10));
                    let _ = say.send(Ok(ToNode::Welcome { heartbeat, lease }));
                    leader.hear(word);
                    leader.0.talk.send_replace(Some(say.clone()));
                } else {
                    leader.hear(word);
                }
            }
        }));
        Ok(UnboundedReceiverStream::new(said).boxed())
    }

    async fn watch_workers(&self) -> Result<BoxStream<'static, Result<MemberEvent>>> {
        Ok(futures::stream::empty().boxed())
    }
}
