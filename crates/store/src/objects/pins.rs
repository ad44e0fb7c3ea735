//! Blobs that are deleted once nobody refers to them, while others are about to.
//!
//! Whoever is about to refer to a blob *pins* it first, by an object, and lets go once the reference is written; a blob is
//! *marked* before it is deleted. No pin is made on what is marked, and what is marked is deleted only if it has no pin then and
//! nobody refers to it. Pins and marks end with their leases, so a process that is killed here stands in nobody's way for
//! long; and one that was slow deletes nothing once its lease may have ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_kit::{Clock, Random};
use lyra_types::function::Digest;
use lyra_types::{Code, Error};
use thiserror::Error;

use super::{Change, Check, LeaseId, Objects, Txn, TxnError};
use crate::{Blobs, StoreError};

/// How long a mark holds.
const MARKED: Duration = Duration::from_secs(30);
/// How long after the mark a blob may be deleted.
const MAY_DELETE: Duration = Duration::from_secs(15);
/// How long a pin holds: the blob must be stored, and what refers to it written, in this time.
const PINNED: Duration = Duration::from_secs(120);
/// Blobs that are marked together.
const AT_ONCE: usize = 64;
/// Between two looks at a mark.
const LOOK: Duration = Duration::from_millis(50);

/// Why there is no pin.
#[derive(Debug, Error)]
pub enum PinError {
    /// The blob is being deleted, and was for as long as that may take.
    #[error("what has the same content is being deleted; try again")]
    Marked,
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PinError> for Error {
    fn from(error: PinError) -> Error {
        match error {
            PinError::Marked => Error::new(Code::Conflict, error.to_string()),
            PinError::Store(error) => error.into(),
        }
    }
}

/// A blob that is not deleted for now.
#[derive(Debug)]
pub struct Pin {
    lease: LeaseId,
    key: String,
}

impl Pin {
    /// The object that is there for as long as the blob is pinned. Whoever writes the reference under the check that it
    /// exists, and deletes it with that, has written in time and needs not [`Pins::unpin`].
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// The pins and marks of some kind of blobs.
pub struct Pins {
    objects: Arc<dyn Objects>,
    blobs: Arc<dyn Blobs>,
    /// What the keys of pins start with.
    pins: &'static str,
    /// What the keys of marks start with.
    marks: &'static str,
    clock: Clock,
    random: Random,
}

impl Pins {
    /// `keys`: what the keys of pins, and of marks, start with; both end with `/`.
    pub fn new(
        objects: Arc<dyn Objects>,
        blobs: Arc<dyn Blobs>,
        keys: (&'static str, &'static str),
        clock: Clock,
        random: Random,
    ) -> Pins {
        Pins { objects, blobs, pins: keys.0, marks: keys.1, clock, random }
    }

    fn pins_of(&self, digest: &Digest) -> String {
        format!("{}{digest}/", self.pins)
    }

    fn mark_of(&self, digest: &Digest) -> String {
        format!("{}{digest}", self.marks)
    }

    /// Keeps a blob from being deleted, for two minutes or until [`Pins::unpin`]. It may be stored afterwards.
    ///
    /// # Errors
    /// [`PinError::Marked`] when somebody goes on deleting it for half a minute.
    pub async fn pin(&self, digest: &Digest) -> Result<Pin, PinError> {
        let lease = self.objects.grant(PINNED).await?.id;
        let key = format!("{}{:016x}", self.pins_of(digest), self.random.u64());
        let until = self.clock.instant() + MARKED + LOOK;
        loop {
            let txn = Txn {
                checks: vec![Check::Absent(self.mark_of(digest))],
                changes: vec![Change::PutLeased(key.clone(), Bytes::new(), lease)],
            };
            match self.objects.txn(txn).await {
                Ok(_) => return Ok(Pin { lease, key }),
                Err(TxnError::Store(error)) => return Err(error.into()),
                Err(TxnError::Failed { .. }) if self.clock.instant() >= until => return Err(PinError::Marked),
                Err(TxnError::Failed { .. }) => self.clock.sleep(LOOK).await,
            }
        }
    }

    /// The pin has done its work. Nobody waits for its end.
    pub fn unpin(&self, pin: Pin) {
        let objects = Arc::clone(&self.objects);
        let revoke = async move {
            if let Err(error) = objects.revoke(pin.lease).await {
                tracing::debug!(%error, "a pin is left to its lease");
            }
        };
        drop(lyra_kit::tasks::spawn("unpin a blob", revoke));
    }

