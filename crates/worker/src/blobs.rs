//! Code of a worker that shares no blobs with control: what its own blobs lack is fetched there, and kept.
//!
//! What must hold: no code runs that has not the digest that was asked for; however many ask for one digest at the same moment, it is fetched
//! once; no more than [`AT_ONCE`] are fetched at once, and each has a deadline. What is fetched stays, like the images that are made of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, Shared};
use futures::stream::BoxStream;
use futures::{FutureExt, TryStreamExt};
use lyra_store::blobs::digest as digest_of;
use lyra_store::{Blobs, StoreError};
use lyra_types::function::{Digest, limit};
use lyra_types::{Code, Error};
use lyra_wire::Control;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Longest time that fetching code may take. Calls wait less; what comes after they were refused is there for the next one.
const FETCH: Duration = Duration::from_secs(120);
/// Codes that are fetched at once.
const AT_ONCE: usize = 4;
/// For errors.
const OPERATION: &str = "fetch code from control";

/// Whom code is asked of.
#[async_trait]
pub trait CodeSource: Send + Sync + 'static {
    /// See [`Control::fetch_code`].
    async fn pieces(&self, digest: &Digest) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error>;
}

#[async_trait]
impl<C: Control> CodeSource for C {
    async fn pieces(&self, digest: &Digest) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        self.fetch_code(digest).await
    }
}

/// `None`: there is no such code.
type Fetched = Result<Option<Bytes>, Error>;
type UnderWay = Mutex<HashMap<Digest, Shared<BoxFuture<'static, Fetched>>>>;

/// Blobs of this worker alone, which are filled by its control.
pub struct OwnBlobs {
    own: Arc<dyn Blobs>,
    control: Arc<dyn CodeSource>,
    under_way: Arc<UnderWay>,
    places: Arc<Semaphore>,
}

impl OwnBlobs {
    /// Those of `own`, and what `control` has.
    pub fn new(own: Arc<dyn Blobs>, control: Arc<dyn CodeSource>) -> OwnBlobs {
        OwnBlobs { own, control, under_way: Arc::default(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Fetches code, or waits for somebody who does so already.
    async fn fetched(&self, digest: &Digest) -> Fetched {
        let fetch = {
            let mut under_way = self.under_way.lock();
            match under_way.get(digest) {
                Some(fetch) => fetch.clone(),
                None => {
                    let fetch = self.begin(digest);
                    under_way.insert(digest.clone(), fetch.clone());
                    fetch
                }
            }
        };
        fetch.await
    }

    /// Goes on when nobody waits any more: the next call finds what comes.
    fn begin(&self, digest: &Digest) -> Shared<BoxFuture<'static, Fetched>> {
        let (own, control, places) = (self.own.clone(), self.control.clone(), self.places.clone());
        let listed = Listed { under_way: self.under_way.clone(), digest: digest.clone() };
        let task = lyra_kit::tasks::spawn("fetch-code", async move {
            let work = fetch(&*own, &*control, &places, &listed.digest);
            let late = || Error::new(Code::Unavailable, "the code did not come in time");
            tokio::time::timeout(FETCH, work).await.unwrap_or_else(|_| Err(late()))
        });
        async move { task.await.unwrap_or_else(|_| Err(ending())) }.boxed().shared()
    }
}

/// A fetch that is under way, until this is dropped.
struct Listed {
    under_way: Arc<UnderWay>,
    digest: Digest,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.digest);
    }
}

fn ending() -> Error {
    Error::new(Code::Unavailable, "this worker is shutting down")
}

