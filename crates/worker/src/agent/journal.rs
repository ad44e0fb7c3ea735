//! What the worker holds, with its revision: kept, stored, and told to whoever listens.
//!
//! What must hold: each change has a revision of its own, one higher than the one before; it is stored before it is told;
//! what is noted first is stored and told first; who takes [`Journal::all`] and then listens misses nothing; nothing is
//! stored for an epoch lower than the highest one that is stored. All that gathers while one step is written is written in
//! one transaction with the next.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::{Clock, Tasks};
use lyra_types::function::VersionKey;
use lyra_types::{Code, Error, InstanceId, Result};
use lyra_wire::registry::{Change, InstanceReport, Workload};
use lyra_wire::sessions::{AppKey, HostedReport, SessionReport, Stand};
use lyra_wire::worker::InstanceState;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, oneshot};

use super::entry::{Entry, Held};
use super::store::{NodeStore, Saved, Step};

/// Changes that a conversation may be behind; then it tells all.
const BEHIND: usize = 4_096;
/// Most entries of one transaction.
const AT_ONCE: usize = 1_024;
/// Wait after a write that failed.
const AGAIN: Duration = Duration::from_millis(200);

/// Called when an order was stored, or refused, before whoever waits for it is told: in the order of the orders.
pub(crate) type Then = Box<dyn FnOnce(&Result<()>) + Send>;

/// The worker's memory of itself.
pub(crate) struct Journal {
    store: Arc<NodeStore>,
    queue: Mutex<VecDeque<Item>>,
    queued: Notify,
    known: Mutex<Known>,
    news: broadcast::Sender<(u64, Change)>,
    clock: Clock,
}

/// What waits to be stored.
struct Item {
    entries: Vec<Entry>,
    order: Option<Order>,
}

/// What only happens if it is stored.
struct Order {
    epoch: Option<u64>,
    then: Option<Then>,
    answer: oneshot::Sender<Result<()>>,
}

/// What is stored.
pub(super) struct Known {
    node: u64,
    revision: u64,
    epoch: u64,
    pub(super) instances: BTreeMap<InstanceId, InstanceReport>,
    pub(super) holds: BTreeMap<VersionKey, Held>,
    stands: BTreeMap<AppKey, u32>,
    hosted: BTreeMap<InstanceId, HostedReport>,
    sessions: BTreeMap<String, SessionReport>,
}

impl Known {
    fn of(saved: &Saved) -> Known {
        Known {
            node: saved.node,
            revision: saved.revision,
            epoch: saved.epoch,
            instances: saved.instances.iter().map(|of| (of.id, of.clone())).collect(),
            holds: saved.holds.iter().map(|held| (held.version.key(), held.clone())).collect(),
            stands: saved.stands.iter().map(|(app, instances)| (app.key.clone(), *instances)).collect(),
            hosted: saved.hosted.iter().map(|of| (of.id, of.clone())).collect(),
            sessions: saved.sessions.iter().map(|of| (of.report.key.uid.clone(), of.report.clone())).collect(),
        }
    }

    fn take_in(&mut self, entry: &Entry) {
        match entry {
            Entry::Instance(of) if of.state == InstanceState::Terminated => drop(self.instances.remove(&of.id)),
            Entry::Instance(of) => drop(self.instances.insert(of.id, of.clone())),
            Entry::Hold(held) => drop(self.holds.insert(held.version.key(), held.clone())),
            Entry::Release(version) => drop(self.holds.remove(version)),
            Entry::Stand(app, 0) => drop(self.stands.remove(&app.key)),
            Entry::Stand(app, instances) => drop(self.stands.insert(app.key.clone(), *instances)),
            Entry::Hosted(of) if of.state == InstanceState::Terminated => drop(self.hosted.remove(&of.id)),
            Entry::Hosted(of) => drop(self.hosted.insert(of.id, of.clone())),
            Entry::Accepted(of) => drop(self.sessions.insert(of.0.key.uid.clone(), of.0.clone())),
            Entry::Session(of) => drop(self.sessions.insert(of.key.uid.clone(), (**of).clone())),
            Entry::Forget(uid) => drop(self.sessions.remove(uid)),
            Entry::Configured(_) | Entry::Unknown(_) | Entry::Close(..) => {}
        }
    }
}

