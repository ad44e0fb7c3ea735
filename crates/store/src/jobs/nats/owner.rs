//! What the owner of jobs does with them: cancel, redrive, purge; and what time does: retention, and what killed
//! processes left behind.

use futures::{StreamExt, TryStreamExt};
use lyra_types::job::{Job, JobStatus};
use lyra_types::{FunctionName, JobId, TenantName, Timestamp};

use super::record::{Name, Payload, Record};
use super::{AT_ONCE, MARKED, Next, Shared};
use crate::StoreError;
use crate::jobs::{JobsError, Owed, Retention, life};

impl Shared {
    pub(super) async fn cancel(&self, tenant: &TenantName, id: JobId, now: Timestamp) -> Result<Job, JobsError> {
        let (job, dropped) = self
            .change(tenant, id, |record| {
                Ok(match record.job.status {
                    JobStatus::Queued => {
                        life::end(&mut record.job, JobStatus::Cancelled, now, Some(life::cancelled()));
                        let dropped = record.settle();
                        Next::Write((record.job.clone(), dropped))
                    }
                    JobStatus::Running if !record.job.cancel_requested => {
                        record.job.cancel_requested = true;
                        record.written_at = Some(now);
                        Next::Write((record.job.clone(), Payload::None))
                    }
                    _ => Next::Leave((record.job.clone(), Payload::None)),
                })
            })
            .await?;
        self.bucket.drop_payload(id, &dropped).await?;
        Ok(job)
    }

    pub(super) async fn redrive(&self, tenant: &TenantName, id: JobId, now: Timestamp) -> Result<Job, JobsError> {
        self.change(tenant, id, |record| {
            if record.job.status != JobStatus::Dead {
                return Err(JobsError::NotDead { id, status: record.job.status });
            }
            life::redrive(&mut record.job, now);
            record.written_at = Some(now);
            Ok(Next::Write(record.job.clone()))
        })
        .await
    }

    pub(super) async fn purge(&self, tenant: &TenantName, id: JobId) -> Result<(), JobsError> {
        self.change(tenant, id, |record| {
            if record.job.status != JobStatus::Dead {
                return Err(JobsError::NotDead { id, status: record.job.status });
            }
            Ok(Next::Remove(()))
        })
        .await
    }

    pub(super) async fn remove_one(&self, tenant: &TenantName, id: JobId) -> Result<(), JobsError> {
        self.change(tenant, id, |record| match record.job.status {
            JobStatus::Running => Err(JobsError::Runs(id)),
            _ => Ok(Next::Remove(())),
        })
        .await
    }

    pub(super) async fn owed(&self, limit: usize) -> Result<Vec<Owed>, JobsError> {
        let names = self.ask(move |index| index.owed(limit)).await?;
        let mut owed = Vec::with_capacity(names.len());
        for (tenant, id, _) in names {
            // As the stream has it: another process may have passed it on.
            if let Some((record, _)) = self.fetch(&tenant, id).await?
                && record.owed
                && record.job.status.is_final()
                && let Some(notice) = record.notice
            {
                owed.push(Owed { job: record.job, notice });
            }
        }
        Ok(owed)
    }

    pub(super) async fn passed_on(
        &self,
        tenant: &TenantName,
        id: JobId,
        finished_at: Timestamp,
    ) -> Result<(), JobsError> {
        let passed = self
            .change(tenant, id, |record| {
                if !record.owed || record.job.finished_at != Some(finished_at) {
                    return Ok(Next::Leave(()));
                }
                record.owed = false;
                Ok(Next::Write(()))
            })
            .await;
        match passed {
            Err(JobsError::NotFound(_)) => Ok(()),
            passed => passed,
        }
    }

    pub(super) async fn redrive_some(
        &self,
        tenant: TenantName,
        now: Timestamp,
        limit: usize,
    ) -> Result<u64, JobsError> {
        let dead = self.ask(move |index| index.dead(&tenant, limit)).await?;
        self.each(dead, |tenant, id| async move { self.redrive(&tenant, id, now).await.map(drop) }).await
    }

    pub(super) async fn purge_some(&self, tenant: TenantName, limit: usize) -> Result<u64, JobsError> {
        let dead = self.ask(move |index| index.dead(&tenant, limit)).await?;
        self.each(dead, |tenant, id| async move { self.purge(&tenant, id).await }).await
    }

    pub(super) async fn delete_ended(&self, tenant: &TenantName, jobs: Vec<JobId>) -> Result<u64, JobsError> {
        let jobs = jobs.into_iter().map(|id| (tenant.clone(), id)).collect();
        self.remove_if(jobs, |record| record.job.status.is_final()).await
    }

