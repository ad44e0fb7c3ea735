//! Versions and records for the unit tests of this crate.

use std::sync::Arc;
use std::time::Duration;

use lyra_types::function::Digest;
use lyra_types::invocation::{Phases, Start};
use lyra_types::{FunctionName, FunctionVersion, Runtime, TenantName};

use crate::characteristics::Record;

/// A version of a tenant's function; `generation` names the function.
pub(crate) fn version(tenant: &str, generation: u64, number: u64) -> FunctionVersion {
    FunctionVersion {
        tenant: TenantName::new(tenant).expect("a valid name"),
        version: number,
        generation,
        max_instances: 0,
        max_attempts: 1,
        ..FunctionVersion::new(
            FunctionName::new(&format!("f{generation}")).expect("a valid name"),
            Runtime::Python,
            Digest(String::new()),
        )
    }
}

/// A record whose version was seen to start warm at once and to run for so long.
pub(crate) fn record(tenant: &str, generation: u64, exec: Duration) -> Arc<Record> {
    let record = Record::new(&version(tenant, generation, 1));
    record.ended(Start::Warm, &phases(Duration::ZERO, exec), true);
    record
}

/// The phases of a call that did not wait.
pub(crate) fn phases(start: Duration, exec: Duration) -> Phases {
    Phases { queue: Duration::ZERO, start, exec }
}
