//! Accepting a job, with its idempotency key.
//!
//! A key's record holds the job as it was accepted, and is written before the job. Whoever finds the key without the job makes
//! the job from it: so it makes no difference whether the one that wrote the key has died, or is only slow.

use lyra_types::job::JobStatus;

use super::bucket::{Found, Put};
use super::index::News;
use super::record::{Key, Name, Payload, Record, decode, encode, key_name};
use super::{Shared, TRIES};
use crate::StoreError;
use crate::jobs::{Accepted, Idempotency, JobsError, NewJob};

impl Shared {
    pub(super) async fn accept(&self, job: NewJob) -> Result<Accepted, JobsError> {
        let _queueing = match job.most_queued.is_any() {
            true => None,
            false => Some(self.queueing.lock().await),
        };
        if job.idempotency.is_none() {
            self.check_queue(&job).await?;
        }
        let (event, large) = Payload::of(job.event.clone(), "e");
        if let Some(large) = large {
            self.bucket.put_payload(job.id, &event, large).await?;
        }
        let key = job.idempotency.as_ref().map(|idempotency| key_name(&job, idempotency));
        let record = Record::new(&job, event, key.clone());
        let accepted = match (&job.idempotency, key) {
            (Some(idempotency), Some(name)) => self.accept_once(&job, idempotency, name, record).await,
            _ => self.make(record).await,
        };
        // Nobody will read it, but where the same job was handed in before: then it is that one's.
        let is_read = accepted.as_ref().is_ok_and(|accepted| accepted.created || accepted.id == job.id);
        if !is_read && !matches!(accepted, Err(JobsError::Store(_))) {
            self.bucket.drop_payloads(job.id).await?;
        }
        accepted
    }

    /// Refuses a job where as many wait as may, as far as is known here.
    async fn check_queue(&self, job: &NewJob) -> Result<(), JobsError> {
        if job.most_queued.is_any() {
            return Ok(());
        }
        let job = job.clone();
        self.ask(move |index| Ok(index.check_queue(&job))).await?
    }

    /// Makes the job, if nobody has: one that is there stays as it is.
    async fn make(&self, record: Record) -> Result<Accepted, JobsError> {
        let id = record.job.id;
        self.write(record, 0).await?;
        Ok(Accepted { id, status: JobStatus::Queued, created: true })
    }

    async fn accept_once(
        &self,
        job: &NewJob,
        idempotency: &Idempotency,
        name: String,
        record: Record,
    ) -> Result<Accepted, JobsError> {
        let request = hex::encode(idempotency.request);
        for _ in 0..TRIES {
            let found = self.bucket.get(&Name::Key(name.clone())).await?;
            let sequence = found.as_ref().map_or(0, |found| found.sequence);
            if let Some(Found { body: Some(body), .. }) = found {
                let known: Key = decode(&body)?;
                if known.expires_at > job.now {
                    let accepted = self.accepted_before(&known).await?;
                    if known.request != request {
                        return Err(JobsError::IdempotencyMismatch);
                    }
                    return Ok(accepted);
                }
            }
            self.check_queue(job).await?;
            let token = self.bucket.token();
            let mut key = Key {
                request: request.clone(),
                expires_at: idempotency.expires_at,
                accepted: Box::new(record.clone()),
                writers: super::record::Writers::default(),
            };
            key.writers.add(token);
            match self.bucket.put(&Name::Key(name.clone()), sequence, Some((encode(&key)?, token))).await? {
                Put::Done(sequence) => {
                    let expires_at = key.expires_at;
                    self.learn(News::Key { name, expires_at, sequence }).await?;
                    return self.make(record).await;
                }
                Put::Overtaken | Put::Conflict => {}
            }
        }
        Err(StoreError::Overloaded.into())
    }

    /// The job that the key stands for, made if it is not there.
    async fn accepted_before(&self, key: &Key) -> Result<Accepted, JobsError> {
        let job = &key.accepted.job;
        let status = match self.fetch(&job.tenant, job.id).await? {
            Some((record, _)) => record.job.status,
            None => {
                self.write((*key.accepted).clone(), 0).await?;
                JobStatus::Queued
            }
        };
        Ok(Accepted { id: job.id, status, created: false })
    }

    /// Deletes the key if it stands for this job.
    pub(super) async fn remove_key_of(&self, name: &str, id: lyra_types::JobId) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let name = Name::Key(name.to_owned());
            let Some(Found { sequence, body: Some(body) }) = self.bucket.get(&name).await? else { return Ok(()) };
            if decode::<Key>(&body)?.accepted.job.id != id {
                return Ok(());
            }
            if self.remove_key(&name, sequence).await? != Put::Conflict {
                return Ok(());
            }
        }
        Err(StoreError::Overloaded)
    }

    /// Deletes the key of this sequence.
    pub(super) async fn remove_key(&self, name: &Name, sequence: u64) -> Result<Put, StoreError> {
        let put = self.bucket.put(name, sequence, None).await?;
        if let Put::Done(sequence) = put {
            self.learn(News::Gone { name: name.clone(), sequence, since: self.bucket.clock().now() }).await?;
        }
        Ok(put)
    }
}