    /// Deletes those of the blobs that have no pin and that `unused` leaves over, which is asked only after the pins were looked
    /// at: whoever's pin is gone by then has written the reference. Returns how many were deleted.
    ///
    /// # Errors
    /// When the store, or `unused`, fails; what can't be deleted now is left.
    pub async fn delete_unused<E, F>(
        &self,
        digests: &[Digest],
        unused: impl Fn(Vec<Digest>) -> F + Sync,
    ) -> Result<usize, E>
    where
        E: From<StoreError>,
        F: Future<Output = Result<Vec<Digest>, E>> + Send,
    {
        let mut deleted = 0;
        for some in digests.chunks(AT_ONCE) {
            let until = self.clock.instant() + MAY_DELETE;
            let mark = self.objects.grant(MARKED).await?.id;
            let outcome = tokio::time::timeout_at(until, self.delete_under(mark, some, &unused)).await;
            self.objects.revoke(mark).await?;
            deleted += outcome.unwrap_or_else(|_| Err(StoreError::Overloaded.into()))?;
        }
        Ok(deleted)
    }

    async fn delete_under<E, F>(
        &self,
        mark: LeaseId,
        digests: &[Digest],
        unused: &(impl Fn(Vec<Digest>) -> F + Sync),
    ) -> Result<usize, E>
    where
        E: From<StoreError>,
        F: Future<Output = Result<Vec<Digest>, E>> + Send,
    {
        let marks = digests.iter().map(|digest| Change::PutLeased(self.mark_of(digest), Bytes::new(), mark));
        let txn = Txn { checks: Vec::new(), changes: marks.collect() };
        if let Err(TxnError::Store(error)) = self.objects.txn(txn).await {
            return Err(error.into());
        }
        let mut free = Vec::new();
        for digest in digests {
            if self.objects.list(&self.pins_of(digest), 1, None).await?.entries.is_empty() {
                free.push(digest.clone());
            }
        }
        if free.is_empty() {
            return Ok(0);
        }
        let mut deleted = 0;
        for digest in unused(free).await? {
            deleted += usize::from(self.blobs.delete(&digest).await?);
        }
        Ok(deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DirectoryBlobs;
    use crate::objects::{History, SqliteObjects};

    struct Site {
        objects: Arc<dyn Objects>,
        blobs: Arc<dyn Blobs>,
        pins: Pins,
        _dir: tempfile::TempDir,
    }

    fn site() -> Site {
        let dir = tempfile::tempdir().expect("a directory");
        let objects = SqliteObjects::open(&dir.path().join("objects.db"), History::default(), None).expect("opens");
        let objects: Arc<dyn Objects> = Arc::new(objects);
        let blobs: Arc<dyn Blobs> = Arc::new(DirectoryBlobs::open(&dir.path().join("blobs")).expect("opens"));
        let (clock, random) = (Clock::system(), Random::seeded(1));
        let pins = Pins::new(Arc::clone(&objects), Arc::clone(&blobs), ("pins/", "marks/"), clock, random);
        Site { objects, blobs, pins, _dir: dir }
    }

    async fn all(free: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
        Ok(free)
    }

    #[tokio::test]
    async fn what_is_pinned_or_used_stays_and_the_rest_goes() {
        let site = site();
        let mut digests = Vec::new();
        for text in ["pinned", "used", "left"] {
            digests.push(site.blobs.put(Bytes::from_static(text.as_bytes())).await.expect("put"));
        }
        let pin = site.pins.pin(&digests[0]).await.expect("pinned");
        let used = digests[1].clone();
        let unused = |free: Vec<Digest>| {
            let used = used.clone();
            async move { Ok::<_, StoreError>(free.into_iter().filter(|digest| *digest != used).collect()) }
        };
        assert_eq!(site.pins.delete_unused(&digests, unused).await.expect("deleted"), 1);
        assert_eq!(site.blobs.list().await.expect("listed").len(), 2);
        // A pin that was let go holds no more, for the writer either.
        let check = Check::Exists(pin.key().to_owned());
        site.objects.revoke(pin.lease).await.expect("revoked");
        let write = Txn { checks: vec![check], changes: vec![Change::Put("reference".into(), Bytes::new())] };
        assert!(matches!(site.objects.txn(write).await, Err(TxnError::Failed { .. })));
        assert_eq!(site.pins.delete_unused(&digests[..1], all).await.expect("deleted"), 1);
    }

    #[tokio::test]
    async fn who_pins_waits_for_whoever_deletes() {
        let site = site();
        let digest = site.blobs.put(Bytes::from_static(b"x")).await.expect("put");
        let unused = |free: Vec<Digest>| {
            let (pins, digest) = (&site.pins, &digest);
            async move {
                let pinning = tokio::time::timeout(Duration::from_millis(200), pins.pin(digest)).await;
                assert!(pinning.is_err(), "it is marked");
                Ok::<_, StoreError>(free)
            }
        };
        let deleted = site.pins.delete_unused(std::slice::from_ref(&digest), unused).await.expect("deleted");
        assert_eq!(deleted, 1);
        site.pins.pin(&digest).await.expect("it may be stored anew");
    }
}
