//! Worker processes of this machine, each with a data directory of its own.
//!
//! A worker has a number, and a name and directory by it, so that one that is made again finds what it had before. One that crashes is
//! started again after a back-off. One that goes was emptied before; it is told to end and killed when it does not. When the scaler ends,
//! however it ends, its workers end too: they watch a pipe that closes with it. With `live_on` they go on instead, and a file says
//! which they are, for the next start to take them up.

mod process;
mod register;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lyra_kit::Tasks;
use lyra_kit::retry::Backoff;
use lyra_wire::registry::MemberState;
use lyra_wire::scaler::{Load, WorkerLoad};
use parking_lot::Mutex;
use tokio::process::Command;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Backend, BackendError, Change, Surroundings, cheapest};
use crate::config::LocalWorkers;
use process::Process;
use register::Registered;

/// A worker that ran for so long has not crashed at once: the back-off begins anew.
const SETTLED: Duration = Duration::from_secs(300);
/// How long workers may take to end with the scaler. One of them ends within 30 s.
const LAST: Duration = Duration::from_secs(22);

/// Starts and ends processes.
pub struct LocalBackend {
    shared: Arc<Shared>,
}

struct Shared {
    config: LocalWorkers,
    around: Surroundings,
    prefix: String,
    backoff: Backoff,
    slots: Mutex<BTreeMap<u32, Slot>>,
    tasks: Tasks,
    /// The scaler ends, and the workers live on.
    letting_go: CancellationToken,
}

/// A worker by its number.
struct Slot {
    /// Told to end.
    end: CancellationToken,
    process: Option<Registered>,
}

impl LocalBackend {
    /// Takes up the workers of a former start, where they live on.
    ///
    /// # Errors
    /// When the directory can't be made or read.
    pub async fn open(config: LocalWorkers, around: Surroundings) -> Result<LocalBackend, BackendError> {
        const OPERATION: &str = "the workers' directory";
        let prefix = if config.prefix.is_empty() { around.name.clone() } else { config.prefix.clone() };
        // As long as the number has room in a worker's name.
        lyra_types::FunctionName::new(&format!("{prefix}-1000"))
            .map_err(|error| BackendError::failed(OPERATION, format!("local.prefix: {}", error.detail)))?;
        let dir = around.dir.clone();
        let read = lyra_kit::tasks::blocking(move || register::read(&dir)).await;
        let read = read.map_err(|_| BackendError::failed(OPERATION, "the process ends"))?;
        let former = read.map_err(|error| BackendError::failed(OPERATION, error))?;
        let backoff = Backoff { first: config.restart_after, max: config.restart_at_most };
        let (slots, tasks) = (Mutex::default(), Tasks::new());
        let letting_go = CancellationToken::new();
        let shared = Arc::new(Shared { config, around, prefix, backoff, slots, tasks, letting_go });
        for (number, registered) in former {
            let name = shared.name(number);
            if let Some(process) = Process::adopt(registered, &name) {
                tracing::info!(worker = name, "a worker of a former start goes on");
                shared.keep(number, Some(process));
            }
        }
        Ok(LocalBackend { shared })
    }
}

impl Shared {
    fn name(&self, number: u32) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// Looks after a worker from now on: `first` is its process where there is one.
    fn keep(self: &Arc<Self>, number: u32, first: Option<Process>) {
        let end = CancellationToken::new();
        let process = first.as_ref().map(Process::registered);
        self.slots.lock().insert(number, Slot { end: end.clone(), process });
        let this = Arc::clone(self);
        self.tasks.spawn("local-worker", async move {
            this.look_after(number, first, &end).await;
            // Of those that live on, what is written down stays.
            if !this.letting_go.is_cancelled() {
                this.slots.lock().remove(&number);
                this.register().await;
            }
        });
    }

    /// Starts the worker again and again until it is told to end, or let go.
    async fn look_after(&self, number: u32, mut first: Option<Process>, end: &CancellationToken) {
        let (name, stopping) = (self.name(number), self.tasks.stopping());
        let mut crashes = 0;
        loop {
            let began = self.around.clock.instant();
            match first.take().map_or_else(|| self.start(number), Ok) {
                Ok(mut process) => {
                    if let Some(slot) = self.slots.lock().get_mut(&number) {
                        slot.process = Some(process.registered());
                    }
                    self.register().await;
                    // In this order: those that live on are let go when the scaler ends, not ended.
                    tokio::select! {
                        biased;
                        how = process.ended() => tracing::warn!(worker = name, %how, "a worker has ended by itself"),
                        () = end.cancelled() => return process.end(&name).await,
                        () = self.letting_go.cancelled() => return process.let_go(),
                        () = stopping.cancelled() => return process.end(&name).await,
                    }
                }
                Err(error) => tracing::warn!(worker = name, %error, "a worker can't be started"),
            }
            crashes = if self.lasted(began) { 1 } else { crashes + 1 };
            tokio::select! {
                biased;
                () = self.around.clock.sleep(self.backoff.delay(crashes, &self.around.random)) => {}
                () = end.cancelled() => return,
                () = self.letting_go.cancelled() => return,
                () = stopping.cancelled() => return,
            }
        }
    }

