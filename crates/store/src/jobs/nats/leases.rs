//! Leases: given, prolonged, ended by their holder, lost.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use lyra_types::job::{Job, JobStatus};
use lyra_types::usage::{Hour, Usage};
use lyra_types::{Error, InvocationId, JobId, TenantName, Timestamp};

use super::record::{Payload, Record};
use super::usage::Spent;
use super::{AT_ONCE, Next, Shared};
use crate::StoreError;
use crate::jobs::{Held, JobsError, Lease, LeaseRequest, Leased, LeasedJob, Outcome, life};

impl Shared {
    pub(super) async fn lease(&self, mut request: LeaseRequest) -> Result<Leased, JobsError> {
        let now = request.now;
        let mut leased = Leased { ended: self.expire(now).await?, ..Leased::default() };
        let asked = request.clone();
        let due = self
            .ask(move |index| {
                // The sizes are known before anything is taken.
                let mut due = Vec::new();
                for (tenant, id) in index.due(&asked)? {
                    if let Some((record, _)) = index.get(&tenant, id)? {
                        due.push((tenant, id, record.event.len()));
                    }
                }
                Ok(due)
            })
            .await?;
        let (mut bytes, mut kept_back, mut taken) = (0, false, Vec::new());
        for (tenant, id, size) in due {
            bytes += size;
            kept_back = bytes > request.max_bytes && !taken.is_empty();
            if kept_back {
                break;
            }
            let Some(invocation) = request.invocations.pop() else { break };
            taken.push((tenant, id, invocation));
        }
        let until = now + request.ttl;
        let takes = taken.into_iter().map(|(tenant, id, invocation)| {
            let owner = request.owner;
            async move { self.take(tenant, id, now, until, owner, invocation).await }
        });
        let taken: Vec<_> = futures::stream::iter(takes).buffered(AT_ONCE).collect().await;
        let mut failed = None;
        for one in taken {
            match one {
                Ok(job) => leased.jobs.extend(job),
                Err(error) => failed = Some(error),
            }
        }
        // Those that were taken must reach their owner: the rest is asked for again.
        match failed {
            Some(error) if leased.jobs.is_empty() && leased.ended.is_empty() => return Err(error),
            Some(error) => tracing::warn!(%error, "some jobs could not be leased"),
            None => {}
        }
        leased.next = match kept_back && !leased.jobs.is_empty() {
            true => Some(now),
            false => self.ask(move |index| index.next(now)).await?,
        };
        Ok(leased)
    }

