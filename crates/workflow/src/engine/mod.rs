//! The shell around the core: an actor for each run, which writes the journal and has functions called.
//!
//! What must hold: an entry is on disk before anything outside is done because of it; answers of calls are taken in
//! one at a time for each run; a run ends once; when the process is killed, another one takes every run up where its
//! journal ends.

mod actor;
mod attempt;
mod choose;
mod failure;
mod guard;
pub(crate) mod journal;
mod lending;
pub(crate) mod links;
pub(crate) mod program;
mod stuck;
mod summary;
#[cfg(test)]
mod tests;
mod trace;
mod values;
mod whole;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use lyra_kit::{Clock, Random, Tasks};
use lyra_store::runs::{NewRunRecord, TakenRun};
use lyra_store::{Blobs, Runs, RunsError, StoreError};
use lyra_types::function::Digest;
use lyra_types::quota::QuotaKey;
use lyra_types::workflow::{Parent, RunStatus, TaskCounts};
use lyra_types::{Code, Error, Result, RunId, TenantName, Timestamp, WorkflowName};
use lyra_wire::workflows::WorkflowLoad;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::Instant;

pub(crate) use actor::Message;
pub(crate) use attempt::parse_callback;
pub(crate) use program::{Compiled, Program};
pub(crate) use summary::Summary;

use crate::config::Config;
use crate::core::Limits;
use crate::core::datum::DEPTH;
use crate::enact::Enact;
use crate::metrics::Metrics;
use crate::quota;
use actor::Actor;
use choose::Chooser;

/// Messages that may wait at a run.
const MAILBOX: usize = 1_024;
/// Runs that are taken over at a time.
const TAKE: usize = 64;
/// Old runs that are forgotten at a time.
const SWEPT: usize = 256;
/// Longest time between two looks for runs of processes that live no more.
const LOOK: Duration = Duration::from_secs(5);
/// Traces that are made at a time.
const TRACES: usize = 4;
/// Programs kept ready.
const PROGRAMS: usize = 1_024;

/// What a run was made with: the opaque head of its record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Digest of the [`Compiled`] version.
    pub program: String,
    /// The input.
    pub input: Map<String, Value>,
    /// What tokens of callbacks are made from, so that nobody can guess one.
    pub secret: String,
    /// The run and task that this one is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// How many runs stand around this one.
    #[serde(default)]
    pub depth: u32,
    /// The schedule that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The longest time that whoever started it gives it, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The W3C trace context of whoever started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Who is charged for what its tasks call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
    /// What it may use; not there in runs of an earlier Lyra.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// A run to start.
pub(crate) struct Begin {
    pub tenant: TenantName,
    pub id: RunId,
    pub workflow: WorkflowName,
    pub version: u64,
    pub fingerprint: [u8; 32],
    pub program: Arc<Program>,
    pub head: Head,
    /// Who hears of its end, as the store keeps it; not there for a run that is taken up.
    pub notice: Option<Arc<str>>,
    /// Most runs of the tenant that may not have ended, by its quota.
    pub most_live: Option<u32>,
}

/// What is seen of a run from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Snapshot {
    pub status: RunStatus,
    pub counts: TaskCounts,
}

/// A run that is under way.
#[derive(Clone)]
pub(crate) struct Handle {
    pub mail: mpsc::Sender<Message>,
    pub seen: watch::Receiver<Snapshot>,
    pub program: Arc<Program>,
    /// How many runs stand around this one.
    pub depth: u32,
}

/// Runs runs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engine {
    inner: Arc<Inner>,
}

/// What an engine is made of.
pub(crate) struct Deps {
    pub runs: Arc<dyn Runs>,
    pub blobs: Arc<dyn Blobs>,
    pub enact: Arc<dyn Enact>,
    /// URLs of values.
    pub links: Arc<links::Links>,
    pub config: Config,
    pub clock: Clock,
    pub random: Random,
    pub tasks: Tasks,
    pub metrics: Metrics,
    /// Who wants to know which runs have ended.
    pub ended: Option<mpsc::Sender<(TenantName, RunId)>>,
}

