//! What nobody refers to any more is deleted: programs and definitions that no version and no run has, values of runs that
//! were killed between blob and journal, and all that a deleted tenant had.
//!
//! What must hold: nothing that a version or a run refers to is deleted, whatever other hosts do meanwhile. What a run alone
//! refers to goes with it (`Engine::forget`) and is like no other blob, so nobody can be about to refer to it. A program or a
//! definition may be like another one: whoever is about to refer to it pins it first ([`lyra_store::objects::Pins`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_store::objects::{Pages, Pin, Pins};
use lyra_store::runs::RunFilter;
use lyra_types::function::Digest;
use lyra_types::{Error, Result, TenantName};
use lyra_wire::workflows::{Made, NewWorkflow, RunCommand};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::definitions::{self, VERSIONS};
use crate::engine::{Head, Message, Summary, journal};
use crate::service::Service;
use crate::timetable;

/// What the keys of pins, and of marks, of programs and definitions start with.
const PINS: (&str, &str) = ("workflow-pins/", "workflow-deleting/");
/// Versions, and runs, that are read at once.
const PAGE: usize = 1_000;
/// Runs of a deleted tenant that are looked at in one round.
const RUNS: usize = 500;

impl Service {
    /// The pins of programs and definitions.
    fn pins(&self) -> Pins {
        let (deps, objects) = (self.engine().deps(), Arc::clone(&self.definitions().objects));
        Pins::new(objects, Arc::clone(&deps.blobs), PINS, deps.clock.clone(), deps.random.clone())
    }

    /// Puts a blob, and keeps it from being deleted until [`Service::unpin`], or for a while.
    pub(crate) async fn put_pinned(&self, bytes: Bytes) -> Result<(String, Pin)> {
        let digest = lyra_store::blobs::digest(&bytes);
        let pin = self.pins().pin(&digest).await?;
        self.engine().deps().blobs.put(bytes).await?;
        Ok((digest.0, pin))
    }

    /// What refers to the blob is written.
    pub(crate) fn unpin(&self, pin: Pin) {
        self.pins().unpin(pin);
    }

    /// Checks a workflow in full and stores it as a new version, unless the newest is the same.
    pub(crate) async fn deploy_pinned(&self, tenant: &TenantName, new: NewWorkflow) -> Result<Made> {
        let (compiled, warnings) = definitions::compile(&new)?;
        new.schedule.iter().flatten().try_for_each(timetable::check)?;
        let bytes = serde_json::to_vec(&compiled)
            .map_err(|error| Error::internal(format!("a compiled workflow can't be written: {error}")))?;
        // What can't be run is not stored.
        self.engine().check(compiled)?;
        let most = self.quota_of(tenant).await?.workflows;
        let (program, first) = self.put_pinned(Bytes::from(bytes)).await?;
        let (definition, second) = self.put_pinned(Bytes::from(new.definition.clone())).await?;
        let made = self.definitions().store(tenant, new, (program, definition), warnings, most).await;
        self.unpin(first);
        self.unpin(second);
        made
    }

    /// Deletes what nobody refers to, for ever.
    pub(crate) async fn collect_unused(self) {
        let mut unused: HashMap<String, Instant> = HashMap::new();
        if self.engine().deps().config.unused_every.is_zero() {
            return;
        }
        loop {
            let deps = self.engine().deps();
            // Hosts that started together shall not all look at once.
            let wait = deps.config.unused_every.mul_f64(0.5 + 0.5 * deps.random.unit()).max(Duration::from_secs(1));
            deps.clock.sleep(wait).await;
            match self.collect(&mut unused).await {
                Ok(0) => {}
                Ok(deleted) => tracing::info!(deleted, "blobs that no workflow and no run refers to are deleted"),
                Err(error) => tracing::warn!(%error, "blobs that nobody refers to can't be looked for"),
            }
        }
    }

    /// One round. `unused`: since when nobody has been seen to refer to what.
    pub(crate) async fn collect(&self, unused: &mut HashMap<String, Instant>) -> Result<usize> {
        let deps = self.engine().deps();
        let all = deps.blobs.list().await?;
        let used = self.references().await?;
        let now = deps.clock.instant();
        let free: HashSet<String> = all.into_iter().map(|digest| digest.0).filter(|it| !used.contains(it)).collect();
        unused.retain(|digest, _| free.contains(digest));
        for digest in free {
            unused.entry(digest).or_insert(now);
        }
        let grace = deps.config.unused_grace;
        let over = unused.iter().filter(|(_, since)| now.duration_since(**since) >= grace);
        let over: Vec<String> = over.map(|(digest, _)| digest.clone()).collect();
        let digests: Vec<Digest> = over.iter().cloned().map(Digest).collect();
        let deleted = self.pins().delete_unused(&digests, |free| self.unreferenced(free)).await?;
        for digest in over {
            unused.remove(&digest);
        }
        deps.metrics.blobs_deleted.inc_by(deleted as u64);
        Ok(deleted)
    }

    /// Those that no version and no run refers to.
    async fn unreferenced(&self, mut free: Vec<Digest>) -> Result<Vec<Digest>> {
        let used = self.references().await?;
        free.retain(|digest| !used.contains(&digest.0));
        Ok(free)
    }

    /// Every blob that a version or a run refers to.
    async fn references(&self) -> Result<HashSet<String>> {
        let mut used = HashSet::new();
        let mut pages = Pages::of(self.objects(), VERSIONS, PAGE);
        while let Some(entries) = pages.next().await? {
            for entry in &entries {
                let version = definitions::read(&entry.value)?;
                used.extend([version.program, version.definition]);
            }
        }
        let runs = &self.engine().deps().runs;
        let mut after = 0;
        loop {
            let page = runs.all(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(used) };
            after = last.order;
            for record in page {
                let summary: Summary = serde_json::from_slice(&record.summary)
                    .unwrap_or_else(|_| Summary { spilled: true, ..Summary::default() });
                // What is recorded of a run under way is as old as its last change of status.
                let whole = summary.spilled || summary.program.is_none() || !record.status.is_final();
                used.extend(summary.program);
                if !whole {
                    continue;
                }
                match runs.journal(record.tenant, record.id).await {
                    Ok((head, batches)) => {
                        let head: Result<Head, _> = serde_json::from_slice(&head);
                        used.extend(head.map(|head| head.program));
                        used.extend(journal::blobs(&batches)?);
                    }
                    Err(lyra_store::RunsError::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    /// Ends and forgets what a tenant has, as far as it is under way here or has ended; true once nothing is left.
    pub(crate) async fn clear_tenant(&self, tenant: &TenantName) -> Result<bool> {
        self.definitions().delete_all(tenant).await?;
        let deps = self.engine().deps();
        deps.runs.forget_memos(tenant.clone()).await?;
        let found = deps.runs.list(tenant.clone(), RunFilter { limit: RUNS, ..RunFilter::default() }).await?;
        for record in &found {
            if record.status.is_final() {
                // Whenever it ended: nobody is there who could want it.
                self.engine().forget(tenant, &record.id, deps.clock.now() + Duration::from_secs(3_600)).await?;
                continue;
            }
            if self.engine().cancel_stuck(tenant, &record.id).await? {
                continue;
            }
            if let Some(handle) = self.active(tenant, &record.id) {
                let (reply, _) = oneshot::channel();
                // One that is full takes it in the next round.
                drop(handle.mail.try_send(Message::Command(RunCommand::Cancel, reply)));
            }
        }
        Ok(found.is_empty())
    }
}

#[cfg(test)]
pub(crate) mod tests;
