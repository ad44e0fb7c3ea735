//! What the worker holds, with its revision: kept, stored, and told to whoever listens.
//!
//! What must hold: each change has a revision of its own, one higher than the one before; it is stored before it is told;
//! who takes [`Desk::all`] and then listens misses nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lyra_types::function::VersionKey;
use lyra_types::{Code, Error, InstanceId, Result};
use lyra_wire::registry::{Change, Command, Hold, InstanceReport, NodeState, Workload};
use lyra_wire::worker::{BackendStatus, InstanceState};
use lyra_wire::{Operated, Worker};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::store::{Held, NodeStore, Saved, Step};
use crate::Service;
use crate::pool::Told;

/// Changes that a conversation may be behind; then it tells all.
const BEHIND: usize = 1_024;

pub(super) struct Desk {
    worker: Service,
    store: Arc<NodeStore>,
    known: Mutex<Known>,
    news: broadcast::Sender<(u64, Change)>,
    /// Held while a change is stored and told, so that changes go out in the order of their revisions.
    changing: tokio::sync::Mutex<()>,
    /// The worker's count of changes when it was last looked at.
    looked: AtomicU64,
}

struct Known {
    node: u64,
    revision: u64,
    epoch: u64,
    instances: BTreeMap<InstanceId, InstanceReport>,
    holds: BTreeMap<VersionKey, Held>,
}

impl Held {
    fn report(&self) -> Hold {
        Hold { version: self.version.key(), instances: self.instances, schedule: self.schedule }
    }
}

impl Desk {
    /// Takes up what was stored. No back end's instances outlive the process that they were started by: those of before are
    /// gone, which is a change like any other. What is to be held up is started anew.
    pub(super) async fn open(worker: Service, store: NodeStore) -> Desk {
        let saved = store.take_saved().unwrap_or(Saved {
            node: 0,
            revision: 0,
            epoch: 0,
            instances: Vec::new(),
            holds: Vec::new(),
        });
        let instances = saved.instances.into_iter().map(|of| (of.id, of)).collect();
        let holds: BTreeMap<_, _> = saved.holds.into_iter().map(|held| (held.version.key(), held)).collect();
        worker.be_directed();
        for held in holds.values() {
            tracing::info!(version = %held.version.key(), instances = held.instances, "this worker holds up what it did before");
            worker.hold(&held.version, Told { instances: held.instances, schedule: held.schedule });
        }
        let known = Known { node: saved.node, revision: saved.revision, epoch: saved.epoch, instances, holds };
        let desk = Desk {
            worker,
            store: Arc::new(store),
            known: Mutex::new(known),
            news: broadcast::channel(BEHIND).0,
            changing: tokio::sync::Mutex::new(()),
            looked: AtomicU64::new(u64::MAX),
        };
        desk.report().await;
        desk
    }

    /// All that the worker holds, and every change from then on.
    pub(super) fn all(&self) -> (Workload, broadcast::Receiver<(u64, Change)>) {
        let known = self.known.lock();
        let workload = Workload {
            node: known.node,
            revision: known.revision,
            instances: known.instances.values().cloned().collect(),
            holds: known.holds.values().map(Held::report).collect(),
            ..Workload::default()
        };
        (workload, self.news.subscribe())
    }

    pub(super) fn revision(&self) -> u64 {
        self.known.lock().revision
    }

    /// Looks whether instances have changed, and tells.
    pub(super) async fn report(&self) {
        let now = self.worker.changes();
        if self.looked.swap(now, Ordering::Relaxed) == now {
            return;
        }
        let _in_turn = self.changing.lock().await;
        let reports: BTreeMap<_, _> = self.worker.reports().into_iter().map(|of| (of.id, of)).collect();
        let (changes, step) = {
            let known = self.known.lock();
            let changed = reports.values().filter(|of| known.instances.get(&of.id) != Some(of)).cloned();
            let put: Vec<InstanceReport> = changed.collect();
            let gone = known.instances.values().filter(|of| !reports.contains_key(&of.id));
            let gone: Vec<InstanceReport> =
                gone.map(|of| InstanceReport { state: InstanceState::Terminated, ..of.clone() }).collect();
            let revision = known.revision + (put.len() + gone.len()) as u64;
            let step = Step {
                revision: Some(revision),
                removed: gone.iter().map(|of| of.id).collect(),
                put: put.clone(),
                ..Step::default()
            };
            (gone.into_iter().chain(put).map(Change::Instance).collect::<Vec<_>>(), step)
        };
        if changes.is_empty() {
            return;
        }
        if let Err(error) = self.write(step).await {
            tracing::error!(%error, "what this worker holds can't be stored; control is not told either");
            self.looked.store(u64::MAX, Ordering::Relaxed);
            return;
        }
        let mut known = self.known.lock();
        known.instances = reports;
        self.tell(&mut known, changes);
    }

