//! What tests of the registry share.

use std::collections::BTreeMap;
use std::sync::Arc;

use lyra_types::function::{Contract, Digest};
use lyra_types::{FunctionName, FunctionVersion, Runtime, TenantName, Timestamp};

/// A version with nothing special about it.
pub(crate) fn version(function: &FunctionName, number: u64) -> Arc<FunctionVersion> {
    Arc::new(FunctionVersion {
        tenant: TenantName::default_tenant(),
        function: function.clone(),
        version: number,
        generation: 1,
        runtime: Runtime::Js,
        contract: Contract::Handler,
        handler: None,
        code: Digest("0".repeat(64)),
        code_size: 1,
        memory_mb: 128,
        cpu_millis: 1_000,
        gpus: 0,
        network: lyra_types::Network::None,
        timeout_ms: 1_000,
        env: BTreeMap::new(),
        isolation: "auto".to_owned(),
        reuse: false,
        concurrency: 1,
        min_instances: 0,
        max_instances: 1,
        max_attempts: 3,
        labels: BTreeMap::new(),
        created_at: Timestamp::default(),
    })
}
