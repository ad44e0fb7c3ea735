//! Tests of the jobs' record: each operation, and a model against which random interleavings are held.

mod model;
mod operations;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use lyra_types::{FunctionName, InvocationId, JobId, TenantName, Timestamp};

use crate::SqliteJobs;
use crate::jobs::{LeaseRequest, NewJob};

const TTL: Duration = Duration::from_secs(30);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

fn open(dir: &tempfile::TempDir) -> SqliteJobs {
    SqliteJobs::open(&dir.path().join("jobs.db"), None).unwrap()
}

fn fresh() -> (tempfile::TempDir, SqliteJobs) {
    let dir = tempfile::tempdir().unwrap();
    let jobs = open(&dir);
    (dir, jobs)
}

/// A job whose id says its number; accepted at second `number`.
fn new(function: &str, number: u32) -> NewJob {
    let now = at(i64::from(number));
    NewJob {
        id: JobId::from_parts(now.millis().unsigned_abs(), u128::from(number)),
        tenant: tenant(),
        function: FunctionName::new(function).unwrap(),
        version: 1,
        generation: 7,
        max_attempts: 3,
        event: Bytes::from(format!("{{\"n\":{number}}}")),
        idempotency: None,
        now,
    }
}

fn request(owner: u64, now: Timestamp, limit: u32) -> LeaseRequest {
    LeaseRequest {
        owner,
        now,
        ttl: TTL,
        invocations: (0..limit).map(|n| InvocationId::from_parts(now.millis().unsigned_abs(), n.into())).collect(),
        max_bytes: 1 << 20,
        per_function: 1_000,
        running: HashMap::new(),
    }
}
