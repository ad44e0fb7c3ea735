//! A worker as control sees it, that holds sessions: it speaks the real protocol and starts nothing. Its programs are as fast
//! and as willing as the test says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lyra_types::api::{BackendStatus, Resource};
use lyra_types::{InstanceId, Runtime};
use lyra_wire::Registry as _;
use lyra_wire::registry::{Change, Command, FromNode, NodeState, Registration, ToNode, Workload};
use lyra_wire::sessions::{
    AppKey, HostedReport, NodeEndpoint, OpenSession, SessionCommand, SessionEnd, SessionPhase, SessionReport, Stand,
};
use lyra_wire::worker::InstanceState;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::Registry;

/// How its programs are.
#[derive(Debug, Clone, Copy)]
pub(in crate::tests) struct Nature {
    /// Time that an instance takes to be ready.
    pub(in crate::tests) start: Duration,
    /// Instances that it has room for.
    pub(in crate::tests) room: usize,
    /// Why every instance fails, if they do.
    pub(in crate::tests) why: Option<&'static str>,
}

impl Default for Nature {
    fn default() -> Nature {
        Nature { start: Duration::from_millis(50), room: 1_000, why: None }
    }
}

/// What it holds. Survives its conversations, as a worker's store does.
#[derive(Debug, Default)]
pub(in crate::tests) struct Held {
    pub(in crate::tests) revision: u64,
    pub(in crate::tests) epoch: u64,
    made: u128,
    pub(in crate::tests) stands: BTreeMap<AppKey, u32>,
    pub(in crate::tests) hosted: BTreeMap<InstanceId, HostedReport>,
    pub(in crate::tests) sessions: BTreeMap<String, SessionReport>,
    /// Sessions that it was told to open, once for each instance that got one.
    pub(in crate::tests) opened: Vec<String>,
    /// Of these: the ones whose instance is to serve the next one.
    reuse: BTreeSet<String>,
    /// Commands of leaders that were not the last.
    pub(in crate::tests) refused: u32,
    /// So many of the next commands to load code fail.
    pub(in crate::tests) preloads_to_fail: u32,
    /// So many of the next commands to open a session are lost on the way.
    pub(in crate::tests) opens_to_lose: u32,
}

/// A worker.
#[derive(Clone)]
pub(in crate::tests) struct Node {
    pub(in crate::tests) name: String,
    number: u64,
    nature: Nature,
    pub(in crate::tests) held: Arc<Mutex<Held>>,
}

/// Its conversations; it is silent once this is dropped.
pub(in crate::tests) struct Talk(Vec<AbortHandle>);

impl Drop for Talk {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

type Say = mpsc::UnboundedSender<Change>;

impl Node {
    pub(in crate::tests) fn new(number: u64, nature: Nature) -> Node {
        Node { name: format!("w{number}"), number, nature, held: Arc::default() }
    }

    /// Talks with these control processes.
    pub(in crate::tests) fn join(&self, registries: &[Registry]) -> Talk {
        let talks = registries.iter().map(|registry| {
            let (node, registry) = (self.clone(), registry.clone());
            lyra_kit::tasks::spawn("node", async move { node.talk(registry).await }).abort_handle()
        });
        Talk(talks.collect())
    }

    async fn talk(self, registry: Registry) {
        let (say, said) = mpsc::channel(1_024);
        let (change, mut changes) = mpsc::unbounded_channel();
        let mut heard = registry.join(ReceiverStream::new(said).boxed()).await.unwrap();
        let register = FromNode::Register(Box::new(self.registration()), self.workload());
        let _ = say.send(Ok(register)).await;
        let mut beats = tokio::time::interval(Duration::from_secs(3));
        loop {
            let message = tokio::select! {
                biased;
                Some(of) = changes.recv() => {
                    let mut held = self.held.lock();
                    held.revision += 1;
                    FromNode::Changed(held.revision, of)
                }
                word = heard.next() => match word {
                    Some(Ok(ToNode::Command { id, epoch, command })) => FromNode::Done(id, self.obey(epoch, command, &change)),
                    Some(Ok(ToNode::FullSync)) => FromNode::Workload(self.workload()),
                    Some(_) => continue,
                    None => return,
                },
                _ = beats.tick() => FromNode::State(self.state(), self.held.lock().revision),
            };
            let _ = say.send(Ok(message)).await;
        }
    }

