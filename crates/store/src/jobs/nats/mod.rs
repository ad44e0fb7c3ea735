//! [`Jobs`] on NATS JetStream, 2.9 and later.
//!
//! A job is one record under a name of its own, replaced only at the sequence that its writer has read; that is
//! the fence. Nothing else is needed to be right: which jobs are due, leased or old is found in an index that each process
//! makes from the records and keeps by following their stream. `docs/design` says why, and what a
//! `kill -9` at each step leaves behind.

mod accept;
mod bucket;
mod follow;
mod index;
mod index_usage;
mod leases;
mod owner;
mod record;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_kit::Tasks;
use lyra_kit::tasks::blocking;
use lyra_types::job::Job;
use lyra_types::usage::{Usage, UsageBatch, UsageQuery, UsageSum};
use lyra_types::{FunctionName, JobId, TenantName, Timestamp};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use self::bucket::{Bucket, Found, Put};
use self::follow::{fill, follow};
use self::index::{Index, News};
use self::record::{Name, Record, decode, encode};
use super::{
    Accepted, Changed, Counts, Filter, Held, Jobs, JobsError, Lease, LeaseRequest, Leased, NewJob, Outcome, Owed,
    Retention,
};
use crate::StoreError;
pub use crate::nats::NatsSettings;

/// Times that a change is tried on a record that others change, too.
const TRIES: u32 = 64;
/// Changes by other processes that a listener may be behind.
const BEHIND: usize = 1_024;
/// Requests to NATS that one call has under way at once.
const AT_ONCE: usize = 64;
/// How long the mark of a deleted record stays, so that every process sees it.
const MARKED: Duration = Duration::from_secs(3_600);

struct Shared {
    bucket: Bucket,
    index: Arc<Index>,
    /// When orphans were last looked for.
    searched: Mutex<Option<tokio::time::Instant>>,
    /// Held from the look at how many jobs wait until the index knows of the new one.
    queueing: tokio::sync::Mutex<()>,
    /// Tells of what other processes change.
    others: broadcast::Sender<Changed>,
}

