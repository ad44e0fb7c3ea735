//! The workflow role.

use std::path::Path;
use std::sync::Arc;

use lyra_store::{Blobs, DirLock, Objects, Runs, SqliteRuns};
use lyra_wire::{Control, Worker};
use lyra_workflow::{Config, Deps, Service};

use super::Kit;
use crate::embedded::Error;

/// The embedded store of runs, in `dir`, which `lock` keeps other processes from.
pub(crate) fn open(dir: &Path, lock: &Arc<DirLock>) -> Result<Arc<SqliteRuns>, Error> {
    let runs = SqliteRuns::open(&dir.join("runs.db"), Some(Arc::clone(lock)));
    Ok(Arc::new(runs.map_err(Error::Store)?))
}

/// Where the role keeps what it knows, and who does its work.
pub(crate) struct Parts {
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) runs: Arc<dyn Runs>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) worker: Arc<dyn Worker>,
    /// No other process uses the store of runs.
    pub(crate) alone: bool,
}

/// Takes up runs that were under way, and starts to take new ones.
pub(crate) async fn start(config: Config, parts: Parts, kit: &Kit) -> Result<Service, Error> {
    let deps = Deps {
        objects: parts.objects,
        blobs: parts.blobs,
        runs: parts.runs,
        control: parts.control,
        worker: parts.worker,
        clock: kit.clock.clone(),
        random: kit.random.clone(),
        metrics: kit.metrics.clone(),
        alone: parts.alone,
    };
    Service::start(config, deps).await.map_err(Error::Workflow)
}
