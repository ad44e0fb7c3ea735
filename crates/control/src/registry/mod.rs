//! Which workers there are and what they hold: conversations with them, their leases, commands to them, and the watch
//! that gateways follow.
//!
//! What is known of workers is not stored: they tell it again to whoever asks, so a control process that starts learns it
//! within a heartbeat, and a standby knows all that the leader does. `members` decides; `talk` talks; `commands` remembers
//! what was not answered yet.

mod commands;
mod holdings;
mod members;
mod metrics;
mod news;
mod talk;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_kit::{Clock, Tasks, telemetry};
use lyra_types::{Code, Error, Result};
use lyra_wire::registry::{Command, Controls, FromNode, MemberEvent, ToNode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};

use commands::Commands;
use members::Members;
pub(crate) use members::Seen;
use metrics::Metrics;
pub(crate) use news::News;

/// Events that a slow watcher may be behind; then it has to watch anew.
const BEHIND: usize = 4_096;
/// News of sessions that somebody may be behind; then all is looked at anew.
const NEWS: usize = 16_384;
/// How often leases are looked at, as a share of their length.
const LOOKS: u32 = 10;
/// Messages to one worker that wait to be sent. One that is so far behind is hung up on, and joins anew.
const OUTBOX: usize = 1_024;

/// Settings of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Longest time between two messages of a worker.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// A worker is lost when nothing was heard of it for so long; no more calls are sent there.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// A worker that is lost is forgotten after so long.
    #[serde(with = "humantime_serde")]
    pub forget: Duration,
    /// A control process that was just started places nothing for so long: workers may be about to join that hold it
    /// already.
    #[serde(with = "humantime_serde")]
    pub settle: Duration,
}

impl Default for RegistryConfig {
    fn default() -> RegistryConfig {
        let seconds = Duration::from_secs;
        RegistryConfig { heartbeat: seconds(3), lease: seconds(10), forget: seconds(3_600), settle: seconds(4) }
    }
}

/// The registry of a control process.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    config: RegistryConfig,
    clock: Clock,
    /// Which process this is.
    process: u64,
    members: Mutex<Members>,
    events: broadcast::Sender<MemberEvent>,
    /// What happens to sessions and their instances, and to workers.
    news: broadcast::Sender<News>,
    /// Counts changes that placement goes by.
    changes: watch::Sender<u64>,
    controls: watch::Sender<Controls>,
    commands: Commands,
    metrics: Metrics,
}

impl Registry {
    /// A registry that knows nobody, of the process with this number. `tasks` own what looks after the leases.
    pub fn new(config: RegistryConfig, process: u64, clock: Clock, tasks: &Tasks) -> Registry {
        let members = Mutex::new(Members::new(config.lease, config.forget));
        let inner = Arc::new(Inner {
            config,
            clock,
            process,
            members,
            events: broadcast::channel(BEHIND).0,
            news: broadcast::channel(NEWS).0,
            changes: watch::Sender::new(0),
            controls: watch::Sender::new(Controls::default()),
            commands: Commands::default(),
            metrics: Metrics::default(),
        });
        let of = Arc::clone(&inner);
        tasks.every("worker-leases", (config.lease / LOOKS).max(Duration::from_millis(10)), move || {
            let now = of.clock.instant();
            of.change(|members| ((), members.expire(now)));
            std::future::ready(())
        });
        Registry { inner }
    }

    /// Number of the process.
    pub(crate) fn process(&self) -> u64 {
        self.inner.process
    }

    /// Its settings.
    pub(crate) fn config(&self) -> RegistryConfig {
        self.inner.config
    }

    /// The workers with what they hold.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.members.lock().seen()
    }

    /// Changes when a worker comes, goes, may or may not be given something, or holds up something else.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// A worker with what it holds, if it is known.
    pub(crate) fn seen_of(&self, worker: &str) -> Option<Seen> {
        self.inner.members.lock().seen_of(worker)
    }

    /// What happens to sessions, to their instances and to workers, from now on.
    pub(crate) fn news(&self) -> broadcast::Receiver<News> {
        self.inner.news.subscribe()
    }

    /// Tells the workers which control processes there are.
    pub(crate) fn tell_controls(&self, controls: Controls) {
        self.inner.controls.send_if_modified(|known| {
            let is_news = *known != controls;
            *known = controls;
            is_news
        });
    }

    /// Has a worker do something, as the leader of this epoch; waits `limit` for its answer.
    ///
    /// # Errors
    /// [`Code::Unavailable`] where it does not talk with this process; [`Code::WorkerLost`] where it may have got the command
    /// but did not answer in time; else its own.
    pub(crate) async fn command(&self, worker: &str, epoch: u64, command: Command, limit: Duration) -> Result<()> {
        let answer = self.inner.commands.send(worker, epoch, command)?;
        match tokio::time::timeout(limit, answer.outcome()).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(Error::new(Code::WorkerLost, format!("worker {worker} hung up"))),
            Err(_) => Err(Error::new(Code::WorkerLost, format!("worker {worker} did not answer a command in time"))),
        }
    }
    /// Counts in `registry` who joins and who is lost, from now on.
    pub(crate) fn measure(&self, registry: &telemetry::Metrics) {
        self.inner.metrics.begin(registry);
        let of = Arc::downgrade(&self.inner);
        registry.before_render(move || {
            if let Some(inner) = of.upgrade() {
                inner.metrics.set_workers(inner.members.lock().all().map(|member| member.state));
            }
        });
    }
}

impl Inner {
    /// Changes the members and tells every watcher, in the order of the changes.
    fn change<T>(&self, change: impl FnOnce(&mut Members) -> (T, Vec<MemberEvent>)) -> T {
        let mut members = self.members.lock();
        let (outcome, events) = change(&mut members);
        let shape = members.shape();
        self.changes.send_if_modified(|known| std::mem::replace(known, shape) != shape);
        self.metrics.changed(&events);
        for event in events {
            let name = match &event {
                MemberEvent::Put(member) => Some(&member.registration.name),
                MemberEvent::Remove(name) => Some(name),
                MemberEvent::Synced => None,
            };
            if let Some(name) = name {
                let _ = self.news.send(News::State(name.clone()));
            }
            // Nobody may be watching.
            let _ = self.events.send(event);
        }
        outcome
    }
}

#[async_trait]
impl lyra_wire::Registry for Registry {
    async fn join(&self, messages: BoxStream<'static, Result<FromNode>>) -> Result<BoxStream<'static, Result<ToNode>>> {
        let (replies, to_node) = mpsc::channel(OUTBOX);
        let inner = Arc::clone(&self.inner);
        lyra_kit::tasks::spawn("talk-with-worker", async move { inner.talk(messages, replies).await });
        Ok(ReceiverStream::new(to_node).boxed())
    }

    async fn watch_workers(&self) -> Result<BoxStream<'static, Result<MemberEvent>>> {
        let members = self.inner.members.lock();
        // Under the lock, so that no change is left out or told twice.
        let changes = BroadcastStream::new(self.inner.events.subscribe());
        let known: Vec<_> = members.all().map(|member| Ok(MemberEvent::Put(Box::new(member)))).collect();
        drop(members);
        let changes = changes
            .map(|change| change.map_err(|_| Error::new(Code::Unavailable, "the watch is too far behind; watch anew")));
        let known = futures::stream::iter(known).chain(futures::stream::iter([Ok(MemberEvent::Synced)]));
        Ok(known.chain(changes).boxed())
    }
}
