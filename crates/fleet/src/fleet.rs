//! The fleet as one worker.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::future::join_all;
use lyra_kit::{Clock, Random, Tasks, telemetry};
use lyra_types::invocation::Report;
use lyra_types::{Code, Error, FunctionVersion, Result};
use lyra_wire::registry::{Member, MemberState};
use lyra_wire::worker::{Call, HttpCall, HttpReply, Prepare, Prepared, Reply};
use lyra_wire::workers::Known;
use lyra_wire::{Operated, Registry, Worker, Workers};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, watch};

use crate::balance::{self, Candidate, Holds, Policy, Toss};
use crate::follow::follow;
use crate::metrics::{Measured, Metrics};
use crate::node::{Entered, Node};
use crate::popularity::Popularity;
use crate::replay::Replay;
use crate::tries::{TRIES, Tries};

/// When to try again where no worker is ready.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest wait of a call for a worker to be ready: one that is restarted is back by then.
pub(crate) const WAIT: Duration = Duration::from_secs(2);
/// Longest wait of a deploy: control that was started anew hears of its workers by then.
const PREPARE_WAIT: Duration = Duration::from_secs(8);
/// Calls that wait at once; more are refused at once.
const MAX_WAITING: usize = 1_000;

/// Settings of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which worker gets a call of a function that does not say so itself.
    pub balance: Policy,
}

/// Makes a client of the worker called so at this address.
pub type Connect = dyn Fn(&str, &str) -> Result<Arc<dyn Operated>> + Send + Sync;

/// All workers that the registry tells of.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: Config,
    connect: Box<Connect>,
    /// By name. Read for every call, replaced when a worker comes or goes.
    nodes: ArcSwap<Vec<Arc<Node>>>,
    /// Held by whoever replaces them.
    changing: Mutex<()>,
    turn: AtomicUsize,
    popularity: Popularity,
    pub(crate) synced: watch::Sender<bool>,
    /// Told of every change of the workers.
    changed: Notify,
    waiting: Semaphore,
    pub(crate) measured: Measured,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
}

impl Fleet {
    /// A fleet that follows `registry` as long as `tasks` run.
    pub fn new(
        config: Config,
        registry: Arc<dyn Registry>,
        connect: Box<Connect>,
        clock: Clock,
        random: Random,
        tasks: &Tasks,
    ) -> Fleet {
        let inner = Arc::new(Inner {
            config,
            connect,
            nodes: ArcSwap::default(),
            changing: Mutex::new(()),
            turn: AtomicUsize::new(0),
            popularity: Popularity::default(),
            synced: watch::Sender::new(false),
            changed: Notify::new(),
            waiting: Semaphore::new(MAX_WAITING),
            measured: Measured::default(),
            clock,
            random,
        });
        tasks.spawn_cancellable("follow-workers", follow(Arc::clone(&inner), registry));
        Fleet { inner }
    }

    /// Counts in `registry` what becomes of calls, from now on.
    pub fn measure(&self, registry: &telemetry::Metrics) {
        let metrics = Metrics::new(registry);
        let (gauge, fleet) = (metrics.clone(), Arc::downgrade(&self.inner));
        registry.before_render(move || {
            if let Some(fleet) = fleet.upgrade() {
                gauge.set_workers(fleet.nodes.load().iter().map(|node| node.state()));
            }
        });
        self.inner.measured.begin(metrics);
    }

    /// Waits until the registry has told of every worker, `limit` at most; says whether it has.
    pub async fn synced(&self, limit: Duration) -> bool {
        let mut synced = self.inner.synced.subscribe();
        let told = tokio::time::timeout(limit, synced.wait_for(|synced| *synced)).await;
        matches!(told, Ok(Ok(_)))
    }
}

