//! From ends of jobs that are owed to deliveries.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use lyra_store::jobs::Owed;
use lyra_types::api::JobView;
use lyra_types::job::JobStatus;
use lyra_types::{Error, Result, Timestamp};
use serde_json::{Value, json};

use super::record::{Notice, Subject, id};
use super::{Deliveries, new_delivery};

/// Ends that are passed on together.
const CHUNK: usize = 100;
/// Of those, at the same time.
const AT_ONCE: usize = 32;
/// How often what is owed is looked for beside when a job ends here: jobs end at other processes, too.
const LOOK: Duration = Duration::from_secs(10);
/// Ends that come close together are looked for once.
const GATHER: Duration = Duration::from_millis(10);
/// Wait before the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(1);
/// Largest result that goes with a delivery, in bytes; larger ones are for `GET /v1/jobs/{id}/result`.
pub(super) const MAX_RESULT: usize = 64 << 10;

impl Deliveries {
    /// Passes on what is owed, for ever.
    pub(super) async fn pass_on(&self) {
        loop {
            match self.pass_on_some().await {
                // There may be more.
                Ok(CHUNK) => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "ends of jobs can't be passed on yet");
                    self.clock.sleep(AGAIN).await;
                }
            }
            tokio::select! {
                () = self.ended.notified() => self.clock.sleep(GATHER).await,
                () = self.clock.sleep(LOOK) => {}
            }
        }
    }

    /// Passes on up to [`CHUNK`] ends; returns how many.
    async fn pass_on_some(&self) -> Result<usize> {
        let owed = self.store.owed(CHUNK).await?;
        let count = owed.len();
        // Together, since the stores commit together what comes together.
        let passing = owed.into_iter().map(|one| async move {
            let (tenant, job) = (one.job.tenant.clone(), one.job.id);
            let finished_at = one.job.finished_at.unwrap_or_default();
            self.deliver(one, finished_at).await?;
            Ok::<_, Error>(self.store.passed_on(tenant, job, finished_at).await?)
        });
        futures::stream::iter(passing).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(count)
    }

    /// Makes the delivery of an end, if anybody wants to hear of it and it is not there.
    async fn deliver(&self, owed: Owed, finished_at: Timestamp) -> Result<()> {
        let Owed { job, notice } = owed;
        let notice: Notice = match serde_json::from_str(&notice) {
            Ok(notice) => notice,
            Err(error) => {
                // It was written by a program that knew more; nobody can do anything about it later.
                tracing::error!(job = %job.id, line = error.line(), "who hears of a job's end can't be read");
                return Ok(());
            }
        };
        let (kind, target) = match job.status {
            JobStatus::Succeeded => ("job.succeeded", notice.on_success),
            _ => ("job.failed", notice.on_failure),
        };
        let Some(target) = target else { return Ok(()) };
        let id = id(finished_at, &format!("{}/{}/{}", job.tenant, job.id, finished_at.millis()));
        let mut data = json!({"job": JobView::from(&job)});
        if job.status == JobStatus::Succeeded {
            let result = self.store.get(job.tenant.clone(), job.id, true).await.ok().and_then(|(_, result)| result);
            match result {
                Some(result) if result.len() <= MAX_RESULT => data["result"] = value(&result),
                _ => data["result_omitted"] = Value::Bool(true),
            }
        }
        let body = json!({"id": id, "type": kind, "timestamp": finished_at, "data": data}).to_string();
        let of = Subject::Function(job.function.clone());
        let target = self.openable(&job.tenant, &of, target);
        let mut delivery = new_delivery(kind, &of, target, body, self.clock.now());
        (delivery.job, delivery.depth) = (Some(job.id), notice.depth);
        self.make(&job.tenant, &id, &delivery).await
    }
}

/// A result as JSON: itself where it is, else its text.
fn value(result: &[u8]) -> Value {
    serde_json::from_slice(result).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(result).into_owned()))
}
