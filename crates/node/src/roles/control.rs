//! The control role over the embedded stores.

use std::path::Path;
use std::sync::Arc;

use lyra_control::{Config, Deps, Registry, Service};
use lyra_store::objects::History;
use lyra_store::{Blobs, DirLock, SqliteJobs, SqliteObjects};
use lyra_wire::{Logs, Worker};

use super::Kit;
use crate::embedded::Error;

/// The embedded stores of objects and jobs.
pub(crate) struct Stores {
    objects: Arc<SqliteObjects>,
    jobs: Arc<SqliteJobs>,
}

impl Stores {
    /// Opens the files in `dir`, which `lock` keeps other processes from.
    pub(crate) fn open(dir: &Path, lock: &Arc<DirLock>) -> Result<Stores, Error> {
        let objects = SqliteObjects::open(&dir.join("objects.db"), History::default(), Some(Arc::clone(lock)));
        let jobs = SqliteJobs::open(&dir.join("jobs.db"), Some(Arc::clone(lock)));
        Ok(Stores { objects: Arc::new(objects.map_err(Error::Store)?), jobs: Arc::new(jobs.map_err(Error::Store)?) })
    }

    /// The objects.
    pub(crate) fn objects(&self) -> Arc<SqliteObjects> {
        Arc::clone(&self.objects)
    }

    /// Waits for what is being written, and closes the files.
    pub(crate) async fn close(&self) {
        self.jobs.close().await;
        self.objects.close().await;
    }
}

/// Reads what is stored and starts to dispatch jobs.
pub(crate) async fn start(
    config: Config,
    stores: &Stores,
    blobs: Arc<dyn Blobs>,
    worker: Arc<dyn Worker>,
    logs: Arc<dyn Logs>,
    registry: Registry,
    kit: &Kit,
) -> Result<Service, Error> {
    let deps = Deps {
        objects: stores.objects.clone(),
        jobs: stores.jobs.clone(),
        blobs,
        worker,
        logs,
        clock: kit.clock.clone(),
        random: kit.random.clone(),
        metrics: kit.metrics.clone(),
        registry,
        name: lyra_wire::workers::LOCAL.to_owned(),
        address: String::new(),
    };
    let service = Service::new(config, deps);
    service.expect_workflows();
    service.start().await.map_err(Error::Control)?;
    Ok(service)
}