async fn fetch(own: &dyn Blobs, control: &dyn CodeSource, places: &Semaphore, digest: &Digest) -> Fetched {
    let _place = places.acquire().await.map_err(|_| ending())?;
    let mut pieces = match control.pieces(digest).await {
        Ok(pieces) => pieces,
        Err(error) if error.code == Code::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut code = BytesMut::new();
    while let Some(piece) = pieces.try_next().await? {
        if code.len() + piece.len() > limit::MAX_PACKAGE {
            return Err(Error::internal("control gave more than code may be"));
        }
        code.extend_from_slice(&piece);
    }
    let code = code.freeze();
    let found = code.clone();
    let found = lyra_kit::tasks::blocking(move || digest_of(&found)).await.map_err(|_| ending())?;
    if found != *digest {
        return Err(Error::internal(format!("control gave the code {found} in place of {digest}")));
    }
    tracing::info!(%digest, bytes = code.len(), "code fetched from control");
    if let Err(error) = own.put(code.clone()).await {
        tracing::warn!(%digest, %error, "code that was fetched can't be kept");
    }
    Ok(Some(code))
}

#[async_trait]
impl Blobs for OwnBlobs {
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        self.own.put(bytes).await
    }

    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        match self.own.get(digest).await {
            Ok(Some(bytes)) => return Ok(Some(bytes)),
            // One that is damaged is written anew.
            Ok(None) | Err(StoreError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        self.fetched(digest).await.map_err(|error| match error.code {
            Code::Internal => StoreError::Damaged { operation: OPERATION, detail: error.detail },
            _ => StoreError::Remote { operation: OPERATION, detail: error.detail },
        })
    }

    async fn exists(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.own.exists(digest).await
    }

    async fn delete(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.own.delete(digest).await
    }

    async fn list(&self) -> Result<Vec<Digest>, StoreError> {
        self.own.list().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::stream::{self, StreamExt};
    use lyra_store::DirectoryBlobs;

    use super::*;

    /// Gives these pieces, whatever is asked for.
    struct Gives {
        pieces: Result<Vec<Bytes>, Code>,
        asked: AtomicU32,
    }

    #[async_trait]
    impl CodeSource for Gives {
        async fn pieces(&self, _: &Digest) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            let pieces = self.pieces.clone().map_err(|code| Error::new(code, "so it is"))?;
            Ok(stream::iter(pieces.into_iter().map(Ok)).boxed())
        }
    }

    fn gives(pieces: Result<Vec<Bytes>, Code>) -> (OwnBlobs, Arc<Gives>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let own = Arc::new(DirectoryBlobs::open(dir.path()).unwrap());
        let control = Arc::new(Gives { pieces, asked: AtomicU32::new(0) });
        (OwnBlobs::new(own, control.clone()), control, dir)
    }

    fn halves() -> Result<Vec<Bytes>, Code> {
        Ok(vec![Bytes::from_static(b"one "), Bytes::from_static(b"two")])
    }

    #[tokio::test]
    async fn code_is_fetched_once_for_all_who_ask_and_then_kept() {
        let (blobs, control, _dir) = gives(halves());
        let wanted = digest_of(b"one two");
        let all = futures::future::join_all((0..20).map(|_| blobs.get(&wanted))).await;
        for found in all {
            assert_eq!(found.unwrap().unwrap(), "one two");
        }
        assert!(blobs.exists(&wanted).await.unwrap());
        assert_eq!(blobs.get(&wanted).await.unwrap().unwrap(), "one two");
        assert_eq!(control.asked.load(Ordering::Relaxed), 1);
        assert!(blobs.under_way.lock().is_empty());
    }

    #[tokio::test]
    async fn other_code_than_was_asked_for_is_not_taken() {
        let (blobs, _, _dir) = gives(halves());
        let wanted = digest_of(b"three");
        assert!(matches!(blobs.get(&wanted).await, Err(StoreError::Damaged { .. })));
        assert!(blobs.list().await.unwrap().is_empty());
        let (blobs, _, _dir) = gives(Ok(vec![Bytes::from(vec![0; 1 << 20]); (limit::MAX_PACKAGE >> 20) + 1]));
        assert!(matches!(blobs.get(&wanted).await, Err(StoreError::Damaged { .. })));
    }

    #[tokio::test]
    async fn what_control_has_not_is_not_there_and_a_control_that_is_away_is_asked_again() {
        let wanted = digest_of(b"one two");
        let (blobs, _, _dir) = gives(Err(Code::NotFound));
        assert!(blobs.get(&wanted).await.unwrap().is_none());
        let (blobs, control, _dir) = gives(Err(Code::Unavailable));
        for asked in 1..3 {
            assert!(matches!(blobs.get(&wanted).await, Err(StoreError::Remote { .. })));
            assert_eq!(control.asked.load(Ordering::Relaxed), asked);
        }
    }
}
