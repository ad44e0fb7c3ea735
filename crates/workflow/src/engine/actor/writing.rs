//! What a run writes: batches of its journal, and what its record says.

use std::time::Duration;

use bytes::Bytes;
use lyra_store::RunsError;
use lyra_store::runs::{Append, RunUpdate};
use lyra_types::workflow::{RunStatus, no_such_run};
use lyra_types::{Code, Result, Timestamp};

use super::{Actor, Lost};
use crate::core::Outcome;
use crate::engine::values::Unwritten;
use crate::engine::{Summary, journal, values};

/// Waits between tries to write a journal.
const REWRITE: lyra_kit::retry::Backoff =
    lyra_kit::retry::Backoff { first: Duration::from_millis(50), max: Duration::from_secs(5) };

/// Cause of a run whose output can't be made, since a value of it is gone.
const MISSING: &str = "missing_value";

impl Actor {
    /// The entries that are not written, as a batch that is the caller's to write.
    pub(in crate::engine) async fn take_batch(&mut self) -> Result<Bytes> {
        let batch = self.write().await?;
        let deps = &self.inner.deps;
        deps.metrics.batches.inc();
        deps.metrics.entries.inc_by(self.entries.len() as u64);
        self.entries.clear();
        self.entry_bytes = 0;
        self.batches += 1;
        Ok(batch)
    }

    pub(in crate::engine) fn summary(&self) -> Bytes {
        let error = match self.core.outcome() {
            Some(Outcome::Failed(error)) => Some(error.clone()),
            _ => None,
        };
        let summary = Summary {
            counts: self.core.counts(),
            error,
            parent: self.head.parent.clone(),
            schedule: self.head.schedule.clone(),
            traceparent: self.head.traceparent.clone(),
            program: Some(self.head.program.clone()),
            spilled: self.spilled,
            stuck: None,
        };
        Bytes::from(serde_json::to_vec(&summary).unwrap_or_default())
    }

    /// Where the run stands now.
    pub(super) fn status(&self) -> RunStatus {
        match self.core.outcome() {
            Some(Outcome::Succeeded(_)) => RunStatus::Succeeded,
            Some(Outcome::Failed(_)) => RunStatus::Failed,
            Some(Outcome::Cancelled) => RunStatus::Cancelled,
            None if self.core.is_paused() => RunStatus::Paused,
            None => RunStatus::Running,
        }
    }

    /// Writes what is not written. Tries again for as long as the store fails: nothing is done meanwhile.
    pub(super) async fn commit(&mut self) -> Result<(), Lost> {
        let mut status = self.status();
        if self.entries.is_empty() && status == self.recorded {
            return self.make_sure().await;
        }
        // What is written makes sure as well.
        self.doubted = false;
        let ended_at = status.is_final().then(|| self.inner.deps.clock.now());
        let mut tries = 0;
        // What is large is put once, and again only before it could be taken for what nobody refers to.
        let mut written: Option<(Bytes, tokio::time::Instant)> = None;
        loop {
            let now = self.inner.deps.clock.instant();
            let fresh =
                written.take().filter(|(_, at)| now.duration_since(*at) < self.inner.deps.config.unused_grace / 2);
            let batch = match fresh {
                Some(written) => Ok(written),
                None => self.write().await.map(|batch| (batch, now)),
            };
            let outcome = match batch {
                Ok((batch, at)) => {
                    written = Some((batch.clone(), at));
                    match self.update(status, ended_at).await {
                        Ok(update) => self.append(batch, update).await,
                        Err(Unwritten::Gone { member, digest }) => {
                            // It would not be there the next time either.
                            let message = format!(
                                "the output \"{member}\" can't be made: its value is not in the blob store any more ({digest})"
                            );
                            self.stop(Some((MISSING, &message)));
                            (status, written) = (self.status(), None);
                            continue;
                        }
                        Err(Unwritten::TooLarge { most }) => {
                            let message = format!("the output can't be made: {}", values::too_large(most));
                            self.stop(Some(("limit_reached", &message)));
                            (status, written) = (self.status(), None);
                            continue;
                        }
                        Err(Unwritten::Failed(error)) => Err(error),
                    }
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => break,
                Err(error) if error.code == Code::NotFound => return Err(Lost),
                Err(error) => {
                    tries += 1;
                    tracing::warn!(tenant = %self.tenant, run = %self.id, %error, "a journal can't be written; the run waits");
                    let deps = &self.inner.deps;
                    deps.clock.sleep(REWRITE.delay(tries, &deps.random)).await;
                }
            }
        }
        let deps = &self.inner.deps;
        deps.metrics.entries.inc_by(self.entries.len() as u64);
        deps.metrics.batches.inc();
        self.batches += u64::from(!self.entries.is_empty());
        self.entries.clear();
        self.entry_bytes = 0;
        self.recorded = status;
        if status.is_final() && self.noticed {
            self.inner.told.notify_one();
        }
        Ok(())
    }

    /// Where that is in doubt, asks the store whether the run is still this process's. While it can't be asked the doubt stays.
    async fn make_sure(&mut self) -> Result<(), Lost> {
        if !self.doubted {
            return Ok(());
        }
        match self.append(Bytes::new(), None).await {
            Ok(()) => self.doubted = false,
            Err(error) if error.code == Code::NotFound => return Err(Lost),
            Err(error) => tracing::debug!(run = %self.id, %error, "whose the run is can't be asked now"),
        }
        Ok(())
    }

    /// What the record is to say now, where that is something else.
    async fn update(&self, status: RunStatus, ended_at: Option<Timestamp>) -> Result<Option<RunUpdate>, Unwritten> {
        if status == self.recorded {
            return Ok(None);
        }
        let output = match self.core.outcome() {
            Some(Outcome::Succeeded(output)) => {
                let deps = &self.inner.deps;
                Some(values::written(output, &self.secret, deps.blobs.as_ref(), deps.config.max_result_bytes).await?)
            }
            _ => None,
        };
        Ok(Some(RunUpdate { status, ended_at, summary: self.summary(), output }))
    }

    /// The entries that are not written, as a batch.
    async fn write(&mut self) -> Result<Bytes> {
        let deps = &self.inner.deps;
        let written =
            journal::write(&self.entries, deps.blobs.as_ref(), deps.config.inline_bytes, &deps.random).await?;
        self.spilled |= written.spilled;
        Ok(written.batch)
    }

    /// Appends a batch. A run that is no longer this process's, or is gone, is [`Code::NotFound`].
    async fn append(&self, batch: Bytes, update: Option<RunUpdate>) -> Result<()> {
        let append = Append {
            tenant: self.tenant.clone(),
            id: self.id.clone(),
            fence: self.fence,
            number: self.batches,
            batch,
            update,
        };
        match self.inner.deps.runs.append(append).await {
            Ok(()) => Ok(()),
            Err(RunsError::Fenced(id) | RunsError::NotFound(id)) => Err(no_such_run(&id)),
            Err(error) => Err(error.into()),
        }
    }
}
