//! A program of the operator's that is told how many workers there shall be.
//!
//! It is run with `LYRA_SCALER_DESIRED`, `LYRA_SCALER_CURRENT`, `LYRA_SCALER_DIRECTION`, `LYRA_SCALER_REASON` and
//! `LYRA_SCALER_GOING` (names of workers that were emptied to go, parted by commas), and with the same as a JSON object on stdin. Exit code
//! 0 says that it is done or under way; any other, that nothing was done. How many workers there are follows from who has joined.

use std::time::Duration;

use async_trait::async_trait;
use lyra_kit::Clock;
use lyra_wire::registry::MemberState;
use lyra_wire::scaler::Load;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::process::Command;
use tokio::time::Instant;

use super::command::{Output, run};
use super::{Backend, BackendError, Change, cheapest};
use crate::config::Hook;

#[derive(Serialize)]
struct Said<'a> {
    desired: u32,
    current: u32,
    direction: &'a str,
    reason: &'a str,
    going: &'a [String],
}

/// Runs a program.
pub struct HookBackend {
    config: Hook,
    clock: Clock,
    /// What it was told last, and when.
    told: Mutex<Option<(u32, Instant)>>,
}

impl HookBackend {
    /// A back end with these settings.
    pub fn new(config: Hook, clock: Clock) -> HookBackend {
        HookBackend { config, clock, told: Mutex::new(None) }
    }
}

fn alive(load: &Load) -> impl Iterator<Item = &lyra_wire::scaler::WorkerLoad> {
    load.workers.iter().filter(|worker| worker.state != MemberState::Lost)
}

#[async_trait]
impl Backend for HookBackend {
    fn name(&self) -> &'static str {
        "hook"
    }

    async fn current(&self, load: &Load) -> Result<u32, BackendError> {
        let joined = u32::try_from(alive(load).count()).unwrap_or(u32::MAX);
        let now = self.clock.instant();
        let mut told = self.told.lock();
        // What was asked for counts until it is there, or has had its time.
        match *told {
            Some((count, when)) if joined != count && now.duration_since(when) < self.config.settle => Ok(count),
            _ => {
                *told = None;
                Ok(joined)
            }
        }
    }

    fn going(&self, load: &Load, from: u32, to: u32) -> Vec<String> {
        match self.config.choose {
            true => cheapest(alive(load), from.saturating_sub(to) as usize),
            false => Vec::new(),
        }
    }

    async fn apply(&self, change: &Change) -> Result<(), BackendError> {
        const OPERATION: &str = "the hook";
        let direction = if change.to > change.from { "up" } else { "down" };
        let Change { from, to, reason, going } = change;
        let said = Said { desired: *to, current: *from, direction, reason, going };
        let input = serde_json::to_vec(&said).map_err(|error| BackendError::failed(OPERATION, error))?;
        let (program, arguments) =
            self.config.command.split_first().ok_or_else(|| BackendError::failed(OPERATION, "names no program"))?;
        let mut command = Command::new(program);
        command.args(arguments);
        command.env("LYRA_SCALER_DESIRED", to.to_string()).env("LYRA_SCALER_CURRENT", from.to_string());
        command.env("LYRA_SCALER_DIRECTION", direction).env("LYRA_SCALER_REASON", reason);
        command.env("LYRA_SCALER_GOING", going.join(","));
        run(command, &input, Output::Log, self.limit(), OPERATION).await?.well(OPERATION)?;
        *self.told.lock() = Some((*to, self.clock.instant()));
        Ok(())
    }
}

impl HookBackend {
    fn limit(&self) -> Duration {
        self.config.timeout
    }
}
