//! Who leads: one of several that want to, chosen by an object under a lease.
//!
//! What must hold: of two leaderships the later one has the higher epoch; and no two are held at once by the clocks of
//! their holders, provided that these run at about the same speed. A leader that stood still (a stopped process, a
//! paused machine) can act before it learns that it has lost: so whatever it changes must be fenced, by
//! [`Leadership::check`] in the store, and by the epoch elsewhere.
//!
//! After Burrows, "The Chubby lock service", OSDI 2006: a lock that times out, with a sequencer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lyra_kit::retry::Backoff;
use lyra_kit::{Clock, Random, Tasks};
use tokio_util::sync::CancellationToken;

use super::{Change, Check, LeaseId, Objects, Txn, TxnError};
use crate::StoreError;

/// Between tries while the store can't be reached.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(1) };
/// Wait before the office is looked at again where it can't be watched.
const AGAIN: Duration = Duration::from_millis(200);
/// How much of a lease's time may pass without a renewal before its holder gives it up: the rest is for clocks that do
/// not run at the same speed.
const HELD: f64 = 0.9;
/// Renewals in the time of one lease.
const RENEWALS: u32 = 4;

/// The leader, as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// What it said of itself.
    pub name: Bytes,
    /// Its epoch.
    pub epoch: u64,
}

/// An office that one of several can hold.
#[derive(Clone)]
pub struct Election {
    objects: Arc<dyn Objects>,
    key: String,
    ttl: Duration,
    clock: Clock,
}

/// Held office. Dropped, it is not renewed any more and ends with its lease; [`Leadership::resign`] ends it at once.
pub struct Leadership {
    objects: Arc<dyn Objects>,
    key: String,
    lease: LeaseId,
    epoch: u64,
    lost: CancellationToken,
    tasks: Tasks,
}

impl Election {
    /// The office whose holder stands in the object `key`. A holder that dies is followed by another within about `ttl`;
    /// it should be 2 s or more, which is the least that etcd grants.
    pub fn new(objects: Arc<dyn Objects>, key: impl Into<String>, ttl: Duration) -> Election {
        Election { objects, key: key.into(), ttl, clock: Clock::system() }
    }

    /// The one that leads now, if there is one.
    ///
    /// # Errors
    /// When the store can't be reached.
    pub async fn leader(&self) -> Result<Option<Leader>, StoreError> {
        let found = self.objects.get(&self.key).await?;
        Ok(found.map(|entry| Leader { name: entry.value, epoch: entry.modified }))
    }

    /// Waits until this one leads; for ever, if need be, also while the store can't be reached.
    ///
    /// # Errors
    /// When the key can't be one, or the store was closed.
    pub async fn campaign(&self, name: Bytes) -> Result<Leadership, StoreError> {
        let random = Random::system();
        let mut tries = 0;
        loop {
            match self.try_once(&name).await {
                Ok(Some(leadership)) => return Ok(leadership),
                Ok(None) => tries = 0,
                Err(error @ (StoreError::InvalidKey { .. } | StoreError::Closed)) => return Err(error),
                Err(error) => {
                    tries += 1;
                    tracing::warn!(%error, key = self.key, "no leader can be chosen");
                    self.clock.sleep(BACKOFF.delay(tries, &random)).await;
                }
            }
        }
    }

    /// Takes the office if it is free, else waits until it may be.
    async fn try_once(&self, name: &Bytes) -> Result<Option<Leadership>, StoreError> {
        // As of which revision is known here: how long ago the office was taken does not matter, and may be forgotten.
        let listing = self.objects.list(&self.key, 1, None).await?;
        if listing.entries.first().is_some_and(|entry| entry.key == self.key) {
            self.wait_for_end(listing.revision).await;
            return Ok(None);
        }
        let asked = self.clock.instant();
        let granted = self.objects.grant(self.ttl).await?;
        let txn = Txn {
            checks: vec![Check::Absent(self.key.clone())],
            changes: vec![Change::PutLeased(self.key.clone(), name.clone(), granted.id)],
        };
        match self.objects.txn(txn).await {
            Ok(epoch) => {
                let leadership = Leadership {
                    objects: Arc::clone(&self.objects),
                    key: self.key.clone(),
                    lease: granted.id,
                    epoch,
                    lost: CancellationToken::new(),
                    tasks: Tasks::new(),
                };
                leadership.keep(self.clock.clone(), asked, granted.ttl);
                Ok(Some(leadership))
            }
            Err(error) => {
                // Also when it is not known whether the office was taken: then it is free again.
                self.objects.revoke(granted.id).await?;
                match error {
                    TxnError::Failed { .. } => Ok(None),
                    TxnError::Store(error) => Err(error),
                }
            }
        }
    }

    /// Waits until the office has changed since `revision`. Whatever else ends the wait: it is looked at anew, but not at once,
    /// since each look may cost the store a write.
    async fn wait_for_end(&self, revision: u64) {
        if let Ok(mut changes) = self.objects.watch(&self.key, revision + 1).await {
            while let Some(Ok(batch)) = changes.next().await {
                if batch.events.iter().any(|event| event.key == self.key) {
                    return;
                }
            }
        }
        self.clock.sleep(AGAIN).await;
    }
}

impl Leadership {
    /// A number that is higher than that of all leaderships before.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Cancelled as soon as the office may be held by another.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Holds as long as this leadership does: to be put into every transaction of the leader.
    pub fn check(&self) -> Check {
        Check::Modified(self.key.clone(), self.epoch)
    }

    /// Gives the office up, so that another can take it at once.
    ///
    /// # Errors
    /// When the store can't be reached: the office is free when the lease has ended.
    pub async fn resign(self) -> Result<(), StoreError> {
        self.lost.cancel();
        self.objects.revoke(self.lease).await
    }

    /// Renews the lease, and says so when that can't be done in time.
    fn keep(&self, clock: Clock, granted: tokio::time::Instant, ttl: Duration) {
        let (objects, lease, lost) = (Arc::clone(&self.objects), self.lease, self.lost.clone());
        self.tasks.spawn_cancellable("leadership", async move {
            let mut end = granted + ttl.mul_f64(HELD);
            let keep = async {
                loop {
                    clock.sleep(ttl / RENEWALS).await;
                    // The lease holds at least from when it was asked for: the answer may have been slow.
                    let asked = clock.instant();
                    match tokio::time::timeout_at(end, objects.renew(lease)).await {
                        Ok(Ok(true)) => end = asked + ttl.mul_f64(HELD),
                        Ok(Ok(false)) => return "the lease has ended",
                        Ok(Err(error)) => tracing::warn!(%error, "a leadership can't be renewed"),
                        Err(_) => {}
                    }
                    if clock.instant() >= end {
                        return "the lease could not be renewed in time";
                    }
                }
            };
            tokio::select! {
                reason = keep => tracing::warn!(reason, "a leadership is lost"),
                () = lost.cancelled() => {}
            }
            lost.cancel();
        });
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.lost.cancel();
        self.tasks.stopping().cancel();
    }
}
