//! The gateway role.

use std::sync::Arc;

use lyra_gateway::{Config, Deps, Service};
use lyra_wire::{Accounts, Control, Logs, Quotas, Worker, Workers, Workflows};

use super::Kit;

/// The other roles, as a gateway reaches them.
pub(crate) struct Roles {
    pub(crate) control: Arc<dyn Control>,
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) quotas: Arc<dyn Quotas>,
    pub(crate) worker: Arc<dyn Worker>,
    pub(crate) workers: Arc<dyn Workers>,
    pub(crate) logs: Arc<dyn Logs>,
    /// None where no workflow role can be reached.
    pub(crate) workflows: Option<Arc<dyn Workflows>>,
}

/// A gateway over the other roles' clients.
pub(crate) fn new(config: Config, roles: Roles, kit: &Kit) -> Service {
    let deps = Deps {
        control: roles.control,
        accounts: roles.accounts,
        quotas: roles.quotas,
        worker: roles.worker,
        workers: roles.workers,
        logs: roles.logs,
        workflows: roles.workflows,
        clock: kit.clock.clone(),
        ids: kit.ids.clone(),
        random: kit.random.clone(),
        metrics: kit.metrics.clone(),
    };
    Service::new(config, deps)
}