pub(crate) struct Inner {
    pub deps: Deps,
    /// This process, among all that ever ran runs.
    pub owner: u64,
    /// Gives resources to tasks.
    pub chooser: Chooser,
    /// Places for calls.
    pub permits: Arc<Semaphore>,
    active: Mutex<HashMap<(TenantName, RunId), Handle>>,
    /// Runs of this process that can't go on.
    stuck: Mutex<HashMap<(TenantName, RunId), stuck::Stuck>>,
    programs: Mutex<HashMap<String, Arc<Program>>>,
    /// Places for traces that are made: each reads a whole journal.
    traces: Semaphore,
    /// Traces whose next page may be asked for.
    pages: trace::Pages,
    /// What all runs hold together, about.
    held_bytes: AtomicU64,
    /// Told when another process is seen no more.
    look: Notify,
    /// When this process was last heard of, by its own clock; none before the first time.
    heard: Mutex<Option<Instant>>,
    /// Set when a run has ended here of whose end somebody may want to hear.
    pub told: Notify,
}

impl Engine {
    /// A handle that does not keep it.
    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    /// The engine of a handle, while there is one.
    pub(crate) fn upgrade(handle: &Weak<Inner>) -> Option<Engine> {
        handle.upgrade().map(|inner| Engine { inner })
    }

    pub(crate) fn new(deps: Deps) -> Engine {
        let inner = Inner {
            owner: deps.random.u64(),
            chooser: Chooser::new(deps.config.scheduling, deps.clock.clone(), deps.random.clone()),
            permits: Arc::new(Semaphore::new(deps.config.in_flight.clamp(1, Semaphore::MAX_PERMITS))),
            active: Mutex::default(),
            stuck: Mutex::default(),
            programs: Mutex::default(),
            traces: Semaphore::new(TRACES),
            pages: trace::Pages::default(),
            held_bytes: AtomicU64::new(0),
            look: Notify::new(),
            heard: Mutex::default(),
            told: Notify::new(),
            deps,
        };
        Engine { inner: Arc::new(inner) }
    }