    fn tell(&self, known: &mut Known, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            known.revision += 1;
            // Nobody may be listening.
            let _ = self.news.send((known.revision, change));
        }
    }

    async fn write(&self, step: Step) -> Result<()> {
        let store = Arc::clone(&self.store);
        let written = lyra_kit::tasks::blocking(move || store.write(&step)).await;
        let failed = |error: String| Error::internal(format!("the worker's state can't be stored: {error}"));
        written.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }

    /// Does what the leader of this epoch says. Done when it is stored, where there is something to store.
    pub(super) async fn obey(&self, epoch: u64, command: Command) -> Result<()> {
        self.accept(epoch).await?;
        match command {
            Command::Hold { version, instances, schedule } => self.hold(Held { version, instances, schedule }).await,
            Command::Release(version) => {
                self.release(&version).await?;
                self.worker.forget(version.generation, Some(version.version)).await
            }
            Command::Instance(id, command) => self.worker.instruct(id, command).await,
            Command::Follow => Ok(()),
            Command::Session(_) => Err(Error::new(Code::Conflict, "this worker holds no sessions")),
        }
    }

    /// Refuses an epoch lower than the highest seen; remembers a higher one, before anything is done for it.
    async fn accept(&self, epoch: u64) -> Result<()> {
        let _in_turn = self.changing.lock().await;
        let highest = self.known.lock().epoch;
        if epoch < highest {
            let detail = format!("the command is of epoch {epoch}, but epoch {highest} has begun");
            return Err(Error::new(Code::Conflict, detail));
        }
        if epoch > highest {
            self.write(Step { epoch: Some(epoch), ..Step::default() }).await?;
            self.known.lock().epoch = epoch;
        }
        Ok(())
    }

    async fn hold(&self, held: Held) -> Result<()> {
        if held.instances == 0 && !held.schedule {
            return self.release(&held.version.key()).await;
        }
        let _in_turn = self.changing.lock().await;
        let (key, told) = (held.version.key(), Told { instances: held.instances, schedule: held.schedule });
        let revision = {
            let known = self.known.lock();
            (known.holds.get(&key) != Some(&held)).then_some(known.revision + 1)
        };
        if let Some(revision) = revision {
            self.write(Step { revision: Some(revision), hold: Some(held.clone()), ..Step::default() }).await?;
            let mut known = self.known.lock();
            self.tell(&mut known, [Change::Hold(held.report())]);
            known.holds.insert(key, held.clone());
        }
        self.worker.hold(&held.version, told);
        Ok(())
    }

    async fn release(&self, version: &VersionKey) -> Result<()> {
        let _in_turn = self.changing.lock().await;
        let revision = {
            let known = self.known.lock();
            known.holds.contains_key(version).then_some(known.revision + 1)
        };
        if let Some(revision) = revision {
            let step = Step { revision: Some(revision), released: vec![version.clone()], ..Step::default() };
            self.write(step).await?;
            let mut known = self.known.lock();
            known.holds.remove(version);
            let released = Hold { version: version.clone(), instances: 0, schedule: false };
            self.tell(&mut known, [Change::Hold(released)]);
        }
        self.worker.release(version);
        Ok(())
    }

    /// The worker's back ends.
    pub(super) fn backends(&self) -> Vec<BackendStatus> {
        self.worker.status().machine.backends
    }

    /// The worker's load.
    pub(super) fn state(&self) -> NodeState {
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
