//! What the worker does for the leader, and what it tells of itself.
//!
//! What must hold: what a command has the worker hold is stored before it is done, so that a leader of a lower epoch can't
//! change it any more once [`Command::Follow`] was answered. What is stored and told is for [`Journal`] to keep.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::{BoxFuture, FutureExt};
use lyra_kit::{Clock, Tasks};
use lyra_types::Result;
use lyra_types::function::VersionKey;
use lyra_wire::registry::{Change, Command, InstanceReport, NodeState, Workload};
use lyra_wire::worker::{BackendStatus, InstanceState};
use lyra_wire::{Operated, Worker};
use tokio::sync::broadcast;

use super::entry::{Entry, Held};
use super::journal::Journal;
use super::store::NodeStore;
use crate::Service;
use crate::pool::Told;

pub(super) struct Desk {
    worker: Service,
    journal: Arc<Journal>,
    /// The worker's count of changes when it was last looked at.
    looked: AtomicU64,
}

impl Desk {
    /// Takes up what was stored. Instances that are kept between calls don't outlive the process that they were started by:
    /// those of before are gone, which is a change like any other. Those of applications are looked for. What is to be held
    /// up is started anew.
    pub(super) async fn open(worker: Service, store: NodeStore, clock: Clock, tasks: &Tasks) -> Desk {
        let saved = store.take_saved().unwrap_or_default();
        worker.be_directed();
        let journal = Journal::begin(store, &saved, clock, tasks);
        let holds = saved.holds.clone();
        // First those that are there, so that what they hold is charged.
        worker.sessions().take_up(saved.into_sessions(), &journal).await;
        for held in &holds {
            tracing::info!(version = %held.version.key(), instances = held.instances, "this worker holds up what it did before");
            worker.hold(&held.version, Told { instances: held.instances, schedule: held.schedule });
        }
        let desk = Desk { worker, journal, looked: AtomicU64::new(u64::MAX) };
        desk.report().await;
        desk
    }

    /// All that the worker holds, and every change from then on.
    pub(super) fn all(&self) -> (Workload, broadcast::Receiver<(u64, Change)>) {
        self.journal.all()
    }

    pub(super) fn revision(&self) -> u64 {
        self.journal.revision()
    }

    /// Looks whether instances have changed, and tells.
    pub(super) async fn report(&self) {
        let now = self.worker.changes();
        if self.looked.swap(now, Ordering::Relaxed) == now {
            return;
        }
        let reports: BTreeMap<_, _> = self.worker.reports().into_iter().map(|of| (of.id, of)).collect();
        let entries: Vec<Entry> = self.journal.look(|known| {
            let gone = known.instances.values().filter(|of| !reports.contains_key(&of.id));
            let gone = gone.map(|of| InstanceReport { state: InstanceState::Terminated, ..of.clone() });
            let changed = reports.values().filter(|of| known.instances.get(&of.id) != Some(of)).cloned();
            gone.chain(changed).map(Entry::Instance).collect()
        });
        if entries.is_empty() {
            return;
        }
        if let Err(error) = self.journal.order(None, entries, None).await {
            tracing::debug!(%error, "instances are told of later");
            self.looked.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Does what the leader of this epoch says. Commands begin in the order in which this is called; the future says when one
    /// is done.
    pub(super) fn obey(self: &Arc<Self>, epoch: u64, command: Command) -> BoxFuture<'static, Result<()>> {
        if let Err(error) = self.journal.check(epoch) {
            return std::future::ready(Err(error)).boxed();
        }
        let worker = self.worker.clone();
        match command {
            Command::Hold { version, instances, schedule } => {
                self.hold(epoch, Held { version, instances, schedule }).boxed()
            }
            Command::Release(version) => {
                let released = self.release(epoch, version.clone());
                async move {
                    released.await?;
                    worker.forget(version.generation, Some(version.version)).await
                }
                .boxed()
            }
            Command::Instance(id, command) => {
                let accepted = self.journal.order(Some(epoch), Vec::new(), None);
                async move {
                    accepted.await?;
                    worker.instruct(id, command).await
                }
                .boxed()
            }
            Command::Follow => self.journal.order(Some(epoch), Vec::new(), None).boxed(),
            Command::Session(command) => worker.sessions().obey(epoch, command),
        }
    }

    fn hold(&self, epoch: u64, held: Held) -> impl Future<Output = Result<()>> + Send + use<> {
        let key = held.version.key();
        if held.instances == 0 && !held.schedule {
            return self.release(epoch, key).boxed();
        }
        let entries = vec![Entry::Hold(held.clone())];
        let worker = self.worker.clone();
        let then = move |stored: &Result<()>| {
            if stored.is_ok() {
                worker.hold(&held.version, Told { instances: held.instances, schedule: held.schedule });
            }
        };
        self.journal.order(Some(epoch), entries, Some(Box::new(then))).boxed()
    }

    fn release(&self, epoch: u64, version: VersionKey) -> impl Future<Output = Result<()>> + Send + use<> {
        let entries = vec![Entry::Release(version.clone())];
        let worker = self.worker.clone();
        let then = move |stored: &Result<()>| {
            if stored.is_ok() {
                worker.release(&version);
            }
        };
        self.journal.order(Some(epoch), entries, Some(Box::new(then)))
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
