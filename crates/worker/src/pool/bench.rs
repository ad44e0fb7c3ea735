//! A pool full of idle instances that do nothing, for `examples/pool_bench.rs`: what a warm call pays the pool.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lyra_isolation::{CallContext, Sandbox, Served};
use lyra_kit::{Clock, Ids, telemetry};
use lyra_types::{Error, FunctionVersion};

use super::{Instance, Pool};
use crate::config::Config;
use crate::metrics::PoolMetrics;
use crate::resources::Need;
use crate::resources::gpu::NoGpus;
use crate::templates::key_of;

/// Versions with idle instances.
pub struct Bench {
    pool: Pool,
    now: tokio::time::Instant,
    versions: Vec<(Arc<FunctionVersion>, Need)>,
}

struct Idle;

#[async_trait]
impl Sandbox for Idle {
    async fn call(&mut self, _: CallContext, event: Bytes) -> Result<Bytes, Error> {
        Ok(event)
    }

    async fn serve(self: Box<Self>, _: CallContext, _: http::Request<lyra_isolation::Body>) -> Result<Served, Error> {
        Err(Error::internal("not an http component"))
    }

    fn is_reusable(&self) -> bool {
        true
    }
}

impl Bench {
    /// A pool with `instances` idle instances of each of these versions, which must keep theirs (`reuse`).
    pub async fn new(versions: Vec<Arc<FunctionVersion>>, instances: usize) -> Bench {
        let clock = Clock::system();
        let metrics = PoolMetrics::new(&telemetry::Metrics::new());
        let config = Config { max_idle_instances: versions.len() * instances, ..Config::default() };
        let pool = Pool::new(&config, clock.clone(), Ids::default(), Arc::new(NoGpus), metrics);
        let versions: Vec<_> =
            versions.into_iter().filter_map(|version| Need::of(&version).map(|need| (version, need))).collect();
        for (version, need) in versions.iter().flat_map(|version| std::iter::repeat_n(version, instances)) {
            if let Ok(lease) = pool.claim_ahead(version, *need).await {
                let now = clock.instant();
                pool.put(Instance::new(Box::new(Idle), lease, std::time::Duration::ZERO), now);
            }
        }
        Bench { pool, now: clock.instant(), versions }
    }

    /// Takes an instance of the version at `n` (modulo how many there are) and puts it back. False: there was none.
    pub fn round(&self, n: usize) -> bool {
        let now = self.now;
        let Some((version, _)) = self.versions.get(n % self.versions.len()) else { return false };
        let Some(instance) = self.pool.take(key_of(version), now) else { return false };
        Pool::begin_call(&instance.lease);
        self.pool.put(instance, now);
        true
    }
}
