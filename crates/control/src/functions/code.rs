//! Code that no version uses any more.
//!
//! A deploy puts its code before the version that uses it, and another control process may delete code at the same time. So
//! a deploy *pins* its code first, by an object, and makes the version only while the pin is there; code is *marked* before it
//! is deleted. No pin is made on marked code, and what is marked is deleted only if it has no pin and no version uses it.
//! Pins and marks end with their leases, so a process that is killed here stands in nobody's way for long; and one that
//! was slow deletes nothing once its lease may have ended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use lyra_store::TxnError;
use lyra_store::objects::{Change, Check, LeaseId, Txn};
use lyra_types::function::Digest;
use lyra_types::{Code, Error, Result};

use super::{Functions, SHOWN, keys};

/// How long a mark holds.
const MARKED: Duration = Duration::from_secs(30);
/// How long after the mark code may be deleted.
const MAY_DELETE: Duration = Duration::from_secs(15);
/// How long a pin holds: code must be stored, and its version made, in this time.
const PINNED: Duration = Duration::from_secs(120);
/// Codes that are marked together.
const AT_ONCE: usize = 64;
/// Between two looks at a mark.
const LOOK: Duration = Duration::from_millis(50);

/// Code that is not deleted for now.
pub(super) struct Pin {
    lease: LeaseId,
    pub(super) key: String,
}

impl Functions {
    /// Keeps code from being deleted, for a while or until [`Functions::unpin`].
    pub(super) async fn pin(&self, code: &Digest) -> Result<Pin> {
        let lease = self.objects.grant(PINNED).await?.id;
        let key = keys::pin(code, self.random.u64());
        let until = self.clock.instant() + MARKED + LOOK;
        loop {
            let txn = Txn {
                checks: vec![Check::Absent(keys::deleting(code))],
                changes: vec![Change::PutLeased(key.clone(), bytes::Bytes::new(), lease)],
            };
            match self.objects.txn(txn).await {
                Ok(_) => return Ok(Pin { lease, key }),
                Err(TxnError::Store(error)) => return Err(error.into()),
                Err(TxnError::Failed { .. }) if self.clock.instant() >= until => {
                    return Err(Error::new(Code::Conflict, "code of the same content is being deleted; try again"));
                }
                Err(TxnError::Failed { .. }) => self.clock.sleep(LOOK).await,
            }
        }
    }

    /// The pin has done its work. Nobody waits for its end.
    pub(super) fn unpin(&self, pin: Pin) {
        let objects = Arc::clone(&self.objects);
        drop(lyra_kit::tasks::spawn("unpin-code", async move { objects.revoke(pin.lease).await }));
    }

    /// Deletes those of the blobs that no version uses. What can't be deleted now is left to [`Functions::sweep_code`].
    pub(super) async fn drop_unused(&self, mut codes: Vec<Digest>) {
        self.keep_unused(&mut codes);
        let mut deleted = 0;
        for codes in codes.chunks(AT_ONCE) {
            match self.delete_marked(codes.to_vec()).await {
                Ok(count) => deleted += count,
                Err(error) => tracing::warn!(%error, "unused code is left"),
            }
        }
        if deleted > 0 {
            tracing::debug!(deleted, "unused code deleted");
        }
    }

    async fn delete_marked(&self, codes: Vec<Digest>) -> Result<usize> {
        let until = self.clock.instant() + MAY_DELETE;
        let mark = self.objects.grant(MARKED).await?.id;
        let outcome = tokio::time::timeout_at(until, self.delete_under(mark, codes)).await;
        self.objects.revoke(mark).await?;
        outcome.unwrap_or_else(|_| Err(Error::new(Code::Unavailable, "deleting unused code took too long")))
    }

    async fn delete_under(&self, mark: LeaseId, codes: Vec<Digest>) -> Result<usize> {
        let marks = codes.iter().map(|code| Change::PutLeased(keys::deleting(code), bytes::Bytes::new(), mark));
        if let Err(TxnError::Store(error)) =
            self.objects.txn(Txn { checks: Vec::new(), changes: marks.collect() }).await
        {
            return Err(error.into());
        }
        // A deploy whose pin is gone by now has made its version before: so the versions are looked at after the pins.
        let mut free = Vec::new();
        for code in codes {
            if self.objects.list(&keys::pins(&code), 1, None).await?.entries.is_empty() {
                free.push(code);
            }
        }
        let revision = self.objects.list(keys::ALL, 1, None).await?.revision;
        if tokio::time::timeout(SHOWN, self.table.reaches(revision)).await.is_err() {
            tracing::warn!("the route table is behind; unused code is left for now");
            return Ok(0);
        }
        self.keep_unused(&mut free);
        if !free.is_empty() {
            // Versions of applications keep theirs, whatever becomes of the function.
            let used: HashSet<Digest> = crate::sessions::codes(&*self.objects).await?.into_iter().collect();
            free.retain(|code| !used.contains(code));
        }
        let mut deleted = 0;
        for code in &free {
            deleted += usize::from(self.blobs.delete(code).await?);
        }
        Ok(deleted)
    }

    fn keep_unused(&self, codes: &mut Vec<Digest>) {
        let routes = self.table.all();
        let used: HashSet<&Digest> = routes.iter().flat_map(|route| route.versions.values()).map(|v| &v.code).collect();
        codes.retain(|code| !used.contains(code));
    }

    /// Deletes all code that no version uses: of a process that was killed between code and version.
    pub(super) async fn sweep_code(&self) {
        match self.blobs.list().await {
            Ok(codes) => self.drop_unused(codes).await,
            Err(error) => tracing::warn!(%error, "code can't be listed"),
        }
    }
}
