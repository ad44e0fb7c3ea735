//! That a control process is alive, for others to see: an object of it under a lease.
//!
//! Jobs of a process that is not seen any more are taken from it. So each is seen before it takes any.

use std::collections::BTreeSet;

use bytes::Bytes;
use lyra_store::StoreError;
use lyra_store::objects::Presence;

use super::{Leader, PART, Process};

/// What the keys of all processes start with.
const PROCESSES: &str = "control/processes/";
/// Processes that are listed at once; there are a few.
const MANY: usize = 1_000;

/// What makes `process` seen.
pub(super) fn presence(deps: &crate::Deps, process: &Process, lease: std::time::Duration) -> Presence {
    let key = format!("{PROCESSES}{:016x}", process.owner);
    let value = Bytes::from(serde_json::to_vec(process).unwrap_or_default());
    Presence::new(deps.objects.clone(), key, value, lease, deps.clock.clone(), deps.random.clone())
}

impl Leader {
    /// Keeps this process visible, for ever.
    pub(crate) async fn keep_present(&self) {
        self.presence.keep().await;
    }

    /// Is seen no more. What it still has under way is taken from it.
    pub(crate) async fn leave(&self) {
        if !matches!(tokio::time::timeout(PART, self.presence.leave()).await, Ok(Ok(()))) {
            tracing::debug!("this control process is seen for a while yet");
        }
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
