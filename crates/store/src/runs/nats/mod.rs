//! [`Runs`] on NATS JetStream, 2.9 and later.
//!
//! A run is a subject of its own in one stream. Each batch, each new place and each change of owner is a message there,
//! written only after the last one that its writer has read: so whoever takes a run over fences the former owner by the same
//! write, and a batch is there once or not at all. Each message holds all that is known of the run by then; so the last
//! one is the run, and all of them are its journal. Which runs there are is found in an index that each process makes
//! from the last messages and keeps by following the stream. `docs/design` says why, and what a `kill -9`
//! at each step leaves behind.

mod bucket;
mod change;
mod entry;
mod follow;
mod index;
mod memos;
mod owed;
mod owners;
mod sweep;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_kit::Tasks;
use lyra_kit::tasks::blocking;
use lyra_types::workflow::RunStatus;
use lyra_types::{RunId, TenantName, Timestamp};
use parking_lot::Mutex;

use self::bucket::{Bucket, Put};
use self::entry::{Entry, Found, Name};
use self::follow::{fill, follow};
use self::index::{Index, News};
use super::{Append, CreatedRun, NewRunRecord, OwedRun, RunFilter, RunRecord, Runs, RunsError, TakenRun};
use crate::StoreError;
use crate::nats::{NatsSettings, Payload};

/// Times that a change is tried on a run that others change, too.
const TRIES: u32 = 64;
/// Requests to NATS that one call has under way at once.
const AT_ONCE: usize = 16;
/// How long the mark of a deleted run stays, so that every process sees it.
const MARKED: Duration = Duration::from_secs(3_600);
/// Runs whose last message is remembered, so that a batch needs no read before it.
const REMEMBERED: usize = 16_384;

struct Shared {
    bucket: Bucket,
    index: Arc<Index>,
    /// The last messages of runs that this process has written to and that have not ended. They can be out of date.
    last: Mutex<HashMap<Name, Found>>,
    /// Runs that this process may own without anybody knowing: the call that was to say so was given up in the middle.
    stranded: Mutex<HashSet<Name>>,
    /// When leftovers were last looked for.
    searched: Mutex<Option<tokio::time::Instant>>,
}

/// [`Runs`] on NATS JetStream.
pub struct NatsRuns {
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl Drop for NatsRuns {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

impl NatsRuns {
    /// Connects, makes the streams that are not there, and reads the last message of each run.
    ///
    /// # Errors
    /// [`StoreError::Remote`] when no server answers in time, or JetStream is not enabled.
    pub async fn connect(settings: &NatsSettings) -> Result<NatsRuns, StoreError> {
        let (client, connections) = settings.connect().await?;
        let bucket = Bucket::open(client, settings).await?;
        let index = Arc::new(blocking(Index::new).await.map_err(|_| StoreError::Closed)??);
        let follower = fill(&bucket, &index).await?;
        let shared = Arc::new(Shared {
            bucket,
            index,
            last: Mutex::default(),
            stranded: Mutex::default(),
            searched: Mutex::default(),
        });
        let tasks = Tasks::new();
        tasks.spawn_cancellable("runs of others", follow(Arc::clone(&shared), follower, connections));
        Ok(NatsRuns { shared, tasks })
    }
}

impl Shared {
    /// Asks the index, off the async threads.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Index) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let index = Arc::clone(&self.index);
        blocking(move || question(&index)).await.map_err(|_| StoreError::Closed)?
    }

    /// Takes in what this process did or read itself.
    async fn learn(&self, news: News) -> Result<(), StoreError> {
        self.ask(move |index| index.apply([news])).await
    }

    async fn learn_run(&self, name: &Name, found: &Found) -> Result<(), StoreError> {
        let (name, state) = (name.clone(), Box::new(found.entry.state.clone()));
        self.learn(News::Run { name, state, sequence: found.sequence }).await
    }

    /// The run's last message, as the stream's leader has it.
    async fn fetch(&self, name: &Name) -> Result<Option<Found>, StoreError> {
        Ok(self.bucket.last(name).await?.and_then(|(_, found)| found))
    }

    /// Writes the run's next message after `expected`. Says with which sequence it stands, or that somebody else was first.
    async fn write(&self, name: &Name, expected: u64, mut entry: Entry) -> Result<Option<Found>, StoreError> {
        // A message that has no other before it does not know its own sequence.
        match self.bucket.put(name, expected, &entry).await? {
            Put::Done(sequence) => {
                if entry.state.order == 0 {
                    entry.state.order = sequence;
                }
                let found = Found { entry, sequence };
                self.remember(name, &found);
                Ok(Some(found))
            }
            Put::Conflict => Ok(None),
        }
    }

    fn remember(&self, name: &Name, found: &Found) {
        let mut last = self.last.lock();
        if found.entry.state.status.is_final() {
            last.remove(name);
            return;
        }
        if last.len() >= REMEMBERED && !last.contains_key(name) {
            // Whichever: it is read again when it is needed.
            let one = last.keys().next().cloned();
            one.map(|one| last.remove(&one));
        }
        last.insert(name.clone(), found.clone());
    }

    /// Head and journal of a run up to this message. `None`: the run was deleted meanwhile.
    async fn journal(&self, name: &Name, last: &Found) -> Result<Option<(Bytes, Vec<Bytes>)>, StoreError> {
        use futures::{StreamExt, TryStreamExt};
        let place = &last.entry.state.place;
        let Some(entries) = self.bucket.entries(name, last).await? else { return Ok(None) };
        let head = entries.first().map(|first| first.entry.head.clone()).unwrap_or_default();
        let head = self.bucket.payload(name, place, &head).await?;
        let batches = entries.into_iter().filter_map(|found| found.entry.batch);
        let batches: Vec<Bytes> = futures::stream::iter(batches)
            .map(|batch| async move { self.bucket.payload(name, place, &batch).await })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let expected = last.entry.state.batches;
        if batches.len() as u64 != expected {
            let detail = format!("{name} has {} of {expected} batches", batches.len());
            return Err(StoreError::Damaged { operation: "read a journal", detail });
        }
        Ok(Some((head, batches)))
    }

    /// Head and journal of a run, with its last message.
    async fn whole(&self, name: &Name) -> Result<(Found, Bytes, Vec<Bytes>), RunsError> {
        for _ in 0..TRIES {
            let found = self.fetch(name).await?.ok_or_else(|| RunsError::NotFound(name.id.clone()))?;
            if let Some((head, batches)) = self.journal(name, &found).await? {
                return Ok((found, head, batches));
            }
        }
        Err(StoreError::Overloaded.into())
    }
}

#[async_trait]
impl Runs for NatsRuns {
    async fn create(&self, run: NewRunRecord) -> Result<CreatedRun, RunsError> {
        self.shared.create(&run).await
    }