impl Inner {
    /// Takes what the registry says of a worker.
    pub(crate) fn put(&self, member: Member) {
        let _one_at_a_time = self.changing.lock();
        let nodes = self.nodes.load();
        let registration = &member.registration;
        let known = nodes.iter().find(|node| node.name == registration.name && node.address == registration.address);
        if let Some(node) = known {
            node.update(member);
            self.changed.notify_waiters();
            return;
        }
        let worker = match (self.connect)(&registration.name, &registration.address) {
            Ok(worker) => worker,
            Err(error) => {
                tracing::warn!(worker = registration.name, %error, "a worker has no usable address");
                return;
            }
        };
        let mut all: Vec<_> = nodes.iter().filter(|node| node.name != registration.name).cloned().collect();
        all.push(Arc::new(Node::new(member, worker)));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        self.nodes.store(Arc::new(all));
        self.changed.notify_waiters();
    }

    /// Looks again and again, whenever the workers have changed, until there is something or `limit` has passed.
    pub(crate) async fn look<T>(&self, limit: Duration, find: impl Fn() -> Option<T>) -> Option<T> {
        if let Some(found) = find() {
            return Some(found);
        }
        let _place = self.waiting.try_acquire().ok()?;
        let found = async {
            loop {
                // Asked for before looking, so that no change is missed.
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if let Some(found) = find() {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, found).await.ok()
    }

    /// Keeps the workers whose names are to be kept.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        let _one_at_a_time = self.changing.lock();
        let nodes = self.nodes.load();
        if nodes.iter().any(|node| !keep(&node.name)) {
            self.nodes.store(Arc::new(nodes.iter().filter(|node| keep(&node.name)).cloned().collect()));
            if let Some(metrics) = self.measured.get() {
                nodes.iter().filter(|node| !keep(&node.name)).for_each(|node| metrics.forget(&node.name));
            }
        }
    }

    /// The worker that gets a call of `version`, of those that were not `tried`.
    pub(crate) fn choose(&self, version: &FunctionVersion, tried: &[String]) -> Option<Arc<Node>> {
        let now = self.clock.instant();
        let nodes = self.nodes.load();
        let may = |node: &&Arc<Node>| node.takes(version) && !tried.contains(&node.name);
        let mut able: Vec<&Arc<Node>> = nodes.iter().filter(|node| may(node) && !node.is_suspect(now)).collect();
        if able.is_empty() {
            able = nodes.iter().filter(may).collect();
        }
        let policy = self.policy(version);
        let hash = hash(version);
        let candidate = |node: &&Arc<Node>| {
            let holds = if policy == Policy::LocalityFirst { node.footprints.holds(hash, now) } else { Holds::Nothing };
            Candidate { name: node.hash, load: node.measure(policy, version), holds }
        };
        let candidates: Vec<_> = able.iter().map(candidate).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let share = if policy == Policy::ChRlu { self.popularity.count(hash) } else { 0.0 };
        let toss = Toss { version: hash, turn, draw: self.random.u64(), share };
        Some(Arc::clone(able[balance::choose(policy, &candidates, toss)?]))
    }

    /// The policy by which calls of `version` find their worker.
    fn policy(&self, version: &FunctionVersion) -> Policy {
        version.balancing.unwrap_or(self.config.balance)
    }

    /// Counts a call of `version` on `node` for as long as what is returned lives.
    pub(crate) fn enter(&self, node: &Arc<Node>, version: &FunctionVersion) -> Entered {
        let by_holdings = self.policy(version) == Policy::LocalityFirst;
        node.enter(by_holdings.then(|| hash(version)), self.clock.instant())
    }

    /// What a caller is told where no worker takes calls of `version`.
    pub(crate) fn nobody_for(&self, version: &FunctionVersion) -> Error {
        let nodes = self.nodes.load();
        let mut ready = nodes.iter().filter(|node| node.state() == MemberState::Ready).peekable();
        if ready.peek().is_none() || ready.any(|node| node.takes(version)) {
            return nobody("no worker is ready");
        }
        let FunctionVersion { runtime, isolation, memory_mb, .. } = version;
        nobody(format!(
            "no worker is ready that runs {runtime} by isolation {isolation} with {memory_mb} MiB of memory"
        ))
    }

    /// The workers that run `runtime`: first those that have all that is asked for, of them the one with the least to do.
    fn able(&self, prepare: &Prepare) -> Vec<Arc<Node>> {
        let nodes = self.nodes.load();
        let ready = |node: &&Arc<Node>| node.state() == MemberState::Ready;
        let mut able: Vec<_> =
            nodes.iter().filter(ready).filter(|node| node.runs(prepare.runtime)).map(Arc::clone).collect();
        // The others say what is missing.
        able.sort_by_key(|node| (!node.could_run(prepare), node.load()));
        able
    }
}

/// What stands for a version in the policies.
fn hash(version: &FunctionVersion) -> u64 {
    let mut hasher = DefaultHasher::new();
    (version.generation, version.version).hash(&mut hasher);
    hasher.finish()
}

/// What a caller is told where there is nobody to ask.
fn nobody(why: impl Into<String>) -> Error {
    Error::new(Code::Unavailable, why).with_retry_after(AGAIN)
}

#[async_trait]
impl Worker for Fleet {
    async fn prepare(&self, prepare: Prepare) -> Result<Prepared> {
        let mut last = nobody(format!("no worker is ready that runs {}", prepare.runtime));
        let able = || Some(self.inner.able(&prepare)).filter(|able| !able.is_empty());
        let able = self.inner.look(PREPARE_WAIT, able).await.unwrap_or_default();
        for node in able.into_iter().take(TRIES) {
            match node.worker.prepare(prepare.clone()).await {
                Err(error) if error.code == Code::Unavailable => {
                    node.suspect(self.inner.clock.instant());
                    last = error;
                }
                outcome => return outcome,
            }
        }
        Err(last)
    }

