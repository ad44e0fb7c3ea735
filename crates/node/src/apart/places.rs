//! What a node is refused for before anything is started, and where its roles keep what they keep.

use std::sync::Arc;

use lyra_store::{Access, Blobs, DirLock, Shelf};
use lyra_types::{Code, Error as LyraError};
use lyra_wire::Role;
use lyra_wire::grpc::{RemoteControl, Security};
use lyra_worker::OwnBlobs;

use super::Config;
use crate::embedded::Error;
use crate::workflows;

/// What can't work is refused before anything is started.
pub(super) fn check(config: &Config) -> Result<(), Error> {
    let refused = |field: &str, reason: &str| Err(Error::Refused(LyraError::field(Code::InvalidField, field, reason)));
    if config.roles.is_empty() {
        return refused("role", "names no role");
    }
    if !config.roles.contains(&Role::Control) && config.control.is_empty() {
        return refused("control", "names no address, and control is not one of the roles of this node");
    }
    workflows::check(config)?;
    const BACKENDS: [&str; 3] = ["wasm", "process", "simulated"];
    if let Some(unknown) = config.isolation.iter().find(|name| !BACKENDS.contains(&name.as_str())) {
        return refused("isolation", &format!("{unknown} is none of {}", BACKENDS.join(", ")));
    }
    if let Err(error) = lyra_types::FunctionName::new(&config.name) {
        return refused("name", &error.detail);
    }
    Ok(())
}

/// What the stores need beside their addresses. The lock keeps a second node out of the data directory.
pub(super) fn access(config: &Config) -> Result<Access, Error> {
    let dir = &config.node.data_dir;
    let lock = Arc::new(DirLock::acquire(dir).map_err(Error::Store)?);
    Ok(Access { data_dir: Some(dir.clone()), lock: Some(lock), ..config.access.clone() })
}

/// Where the worker of this node has code from. Where it shares no blobs with control, neither by a process nor by an address, it fetches
/// there what its own lack.
pub(super) async fn blobs_of_worker(
    config: &Config,
    access: &Access,
    security: &Security,
) -> Result<Arc<dyn Blobs>, Error> {
    let own = open_blobs(config, access, Shelf::Code).await?;
    if config.roles.contains(&Role::Control) || !config.blobs.is_empty() {
        return Ok(own);
    }
    let control = RemoteControl::new(&config.control, security).map_err(Error::Refused)?;
    Ok(Arc::new(OwnBlobs::new(own, Arc::new(control))))
}

pub(crate) async fn open_blobs(config: &Config, access: &Access, shelf: Shelf) -> Result<Arc<dyn Blobs>, Error> {
    let fallback = config.node.data_dir.join("blobs").display().to_string();
    let address = if config.blobs.is_empty() { &fallback } else { &config.blobs };
    lyra_store::open_blobs(address, access, shelf).await.map_err(Error::Store)
}
