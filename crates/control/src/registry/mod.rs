//! Which workers there are: conversations with them, their leases, and the watch that gateways follow.
//!
//! What is known of workers is not stored: they tell it again to whoever asks, so a control process that starts learns it
//! within a heartbeat. `members` decides; this file talks.

mod members;
mod metrics;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_kit::{Clock, Tasks, telemetry};
use lyra_types::{Code, Error, Result};
use lyra_wire::registry::{FromNode, MemberEvent, Registration, ToNode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};

use members::{Members, Token};
use metrics::Metrics;

/// Events that a slow watcher may be behind; then it has to watch anew.
const BEHIND: usize = 4_096;
/// How often leases are looked at, as a share of their length.
const LOOKS: u32 = 10;

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
}

impl Default for RegistryConfig {
    fn default() -> RegistryConfig {
        let seconds = Duration::from_secs;
        RegistryConfig { heartbeat: seconds(3), lease: seconds(10), forget: seconds(3_600) }
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
    members: Mutex<Members>,
    events: broadcast::Sender<MemberEvent>,
    metrics: Metrics,
}

impl Registry {
    /// A registry that knows nobody. `tasks` own what looks after the leases.
    pub fn new(config: RegistryConfig, clock: Clock, tasks: &Tasks) -> Registry {
        let members = Mutex::new(Members::new(config.lease, config.forget));
        let inner = Arc::new(Inner {
            config,
            clock,
            members,
            events: broadcast::channel(BEHIND).0,
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

    /// Counts in `registry` who joins and who is lost, from now on.
    pub fn measure(&self, registry: &telemetry::Metrics) {
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
        self.metrics.changed(&events);
        for event in events {
            // Nobody may be watching.
            let _ = self.events.send(event);
        }
        outcome
    }

    /// Talks with one worker until it goes away.
    async fn talk(&self, mut messages: BoxStream<'static, Result<FromNode>>, replies: mpsc::Sender<Result<ToNode>>) {
        let Some(Ok(FromNode::Register(registration))) = next(&mut messages, &replies).await else {
            let error = Error::new(Code::BadRequest, "a worker registers first");
            let _ = replies.send(Err(error)).await;
            return;
        };
        let name = registration.name.clone();
        let token = match self.register(*registration) {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(worker = name, %error, "a worker is refused");
                self.metrics.refused();
                let _ = replies.send(Ok(ToNode::Refused(error))).await;
                return;
            }
        };
        tracing::info!(worker = name, "a worker has joined");
        self.metrics.joined();
        let RegistryConfig { heartbeat, lease, .. } = self.config;
        if replies.send(Ok(ToNode::Welcome { heartbeat, lease })).await.is_ok() {
            self.listen(&name, token, &mut messages, &replies).await;
        }
        self.change(|members| ((), members.hung_up(&name, token)));
    }

    fn register(&self, registration: Registration) -> Result<Token> {
        let now = self.clock.instant();
        self.change(|members| match members.register(now, registration) {
            Ok((token, events)) => (Ok(token), events),
            Err(error) => (Err(error), Vec::new()),
        })
    }

    async fn listen(
        &self,
        name: &str,
        token: Token,
        messages: &mut BoxStream<'static, Result<FromNode>>,
        replies: &mpsc::Sender<Result<ToNode>>,
    ) {
        while let Some(Ok(message)) = next(messages, replies).await {
            let now = self.clock.instant();
            match message {
                FromNode::State(state) => {
                    if !self.change(|members| members.heard(now, name, token, state)) {
                        return;
                    }
                }
                FromNode::Leave => {
                    self.change(|members| ((), members.leave(name, token)));
                    tracing::info!(worker = name, "a worker has left");
                    return;
                }
                FromNode::Register(_) => return,
            }
        }
    }
}

/// The next message, or `None` when either end is gone.
async fn next(
    messages: &mut BoxStream<'static, Result<FromNode>>,
    replies: &mpsc::Sender<Result<ToNode>>,
) -> Option<Result<FromNode>> {
    tokio::select! {
        message = messages.next() => message,
        () = replies.closed() => None,
    }
}

#[async_trait]
impl lyra_wire::Registry for Registry {
    async fn join(&self, messages: BoxStream<'static, Result<FromNode>>) -> Result<BoxStream<'static, Result<ToNode>>> {
        let (replies, to_node) = mpsc::channel(16);
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
