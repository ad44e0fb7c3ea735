//! Keeps the route table up to date: fills it from a list, then follows the store's changes.
//!
//! An event only says which function to read again. Changes that came together are shown with the revision before
//! them, and the last says that the table is complete up to the newest: so no revision is claimed too early.

use std::collections::BTreeSet;
use std::sync::Arc;

use lyra_store::objects::{Batch, Entry, Pages};
use lyra_types::{FunctionName, Result, TenantName};
use lyra_wire::control::RouteEvent;

use super::record::assemble;
use super::{Functions, keys};
use crate::following::Follows;

/// Objects read at once while the table is filled.
const PAGE: usize = 2_000;

impl Follows for Functions {
    const ALL: &'static str = keys::ALL;
    const WHAT: &'static str = "functions";

    fn shown_revision(&self) -> u64 {
        self.table.revision()
    }

    async fn fill(&self) -> Result<()> {
        let mut left: BTreeSet<(TenantName, FunctionName)> =
            self.table.all().iter().map(|route| (route.tenant.clone(), route.function.clone())).collect();
        let before = self.table.revision();
        let mut pages = Pages::of(self.objects.as_ref(), keys::ALL, PAGE);
        // Objects of a function stand together; the last one's of a page may go on in the next.
        let mut open: Option<(TenantName, FunctionName, Vec<Entry>)> = None;
        while let Some(read) = pages.next().await? {
            for entry in read {
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
        }
        self.show_filled(before, open.take(), &mut left);
        for (tenant, function) in left {
            self.table.apply(before, RouteEvent::Remove(tenant, function));
        }
        self.table.complete(pages.revision());
        self.count();
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
}

impl Functions {
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

    fn count(&self) {
        self.metrics.functions.set(i64::try_from(self.table.count()).unwrap_or(i64::MAX));
    }
}
