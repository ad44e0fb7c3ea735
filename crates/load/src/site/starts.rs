//! When instances were started: a back end around the simulated one that takes the time.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use lyra_isolation::session::{Hosted, Hosting};
use lyra_isolation::simulated::Simulated;
use lyra_isolation::{Code, Grant, ImageKey, Isolation, Sandbox, Template};
use lyra_kit::Clock;
use lyra_types::function::Contract;
use lyra_types::{Error, FunctionVersion, InstanceId, Runtime};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Starts by the generation of their function.
pub(super) struct Starts {
    clock: Clock,
    seen: Mutex<HashMap<u64, Vec<Instant>>>,
    changed: Notify,
}

impl Starts {
    pub(super) fn new(clock: Clock) -> Starts {
        Starts { clock, seen: Mutex::default(), changed: Notify::new() }
    }

    fn note(&self, generation: u64) {
        self.seen.lock().entry(generation).or_default().push(self.clock.instant());
        self.changed.notify_waiters();
    }

    /// Waits for so many starts of a function; they are forgotten after that.
    pub(super) async fn of(&self, generation: u64, count: usize) -> Vec<Instant> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut seen = self.seen.lock();
                if seen.get(&generation).is_some_and(|starts| starts.len() >= count) {
                    return seen.remove(&generation).unwrap_or_default();
                }
            }
            changed.await;
        }
    }
}

/// The simulated back end, with its starts noted.
pub(super) struct Watched {
    pub(super) backend: Simulated,
    pub(super) starts: Arc<Starts>,
}

#[async_trait]
impl Isolation for Watched {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    fn runtimes(&self) -> &'static [Runtime] {
        self.backend.runtimes()
    }

    async fn prepare(&self, code: &Code) -> Result<Contract, Error> {
        self.backend.prepare(code).await
    }

    async fn load(&self, key: &ImageKey) -> Result<Option<Arc<dyn Template>>, Error> {
        let template = self.backend.load(key).await?;
        Ok(template.map(|template| Arc::new(WatchedTemplate { template, starts: self.starts.clone() }) as _))
    }
}

struct WatchedTemplate {
    template: Arc<dyn Template>,
    starts: Arc<Starts>,
}

#[async_trait]
impl Template for WatchedTemplate {
    fn contract(&self) -> Contract {
        self.template.contract()
    }

    fn weight(&self) -> usize {
        self.template.weight()
    }

    async fn start(&self, id: InstanceId, version: &Arc<FunctionVersion>) -> Result<Box<dyn Sandbox>, Error> {
        let sandbox = self.template.start(id, version).await?;
        self.starts.note(version.generation);
        Ok(sandbox)
    }

    async fn host(
        &self,
        id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
        hosting: Hosting,
    ) -> Result<Box<dyn Hosted>, Error> {
        self.template.host(id, version, grant, hosting).await
    }
}