    async fn prewarm(&self, version: Arc<FunctionVersion>, instances: u32) -> Result<()> {
        let chosen = self.inner.look(WAIT, || self.inner.choose(&version, &[])).await;
        let node = chosen.ok_or_else(|| self.inner.nobody_for(&version))?;
        node.worker.prewarm(version, instances).await
    }

    async fn forget(&self, generation: u64, version: Option<u64>) -> Result<()> {
        let nodes = self.inner.nodes.load_full();
        let told = nodes.iter().filter(|node| node.state() != MemberState::Lost);
        let told = join_all(told.map(|node| node.worker.forget(generation, version))).await;
        told.into_iter().collect()
    }

    async fn invoke(&self, call: Call) -> Reply {
        let mut tries = Tries::new(&self.inner, &call.version);
        let mut last = None;
        while let Some(this) = tries.next().await {
            let reply = this.node.worker.invoke(call.clone()).await;
            if !tries.ended(this, &reply.report, &reply.outcome) {
                return reply;
            }
            last = Some(reply);
        }
        last.unwrap_or_else(|| Reply {
            report: Report::new(call.id, call.version.version),
            outcome: Err(self.inner.nobody_for(&call.version)),
        })
    }

    async fn serve(&self, call: HttpCall) -> HttpReply {
        let HttpCall { id, version, request, user } = call;
        let (parts, body) = request.into_parts();
        let body = Replay::new(body);
        let mut tries = Tries::new(&self.inner, &version);
        let mut last = None;
        // What was read of a long body is gone; then the first worker's answer stands.
        while let Some(body) = body.body()
            && let Some(this) = tries.next().await
        {
            let request = http::Request::from_parts(parts.clone(), body);
            let reply = this
                .node
                .worker
                .serve(HttpCall { id, version: Arc::clone(&version), request, user: user.clone() })
                .await;
            if !tries.ended(this, &reply.report, &reply.outcome) {
                return reply;
            }
            last = Some(reply);
        }
        last.unwrap_or_else(|| HttpReply {
            report: Report::new(id, version.version),
            outcome: Err(self.inner.nobody_for(&version)),
        })
    }
}

impl Workers for Fleet {
    fn all(&self) -> Vec<Known> {
        let known = |node: &Arc<Node>| Known {
            name: node.name.clone(),
            address: Some(node.address.clone()),
            state: node.state(),
            worker: Arc::clone(&node.worker),
        };
        self.inner.nodes.load().iter().map(known).collect()
    }
}
