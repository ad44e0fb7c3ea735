//! The scaler role.

use std::path::PathBuf;
use std::sync::Arc;

use lyra_kit::Clock;
use lyra_scaler::{Config, Deps, Service};
use lyra_wire::grpc::{RemoteWorker, Security};
use lyra_wire::{Control, Operated};

use super::Kit;
use crate::embedded::Error;

/// What a scaler is made with beside its settings.
pub(crate) struct Parts {
    pub(crate) control: Arc<dyn Control>,
    /// Addresses of the control processes.
    pub(crate) controls: Vec<String>,
    pub(crate) name: String,
    /// The node's data directory.
    pub(crate) dir: PathBuf,
    /// The program for child processes.
    pub(crate) helper: Option<PathBuf>,
}

/// Opens the back end and begins to take turns.
pub(crate) async fn start(config: Config, parts: Parts, security: &Security, kit: &Kit) -> Result<Service, Error> {
    let deps = Deps {
        control: parts.control,
        reach: reach(security.clone(), kit.clock.clone()),
        clock: kit.clock.clone(),
        random: kit.random.clone(),
        metrics: kit.metrics.clone(),
        name: parts.name,
        controls: parts.controls,
        dir: parts.dir.join("scaler"),
        program: parts.helper.unwrap_or_else(crate::child::this_program),
    };
    let service = Service::new(config, deps).await.map_err(Error::Refused)?;
    service.start();
    Ok(service)
}

fn reach(security: Security, clock: Clock) -> lyra_scaler::Reach {
    Arc::new(move |name, address| {
        Ok(Arc::new(RemoteWorker::new(name, address, &security, clock.clone())?) as Arc<dyn Operated>)
    })
}