    async fn append(&self, append: Append) -> Result<(), RunsError> {
        self.shared.append(&append).await
    }

    async fn get(
        &self,
        tenant: TenantName,
        id: RunId,
        with_output: bool,
    ) -> Result<(RunRecord, Option<Bytes>), RunsError> {
        let name = Name { tenant, id };
        let found = self.shared.fetch(&name).await?.ok_or_else(|| RunsError::NotFound(name.id.clone()))?;
        let state = &found.entry.state;
        let output = match &state.output {
            Payload::None => None,
            output if with_output => Some(self.shared.bucket.payload(&name, &state.place, output).await?),
            _ => None,
        };
        Ok((state.record(&name), output))
    }

    async fn journal(&self, tenant: TenantName, id: RunId) -> Result<(Bytes, Vec<Bytes>), RunsError> {
        let (_, head, batches) = self.shared.whole(&Name { tenant, id }).await?;
        Ok((head, batches))
    }

    async fn live(&self, tenant: TenantName, most: u64) -> Result<u64, RunsError> {
        Ok(self.shared.ask(move |index| index.live(&tenant, most)).await?)
    }

    async fn list(&self, tenant: TenantName, filter: RunFilter) -> Result<Vec<RunRecord>, RunsError> {
        Ok(self.shared.ask(move |index| index.list(&tenant, &filter)).await?)
    }

    async fn renew(&self, owner: u64, now: Timestamp, ttl: Duration) -> Result<(), RunsError> {
        Ok(self.shared.renew(owner, now + ttl).await?)
    }

    async fn take(&self, owner: u64, now: Timestamp, alone: bool, limit: usize) -> Result<Vec<TakenRun>, RunsError> {
        self.shared.take(owner, now, alone, limit).await
    }

    async fn reopen(&self, tenant: TenantName, id: RunId, owner: u64) -> Result<TakenRun, RunsError> {
        self.shared.reopen(&Name { tenant, id }, owner).await
    }

    async fn owed(&self, limit: usize) -> Result<Vec<OwedRun>, RunsError> {
        Ok(self.shared.owed(limit).await?)
    }

    async fn passed_on(&self, tenant: TenantName, id: RunId, ended_at: Timestamp) -> Result<(), RunsError> {
        self.shared.passed_on(&Name { tenant, id }, ended_at).await
    }

    async fn ended(&self, before: Timestamp, limit: usize) -> Result<Vec<(TenantName, RunId)>, RunsError> {
        let names = self.shared.ask(move |index| index.ended(before, limit)).await?;
        Ok(names.into_iter().map(|name| (name.tenant, name.id)).collect())
    }

    async fn forget(&self, tenant: TenantName, id: RunId, ended_before: Timestamp) -> Result<bool, RunsError> {
        Ok(self.shared.remove(&Name { tenant, id }, ended_before).await?)
    }

    async fn all(&self, after: u64, limit: usize) -> Result<Vec<RunRecord>, RunsError> {
        Ok(self.shared.ask(move |index| index.all(after, limit)).await?)
    }

    async fn forget_memos(&self, tenant: TenantName) -> Result<(), RunsError> {
        Ok(self.shared.forget_memos(&tenant).await?)
    }

    async fn sweep(&self, ended_before: Timestamp, limit: usize) -> Result<u64, RunsError> {
        Ok(self.shared.sweep(ended_before, limit).await?)
    }

    async fn counts(&self) -> Result<[u64; RunStatus::ALL.len()], RunsError> {
        Ok(self.shared.ask(Index::counts).await?)
    }

    async fn memo(&self, tenant: TenantName, key: [u8; 32], now: Timestamp) -> Result<Option<Bytes>, RunsError> {
        Ok(self.shared.memo(&tenant, &key, now).await?)
    }

    async fn keep_memo(
        &self,
        tenant: TenantName,
        key: [u8; 32],
        result: Bytes,
        until: Timestamp,
    ) -> Result<(), RunsError> {
        Ok(self.shared.keep_memo(&tenant, &key, &result, until).await?)
    }
}
