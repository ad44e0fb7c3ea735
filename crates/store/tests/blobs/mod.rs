//! The promises of [`Blobs`], held against each implementation.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_store::Blobs;
use lyra_types::function::Digest;

/// Makes a test of each claim for one subject.
macro_rules! keeps_the_promises {
    ($subject:ty) => {
        keeps_the_promises!(@ $subject,
            a_blob_is_found_by_its_digest_until_it_is_deleted
            a_damaged_blob_is_an_error_and_is_mended_by_the_next_put
            a_digest_can_name_nothing_else
            a_large_blob_comes_back_whole
            a_blob_may_be_empty
            all_of_many_blobs_are_listed
            concurrent_puts_of_one_blob_are_one
            what_was_acknowledged_survives_a_kill
        );
    };
    (@ $subject:ty, $($claim:ident)*) => {
        $(
            #[tokio::test]
            async fn $claim() {
                let subject = <$subject as crate::blobs::Subject>::start().await;
                crate::blobs::claims::$claim(subject).await;
            }
        )*
    };
}

mod claims;
mod directory;
mod s3;

/// What one shelf keeps is not listed, found or deleted through another, also where both keep the same bytes.
async fn shelves_are_apart(code: Arc<dyn Blobs>, values: Arc<dyn Blobs>) {
    let [in_both, in_code, in_values] = [&b"both"[..], b"code", b"value"].map(Bytes::from_static);
    let both = code.put(in_both.clone()).await.unwrap();
    assert_eq!(values.put(in_both).await.unwrap(), both);
    let (only_code, only_values) = (code.put(in_code).await.unwrap(), values.put(in_values).await.unwrap());
    let mut listed = code.list().await.unwrap();
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    let mut expected = vec![both.clone(), only_code];
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(listed, expected);
    assert!(code.get(&only_values).await.unwrap().is_none() && !code.delete(&only_values).await.unwrap());
    assert!(code.delete(&both).await.unwrap());
    assert!(values.exists(&both).await.unwrap());
    assert_eq!(values.list().await.unwrap().len(), 2);
}

/// An implementation under test, with an empty store.
#[async_trait]
pub trait Subject: Send + Sync + Sized {
    /// Starts what it needs.
    async fn start() -> Self;

    /// The store.
    fn blobs(&self) -> Arc<dyn Blobs>;

    /// Kills the process that keeps the data, and starts it again.
    async fn crash(&mut self);

    /// The file that holds this blob.
    fn file(&self, digest: &Digest) -> PathBuf;
}