    /// Leases one job, if nobody else was quicker.
    async fn take(
        &self,
        tenant: TenantName,
        id: JobId,
        now: Timestamp,
        until: Timestamp,
        owner: u64,
        invocation: InvocationId,
    ) -> Result<Option<LeasedJob>, JobsError> {
        let took = self
            .change(&tenant, id, |record| {
                if record.job.status != JobStatus::Queued || record.job.next_attempt_at.is_some_and(|at| at > now) {
                    return Ok(Next::Leave(None));
                }
                life::begin(&mut record.job, invocation, now);
                record.fence += 1;
                record.owner = Some(owner);
                record.lease_until = Some(until);
                record.written_at = Some(now);
                Ok(Next::Write(Some(record.clone())))
            })
            .await;
        let record: Record = match took {
            Ok(Some(record)) => record,
            Ok(None) | Err(JobsError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let lease = Lease { tenant, id, fence: record.fence };
        match self.bucket.payload(id, &record.event).await {
            Ok(event) => Ok(Some(LeasedJob { job: record.job, event, fence: record.fence })),
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(%error, %id, "a job's event is lost");
                let error = Error::internal("the event of this job can't be read any more");
                self.finish(lease, now, Outcome::Ended(JobStatus::Failed, error), Usage::default()).await?;
                Ok(None)
            }
            Err(error) => {
                self.finish(lease, now, Outcome::Released { run_at: now, error: None }, Usage::default()).await?;
                Err(error.into())
            }
        }
    }

    /// Deals with leases that have run out; returns the jobs that ended by that.
    async fn expire(&self, now: Timestamp) -> Result<Vec<Job>, JobsError> {
        let expired = self.ask(move |index| index.expired(now)).await?;
        let lost = self.lose_all(expired, now, |record| record.lease_until.is_none_or(|until| until <= now)).await?;
        Ok(lost.into_iter().filter(|job| job.status.is_final()).collect())
    }

    pub(super) async fn recover(&self, owner: u64, now: Timestamp, limit: usize) -> Result<Vec<Job>, JobsError> {
        let theirs = self.ask(move |index| index.leased_by(owner, limit)).await?;
        self.lose_all(theirs, now, |record| record.owner == Some(owner)).await
    }

    async fn lose_all(
        &self,
        jobs: Vec<(TenantName, JobId)>,
        now: Timestamp,
        is_lost: impl Fn(&Record) -> bool + Copy + Send + Sync,
    ) -> Result<Vec<Job>, JobsError> {
        let losses = jobs.into_iter().map(|(tenant, id)| async move {
            let lost = self
                .change(&tenant, id, |record| {
                    if record.job.status != JobStatus::Running || !is_lost(record) {
                        return Ok(Next::Leave(None));
                    }
                    life::lose(&mut record.job, now);
                    record.written_at = Some(now);
                    let dropped = record.settle();
                    Ok(Next::Write(Some((record.job.clone(), dropped))))
                })
                .await;
            match lost {
                Ok(Some((job, dropped))) => {
                    self.bucket.drop_payload(id, &dropped).await?;
                    Ok(Some(job))
                }
                Ok(None) | Err(JobsError::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let lost: Vec<Option<Job>> = futures::stream::iter(losses).buffered(AT_ONCE).try_collect().await?;
        Ok(lost.into_iter().flatten().collect())
    }

    pub(super) async fn heartbeat(
        &self,
        owner: u64,
        leases: Vec<Lease>,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<Vec<Held>, JobsError> {
        let beats = leases.into_iter().map(|lease| async move {
            let held = self
                .change(&lease.tenant, lease.id, |record| {
                    if !record.is_held(&lease) || record.owner != Some(owner) {
                        return Ok(Next::Leave(Held::No));
                    }
                    record.lease_until = Some(now + ttl);
                    record.written_at = Some(now);
                    let held = if record.job.cancel_requested { Held::CancelRequested } else { Held::Yes };
                    Ok(Next::Write(held))
                })
                .await;
            match held {
                Err(JobsError::NotFound(_)) => Ok(Held::No),
                held => held,
            }
        });
        futures::stream::iter(beats).buffered(AT_ONCE).try_collect().await
    }

    pub(super) async fn finish(
        &self,
        lease: Lease,
        now: Timestamp,
        outcome: Outcome,
        used: Usage,
    ) -> Result<Job, JobsError> {
        let mut result = Payload::None;
        if let Outcome::Succeeded(bytes) = &outcome {
            // Of this try alone: a late one must not spoil another's.
            let (payload, large) = Payload::of(bytes.clone(), &format!("r{}", lease.fence));
            if let Some(large) = large {
                self.bucket.put_payload(lease.id, &payload, large).await?;
            }
            result = payload;
        }
        let finished = self
            .change(&lease.tenant, lease.id, |record| {
                if !record.is_held(&lease) {
                    return Err(JobsError::Stale { id: lease.id, fence: lease.fence });
                }
                if !used.is_empty() {
                    record.used.push(Spent { hour: Hour::of(now), usage: used });
                }
                let job = &mut record.job;
                match &outcome {
                    Outcome::Succeeded(_) => {
                        record.result = result.clone();
                        life::end(job, JobStatus::Succeeded, now, None);
                    }
                    Outcome::Ended(status, error) => life::end(job, *status, now, Some(error.clone())),
                    Outcome::Retry { .. } | Outcome::Released { .. } if job.cancel_requested => {
                        life::end(job, JobStatus::Cancelled, now, Some(life::cancelled()));
                    }
                    Outcome::Retry { run_at, error } => life::queue(job, *run_at, Some(error.clone())),
                    Outcome::Released { run_at, error } => {
                        job.attempts = job.attempts.saturating_sub(1);
                        life::queue(job, *run_at, error.clone());
                    }
                }
                record.written_at = Some(now);
                let dropped = record.settle();
                Ok(Next::Write((record.job.clone(), dropped)))
            })
            .await;
        match finished {
            Ok((job, dropped)) => {
                self.bucket.drop_payload(lease.id, &dropped).await?;
                Ok(job)
            }
            Err(error) => {
                if matches!(error, JobsError::Stale { .. } | JobsError::NotFound(_)) {
                    self.bucket.drop_payload(lease.id, &result).await?;
                }
                Err(error)
            }
        }
    }
}

impl Record {
    /// Whether this lease is the newest one, and its try has not ended.
    fn is_held(&self, lease: &Lease) -> bool {
        self.job.status == JobStatus::Running && self.fence == lease.fence
    }

    /// Takes off what a record has only while its job runs or may run again, and marks the end as owed; returns the event that nobody needs now.
    pub(super) fn settle(&mut self) -> Payload {
        self.owed |= self.job.status.is_final() && self.notice.is_some();
        if self.job.status != JobStatus::Running {
            (self.owner, self.lease_until) = (None, None);
        }
        if self.job.status.is_final() && self.job.status != JobStatus::Dead {
            std::mem::take(&mut self.event)
        } else {
            Payload::None
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn only_what_is_large_stands_apart() {
        let (small, apart) = Payload::of(Bytes::from_static(b"{}"), "e");
        assert_eq!((small.len(), apart), (2, None));
        let (large, apart) = Payload::of(Bytes::from(vec![0; 5_000]), "e");
        assert_eq!((large.len(), apart.map(|bytes| bytes.len())), (5_000, Some(5_000)));
    }
}