    fn registration(&self) -> Registration {
        let backend =
            BackendStatus { name: "process".to_owned(), runtimes: vec![Runtime::Http], ..BackendStatus::default() };
        Registration {
            name: self.name.clone(),
            address: format!("{}:1", self.name),
            incarnation: self.number,
            backends: vec![backend],
            state: self.state(),
        }
    }

    fn state(&self) -> NodeState {
        let total = Some((self.nature.room as u64) * (128 << 20));
        let charged = self.held.lock().hosted.len() as u64 * (128 << 20);
        NodeState { memory: Resource { total, charged, ..Resource::default() }, ..NodeState::default() }
    }

    fn workload(&self) -> Workload {
        let held = self.held.lock();
        Workload {
            node: self.number,
            revision: held.revision,
            stands: held.stands.iter().map(|(app, count)| Stand { app: app.clone(), instances: *count }).collect(),
            hosted: held.hosted.values().cloned().collect(),
            sessions: held.sessions.values().cloned().collect(),
            ..Workload::default()
        }
    }

    fn obey(&self, epoch: u64, command: Command, say: &Say) -> Result<()> {
        let mut held = self.held.lock();
        if epoch < held.epoch {
            held.refused += 1;
            return Err(Error::new(Code::Conflict, "another leader has begun"));
        }
        held.epoch = epoch;
        let Command::Session(command) = command else { return Ok(()) };
        match command {
            SessionCommand::Preload(_) if held.preloads_to_fail > 0 => {
                held.preloads_to_fail -= 1;
                return Err(Error::new(Code::Unavailable, "its disk is full"));
            }
            SessionCommand::Open(_) if held.opens_to_lose > 0 => {
                held.opens_to_lose -= 1;
                return Err(Error::new(Code::WorkerLost, "the conversation broke off"));
            }
            SessionCommand::Preload(_) | SessionCommand::Configure { .. } => {}
            SessionCommand::Stand(app, count) => self.stand(&mut held, &app.key, count, say),
            SessionCommand::Dismiss(key) => self.stand(&mut held, &key, 0, say),
            SessionCommand::Open(open) => return self.open(&mut held, *open, say),
            SessionCommand::Close(uid, _) => self.close(&mut held, &uid, SessionEnd::Closed, say),
            SessionCommand::Forget(uid) => {
                if held.sessions.remove(&uid).is_some() {
                    let _ = say.send(Change::Forgotten(uid));
                }
            }
        }
        Ok(())
    }

    fn stand(&self, held: &mut Held, app: &AppKey, count: u32, say: &Say) {
        let _ = say.send(Change::Stand(Stand { app: app.clone(), instances: count }));
        if count == 0 {
            held.stands.remove(app)
        } else {
            held.stands.insert(app.clone(), count)
        };
        self.fill(held, app, say);
    }

    /// Starts what is missing, ends what is too much.
    fn fill(&self, held: &mut Held, app: &AppKey, say: &Say) {
        let wanted = held.stands.get(app).copied().unwrap_or(0) as usize;
        let free = |held: &Held| -> Vec<InstanceId> {
            held.hosted.values().filter(|of| of.app == *app && of.session.is_none()).map(|of| of.id).collect()
        };
        while free(held).len() > wanted {
            let id = free(held)[0];
            self.end(held, id, say);
        }
        while free(held).len() < wanted && held.hosted.len() < self.nature.room {
            self.begin(held, app, None, say);
        }
    }

    fn begin(&self, held: &mut Held, app: &AppKey, session: Option<String>, say: &Say) -> InstanceId {
        held.made += 1;
        let id = InstanceId::from_parts(self.number, held.made);
        let report = HostedReport {
            id,
            app: app.clone(),
            state: InstanceState::Creating,
            session,
            memory: 128 << 20,
            why: None,
        };
        held.hosted.insert(id, report.clone());
        let _ = say.send(Change::Hosted(report));
        let (node, say) = (self.clone(), say.clone());
        lyra_kit::tasks::spawn("start", async move {
            tokio::time::sleep(node.nature.start).await;
            node.started(id, &say);
        });
        id
    }

