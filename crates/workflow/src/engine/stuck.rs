//! Runs that this process owns and can't take up: their journal is damaged, or their workflow can't be read.
//!
//! What must hold: whoever asks for such a run is told why nothing moves, whichever host is asked, so the reason stands in
//! its record; it is tried again, since what can't be read may only be away; its owner can cancel it.

use std::time::Duration;

use bytes::Bytes;
use lyra_store::RunsError;
use lyra_store::runs::{Append, RunRecord, RunUpdate, TakenRun};
use lyra_types::workflow::RunStatus;
use lyra_types::{Error, Result, RunId, TenantName};
use tokio::time::Instant;

use super::actor::Actor;
use super::{Engine, Summary};

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(30);

/// A run that can't go on.
pub(crate) struct Stuck {
    record: RunRecord,
    fence: u64,
    again: Instant,
}

fn summary_of(record: &RunRecord) -> Summary {
    serde_json::from_slice(&record.summary).unwrap_or_else(|_| Summary { spilled: true, ..Summary::default() })
}

impl Engine {
    /// Writes down that a run can't go on, and why.
    pub(super) async fn stick(&self, record: RunRecord, fence: u64, error: &Error) {
        let (tenant, id) = (record.tenant.clone(), record.id.clone());
        tracing::error!(%tenant, run = %id, %error, "a run can't go on; it is tried again");
        let mut summary = summary_of(&record);
        let known = summary.stuck.replace(error.detail.clone());
        if known.as_deref() != Some(error.detail.as_str()) {
            let bytes = Bytes::from(serde_json::to_vec(&summary).unwrap_or_default());
            match self.note(&record, fence, record.status, bytes).await {
                Err(RunsError::Fenced(_) | RunsError::NotFound(_)) => return,
                Err(error) => tracing::warn!(%tenant, run = %id, %error, "why a run is stuck can't be written down"),
                Ok(()) => {}
            }
        }
        let again = self.inner.deps.clock.instant() + AGAIN;
        let mut stuck = self.inner.stuck.lock();
        stuck.insert((tenant, id), Stuck { record, fence, again });
        self.inner.deps.metrics.stuck.set(i64::try_from(stuck.len()).unwrap_or(i64::MAX));
    }

    /// The same for a run that fell over while it was under way: it stands where its journal ends.
    pub(super) async fn stick_fallen(&self, tenant: TenantName, id: RunId, fence: u64, error: &Error) {
        let mut wait = Duration::from_millis(100);
        loop {
            match self.inner.deps.runs.get(tenant.clone(), id.clone(), false).await {
                Ok((record, _)) if record.status.is_final() => return,
                Ok((record, _)) => return self.stick(record, fence, error).await,
                Err(RunsError::NotFound(_)) => return,
                Err(error) => tracing::warn!(%tenant, run = %id, %error, "a run fell over and can't be looked at"),
            }
            self.inner.deps.clock.sleep(wait).await;
            wait = (wait * 2).min(AGAIN);
        }
    }

    /// Takes back what was written down of a run that goes on.
    pub(super) async fn unstick(&self, record: &RunRecord, fence: u64, actor: &Actor) {
        if summary_of(record).stuck.is_none() {
            return;
        }
        if let Err(error) = self.note(record, fence, record.status, actor.summary()).await {
            tracing::warn!(run = %record.id, %error, "a run goes on, which can't be written down now");
        }
    }

    async fn note(&self, record: &RunRecord, fence: u64, status: RunStatus, summary: Bytes) -> Result<(), RunsError> {
        let ended_at = status.is_final().then(|| self.inner.deps.clock.now());
        let append = Append {
            tenant: record.tenant.clone(),
            id: record.id.clone(),
            fence,
            number: 0,
            batch: Bytes::new(),
            update: Some(RunUpdate { status, ended_at, summary, output: None }),
        };
        self.inner.deps.runs.append(append).await
    }

    fn forget_stuck(&self, key: &(TenantName, RunId)) -> Option<Stuck> {
        let mut stuck = self.inner.stuck.lock();
        let found = stuck.remove(key);
        self.inner.deps.metrics.stuck.set(i64::try_from(stuck.len()).unwrap_or(i64::MAX));
        found
    }

    /// Tries those again whose time has come.
    pub(super) async fn try_stuck(&self) {
        let now = self.inner.deps.clock.instant();
        let due: Vec<(TenantName, RunId)> = {
            let stuck = self.inner.stuck.lock();
            stuck.iter().filter(|(_, stuck)| stuck.again <= now).map(|(key, _)| key.clone()).collect()
        };
        for key in due {
            let runs = &self.inner.deps.runs;
            let record = runs.get(key.0.clone(), key.1.clone(), false).await;
            let journal = runs.journal(key.0.clone(), key.1.clone()).await;
            let Some(Stuck { record: known, fence, .. }) = self.forget_stuck(&key) else { continue };
            match (record, journal) {
                (Err(RunsError::NotFound(_)), _) | (_, Err(RunsError::NotFound(_))) => {}
                (Ok((record, _)), _) if record.status.is_final() => {}
                (Ok((record, _)), Ok((head, batches))) => {
                    self.take_up(TakenRun { record, fence, head, batches, damage: None }).await;
                }
                (Ok((record, _)), Err(error)) => self.stick(record, fence, &error.into()).await,
                (Err(error), _) => self.stick(known, fence, &error.into()).await,
            }
        }
    }

    /// Ends a run that can't go on; false when it is none of those.
    pub(crate) async fn cancel_stuck(&self, tenant: &TenantName, id: &RunId) -> Result<bool> {
        let key = (tenant.clone(), id.clone());
        let Some(stuck) = self.forget_stuck(&key) else { return Ok(false) };
        let summary = Summary { stuck: None, ..summary_of(&stuck.record) };
        let bytes = Bytes::from(serde_json::to_vec(&summary).unwrap_or_default());
        if let Err(error) = self.note(&stuck.record, stuck.fence, RunStatus::Cancelled, bytes).await {
            self.inner.stuck.lock().insert(key, stuck);
            return Err(error.into());
        }
        Ok(true)
    }
}
