//! What a worker that is a process of its own tells the control role: who it is, and again and again that it lives and
//! what it holds.
//!
//! One conversation with each control process, begun again whenever it breaks. Calls do not depend on any of them: a worker
//! that is cut off from control serves on.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lyra_kit::retry::Backoff;
use lyra_kit::{Clock, Random, Tasks};
use lyra_types::{Code, Error, Result};
use lyra_wire::Registry;
use lyra_wire::registry::{FromNode, NodeState, Registration, ToNode};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::Service;

/// Waits between tries to join.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(3) };
/// Longest wait for control's first word.
const WELCOME: Duration = Duration::from_secs(10);
/// Longest wait for the parting word to be sent.
const PART: Duration = Duration::from_secs(2);

/// Who a worker is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name, which no other worker has.
    pub name: String,
    /// Where calls reach it, `HOST:PORT`.
    pub address: String,
}

/// Keeps the control role informed.
pub struct Agent {
    tasks: Tasks,
}

impl Agent {
    /// Begins the conversations with every one of `registries`.
    pub fn start(
        identity: Identity,
        worker: Service,
        registries: Vec<Arc<dyn Registry>>,
        clock: &Clock,
        random: &Random,
    ) -> Agent {
        let tasks = Tasks::new();
        let incarnation = random.u64();
        for registry in registries {
            let talk = Talk {
                identity: identity.clone(),
                worker: worker.clone(),
                incarnation,
                registry,
                clock: clock.clone(),
                random: random.clone(),
                tasks: tasks.clone(),
            };
            tasks.spawn("talk-with-control", async move { talk.on_and_on().await });
        }
        Agent { tasks }
    }

    /// Takes leave: control sends no more calls.
    pub async fn stop(&self) {
        if !self.tasks.stop(PART).await {
            tracing::warn!("control was not told that this worker ends");
        }
    }
}

struct Talk {
    identity: Identity,
    worker: Service,
    incarnation: u64,
    registry: Arc<dyn Registry>,
    clock: Clock,
    random: Random,
    tasks: Tasks,
}

impl Talk {
    async fn on_and_on(&self) {
        let mut tries = 0;
        loop {
            let mut joined = false;
            match self.once(&mut joined).await {
                Ok(()) => return,
                Err(error) if error.code == Code::Conflict => tracing::error!(%error, "control refuses this worker"),
                Err(error) => tracing::debug!(%error, "the conversation with control broke off"),
            }
            tries = if joined { 1 } else { tries + 1 };
            let stopping = self.tasks.stopping();
            tokio::select! {
                () = self.clock.sleep(RETRY.delay(tries, &self.random)) => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    /// One conversation. Ends well only when the worker takes leave.
    async fn once(&self, joined: &mut bool) -> Result<()> {
        let (say, said) = mpsc::channel(4);
        let gone = |_| Error::new(Code::Unavailable, "control hung up");
        say.send(Ok(FromNode::Register(Box::new(self.registration())))).await.map_err(gone)?;
        let mut heard = self.registry.join(ReceiverStream::new(said).boxed()).await?;
        let first = tokio::time::timeout(WELCOME, heard.next()).await;
        let first = first.map_err(|_| Error::new(Code::Unavailable, "control did not answer in time"))?;
        let heartbeat = match first {
            Some(Ok(ToNode::Welcome { heartbeat, .. })) => heartbeat,
            Some(Ok(ToNode::Refused(error)) | Err(error)) => return Err(error),
            None => return Err(Error::new(Code::Unavailable, "control hung up")),
        };
        *joined = true;
        tracing::info!(worker = self.identity.name, "joined control");
        let mut ticks = tokio::time::interval(heartbeat);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stopping = self.tasks.stopping();
        loop {
            tokio::select! {
                _ = ticks.tick() => say.send(Ok(FromNode::State(self.state()))).await.map_err(gone)?,
                word = heard.next() => match word {
                    Some(Ok(ToNode::Welcome { .. })) => {}
                    Some(Ok(ToNode::Refused(error)) | Err(error)) => return Err(error),
                    None => return Err(Error::new(Code::Unavailable, "control hung up")),
                },
                () = stopping.cancelled() => {
                    say.send(Ok(FromNode::Leave)).await.map_err(gone)?;
                    // Control ends the conversation once it has heard.
                    while heard.next().await.is_some() {}
                    return Ok(());
                }
            }
        }
    }

    fn registration(&self) -> Registration {
        Registration {
            name: self.identity.name.clone(),
            address: self.identity.address.clone(),
            incarnation: self.incarnation,
            backends: self.worker.status().machine.backends,
            state: self.state(),
        }
    }

    fn state(&self) -> NodeState {
        let status = self.worker.counts();
        let counts = status.holdings.instances;
        NodeState {
            cordoned: self.worker.is_cordoned(),
            running: status.running,
            queued: status.queued,
            concurrency_limit: status.concurrency_limit,
            instances: counts.standby + counts.active + counts.hibernated + counts.creating,
            memory: status.holdings.memory,
            cpu: status.holdings.cpu,
            gpu: status.holdings.gpu,
            load: lyra_kit::load::averages(),
        }
    }
}