    /// Starts a run; false when its id was known. It is durable when this returns.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when this host has as many runs as it may have; those of the store.
    pub(crate) async fn begin(&self, mut begin: Begin) -> Result<bool> {
        let inner = &self.inner;
        self.check_stays()?;
        if inner.active.lock().len() >= inner.deps.config.max_runs {
            let detail = format!("{} runs are under way, which is the limit of this host", inner.deps.config.max_runs);
            return Err(Error::new(Code::Overloaded, detail).with_retry_after(Duration::from_secs(1)));
        }
        // Settings may be others when it is read back, and it has to come out the same.
        begin.head.limits.get_or_insert_with(|| inner.deps.config.limits());
        let (mut actor, mail) = Actor::new(inner, &begin);
        let (actor, batch) = guard::guarded(async move {
            actor.begin();
            let batch = actor.take_batch().await?;
            Ok((actor, batch))
        })
        .await?;
        let head = serde_json::to_vec(&begin.head)
            .map_err(|error| Error::internal(format!("a run's head can't be written: {error}")))?;
        let record = NewRunRecord {
            tenant: begin.tenant,
            id: begin.id,
            workflow: begin.workflow,
            version: begin.version,
            fingerprint: begin.fingerprint,
            now: inner.deps.clock.now(),
            owner: inner.owner,
            head: Bytes::from(head),
            batch,
            summary: actor.summary(),
            notice: begin.notice,
            most_live: begin.most_live,
        };
        let engine = self.clone();
        self.whole("begin of a run", async move {
            let of = QuotaKey { tenant: record.tenant.clone(), function: None };
            match engine.inner.deps.runs.create(record).await {
                Ok(lyra_store::runs::CreatedRun::Known) => Ok(false),
                Ok(lyra_store::runs::CreatedRun::New { fence }) => {
                    engine.inner.deps.metrics.started.inc();
                    engine.run(actor, mail, fence);
                    Ok(true)
                }
                Err(RunsError::Full(most)) => Err(quota::full(&of, most)),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// A process that ends takes no runs: nobody would run them before another one takes them over.
    fn check_stays(&self) -> Result<()> {
        if !self.inner.deps.tasks.stopping().is_cancelled() {
            return Ok(());
        }
        let detail = "this process that runs workflows ends; another one takes it";
        Err(Error::new(Code::Unavailable, detail).with_retry_after(Duration::from_secs(1)))
    }

    /// Lets an actor run, whose journal is written up to where it stands.
    fn run(&self, mut actor: Actor, mail: mpsc::Sender<Message>, fence: u64) {
        actor.owns(fence);
        let key = (actor.tenant.clone(), actor.id.clone());
        let handle = actor.handle(mail);
        self.inner.active.lock().insert(key.clone(), handle);
        self.inner.deps.metrics.active.inc();
        let inner = Arc::clone(&self.inner);
        let left = Left { inner, key };
        let engine = self.clone();
        self.inner.deps.tasks.spawn_cancellable("run of a workflow", async move {
            // Dropped also when the task is cancelled.
            let left = left;
            let (tenant, id) = left.key.clone();
            let ran = guard::guarded(async move {
                actor.run().await;
                Ok(())
            });
            let ran = ran.await;
            drop(left);
            if let Err(fault) = ran {
                engine.stick_fallen(tenant, id, fence, &fault).await;
            }
        });
    }

    /// The run, if it is under way here.
    pub(crate) fn active(&self, tenant: &TenantName, id: &RunId) -> Option<Handle> {
        self.inner.active.lock().get(&(tenant.clone(), id.clone())).cloned()
    }

    /// The program of this digest.
    ///
    /// # Errors
    /// When it is not in the blob store, or can't be read.
    pub(crate) async fn program(&self, digest: &str) -> Result<Arc<Program>> {
        if let Some(known) = self.inner.programs.lock().get(digest) {
            return Ok(Arc::clone(known));
        }
        let found = self.inner.deps.blobs.get(&Digest(digest.to_owned())).await?;
        let bytes = found.ok_or_else(|| Error::internal("the program of a workflow is not in the blob store"))?;
        let program = Arc::new(Program::read(&bytes, &self.inner.chooser)?);
        let mut programs = self.inner.programs.lock();
        if programs.len() >= PROGRAMS {
            programs.clear();
        }
        programs.insert(digest.to_owned(), Arc::clone(&program));
        Ok(program)
    }

    /// Says that this process lives, takes over runs of those that do not, and forgets old ones, for ever. The first
    /// round, in which runs of an earlier process are taken up, has been when this returns.
    ///
    /// # Errors
    /// When the store fails in the first round.
    pub(crate) async fn take_over(&self, alone: bool) -> Result<()> {
        self.take_all(alone).await?;
        let engine = self.clone();
        self.inner.deps.tasks.spawn_cancellable("runs of others", async move {
            let deps = &engine.inner.deps;
            let every = (deps.config.lease / 3).clamp(Duration::from_millis(100), LOOK);
            loop {
                tokio::select! {
                    () = deps.clock.sleep(every) => {}
                    () = engine.inner.look.notified() => {}
                }
                if let Err(error) = engine.take_all(false).await {
                    tracing::warn!(%error, "runs of other processes can't be looked for");
                }
                engine.try_stuck().await;
                engine.weigh_all();
                engine.inner.pages.clear(deps.clock.instant());
                engine.sweep().await;
            }
        });
        Ok(())
    }

    async fn take_all(&self, alone: bool) -> Result<()> {
        let deps = &self.inner.deps;
        loop {
            // Each time: reading many journals can take longer than a lease.
            self.renew().await?;
            let taken = deps.runs.take(self.inner.owner, deps.clock.now(), alone, TAKE).await?;
            let all = taken.len() < TAKE;
            for run in taken {
                self.renew_in_time().await;
                self.take_up(run).await;
            }
            if all {
                return Ok(());
            }
        }
    }

    /// Says that this process lives.
    async fn renew(&self) -> Result<()> {
        let deps = &self.inner.deps;
        let at = deps.clock.instant();
        deps.runs.renew(self.inner.owner, deps.clock.now(), deps.config.lease).await?;
        let before = self.inner.heard.lock().replace(at);
        if before.is_some_and(|before| at.duration_since(before) >= deps.config.lease) {
            self.doubt_all();
        }
        Ok(())
    }

    /// The same, where it is time to: in the middle of what can take longer than a lease, and is not to be broken off.
    async fn renew_in_time(&self) {
        let deps = &self.inner.deps;
        let before = *self.inner.heard.lock();
        let due = before.is_none_or(|at| deps.clock.instant().duration_since(at) >= deps.config.lease / 3);
        if due && let Err(error) = self.renew().await {
            tracing::warn!(%error, "that this process lives can't be said");
        }
    }

    /// Others may have taken runs of this process, which was not heard of for the length of a lease. Those that write something
    /// learn it by that; those that wait have to ask.
    fn doubt_all(&self) {
        let all: Vec<Handle> = self.inner.active.lock().values().cloned().collect();
        tracing::warn!(
            runs = all.len(),
            "this process was not heard of for longer than its lease; others may have its runs"
        );
        for handle in all {
            // One whose mailbox is full has something to write.
            let _ = handle.mail.try_send(Message::MakeSure);
        }
    }

    /// Where all runs together hold too much, also those that stand still are to look at what they hold.
    fn weigh_all(&self) {
        if self.inner.held_bytes.load(Ordering::Relaxed) <= self.inner.deps.config.max_host_live_bytes {
            return;
        }
        let all: Vec<Handle> = self.inner.active.lock().values().cloned().collect();
        for handle in all {
            // One whose mailbox is full looks by itself.
            let _ = handle.mail.try_send(Message::Weigh);
        }
    }

    /// Looks for runs of processes that live no more now, rather than when it is time to.
    pub(crate) fn look_now(&self) {
        self.inner.look.notify_one();
    }

    /// Gives up every run, once nothing of this process moves them any more: whoever looks takes them at once.
    ///
    /// # Errors
    /// When the store can't be asked; they are taken when the lease has ended then.
    pub(crate) async fn give_up(&self) -> Result<()> {
        Ok(self.inner.deps.runs.renew(self.inner.owner, Timestamp::from_millis(0), Duration::ZERO).await?)
    }

    /// What this process has now.
    pub(crate) fn load(&self) -> WorkflowLoad {
        let (runs, stuck) = (self.inner.active.lock().len(), self.inner.stuck.lock().len());
        let calls = self.inner.deps.metrics.in_flight.get();
        WorkflowLoad { runs: runs as u64, stuck: stuck as u64, calls: u64::try_from(calls).unwrap_or(0) }
    }

    /// The owner of the runs of this process.
    pub(crate) fn owner(&self) -> u64 {
        self.inner.owner
    }

    /// Takes up a run where its journal ends. One that can't be taken up is told of, and tried again.
    async fn take_up(&self, taken: TakenRun) {
        let (record, fence) = (taken.record.clone(), taken.fence);
        match guard::guarded(self.revive(taken, false)).await {
            Ok((mut actor, mail)) => {
                actor.resume();
                self.inner.deps.metrics.taken_over.inc();
                self.unstick(&record, fence, &actor).await;
                self.run(actor, mail, fence);
            }
            Err(error) => self.stick(record, fence, &error).await,
        }
    }

    /// A run as it stands where its journal ends. What follows from its last entry is left to the run, unless it is to be
    /// `settled`.
    async fn revive(&self, taken: TakenRun, settled: bool) -> Result<(Actor, mpsc::Sender<Message>)> {
        if let Some(damage) = taken.damage {
            return Err(Error::internal(format!("its journal is damaged: {damage}")));
        }
        let head: Head = serde_json::from_slice(&taken.head)
            .map_err(|error| Error::internal(format!("a run's head can't be read: {error}")))?;
        let program = self.program(&head.program).await?;
        let mut replay = journal::Replay::new(&taken.batches, Arc::clone(&self.inner.deps.blobs))?;
        let begin = Begin {
            tenant: taken.record.tenant,
            id: taken.record.id,
            workflow: taken.record.workflow,
            version: taken.record.version,
            fingerprint: [0; 32],
            program,
            head,
            notice: None,
            most_live: None,
        };
        let (mut actor, mail) = Actor::new(&self.inner, &begin);
        let spilled = !journal::blobs(&taken.batches)?.is_empty();
        while replay.turn(actor.core_mut()).await? && (settled || !replay.is_read()) {
            self.renew_in_time().await;
            tokio::task::yield_now().await;
        }
        let batches = taken.batches.len() as u64;
        actor.replayed(batches, spilled, taken.record.created_at, replay.redriven());
        Ok((actor, mail))
    }

    /// Forgets runs that ended long ago: first what they have in the blob store, so that a kill in between leaves nothing
    /// that nobody refers to. Nobody may redrive them any more by then ([`Engine::is_over`]).
    async fn sweep(&self) {
        let deps = &self.inner.deps;
        let before = deps.clock.now() - deps.config.retention;
        let swept = async {
            let (mut forgotten, mut left) = (0_u64, 0_usize);
            for (tenant, id) in deps.runs.ended(before, SWEPT).await? {
                match self.forget(&tenant, &id, before).await {
                    Ok(gone) => forgotten += u64::from(gone),
                    Err(error) => {
                        left += 1;
                        tracing::warn!(%tenant, run = %id, %error, "an old run can't be forgotten yet");
                    }
                }
            }
            // What is left is for the next round, with its blobs.
            let rest = if left == 0 && forgotten < SWEPT as u64 { deps.runs.sweep(before, SWEPT).await? } else { 0 };
            Ok::<u64, Error>(forgotten + rest)
        };
        match swept.await {
            Ok(0) => {}
            Ok(forgotten) => tracing::info!(forgotten, "runs that ended long ago are forgotten"),
            Err(error) => tracing::warn!(%error, "old runs can't be forgotten"),
        }
    }

    /// Forgets a run that ended before this time, with what it has in the blob store; says whether there was one.
    pub(crate) async fn forget(&self, tenant: &TenantName, id: &RunId, ended_before: Timestamp) -> Result<bool> {
        let deps = &self.inner.deps;
        let (_, batches) = match deps.runs.journal(tenant.clone(), id.clone()).await {
            Ok(found) => found,
            Err(RunsError::NotFound(_)) => return Ok(false),
            // What it names is found by the search for blobs that nobody refers to.
            Err(RunsError::Store(StoreError::Damaged { .. })) => (Bytes::new(), Vec::new()),
            Err(error) => return Err(error.into()),
        };
        for digest in journal::blobs(&batches)? {
            deps.blobs.delete(&Digest(digest)).await?;
        }
        Ok(deps.runs.forget(tenant.clone(), id.clone(), ended_before).await?)
    }

    /// Forgets a run that ended just then, if nobody has taken it up meanwhile; says whether it is gone.
    pub(crate) async fn forget_now(&self, tenant: &TenantName, id: &RunId, ended_at: Timestamp) -> Result<bool> {
        let deps = &self.inner.deps;
        let (_, batches) = match deps.runs.journal(tenant.clone(), id.clone()).await {
            Err(RunsError::Store(StoreError::Damaged { .. })) => (Bytes::new(), Vec::new()),
            found => found?,
        };
        // Another end of it would be a later one.
        let before = ended_at + Duration::from_millis(1);
        if !deps.runs.forget(tenant.clone(), id.clone(), before).await? {
            return Ok(false);
        }
        // Until this moment somebody could have taken it up with all that it had. What a kill leaves here, nobody refers to, so that it is
        // found by the search for that.
        for digest in journal::blobs(&batches)? {
            if let Err(error) = deps.blobs.delete(&Digest(digest)).await {
                tracing::warn!(%tenant, run = %id, %error, "a value of a deleted run is left for the search for unused blobs");
            }
        }
        Ok(true)
    }

    /// Whether the time that a run is kept for is over, or will be in a moment: it may be being forgotten.
    pub(crate) fn is_over(&self, ended_at: Timestamp) -> bool {
        let deps = &self.inner.deps;
        let margin = (deps.config.retention / 10).min(Duration::from_secs(60));
        deps.clock.now().since(ended_at) >= deps.config.retention - margin
    }

    /// Checks that a compiled workflow can be run.
    pub(crate) fn check(&self, compiled: Compiled) -> Result<()> {
        let mut resources = compiled.mapping.types.iter().flat_map(|mapping| &mapping.resources);
        let by_url = resources.any(|resource| resource.transmission.references_above.is_some());
        if by_url && !self.inner.deps.links.has_address() {
            let reason = "asks for values by URL (transmission.referencesAbove), and nobody has said where gateways are \
                          reached: the operator sets workflow.public_url";
            return Err(Error::field(Code::InvalidField, "mappings", reason));
        }
        let program = Program::new(compiled, &self.inner.chooser)?;
        if program.plan.deepest_constant() > DEPTH {
            let reason = format!("has a constant that is nested deeper than {DEPTH}");
            return Err(Error::field(Code::InvalidField, "definition", reason));
        }
        Ok(())
    }

    /// Returns when a run has ended here, since this was asked last, of whose end somebody may want to hear.
    pub(crate) async fn has_ended(&self) {
        self.inner.told.notified().await;
    }

    pub(crate) fn deps(&self) -> &Deps {
        &self.inner.deps
    }
}

/// Takes a run off the list when its actor is gone.
struct Left {
    inner: Arc<Inner>,
    key: (TenantName, RunId),
}

impl Drop for Left {
    fn drop(&mut self) {
        self.inner.active.lock().remove(&self.key);
        self.inner.deps.metrics.active.dec();
    }
}
