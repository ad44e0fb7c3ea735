//! Blobs: bytes under the name of their own SHA-256.
//!
//! What must hold: a blob that was put is durable when `put` returns; what `get` returns has the digest that
//! was asked for, or is an error. Whoever deletes a blob has to know that nothing refers to it: so whoever lists blobs to delete those
//! without a reference has a [`Shelf`] of its own, and sees none of the others'.

mod directory;
mod s3;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_types::function::Digest;
use sha2::{Digest as _, Sha256};

pub use directory::DirectoryBlobs;
pub use s3::{S3Blobs, S3Keys, S3Settings};

use crate::StoreError;

/// Which blobs of a store are meant. One role alone keeps its blobs on a shelf and deletes from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// Code of functions, kept by control: the place that an address names.
    Code,
    /// Definitions, programs and large values of workflows: `values/` in that place.
    Values,
}

/// Keeps blobs.
#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Stores the bytes, or does nothing where they are there already.
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError>;

    /// The bytes of this digest; `None` where there are none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when what is stored does not have this digest.
    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError>;

    /// Whether there is a blob of this digest. Does not read it.
    async fn exists(&self, digest: &Digest) -> Result<bool, StoreError>;

    /// Deletes the blob; says whether there was one.
    async fn delete(&self, digest: &Digest) -> Result<bool, StoreError>;

    /// The digests of all blobs, in no order.
    async fn list(&self) -> Result<Vec<Digest>, StoreError>;
}

/// The digest of these bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(hex::encode(Sha256::digest(bytes)))
}

/// Whether this is the text of a SHA-256: a digest that came from elsewhere must name nothing else.
fn is_digest(digest: &Digest) -> bool {
    let text = digest.0.as_str();
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
