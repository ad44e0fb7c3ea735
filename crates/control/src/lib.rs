//! The control role: the registry of functions, the owner of jobs, and of applications and their sessions.
//!
//! [`Service`] implements [`lyra_wire::Control`]. It keeps functions, versions and aliases in
//! [`lyra_store::Objects`], code in [`lyra_store::Blobs`] and jobs in [`lyra_store::Jobs`]; it runs nothing itself but
//! has a worker check code and run jobs. It is never on the path of a warm call: gateways follow its route table.
//!
//! What must hold:
//! - Nothing is stored for a deploy that is refused, and what is stored is complete.
//! - A job that was accepted ends exactly once in the record, whatever process dies when.
//! - Several processes may change the same records: every change happens as a whole or not at all. What must be done once
//!   (handing out jobs, placing instances, clearing away) is done by the one that was elected.

mod accounts;
mod classic;
mod config;
mod deliveries;
mod following;
mod functions;
mod jobs;
mod leader;
mod metrics;
pub mod placement;
mod quotas;
pub mod registry;
mod scaler;
mod schedules;
pub mod secrets;
mod service;
mod sessions;
#[cfg(test)]
mod tests;
mod triggers;
mod workflows;

pub use accounts::AccountsConfig;
pub use config::{Config, JobsConfig};
pub use deliveries::WebhooksConfig;
pub use registry::{Registry, RegistryConfig};
pub use secrets::SecretsConfig;
pub use service::{Deps, Service};
pub use sessions::SessionsConfig;
pub use triggers::TriggersConfig;
