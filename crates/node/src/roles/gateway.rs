//! The gateway role.

use std::sync::Arc;

use lyra_gateway::{Config, Deps, Service};
use lyra_wire::{Accounts, Control, Logs, Worker, Workers};

use super::Kit;

/// A gateway over the other roles' clients.
pub(crate) fn new(
    config: Config,
    control: Arc<dyn Control>,
    accounts: Arc<dyn Accounts>,
    worker: Arc<dyn Worker>,
    workers: Arc<dyn Workers>,
    logs: Arc<dyn Logs>,
    kit: &Kit,
) -> Service {
    let deps = Deps {
        control,
        accounts,
        worker,
        workers,
        logs,
        clock: kit.clock.clone(),
        ids: kit.ids.clone(),
        random: kit.random.clone(),
        metrics: kit.metrics.clone(),
    };
    Service::new(config, deps)
}
