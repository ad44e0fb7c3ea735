//! What makes and ends workers.
//!
//! A back end knows how many workers there are and can be told how many there shall be. Where it can say which ones would go, these are
//! emptied before. Every call has a deadline of the back end's own; one that fails is tried again with the next look, never in a loop.

mod command;
mod hook;
mod kubernetes;
mod kumori;
mod local;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use lyra_kit::{Clock, Random};
use lyra_wire::registry::MemberState;
use lyra_wire::scaler::{Load, WorkerLoad};

pub use hook::HookBackend;
pub use kubernetes::KubernetesBackend;
pub use kumori::KumoriBackend;
pub use local::LocalBackend;

use crate::config::{Backing, Config};

/// Why a back end could not do something.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// It waits for something that may come yet.
    #[error("{0}")]
    NotReady(String),
    /// It failed.
    #[error("{operation}: {reason}")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// What came of it.
        reason: String,
    },
}

impl BackendError {
    fn failed(operation: &'static str, reason: impl std::fmt::Display) -> BackendError {
        BackendError::Failed { operation, reason: reason.to_string() }
    }
}

/// What there shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Workers before.
    pub from: u32,
    /// Workers after.
    pub to: u32,
    /// Why.
    pub reason: &'static str,
    /// Workers that were emptied to go; those of [`Backend::going`].
    pub going: Vec<String>,
}

/// Makes and ends workers.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Its name in settings and metrics.
    fn name(&self) -> &'static str;

    /// How many workers there are or are being made, without those that end.
    ///
    /// # Errors
    /// [`BackendError`].
    async fn current(&self, load: &Load) -> Result<u32, BackendError>;

    /// Names of the workers that would go if there were `to` in place of `from`; none where it can't say.
    fn going(&self, load: &Load, from: u32, to: u32) -> Vec<String>;

    /// Has there be as many workers as the change says.
    ///
    /// # Errors
    /// [`BackendError`].
    async fn apply(&self, change: &Change) -> Result<(), BackendError>;

    /// The scaler ends.
    async fn close(&self) {}
}

/// What back ends are made with.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// This program.
    pub program: PathBuf,
    /// The scaler's own directory.
    pub dir: PathBuf,
    /// The scaler's name.
    pub name: String,
    /// Addresses of the control processes.
    pub control: Vec<String>,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
}

/// The back end that the settings name.
///
/// # Errors
/// Where it can't work with these settings, for people.
pub async fn open(config: &Config, surroundings: Surroundings) -> Result<Arc<dyn Backend>, BackendError> {
    Ok(match config.backend {
        Backing::Local => Arc::new(LocalBackend::open(config.local.clone(), surroundings).await?),
        Backing::Hook => Arc::new(HookBackend::new(config.hook.clone(), surroundings.clock)),
        Backing::Kubernetes => Arc::new(KubernetesBackend::new(config.kubernetes.clone())?),
        Backing::Kumori => Arc::new(KumoriBackend::new(config.kumori.clone())),
    })
}

/// The `count` workers among these whose end costs least: those that take no calls first, then those with the least to do, of
/// equals the last by name.
fn cheapest<'a>(workers: impl IntoIterator<Item = &'a WorkerLoad>, count: usize) -> Vec<String> {
    let mut workers: Vec<&WorkerLoad> = workers.into_iter().collect();
    workers.sort_by(|one, other| {
        let cost = |of: &WorkerLoad| (of.state == MemberState::Ready, of.running + of.queued);
        cost(one).cmp(&cost(other)).then_with(|| other.name.cmp(&one.name))
    });
    workers.into_iter().take(count).map(|worker| worker.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_go_whose_end_costs_least() {
        let worker = |name: &str, state, running| {
            let (name, address) = (name.to_owned(), String::new());
            WorkerLoad { name, address, state, running, queued: 0, utilisation: 0.0 }
        };
        let all = [
            worker("a", MemberState::Ready, 0),
            worker("b", MemberState::Ready, 3),
            worker("c", MemberState::Ready, 0),
            worker("d", MemberState::Lost, 9),
        ];
        assert_eq!(cheapest(&all, 3), ["d", "c", "a"]);
        assert_eq!(cheapest(&all, 9).len(), 4);
    }
}
