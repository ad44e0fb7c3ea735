//! The workflow role.

use std::path::Path;
use std::sync::Arc;

use lyra_store::{Blobs, DirLock, Objects, Runs, SqliteRuns};
use lyra_types::quota::Quota;
use lyra_wire::hooks::RunEnds;
use lyra_wire::workers::LOCAL;
use lyra_wire::{Control, Quotas, Role, Worker};
use lyra_workflow::{Config, Deps, Identity, Service};

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
    pub(crate) quotas: Arc<dyn Quotas>,
    /// Of tenants that have none of their own.
    pub(crate) default_quota: Quota,
    /// Control of this process, too: it tells of the ends of runs.
    pub(crate) ends: Arc<dyn RunEnds>,
    pub(crate) worker: Arc<dyn Worker>,
    /// Tasks call public addresses only, and those that the settings allow.
    pub(crate) public_only: bool,
    /// No other process uses the store of runs.
    pub(crate) alone: bool,
    /// Who this process is, for others.
    pub(crate) identity: Identity,
}

/// The only process of a platform.
pub(crate) fn local() -> Identity {
    Identity { name: LOCAL.to_owned(), address: String::new(), role: Role::Workflow }
}

/// Takes up runs that were under way, and starts to take new ones.
pub(crate) async fn start(config: Config, parts: Parts, kit: &Kit) -> Result<Service, Error> {
    let deps = Deps {
        objects: parts.objects,
        blobs: parts.blobs,
        runs: parts.runs,
        control: parts.control,
        quotas: parts.quotas,
        default_quota: parts.default_quota,
        ends: parts.ends,
        worker: parts.worker,
        clock: kit.clock.clone(),
        random: kit.random.clone(),
        metrics: kit.metrics.clone(),
        public_only: parts.public_only,
        alone: parts.alone,
        identity: parts.identity,
    };
    Service::start(config, deps).await.map_err(Error::Workflow)
}