    fn lasted(&self, began: Instant) -> bool {
        self.around.clock.instant().duration_since(began) >= SETTLED
    }

    fn start(&self, number: u32) -> std::io::Result<Process> {
        let name = self.name(number);
        let mut command = Command::new(&self.around.program);
        command.args(["node", "--role", "worker", "--name", &name, "--listen-grpc", &self.config.listen]);
        command.args(["--control", &self.around.control.join(",")]);
        command.arg("--data-dir").arg(self.dir(number)).args(&self.config.args);
        // What the classic variables say is meant for the scaler.
        for classic in ["DB_URL", "JQ_URL", "PORT"] {
            command.env_remove(classic);
        }
        command.stdout(Stdio::null()).stderr(Stdio::inherit()).process_group(0);
        match self.config.live_on {
            true => command.stdin(Stdio::null()),
            false => command.arg("--until-stdin-closes").stdin(Stdio::piped()),
        };
        let process = Process::start(command)?;
        tracing::info!(worker = name, pid = process.registered().pid, "a worker is started");
        Ok(process)
    }

    fn dir(&self, number: u32) -> PathBuf {
        self.around.dir.join(self.name(number))
    }

    /// Writes down which processes live on, where they do.
    async fn register(&self) {
        if !self.config.live_on {
            return;
        }
        let slots: BTreeMap<u32, Registered> =
            self.slots.lock().iter().filter_map(|(number, slot)| Some((*number, slot.process?))).collect();
        let dir = self.around.dir.clone();
        let written = lyra_kit::tasks::blocking(move || register::write(&dir, &slots)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "which workers live on can't be written down");
        }
    }

    /// Numbers of the workers that were not told to end.
    fn staying(&self) -> Vec<u32> {
        let slots = self.slots.lock();
        slots.iter().filter(|(_, slot)| !slot.end.is_cancelled()).map(|(number, _)| *number).collect()
    }
}

#[async_trait]
impl Backend for LocalBackend {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn current(&self, _: &Load) -> Result<u32, BackendError> {
        Ok(u32::try_from(self.shared.staying().len()).unwrap_or(u32::MAX))
    }

    fn going(&self, load: &Load, from: u32, to: u32) -> Vec<String> {
        let seen = |number: u32| {
            let name = self.shared.name(number);
            let unknown = || WorkerLoad {
                name: name.clone(),
                address: String::new(),
                state: MemberState::Lost,
                running: 0,
                queued: 0,
                utilisation: 0.0,
            };
            load.workers.iter().find(|worker| worker.name == name).cloned().unwrap_or_else(unknown)
        };
        let own: Vec<WorkerLoad> = self.shared.staying().into_iter().map(seen).collect();
        cheapest(&own, from.saturating_sub(to) as usize)
    }

    async fn apply(&self, change: &Change) -> Result<(), BackendError> {
        let staying = self.shared.staying();
        let (have, want) = (staying.len(), change.to as usize);
        if have < want {
            let free: Vec<u32> = {
                let slots = self.shared.slots.lock();
                (1..).filter(|number| !slots.contains_key(number)).take(want - have).collect()
            };
            free.into_iter().for_each(|number| self.shared.keep(number, None));
            return Ok(());
        }
        let named = |number: &u32| change.going.contains(&self.shared.name(*number));
        let (going, others): (Vec<u32>, Vec<u32>) = staying.into_iter().partition(named);
        let going = going.into_iter().chain(others.into_iter().rev()).take(have - want);
        let slots = self.shared.slots.lock();
        for slot in going.filter_map(|number| slots.get(&number)) {
            slot.end.cancel();
        }
        Ok(())
    }

    async fn close(&self) {
        if self.shared.config.live_on {
            self.shared.letting_go.cancel();
        }
        if !self.shared.tasks.stop(LAST).await {
            tracing::warn!("some workers have not ended in time; they end by themselves");
        }
    }
}
