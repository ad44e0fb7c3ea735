//! The workflow role over the embedded store.

use std::path::Path;
use std::sync::Arc;

use lyra_store::{Blobs, DirLock, Objects, SqliteRuns};
use lyra_wire::{Control, Worker};
use lyra_workflow::{Config, Deps, Service};

use super::Kit;
use crate::embedded::Error;

/// The embedded store of runs, in `dir`, which `lock` keeps other processes from.
pub(crate) fn open(dir: &Path, lock: &Arc<DirLock>) -> Result<Arc<SqliteRuns>, Error> {
    let runs = SqliteRuns::open(&dir.join("runs.db"), Some(Arc::clone(lock)));
    Ok(Arc::new(runs.map_err(Error::Store)?))
}

/// Takes up runs that were under way, and starts to take new ones.
pub(crate) async fn start(
    config: Config,
    objects: Arc<dyn Objects>,
    runs: Arc<SqliteRuns>,
    blobs: Arc<dyn Blobs>,
    control: Arc<dyn Control>,
    worker: Arc<dyn Worker>,
    kit: &Kit,
) -> Result<Service, Error> {
    let deps = Deps {
        objects,
        blobs,
        runs,
        control,
        worker,
        clock: kit.clock.clone(),
        random: kit.random.clone(),
        metrics: kit.metrics.clone(),
        alone: true,
    };
    Service::start(config, deps).await.map_err(Error::Workflow)
}
