//! The logs role.

use lyra_logs::{Config, Service};

use super::Kit;
use crate::embedded::Error;

/// Opens the log files and starts to take lines.
pub(crate) fn start(config: Config, kit: &Kit) -> Result<Service, Error> {
    let service = Service::open(config, kit.clock.clone(), &kit.metrics).map_err(Error::Logs)?;
    service.start().map_err(Error::Logs)?;
    Ok(service)
}
