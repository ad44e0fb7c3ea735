//! What must hold of a site after whatever happened to it, seen from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use lyra_client::Client;
use lyra_types::FunctionName;
use lyra_types::api::{JobView, WorkerView};
use lyra_types::job::JobStatus;

use super::{LOOK, PATIENCE, Site};
use crate::traffic::Record;

/// Jobs that are asked for at once.
const AT_ONCE: usize = 16;
/// Longest wait for all jobs to end: those of a lost worker are due again after its lease and a back-off.
const JOBS: Duration = Duration::from_secs(120);

/// What was checked, for people.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// Jobs that were accepted, and ended once with the right result.
    pub jobs: usize,
    /// Of these: that took more than one try.
    pub tried_again: usize,
    /// Versions that were deployed and are there.
    pub versions: usize,
    /// Workers that are at rest with nothing charged.
    pub workers: usize,
}

impl Site {
    /// Deploys the next version of a function that [`crate::traffic`] calls; gives its number once it is acknowledged.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn deploy(&self, function: &str) -> Result<u64> {
        let client = self.client("g1")?;
        let name = FunctionName::new(function)?;
        let next = match client.versions(&name, 1_000).await {
            Ok(versions) => versions.items.iter().map(|version| version.value.version).max().unwrap_or_default() + 1,
            Err(_) => 1,
        };
        let file = format!("{function}.js");
        std::fs::write(self.directory.join(&file), crate::traffic::source(next))?;
        self.commands().run(["deploy", &file, "--reuse", "--max-attempts", "10"]).await?.ok()?;
        Ok(next)
    }

    /// Checks what must hold once faults are healed and traffic has ended: every acknowledged version and job is there;
    /// every job has ended once, with the right result; no instance served two versions; workers are at rest, with nothing
    /// over-committed before and nothing charged now.
    ///
    /// # Errors
    /// With what does not hold.
    pub async fn check(&self, function: &str, versions: u64, record: &Record) -> Result<Checked> {
        let violations = record.violations();
        ensure!(violations.is_empty(), "{}", violations.join("\n"));
        self.until_ready().await?;
        self.until_answered("g1").await?;
        let client = self.client("g1")?;
        let name = FunctionName::new(function)?;
        let there = client.versions(&name, 10_000).await?;
        for version in 1..=versions {
            let is_there = there.items.iter().any(|one| one.value.version == version);
            ensure!(is_there, "version {version} was acknowledged and is gone");
        }
        let jobs = ended(&client, record).await?;
        for (number, job) in &jobs {
            let again = client.job(job.id.parse()?, Duration::ZERO).await?.value;
            let same = again.finished_at == job.finished_at && again.attempts == job.attempts;
            ensure!(same && again.status == job.status, "job {number} ended twice: {job:?}, then {again:?}");
        }
        let dead = client.dead_letters(10).await?;
        ensure!(dead.items.is_empty(), "dead letters: {:?}", dead.items);
        let workers = self.at_rest(&client).await?;
        let tried_again = jobs.values().filter(|job| job.attempts > 1).count();
        Ok(Checked { jobs: jobs.len(), tried_again, versions: versions.try_into()?, workers })
    }

    /// Waits until every worker has nothing to do, has its idle instances ended, and asks that nothing stays charged.
    async fn at_rest(&self, client: &Client) -> Result<usize> {
        let workers = self.names("worker");
        for worker in &workers {
            let rested = async {
                loop {
                    // A call that has ended may be told a moment before its instance is idle.
                    client.clean(worker).await?;
                    let view = client.worker(worker).await?.value;
                    if is_at_rest(&view) {
                        return anyhow::Ok(());
                    }
                    tokio::time::sleep(LOOK).await;
                }
            };
            if let Ok(rested) = tokio::time::timeout(PATIENCE, rested).await {
                rested?;
            } else {
                bail!("{worker} does not come to rest: {:?}", client.worker(worker).await?.value);
            }
        }
        Ok(workers.len())
    }
}

fn is_at_rest(worker: &WorkerView) -> bool {
    let charged = [worker.memory, worker.cpu, worker.gpu].iter().any(|resource| resource.charged > 0);
    worker.running == 0 && worker.queued == 0 && worker.idle_instances == 0 && !charged
}

/// Every accepted job as it stands at its end.
async fn ended(client: &Client, record: &Record) -> Result<BTreeMap<u64, JobView>> {
    let each = record.jobs().iter().map(|(number, id)| async move {
        let job = client.wait_job(id.parse()?, JOBS).await;
        let job = job.with_context(|| format!("job {number} ({id}) was accepted"))?.value;
        ensure!(job.status == JobStatus::Succeeded, "job {number} was accepted: {job:?}");
        let result = client.wait_job_result(id.parse()?, PATIENCE).await?;
        let result: serde_json::Value = serde_json::from_slice(&result)?;
        let right = result["n"] == *number && result["build"] == job.version;
        ensure!(right, "job {number} of version {} has the result {result}", job.version);
        Ok((*number, job))
    });
    let each: Vec<_> = each.collect();
    let all: Vec<Result<_>> = futures::stream::iter(each).buffer_unordered(AT_ONCE).collect().await;
    all.into_iter().collect()
}
