//! That a control process is alive, for others to see: an object of it under a lease.
//!
//! Jobs of a process that is not seen any more are taken from it. So each is seen before it takes any, and its lease is
//! renewed more often than it could be missed.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use lyra_kit::retry::Backoff;
use lyra_store::objects::{Change, Txn};
use lyra_store::{StoreError, TxnError};
use tokio::time::Instant;

use super::{Leader, PART, Process};

/// What the keys of all processes start with.
const PROCESSES: &str = "control/processes/";
/// Processes that are listed at once; there are a few.
const MANY: usize = 1_000;
/// Waits while the store can't be reached.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(1) };
/// Renewals in the time of one lease.
const RENEWALS: u32 = 4;

impl Leader {
    fn key(&self) -> String {
        format!("{PROCESSES}{:016x}", self.process.owner)
    }

    /// Keeps this process visible, for ever.
    pub(crate) async fn keep_present(&self) {
        let mut tries = 0;
        loop {
            match self.be_present(&mut tries).await {
                Ok(()) => tracing::warn!("this control process was not seen for a while"),
                Err(error) => tracing::warn!(%error, "this control process can't make itself seen"),
            }
            tries += 1;
            self.clock.sleep(RETRY.delay(tries, &self.random)).await;
        }
    }

    /// Makes the process visible, and keeps it so until its lease ends.
    async fn be_present(&self, tries: &mut u32) -> Result<(), StoreError> {
        let granted = self.objects.grant(self.lease).await?;
        let value = Bytes::from(serde_json::to_vec(&self.process).unwrap_or_default());
        let put = Txn { checks: Vec::new(), changes: vec![Change::PutLeased(self.key(), value, granted.id)] };
        if let Err(TxnError::Store(error)) = self.objects.txn(put).await {
            return Err(error);
        }
        *tries = 0;
        self.seen.send_replace(true);
        *self.presence.lock() = Some(granted.id);
        let mut end: Instant = self.clock.instant() + granted.ttl;
        loop {
            self.clock.sleep(granted.ttl / RENEWALS).await;
            let asked = self.clock.instant();
            match self.objects.renew(granted.id).await {
                Ok(true) => end = asked + granted.ttl,
                Ok(false) => return Ok(()),
                Err(error) if self.clock.instant() >= end => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Is seen no more. What it still has under way is taken from it.
    pub(crate) async fn leave(&self) {
        let presence = self.presence.lock().take();
        if let Some(lease) = presence
            && !matches!(tokio::time::timeout(PART, self.objects.revoke(lease)).await, Ok(Ok(())))
        {
            tracing::debug!("this control process is seen for a while yet");
        }
    }

    /// Waits until this process has been seen once.
    pub(super) async fn present(&self) {
        // The sender lives as long as this process does.
        let _ = self.seen.subscribe().wait_for(|seen| *seen).await;
    }

    /// The processes that are seen now.
    pub(super) async fn known(&self) -> Result<Vec<Process>, StoreError> {
        let listing = self.objects.list(PROCESSES, MANY, None).await?;
        let process = |entry: &lyra_store::objects::Entry| serde_json::from_slice(&entry.value).ok();
        Ok(listing.entries.iter().filter_map(process).collect())
    }

    /// Owners of jobs that are alive; this process is always one.
    pub(crate) async fn alive(&self) -> Result<BTreeSet<u64>, StoreError> {
        let mut alive: BTreeSet<u64> = self.known().await?.into_iter().map(|process| process.owner).collect();
        alive.insert(self.process.owner);
        Ok(alive)
    }
}
