//! Keeps the route table up to date: fills it from a list, then follows the store's changes.
//!
//! An event only says which function to read again. Changes that came together are shown with the revision before
//! them, and the last says that the table is complete up to the newest: so no revision is claimed too early.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lyra_store::objects::{Batch, Entry, WatchError};
use lyra_types::{FunctionName, Result, TenantName};
use lyra_wire::control::RouteEvent;

use super::record::assemble;
use super::{Functions, keys};

/// Objects read at once while the table is filled.
const PAGE: usize = 2_000;
/// Wait before the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(1);

impl Functions {
    /// Makes the table show what the store holds.
    pub(super) async fn fill(&self) -> Result<()> {
        let mut left: BTreeSet<(TenantName, FunctionName)> =
            self.table.all().iter().map(|route| (route.tenant.clone(), route.function.clone())).collect();
        let before = self.table.revision();
        let (mut start, mut after) = (None, None);
        // Objects of a function stand together; the last one's of a page may go on in the next.
        let mut open: Option<(TenantName, FunctionName, Vec<Entry>)> = None;
        loop {
            let page = self.objects.list(keys::ALL, PAGE, after.as_deref()).await?;
            let revision = *start.get_or_insert(page.revision);
            after = page.entries.last().map(|entry| entry.key.clone());
            for entry in page.entries {
                let Some((tenant, function, _)) = keys::parse(&entry.key) else {
                    tracing::error!(key = entry.key, "an object that is not of the registry");
                    continue;
                };
                match &mut open {
                    Some((t, f, entries)) if *t == tenant && *f == function => entries.push(entry),
                    _ => {
                        let whole = open.replace((tenant, function, vec![entry]));
                        self.show_filled(before, whole, &mut left);
                    }
                }
            }
            if !page.more {
                self.show_filled(before, open.take(), &mut left);
                for (tenant, function) in left {
                    self.table.apply(before, RouteEvent::Remove(tenant, function));
                }
                // Functions that were read later than the first page are newer than this says; following from here
                // reads them once more.
                self.table.complete(revision);
                self.count();
                return Ok(());
            }
        }
    }

    fn show_filled(
        &self,
        revision: u64,
        whole: Option<(TenantName, FunctionName, Vec<Entry>)>,
        left: &mut BTreeSet<(TenantName, FunctionName)>,
    ) {
        let Some((tenant, function, entries)) = whole else { return };
        let known = self.table.get(&tenant, &function);
        if let Some(record) = assemble(&tenant, &function, &entries, known.as_deref()) {
            self.table.apply(revision, RouteEvent::Put(Arc::new(record.route)));
            left.remove(&(tenant, function));
        }
    }

    /// Follows the store for ever.
    pub(super) async fn follow(&self) {
        loop {
            if let Err(error) = self.follow_once().await {
                match error {
                    WatchError::Compacted { oldest } => {
                        tracing::warn!(oldest, "the route table fell behind and is filled anew");
                        if let Err(error) = self.fill().await {
                            tracing::warn!(%error, "the route table can't be filled");
                        }
                    }
                    WatchError::Store(error) => tracing::warn!(%error, "functions can't be followed"),
                }
            }
            self.clock.sleep(AGAIN).await;
        }
    }

    async fn follow_once(&self) -> Result<(), WatchError> {
        let mut batches = self.objects.watch(keys::ALL, self.table.revision() + 1).await?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            while let Err(error) = self.show(&batch).await {
                tracing::warn!(%error, "a changed function can't be read");
                self.clock.sleep(AGAIN).await;
            }
        }
        Ok(())
    }

    async fn show(&self, batch: &Batch) -> Result<()> {
        let before = self.table.revision();
        let changed: BTreeSet<(TenantName, FunctionName)> = batch
            .events
            .iter()
            .filter_map(|event| keys::parse(&event.key).map(|(tenant, function, _)| (tenant, function)))
            .collect();
        for (tenant, function) in changed {
            let event = match self.read(&tenant, &function).await? {
                Some(record) => RouteEvent::Put(Arc::new(record.route)),
                None => RouteEvent::Remove(tenant, function),
            };
            self.table.apply(before, event);
        }
        self.table.complete(batch.revision);
        self.count();
        Ok(())
    }

    fn count(&self) {
        self.metrics.functions.set(i64::try_from(self.table.count()).unwrap_or(i64::MAX));
    }
}