/// [`Jobs`] on NATS JetStream.
pub struct NatsJobs {
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl Drop for NatsJobs {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

/// What a change does with a record.
enum Next<T> {
    /// Writes it back.
    Write(T),
    /// Leaves it as it is.
    Leave(T),
    /// Deletes it.
    Remove(T),
}

impl NatsJobs {
    /// Connects, makes the streams that are not there, and reads all records.
    ///
    /// # Errors
    /// [`StoreError::Remote`] when no server answers in time, or JetStream is not enabled.
    pub async fn connect(settings: &NatsSettings) -> Result<NatsJobs, StoreError> {
        let (client, connections) = settings.connect().await?;
        let bucket = Bucket::open(client, settings).await?;
        let index = Arc::new(blocking(Index::new).await.map_err(|_| StoreError::Closed)??);
        let follower = fill(&bucket, &index).await?;
        let shared = Arc::new(Shared {
            bucket,
            index,
            searched: Mutex::new(None),
            queueing: tokio::sync::Mutex::default(),
            others: broadcast::channel(BEHIND).0,
        });
        let tasks = Tasks::new();
        tasks.spawn_cancellable("jobs of others", follow(Arc::clone(&shared), follower, connections));
        Ok(NatsJobs { shared, tasks })
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

    /// Takes in what this process did itself.
    async fn learn(&self, news: News) -> Result<(), StoreError> {
        self.ask(move |index| index.apply([news])).await.map(drop)
    }

    /// Takes in what another process did, and tells of it.
    async fn hear(&self, news: News) -> Result<(), StoreError> {
        let changed = self.ask(move |index| index.apply([news])).await?;
        self.tell(changed);
        Ok(())
    }

    fn tell(&self, changed: Vec<Changed>) {
        for job in changed {
            // Nobody may be listening.
            let _ = self.others.send(job);
        }
    }

    /// The record as the stream has it, which the index learns, too.
    async fn fetch(&self, tenant: &TenantName, id: JobId) -> Result<Option<(Record, u64)>, StoreError> {
        let name = Name::Job(tenant.clone(), id);
        match self.bucket.get(&name).await? {
            Some(Found { sequence, body: Some(body) }) => {
                let (record, now) = (decode::<Record>(&body)?, self.bucket.clock().now());
                self.hear(News::Job(Box::new(record.clone().heard_at(now)), sequence)).await?;
                Ok(Some((record.read_at(now), sequence)))
            }
            Some(Found { sequence, body: None }) => {
                self.learn(News::Gone { name, sequence, since: self.bucket.clock().now() }).await?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Writes a record over the one of this sequence.
    async fn write(&self, mut record: Record, sequence: u64) -> Result<Put, StoreError> {
        let token = self.bucket.token();
        record.writers.add(token);
        let name = Name::of(&record);
        let put = self.bucket.put(&name, sequence, Some((encode(&record)?, token))).await?;
        if let Put::Done(sequence) = put {
            self.learn(News::Written(Box::new(record), sequence)).await?;
        }
        Ok(put)
    }

    /// Deletes a record of this sequence, and what belongs to it.
    async fn remove(&self, record: &Record, sequence: u64) -> Result<Put, StoreError> {
        // What its tries used goes on without it.
        self.take_over(vec![record.clone()]).await?;
        // The key first: a key without its job would make the job anew.
        if let Some(name) = &record.key {
            self.remove_key_of(name, record.job.id).await?;
        }
        let name = Name::of(record);
        let put = self.bucket.put(&name, sequence, None).await?;
        if let Put::Done(sequence) = put {
            self.learn(News::Gone { name, sequence, since: self.bucket.clock().now() }).await?;
        }
        // Repeated when the mark goes.
        for payload in [&record.event, &record.result] {
            self.bucket.drop_payload(record.job.id, payload).await?;
        }
        Ok(put)
    }

    /// Changes a job as `decide` says. What the index has is tried first; whatever it does not allow is decided again on
    /// what the stream has.
    async fn change<T>(
        &self,
        tenant: &TenantName,
        id: JobId,
        mut decide: impl FnMut(&mut Record) -> Result<Next<T>, JobsError>,
    ) -> Result<T, JobsError> {
        let owner = tenant.clone();
        let mut found = self.ask(move |index| index.get(&owner, id)).await?;
        let mut fresh = false;
        for _ in 0..TRIES {
            if found.is_none() && !fresh {
                (found, fresh) = (self.fetch(tenant, id).await?, true);
            }
            let Some((mut record, sequence)) = found.take() else { return Err(JobsError::NotFound(id)) };
            let decided = decide(&mut record);
            let put = match decided {
                Ok(Next::Write(value)) => (self.write(record, sequence).await?, value),
                Ok(Next::Remove(value)) => (self.remove(&record, sequence).await?, value),
                Ok(Next::Leave(value)) if fresh => return Ok(value),
                Err(error) if fresh => return Err(error),
                Ok(Next::Leave(_)) | Err(_) => {
                    (found, fresh) = (self.fetch(tenant, id).await?, true);
                    continue;
                }
            };
            match put {
                (Put::Done(_) | Put::Overtaken, value) => return Ok(value),
                (Put::Conflict, _) => (found, fresh) = (self.fetch(tenant, id).await?, true),
            }
        }
        Err(StoreError::Overloaded.into())
    }
}

#[async_trait]
impl Jobs for NatsJobs {
    async fn accept(&self, job: NewJob) -> Result<Accepted, JobsError> {
        self.shared.accept(job).await
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Leased, JobsError> {
        self.shared.lease(request).await
    }

    async fn heartbeat(
        &self,
        owner: u64,
        leases: Vec<Lease>,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Vec<Held>, JobsError> {
        self.shared.heartbeat(owner, leases, now, ttl).await
    }

    async fn finish_with(&self, lease: Lease, now: Timestamp, outcome: Outcome, used: Usage) -> Result<Job, JobsError> {
        self.shared.finish(lease, now, outcome, used).await
    }

    async fn add_usage(&self, batch: UsageBatch) -> Result<bool, JobsError> {
        Ok(self.shared.add_usage(batch).await?)
    }

    async fn usage(&self, query: UsageQuery) -> Result<Vec<UsageSum>, JobsError> {
        Ok(self.shared.usage(query).await?)
    }

    async fn cancel(&self, tenant: TenantName, id: JobId, now: Timestamp) -> Result<Job, JobsError> {
        self.shared.cancel(&tenant, id, now).await
    }

    async fn queued(&self, tenant: TenantName, function: Option<FunctionName>, limit: u64) -> Result<u64, JobsError> {
        Ok(self.shared.ask(move |index| index.queued(&tenant, function.as_ref(), limit)).await?)
    }

    async fn get(&self, tenant: TenantName, id: JobId, with_result: bool) -> Result<(Job, Option<Bytes>), JobsError> {
        let (record, _) = self.shared.fetch(&tenant, id).await?.ok_or(JobsError::NotFound(id))?;
        let result = match &record.result {
            record::Payload::None => None,
            result if with_result => Some(self.shared.bucket.payload(id, result).await?),
            _ => None,
        };
        Ok((record.job, result))
    }

    async fn list(&self, tenant: TenantName, filter: Filter) -> Result<Vec<Job>, JobsError> {
        Ok(self.shared.ask(move |index| index.list(&tenant, &filter)).await?)
    }

    async fn redrive(&self, tenant: TenantName, id: JobId, now: Timestamp) -> Result<Job, JobsError> {
        self.shared.redrive(&tenant, id, now).await
    }

    async fn redrive_some(&self, tenant: TenantName, now: Timestamp, limit: usize) -> Result<u64, JobsError> {
        self.shared.redrive_some(tenant, now, limit).await
    }

    async fn purge(&self, tenant: TenantName, id: JobId) -> Result<(), JobsError> {
        self.shared.purge(&tenant, id).await
    }

    async fn purge_some(&self, tenant: TenantName, limit: usize) -> Result<u64, JobsError> {
        self.shared.purge_some(tenant, limit).await
    }

    async fn delete_ended(&self, tenant: TenantName, jobs: Vec<JobId>) -> Result<u64, JobsError> {
        self.shared.delete_ended(&tenant, jobs).await
    }

    async fn remove(&self, tenant: TenantName, id: JobId) -> Result<(), JobsError> {
        self.shared.remove_one(&tenant, id).await
    }

    async fn delete_unbegun(
        &self,
        tenant: TenantName,
        function: FunctionName,
        generation: u64,
        limit: usize,
    ) -> Result<u64, JobsError> {
        self.shared.delete_unbegun(tenant, function, generation, limit).await
    }

    async fn pinned(&self, tenant: TenantName, function: FunctionName, generation: u64) -> Result<Vec<u64>, JobsError> {
        Ok(self.shared.ask(move |index| index.pinned(&tenant, &function, generation)).await?)
    }

    async fn owners(&self) -> Result<Vec<u64>, JobsError> {
        Ok(self.shared.ask(Index::owners).await?)
    }

    async fn recover(&self, owner: u64, now: Timestamp, limit: usize) -> Result<Vec<Job>, JobsError> {
        self.shared.recover(owner, now, limit).await
    }

    async fn owed(&self, limit: usize) -> Result<Vec<Owed>, JobsError> {
        self.shared.owed(limit).await
    }

    async fn passed_on(&self, tenant: TenantName, id: JobId, finished_at: Timestamp) -> Result<(), JobsError> {
        self.shared.passed_on(&tenant, id, finished_at).await
    }

    async fn sweep(&self, retention: Retention) -> Result<u64, JobsError> {
        self.shared.sweep(retention).await
    }

    async fn counts(&self) -> Result<Counts, JobsError> {
        Ok(self.shared.ask(Index::counts).await?)
    }

    fn others(&self) -> Option<broadcast::Receiver<Changed>> {
        Some(self.shared.others.subscribe())
    }
}
