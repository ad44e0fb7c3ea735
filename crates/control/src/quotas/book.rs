//! Quotas in memory: filled from the store, then kept up to date by its changes.
//!
//! An event only says which object to read again. Who has seen revision N has seen every change up to N.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use lyra_store::objects::{Batch, Change, Entry, Pages};
use lyra_types::quota::{Quota, QuotaKey};
use lyra_types::{Error, FunctionName, Result, TenantName};

use super::Quotas;
use crate::following::Follows;

/// What all keys of quotas start with.
pub(super) const ALL: &str = lyra_wire::quotas::QUOTAS;
/// Objects read at once.
const PAGE: usize = 2_000;
/// Longest wait for the book to show a change.
const SHOWN: Duration = Duration::from_secs(10);

/// What the keys of all quotas of a tenant start with.
pub(crate) fn of_tenant(tenant: &TenantName) -> String {
    format!("{ALL}{tenant}/")
}

pub(crate) fn key(of: &QuotaKey) -> String {
    lyra_wire::quotas::quota_key(of)
}

fn parse(key: &str) -> Option<QuotaKey> {
    let (tenant, rest) = key.strip_prefix(ALL)?.split_once('/')?;
    let tenant = TenantName::new(tenant).ok()?;
    match rest.split_once('/') {
        None if rest == "own" => Some(QuotaKey { tenant, function: None }),
        Some(("functions", function)) => Some(QuotaKey { tenant, function: Some(FunctionName::new(function).ok()?) }),
        _ => None,
    }
}

/// Reads a quota; one that can't be read is none, and the log says so.
pub(super) fn read(entry: &Entry) -> Option<Quota> {
    serde_json::from_slice(&entry.value)
        .inspect_err(|error| tracing::error!(key = entry.key, %error, "a quota can't be read"))
        .ok()
}

pub(super) fn put(of: &QuotaKey, quota: &Quota) -> Result<Change> {
    let json = serde_json::to_vec(quota).map_err(|error| {
        tracing::error!(%error, "a quota can't be written");
        Error::internal("the quota can't be stored")
    })?;
    Ok(Change::Put(key(of), Bytes::from(json)))
}

impl Follows for Quotas {
    const ALL: &'static str = ALL;
    const WHAT: &'static str = "quotas";

    fn shown_revision(&self) -> u64 {
        *self.revision.borrow()
    }

    async fn fill(&self) -> Result<()> {
        let (mut pages, mut found) = (Pages::of(self.objects.as_ref(), ALL, PAGE), BTreeMap::new());
        while let Some(entries) = pages.next().await? {
            found.extend(entries.iter().filter_map(|entry| Some((parse(&entry.key)?, read(entry)?))));
        }
        *self.set.write() = found;
        self.complete(pages.revision());
        Ok(())
    }

    async fn show(&self, batch: &Batch) -> Result<()> {
        let changed: BTreeSet<&str> = batch.events.iter().map(|event| event.key.as_str()).collect();
        for key in changed {
            let Some(of) = parse(key) else { continue };
            match self.objects.get(key).await?.as_ref().and_then(read) {
                Some(quota) => drop(self.set.write().insert(of, quota)),
                None => drop(self.set.write().remove(&of)),
            }
        }
        self.complete(batch.revision);
        Ok(())
    }
}

impl Quotas {
    fn complete(&self, revision: u64) {
        self.revision.send_if_modified(|now| {
            let newer = revision > *now;
            *now = revision.max(*now);
            newer
        });
    }

    /// Waits until the book is complete up to `revision`, for a bounded time.
    pub(super) async fn shown(&self, revision: u64) {
        let mut revisions = self.revision.subscribe();
        if tokio::time::timeout(SHOWN, revisions.wait_for(|now| *now >= revision)).await.is_err() {
            tracing::warn!(revision, "the book of quotas is behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart_as_they_were_put_together() {
        let tenant = TenantName::new("acme").unwrap();
        for function in [None, Some(FunctionName::new("own").unwrap())] {
            let of = QuotaKey { tenant: tenant.clone(), function };
            assert_eq!(parse(&key(&of)), Some(of.clone()));
            assert!(key(&of).starts_with(&of_tenant(&tenant)));
        }
        for bad in ["", "quotas/", "quotas/acme/", "quotas/acme/x", "quotas/A/own", "quotas/acme/functions/"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