impl Journal {
    /// Goes on from what is stored, and writes for as long as `tasks` last.
    pub(super) fn begin(store: NodeStore, saved: &Saved, clock: Clock, tasks: &Tasks) -> Arc<Journal> {
        let journal = Arc::new(Journal {
            store: Arc::new(store),
            queue: Mutex::default(),
            queued: Notify::new(),
            known: Mutex::new(Known::of(saved)),
            news: broadcast::channel(BEHIND).0,
            clock,
        });
        let writer = Arc::clone(&journal);
        tasks.spawn_cancellable("write-journal", async move { writer.write_on().await });
        journal
    }

    /// All that the worker holds, and every change from then on.
    pub(super) fn all(&self) -> (Workload, broadcast::Receiver<(u64, Change)>) {
        let known = self.known.lock();
        let stand = |(app, instances): (&AppKey, &u32)| Stand { app: app.clone(), instances: *instances };
        let workload = Workload {
            node: known.node,
            revision: known.revision,
            instances: known.instances.values().cloned().collect(),
            holds: known.holds.values().map(Held::report).collect(),
            stands: known.stands.iter().filter(|(_, instances)| **instances > 0).map(stand).collect(),
            hosted: known.hosted.values().cloned().collect(),
            sessions: known.sessions.values().cloned().collect(),
        };
        (workload, self.news.subscribe())
    }

    pub(super) fn revision(&self) -> u64 {
        self.known.lock().revision
    }