    pub(super) async fn delete_unbegun(
        &self,
        tenant: TenantName,
        function: FunctionName,
        generation: u64,
        limit: usize,
    ) -> Result<u64, JobsError> {
        let unbegun = self.ask(move |index| index.unbegun(&tenant, &function, generation, limit)).await?;
        let unbegun = self.remove_if(unbegun, |record| record.job.status == JobStatus::Queued && record.fence == 0);
        unbegun.await
    }

    /// Deletes those of the jobs of which `may` still says so; returns how many.
    async fn remove_if(
        &self,
        jobs: Vec<(TenantName, JobId)>,
        may: impl Fn(&Record) -> bool + Copy + Send + Sync,
    ) -> Result<u64, JobsError> {
        self.each(jobs, |tenant, id| async move {
            self.change(&tenant, id, |record| {
                // As if it had been gone before.
                if may(record) { Ok(Next::Remove(())) } else { Err(JobsError::NotFound(id)) }
            })
            .await
        })
        .await
    }

    /// Does something to each of the jobs; returns to how many. Those that others were quicker with do not count.
    async fn each<F, Fut>(&self, jobs: Vec<(TenantName, JobId)>, work: F) -> Result<u64, JobsError>
    where
        F: Fn(TenantName, JobId) -> Fut,
        Fut: Future<Output = Result<(), JobsError>>,
    {
        let done: Vec<bool> = futures::stream::iter(jobs)
            .map(|(tenant, id)| {
                let work = work(tenant, id);
                async {
                    match work.await {
                        Ok(()) => Ok(true),
                        Err(JobsError::Store(error)) => Err(error),
                        Err(_) => Ok(false),
                    }
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(done.into_iter().filter(|done| *done).count() as u64)
    }

    pub(super) async fn sweep(&self, retention: Retention) -> Result<u64, JobsError> {
        let old = self.ask(move |index| index.old(&retention)).await?;
        self.take_over_all(&old).await?;
        let removed = self
            .remove_if(old, |record| {
                let before = if record.job.status == JobStatus::Dead {
                    retention.dead_before
                } else {
                    retention.finished_before
                };
                record.job.status.is_final() && record.job.finished_at.is_some_and(|at| at < before)
            })
            .await?;
        let keys = self.ask(move |index| index.expired_keys(retention.now, retention.limit)).await?;
        for (name, sequence) in keys {
            // Used again meanwhile, it is another key.
            self.remove_key(&Name::Key(name), sequence).await?;
        }
        self.drop_replaced().await?;
        self.merge_entries().await?;
        self.forget_marks(retention.limit).await?;
        self.drop_orphans().await?;
        Ok(removed)
    }

    /// Takes over what these jobs used, in one entry.
    async fn take_over_all(&self, jobs: &[(TenantName, JobId)]) -> Result<(), StoreError> {
        let jobs = jobs.to_vec();
        let records = self
            .ask(move |index| {
                let found: Result<Vec<_>, _> = jobs.iter().map(|(tenant, id)| index.get(tenant, *id)).collect();
                Ok(found?.into_iter().flatten().map(|(record, _)| record).collect())
            })
            .await?;
        self.take_over(records).await
    }

    /// Deletes marks that every process has seen, and first what may be left of their jobs.
    async fn forget_marks(&self, limit: usize) -> Result<(), StoreError> {
        let since = self.bucket.clock().now() - MARKED;
        for mark in self.ask(move |index| index.marks(since, limit)).await? {
            if let Name::Job(_, id) = &mark.name {
                self.bucket.drop_payloads(*id).await?;
            }
            self.bucket.forget(mark.sequence).await?;
            self.ask(move |index| index.forget(&mark)).await?;
        }
        Ok(())
    }

    /// Deletes payloads whose job was never made: their process was killed between the two.
    async fn drop_orphans(&self) -> Result<(), StoreError> {
        let clock = self.bucket.clock();
        {
            let mut searched = self.searched.lock();
            if searched.is_some_and(|at| clock.instant() - at < MARKED) {
                return Ok(());
            }
            *searched = Some(clock.instant());
        }
        let before = (clock.now() - MARKED).millis();
        for id in self.bucket.with_payloads().await? {
            // Younger ones may be about to be made.
            if i64::try_from(id.millis()).is_ok_and(|made| made < before)
                && !self.ask(move |index| index.knows(id)).await?
            {
                self.bucket.drop_payloads(id).await?;
            }
        }
        Ok(())
    }
}
