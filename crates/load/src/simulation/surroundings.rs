//! What a simulated worker has around it: no code to fetch, and logs that nobody keeps.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use lyra_store::StoreError;
use lyra_types::function::Digest;
use lyra_types::log::LogLine;
use lyra_types::{Error, FunctionName, TenantName};
use lyra_wire::logs::Query;

/// Holds nothing: all functions of a simulation are prepared before the first call.
pub(crate) struct Blobs;

#[async_trait]
impl lyra_store::Blobs for Blobs {
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        Ok(lyra_store::blobs::digest(&bytes))
    }
    async fn get(&self, _: &Digest) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }
    async fn exists(&self, _: &Digest) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn delete(&self, _: &Digest) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn list(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(Vec::new())
    }
}

/// Drops every line.
pub(crate) struct Logs;

#[async_trait]
impl lyra_wire::Logs for Logs {
    fn offer(&self, _: LogLine) {}
    async fn query(&self, _: Query) -> Result<Vec<LogLine>, Error> {
        Ok(Vec::new())
    }
    async fn follow(&self, _: Query) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        Ok(Box::pin(futures::stream::empty()))
    }
    async fn forget(&self, _: &TenantName, _: &FunctionName) -> Result<(), Error> {
        Ok(())
    }
}
