//! Loaded code: which versions are in memory, ready to start instances.
//!
//! Bounded by weight and by idle time. A version is loaded once however many calls ask for it at the same moment;
//! the one that loads it, and those that wait for it, start cold.

use std::sync::Arc;
use std::time::Duration;

use lyra_isolation::{Code, ImageKey, Isolation, Template};
use lyra_store::{Blobs, StoreError};
use lyra_types::{Code as ErrorCode, Error, FunctionVersion};
use moka::future::Cache;

use crate::config::Config;

/// When a caller may come again whose code can't be had now.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for code: less than calls wait for a start, so that they are told why there is none.
const FETCH: Duration = Duration::from_secs(20);

/// Tells versions apart, also those of functions that had the same name one after the other.
pub(crate) type Key = (u64, u64);

/// The key of a version.
pub(crate) fn key_of(version: &FunctionVersion) -> Key {
    (version.generation, version.version)
}

/// Loads code and keeps it.
pub(crate) struct Templates {
    backends: Vec<Arc<dyn Isolation>>,
    blobs: Arc<dyn Blobs>,
    loaded: Cache<Key, Arc<dyn Template>>,
}

impl Templates {
    pub(crate) fn new(config: &Config, backends: Vec<Arc<dyn Isolation>>, blobs: Arc<dyn Blobs>) -> Templates {
        let loaded = Cache::builder()
            .weigher(|_, template: &Arc<dyn Template>| u32::try_from(template.weight()).unwrap_or(u32::MAX))
            .max_capacity(config.code_cache_bytes)
            .time_to_idle(config.code_idle)
            .support_invalidation_closures()
            .build();
        Templates { backends, blobs, loaded }
    }

    /// The back end that runs `runtime`.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidField`] when this worker has none.
    pub(crate) fn backend(&self, runtime: lyra_types::Runtime, isolation: &str) -> Result<&Arc<dyn Isolation>, Error> {
        self.backends
            .iter()
            .find(|backend| {
                (isolation == "auto" || isolation == backend.name()) && backend.runtimes().contains(&runtime)
            })
            .ok_or_else(|| {
                let names: Vec<_> = self.backends.iter().map(|backend| backend.name()).collect();
                Error::field(
                    ErrorCode::InvalidField,
                    "isolation",
                    format!(
                        "no isolation \"{isolation}\" for runtime {runtime} on this worker, which has: {}",
                        names.join(", ")
                    ),
                )
            })
    }

    /// The back ends of this worker, the preferred one first.
    pub(crate) fn backends(&self) -> &[Arc<dyn Isolation>] {
        &self.backends
    }

    /// Drops all loaded code.
    pub(crate) fn clear(&self) {
        self.loaded.invalidate_all();
    }

    /// The version's template when it is in memory.
    pub(crate) async fn loaded(&self, version: &FunctionVersion) -> Option<Arc<dyn Template>> {
        self.loaded.get(&key_of(version)).await
    }

    /// Whether the version's template is in memory.
    pub(crate) fn is_loaded(&self, key: Key) -> bool {
        self.loaded.contains_key(&key)
    }

    /// The version's template, loaded if need be.
    pub(crate) async fn load(&self, version: &Arc<FunctionVersion>) -> Result<Arc<dyn Template>, Error> {
        self.loaded.try_get_with(key_of(version), self.read(version)).await.map_err(|error| Error::clone(&error))
    }

    async fn read(&self, version: &FunctionVersion) -> Result<Arc<dyn Template>, Error> {
        let backend = self.backend(version.runtime, &version.isolation)?;
        let key = ImageKey::of(version);
        if let Some(template) = backend.load(&key).await? {
            return Ok(template);
        }
        // No image: another build of Lyra made the one that was there, or this worker never had one.
        tracing::info!(version = %version.key(), "preparing code again, its image is not on this worker");
        let bytes = self.code(version).await?;
        backend.prepare(&Code { key: key.clone(), bytes, reuse: version.reuse }).await?;
        backend.load(&key).await?.ok_or_else(|| Error::internal(format!("the image of {} vanished", version.key())))
    }

    async fn code(&self, version: &FunctionVersion) -> Result<bytes::Bytes, Error> {
        let found = match tokio::time::timeout(FETCH, self.blobs.get(&version.code)).await {
            Ok(found) => found,
            Err(_) => return Err(out_of_reach(version)),
        };
        match found {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) => {
                tracing::error!(version = %version.key(), digest = %version.code, "code is not in the blob store");
                return Err(nowhere(version));
            }
            // It is there, and will be had again.
            Err(error @ StoreError::Remote { .. }) => {
                tracing::warn!(version = %version.key(), %error, "code can't be had now");
                return Err(out_of_reach(version));
            }
            Err(error) => tracing::error!(version = %version.key(), %error, "code can't be read"),
        }
        Err(Error::internal(format!("the code of {} can't be read", version.key())))
    }

    /// Drops the loaded code of a function, or of one of its versions.
    pub(crate) fn forget(&self, generation: u64, version: Option<u64>) {
        let gone =
            self.loaded.invalidate_entries_if(move |key, _| key.0 == generation && version.is_none_or(|v| v == key.1));
        if let Err(error) = gone {
            tracing::error!(%error, "loaded code can't be dropped");
        }
    }
}

fn out_of_reach(version: &FunctionVersion) -> Error {
    let detail = format!("the code of {} can't be had now: what keeps it can't be reached", version.key());
    Error::new(ErrorCode::Unavailable, detail).with_retry_after(AGAIN)
}

/// Another worker may have it.
fn nowhere(version: &FunctionVersion) -> Error {
    let detail = format!(
        "the code of {} is neither in this worker's blob store nor with control: start both with the same --blobs, or deploy the function again",
        version.key()
    );
    Error::new(ErrorCode::Unavailable, detail).with_retry_after(AGAIN)
}