    fn started(&self, id: InstanceId, say: &Say) {
        let held = &mut *self.held.lock();
        let Some(of) = held.hosted.get_mut(&id) else { return };
        if let Some(why) = self.nature.why {
            of.why = Some(why.to_owned());
            return self.end(held, id, say);
        }
        of.state = if of.session.is_some() { InstanceState::Active } else { InstanceState::Standby };
        let _ = say.send(Change::Hosted(of.clone()));
        if let Some(uid) = of.session.clone() {
            self.opened(held, &uid, id, say);
        }
    }

    fn opened(&self, held: &mut Held, uid: &str, id: InstanceId, say: &Say) {
        let Some(session) = held.sessions.get_mut(uid).filter(|of| of.phase == SessionPhase::Starting) else { return };
        session.phase = SessionPhase::Open;
        session.instance = Some(id);
        session.available_micros = Some(1);
        let number = u16::try_from(20_000 + id.number() % 10_000).unwrap();
        session.endpoints = vec![NodeEndpoint {
            port: lyra_wire::sessions::AppPort { name: "main".to_owned(), port: 80, protocol: Default::default() },
            address: ([10, 0, 0, u8::try_from(self.number % 250).unwrap()], number).into(),
        }];
        let _ = say.send(Change::Session(Box::new(session.clone())));
    }

    fn open(&self, held: &mut Held, open: OpenSession, say: &Say) -> Result<()> {
        let uid = open.key.uid.clone();
        if held.sessions.contains_key(&uid) {
            return Ok(());
        }
        let app = open.app.key.clone();
        let ready =
            |of: &&mut HostedReport| of.app == app && of.session.is_none() && of.state == InstanceState::Standby;
        let found = held.hosted.values_mut().find(ready).map(|of| {
            of.session = Some(uid.clone());
            of.state = InstanceState::Active;
            of.clone()
        });
        if found.is_none() && held.hosted.len() >= self.nature.room {
            return Err(Error::new(Code::Overloaded, "there is no memory for it"));
        }
        let report = SessionReport {
            key: open.key.clone(),
            app: app.clone(),
            instance: None,
            phase: SessionPhase::Starting,
            endpoints: Vec::new(),
            clients: Vec::new(),
            available_micros: None,
            end: None,
        };
        held.sessions.insert(uid.clone(), report.clone());
        held.opened.push(uid.clone());
        if open.reuse {
            held.reuse.insert(uid.clone());
        }
        let _ = say.send(Change::Session(Box::new(report)));
        match found {
            Some(of) => {
                let id = of.id;
                let _ = say.send(Change::Hosted(of));
                self.opened(held, &uid, id, say);
            }
            None => drop(self.begin(held, &app, Some(uid), say)),
        }
        self.stand(held, &app, open.standing, say);
        Ok(())
    }

    fn close(&self, held: &mut Held, uid: &str, how: SessionEnd, say: &Say) {
        let Some(session) = held.sessions.get_mut(uid).filter(|of| of.phase != SessionPhase::Closed) else { return };
        session.phase = SessionPhase::Closed;
        session.endpoints.clear();
        session.end = Some((how, String::new()));
        let _ = say.send(Change::Session(Box::new(session.clone())));
        let ids: Vec<InstanceId> =
            held.hosted.values().filter(|of| of.session.as_deref() == Some(uid)).map(|of| of.id).collect();
        for id in ids {
            match held.reuse.remove(uid) {
                true => self.stand_again(held, id, say),
                false => self.end(held, id, say),
            }
        }
    }

    /// The instance stands, for two seconds at least, in which the leader may say that it is wanted.
    fn stand_again(&self, held: &mut Held, id: InstanceId, say: &Say) {
        let Some(of) = held.hosted.get_mut(&id) else { return };
        (of.state, of.session) = (InstanceState::Standby, None);
        let _ = say.send(Change::Hosted(of.clone()));
        let (node, say, app) = (self.clone(), say.clone(), of.app.clone());
        lyra_kit::tasks::spawn("stands again", async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            node.fill(&mut node.held.lock(), &app, &say);
        });
    }

    fn end(&self, held: &mut Held, id: InstanceId, say: &Say) {
        if let Some(mut of) = held.hosted.remove(&id) {
            of.state = InstanceState::Terminated;
            let _ = say.send(Change::Hosted(of));
        }
    }
}
