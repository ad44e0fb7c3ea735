//! The worker role: runs calls on instances.
//!
//! A call's way is the reading order of this crate: `service` (the door) → `call` (its life) → `queue` (may it run
//! now?) → `templates` (is the code loaded?) → `pool` (is an instance kept?) → the isolation back end.
//!
//! What calls were seen to take is noted in `characteristics`, which policies decide by. Applications and their sessions are in
//! `sessions`; what control says and is told goes through `agent`.
//!
//! What always holds: a call that was let in ends by its deadline; an instance serves one version only; dropping a
//! call's future frees its place, its instance and its memory.

pub mod characteristics;
pub mod config;
pub mod keep_alive;
#[doc(hidden)]
pub mod pool;
pub mod queue;
pub mod resources;
pub mod service;
pub mod sessions;
pub mod usage;

mod agent;
mod blobs;
mod call;
mod call_log;
mod error;
#[cfg(test)]
mod fixtures;
mod health;
mod metrics;
mod secrets;
mod start;
mod templates;

pub use agent::{Agent, AgentDeps, Identity, NodeStore, NodeStoreError, Reach};
pub use blobs::{CodeSource, OwnBlobs};
pub use characteristics::{Characteristics, Expected};
pub use config::Config;
pub use secrets::Vault;
pub use service::{Deps, Service};

use lyra_types::FunctionVersion;

/// Calls of a version that run at once: one on each instance, where instances are kept.
fn concurrency(version: &FunctionVersion) -> usize {
    let most = if version.reuse && version.max_instances > 0 { version.max_instances } else { u32::MAX };
    version.concurrency.min(most) as usize
}
