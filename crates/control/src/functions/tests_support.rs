//! What tests of the registry share.

use std::sync::Arc;

use lyra_types::function::Digest;
use lyra_types::{FunctionName, FunctionVersion, Runtime};

/// A version with nothing special about it.
pub(crate) fn version(function: &FunctionName, number: u64) -> Arc<FunctionVersion> {
    Arc::new(FunctionVersion {
        version: number,
        code_size: 1,
        timeout_ms: 1_000,
        concurrency: 1,
        max_instances: 1,
        ..FunctionVersion::new(function.clone(), Runtime::Js, Digest("0".repeat(64)))
    })
}
