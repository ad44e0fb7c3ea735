//! The promises of [`Blobs`], held against each implementation.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
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
