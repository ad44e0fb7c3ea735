//! What calls use, counted on this worker until control has it.
//!
//! A call is written to a log before its answer is given, by a write to a file that is not synced: what was answered survives the end of
//! this process, however it ends. A loss of power costs at most what was counted in the last [`FLUSH`] or so. About once in that time
//! the log is added up to a *batch*, which has a number greater than all before and is a file until control has said that it
//! has it; control takes each number once. So nothing is counted twice, and nothing is lost that was counted.
//!
//! Not counted here: tries of jobs, which control counts with their outcome, but for those that were given up before they ended.

mod log;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use lyra_isolation::Body;
use lyra_kit::{Clock, Random, Tasks};
use lyra_types::Error;
use lyra_types::usage::{UsageBatch, UsageKey, UsageRow};
use lyra_wire::Control;
use parking_lot::Mutex;

use log::Log;
pub use log::UsageError;

/// How often what was counted is told.
pub(crate) const FLUSH: Duration = Duration::from_secs(1);
/// Numbers that are reserved at once.
const RESERVED: u64 = 1_000;
/// A log of so many bytes is added up also while control can't be told.
const LARGE: u64 = 16 << 20;

/// Who is told.
#[async_trait]
pub(crate) trait Takes: Send + Sync {
    /// Takes a batch, once.
    async fn take(&self, batch: UsageBatch) -> Result<(), Error>;
}

#[async_trait]
impl Takes for Arc<dyn Control> {
    async fn take(&self, batch: UsageBatch) -> Result<(), Error> {
        self.record_usage(batch).await
    }
}

/// Counts on disk.
pub struct Usage {
    dir: PathBuf,
    source: String,
    state: Mutex<State>,
    clock: Clock,
}

struct State {
    log: Log,
    /// Numbers of the batches that control has not yet.
    waiting: Vec<u64>,
    /// Number of the log's batch.
    next: u64,
    /// Numbers up to here may be used: a start after a loss of power begins above.
    reserved: u64,
}

impl Usage {
    /// Opens the directory, and takes up what a process before has left there. Blocks.
    ///
    /// # Errors
    /// When files can't be read or written.
    pub fn open(dir: &Path, clock: Clock, random: &Random) -> Result<Usage, UsageError> {
        std::fs::create_dir_all(dir).map_err(UsageError::at("make the directory", dir))?;
        let source = log::source(dir, random)?;
        let (logs, mut waiting) = log::left(dir)?;
        let newest = logs.iter().chain(&waiting).copied().max().unwrap_or(0).max(log::last(dir)?);
        for number in logs {
            if !waiting.contains(&number) && log::seal(dir, number)? {
                waiting.push(number);
            }
        }
        waiting.sort_unstable();
        let next = newest + 1;
        let reserved = next + RESERVED;
        log::keep_last(dir, reserved)?;
        let log = Log::create(dir, next)?;
        let state = State { log, waiting, next, reserved };
        Ok(Usage { dir: dir.to_owned(), source, state: Mutex::new(state), clock })
    }

    /// Counts. A file that can't be written is told in the log; the call goes on.
    pub(crate) fn add(&self, row: &UsageRow) {
        if row.usage.is_empty() {
            return;
        }
        if let Err(error) = self.state.lock().log.write(row) {
            tracing::error!(%error, tenant = %row.key.tenant, function = %row.key.function, "a call's usage can't be counted");
        }
    }

    /// Has control told from now on.
    pub(crate) fn tell(self: &Arc<Self>, control: Arc<dyn Control>, tasks: &Tasks) {
        let this = Arc::clone(self);
        tasks.spawn_cancellable("tell-usage", async move {
            loop {
                this.clock.sleep(FLUSH).await;
                this.flush(&control).await;
            }
        });
    }

    /// Adds the log up, if there is anything in it, and tells control of every batch that it does not have.
    pub(crate) async fn flush(self: &Arc<Self>, control: &dyn Takes) {
        let this = Arc::clone(self);
        let turned = lyra_kit::tasks::blocking(move || this.turn()).await;
        match turned {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "what calls used can't be added up"),
            Err(_) => return,
        }
        loop {
            let Some(number) = self.state.lock().waiting.first().copied() else { return };
            if !self.send(control, number).await {
                return;
            }
            self.state.lock().waiting.retain(|waiting| *waiting != number);
        }
    }

    async fn send(&self, control: &dyn Takes, number: u64) -> bool {
        let (dir, source) = (self.dir.clone(), self.source.clone());
        let read = lyra_kit::tasks::blocking(move || log::batch(&dir, number)).await;
        let rows = match read {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                tracing::error!(%error, "a batch of usage can't be read");
                return false;
            }
            Err(_) => return false,
        };
        if let Err(error) = control.take(UsageBatch { source, sequence: number, rows }).await {
            tracing::debug!(%error, "control can't be told what calls used; it will be");
            return false;
        }
        let dir = self.dir.clone();
        match lyra_kit::tasks::blocking(move || log::drop_batch(&dir, number)).await {
            Ok(Ok(())) => true,
            // Told again it counts for nothing.
            Ok(Err(error)) => {
                tracing::error!(%error, "a batch of usage that control has can't be deleted");
                false
            }
            Err(_) => false,
        }
    }

    /// Makes a batch of the log and begins a new one: when there is no batch left to tell, or it is large.
    fn turn(&self) -> Result<(), UsageError> {
        let (number, mut reserved) = {
            let state = self.state.lock();
            let bytes = state.log.bytes();
            if bytes == 0 || (!state.waiting.is_empty() && bytes < LARGE) {
                return Ok(());
            }
            (state.next, state.reserved)
        };
        // Not under the lock, which calls take: files are synced here. Only one task turns.
        if number >= reserved {
            reserved = number + RESERVED;
            log::keep_last(&self.dir, reserved)?;
        }
        let fresh = Log::create(&self.dir, number + 1)?;
        {
            let mut state = self.state.lock();
            (state.log, state.next, state.reserved) = (fresh, number + 1, reserved);
        }
        if log::seal(&self.dir, number)? {
            self.state.lock().waiting.push(number);
        }
        Ok(())
    }
}

/// The response, and where the bytes of its body are counted as they go out.
pub(crate) fn counted(response: http::Response<Body>) -> (http::Response<Body>, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let response = response.map(|body| {
        let counted = body.map_frame(move |frame| {
            let bytes = frame.data_ref().map_or(0, bytes::Bytes::len);
            count.fetch_add(bytes as u64, Ordering::Relaxed);
            frame
        });
        counted.boxed_unsync()
    });
    (response, sent)
}

/// Adds rows up by key.
fn add_up(rows: impl Iterator<Item = UsageRow>) -> Vec<UsageRow> {
    let mut sums: BTreeMap<UsageKey, lyra_types::usage::Usage> = BTreeMap::new();
    for row in rows {
        *sums.entry(row.key).or_default() += row.usage;
    }
    sums.into_iter().map(|(key, usage)| UsageRow { key, usage }).collect()
}