    /// Looks at what is stored.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.lock())
    }

    /// Refuses an epoch lower than the highest that is stored. One that is stored meanwhile still stops what is ordered.
    ///
    /// # Errors
    /// [`Code::Conflict`].
    pub(super) fn check(&self, epoch: u64) -> Result<()> {
        check(epoch, self.known.lock().epoch)
    }

    /// Notes what has happened: stored as soon as it can be, however often that takes.
    pub(crate) fn note(&self, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.push(Item { entries, order: None });
        }
    }

    /// Stores what shall happen, for the leader of `epoch` where there is one. It is in the queue when this returns; the future
    /// says how it went, and may be dropped. `then` is called once it is stored, or refused.
    ///
    /// # Errors
    /// [`Code::Conflict`] when a higher epoch is stored; [`Code::Internal`] when nothing can be stored.
    pub(crate) fn order(
        &self,
        epoch: Option<u64>,
        entries: Vec<Entry>,
        then: Option<Then>,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        self.push(Item { entries, order: Some(Order { epoch, then, answer }) });
        async move { answered.await.unwrap_or_else(|_| Err(Error::new(Code::Unavailable, "this worker is shutting down"))) }
    }

    fn push(&self, item: Item) {
        self.queue.lock().push_back(item);
        self.queued.notify_one();
    }

    async fn write_on(&self) {
        loop {
            let batch = self.take();
            if batch.is_empty() {
                self.queued.notified().await;
                continue;
            }
            if !self.write(batch).await {
                self.clock.sleep(AGAIN).await;
            }
        }
    }

    fn take(&self) -> Vec<Item> {
        let mut queue = self.queue.lock();
        let mut entries = 0;
        let fits = |item: &&Item| {
            entries += item.entries.len().max(1);
            entries <= AT_ONCE
        };
        let count = queue.iter().take_while(fits).count().max(1).min(queue.len());
        queue.drain(..count).collect()
    }

    /// Writes what has gathered. False: it could not be written; what has happened waits again, what should have is refused.
    async fn write(&self, batch: Vec<Item>) -> bool {
        let (before, mut epoch) = self.look(|known| (known.revision, known.epoch));
        let first = epoch;
        let mut step = Step::default();
        let mut revision = before;
        let mut held = BTreeMap::new();
        let mut written = Vec::with_capacity(batch.len());
        for mut item in batch {
            let refused = item.order.as_ref().and_then(|order| check(order.epoch?, epoch).err());
            if let Some(error) = refused {
                self.answer(item.order, &Err(error));
                continue;
            }
            epoch = item.order.as_ref().and_then(|order| order.epoch).map_or(epoch, |of| of.max(epoch));
            item.entries.retain(|entry| self.changes(entry, &mut held));
            revision += item.entries.iter().filter(|entry| entry.change().is_some()).count() as u64;
            step.entries.extend(item.entries.iter().cloned());
            written.push(item);
        }
        (step.revision, step.epoch) = ((revision > before).then_some(revision), (epoch > first).then_some(epoch));
        if let Err(error) = self.store(step).await {
            tracing::error!(%error, "what this worker holds can't be stored; control is not told either");
            self.put_back(written, &error);
            return false;
        }
        {
            let mut known = self.known.lock();
            known.epoch = epoch;
            for entry in written.iter().flat_map(|item| &item.entries) {
                known.take_in(entry);
                if let Some(change) = entry.change() {
                    known.revision += 1;
                    // Nobody may be listening.
                    let _ = self.news.send((known.revision, change));
                }
            }
        }
        for item in written {
            self.answer(item.order, &Ok(()));
        }
        true
    }

    /// Whether what is held up is another thing with this entry than before, with what this step held before it.
    fn changes(&self, entry: &Entry, held: &mut BTreeMap<VersionKey, Option<Held>>) -> bool {
        let (version, wanted) = match entry {
            Entry::Hold(wanted) => (wanted.version.key(), Some(wanted)),
            Entry::Release(version) => (version.clone(), None),
            _ => return true,
        };
        let before = match held.get(&version) {
            Some(before) => before.clone(),
            None => self.look(|known| known.holds.get(&version).cloned()),
        };
        let changes = before.as_ref() != wanted;
        held.insert(version, wanted.cloned());
        changes
    }

    async fn store(&self, step: Step) -> Result<()> {
        if step.entries.is_empty() && step.epoch.is_none() {
            return Ok(());
        }
        let store = Arc::clone(&self.store);
        let written = lyra_kit::tasks::blocking(move || store.write(&step)).await;
        let failed = |error: String| Error::internal(format!("the worker's state can't be stored: {error}"));
        written.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }

    fn answer(&self, order: Option<Order>, outcome: &Result<()>) {
        let Some(Order { then, answer, .. }) = order else { return };
        if let Some(then) = then {
            then(outcome);
        }
        // Who asked may be gone.
        let _ = answer.send(outcome.clone());
    }

    /// Keeps what has happened, as long as nothing later makes it needless.
    fn put_back(&self, written: Vec<Item>, error: &Error) {
        let mut kept: Vec<Entry> = Vec::new();
        for item in written {
            if item.order.is_some() {
                self.answer(item.order, &Err(error.clone()));
                continue;
            }
            kept.extend(item.entries);
        }
        let mut queue = self.queue.lock();
        let mut later: Vec<Entry> = Vec::new();
        while queue.front().is_some_and(|item| item.order.is_none()) {
            later.extend(queue.pop_front().into_iter().flat_map(|item| item.entries));
        }
        kept.extend(later);
        let mut entries: Vec<Entry> = Vec::with_capacity(kept.len());
        for entry in kept {
            entries.retain(|earlier| !earlier.is_overtaken_by(&entry));
            entries.push(entry);
        }
        queue.push_front(Item { entries, order: None });
    }
}

fn check(epoch: u64, highest: u64) -> Result<()> {
    if epoch >= highest {
        return Ok(());
    }
    let detail = format!(
        "the command is of epoch {epoch}, and this worker's epoch {highest} is higher: another process leads by now, or \
         control's store was restored from a backup without moving this worker's node.db away"
    );
    Err(Error::new(Code::Conflict, detail))
}
