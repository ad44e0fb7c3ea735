//! What is known of each version from its calls so far: times, rate, memory.
//!
//! Queue and keep-alive policies decide by it. Notes are taken without a lock, reads take constant time. The number of
//! versions is bounded (those called longest ago go first), and the whole is saved to a file from time to time, so that a
//! restarted worker decides as the one before did; a crash loses what was noted since the last save. A file that can't be
//! read is reported and left for the next save to replace: estimates are worth having, not worth failing for.

mod estimate;
mod file;
mod record;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lyra_kit::Clock;
use lyra_types::{FunctionVersion, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use record::{Expected, Record};

use crate::templates::{Key, key_of};

/// Settings of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it is saved; nowhere by default (a node sets `worker/characteristics` in its data directory).
    pub file: Option<PathBuf>,
    /// How often it is saved, when something has changed; 30 s by default. As much is lost by a crash.
    #[serde(with = "humantime_serde")]
    pub save_every: Duration,
    /// Versions that are kept; 4,096 by default, about 1.2 KB each.
    pub max_versions: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config { file: None, save_every: Duration::from_secs(30), max_versions: 4_096 }
    }
}

/// The store's time starts here, so that arrivals from before it was opened have a time too (in ns, about 3 years).
const OPENED: u64 = 100_000_000_000_000_000;

/// The store.
pub struct Characteristics {
    config: Config,
    clock: Clock,
    opened: Instant,
    versions: papaya::HashMap<Key, Arc<Record>>,
    /// Something was noted since the last save.
    changed: AtomicBool,
    evicting: AtomicBool,
    /// Held while the file is written: the last to write has the newest.
    saving: Mutex<()>,
}

impl Characteristics {
    /// Opens the store, with what its file holds. Reads the file at once: for the start of a worker.
    pub fn open(config: Config, clock: Clock) -> Characteristics {
        let store = Characteristics {
            opened: clock.instant(),
            clock,
            versions: papaya::HashMap::new(),
            changed: AtomicBool::new(false),
            evicting: AtomicBool::new(false),
            saving: Mutex::new(()),
            config,
        };
        if let Some(path) = &store.config.file {
            match file::read(path) {
                Ok(saved) => store.restore(saved),
                Err(error) => tracing::warn!(%error, path = %path.display(), "starting without estimates"),
            }
        }
        store
    }

    fn restore(&self, mut saved: Vec<record::Saved>) {
        saved.sort_by_key(|saved| std::cmp::Reverse(saved.last_arrival));
        saved.truncate(self.config.max_versions);
        let (versions, now) = (self.versions.pin(), self.clock.now());
        for saved in saved {
            let ago = record::nanos(now.since(Timestamp::from_millis(saved.last_arrival)));
            let record = Record::restore(saved, OPENED.saturating_sub(ago).max(1));
            versions.insert(record.key(), record);
        }
        tracing::info!(versions = self.versions.len(), "estimates of earlier calls were read");
    }

    /// The version's record, made if there is none.
    pub fn of(&self, version: &FunctionVersion) -> Arc<Record> {
        let versions = self.versions.pin();
        let key = key_of(version);
        if let Some(record) = versions.get(&key) {
            return record.clone();
        }
        let record = versions.get_or_insert_with(key, || Record::new(version)).clone();
        if versions.len() > self.config.max_versions {
            self.evict();
        }
        record
    }

    /// Notes an arrival at `now`, and gives the version's record out.
    pub(crate) fn arrived(&self, version: &FunctionVersion, now: Instant) -> Arc<Record> {
        let record = self.of(version);
        record.arrived(self.nanos(now));
        // Reading first keeps the cache line shared while calls come on every core.
        if !self.changed.load(Ordering::Relaxed) {
            self.changed.store(true, Ordering::Relaxed);
        }
        record
    }

    /// What the version's next call is expected to take.
    pub fn expected(&self, version: &FunctionVersion) -> Expected {
        self.get(key_of(version))
            .map_or_else(|| Expected::of_runtime(version.runtime, version.memory_mb), |record| record.expected())
    }

    /// The record of a version by generation and number, where there is one.
    pub fn get(&self, version: (u64, u64)) -> Option<Arc<Record>> {
        self.versions.pin().get(&version).cloned()
    }

    /// Drops what is known of a function, or of one of its versions.
    pub fn forget(&self, generation: u64, version: Option<u64>) {
        self.versions.pin().retain(|key, _| key.0 != generation || version.is_some_and(|v| v != key.1));
        self.changed.store(true, Ordering::Relaxed);
    }

    /// All that is known, by tenant, function and version.
    pub fn view(&self) -> Vec<lyra_wire::worker::Characteristics> {
        let mut all: Vec<_> = self.versions.pin().values().map(|record| record.view()).collect();
        all.sort_by(|a, b| {
            let key = |view: &lyra_wire::worker::Characteristics| (view.generation, view.version);
            (&a.tenant, &a.function).cmp(&(&b.tenant, &b.function)).then_with(|| key(a).cmp(&key(b)))
        });
        all
    }

    /// How often [`Characteristics::save`] is due; `None` where there is no file.
    pub(crate) fn save_every(&self) -> Option<Duration> {
        self.config.file.as_ref().map(|_| self.config.save_every.max(Duration::from_millis(100)))
    }

    /// Writes the file when something was noted since the last time. Blocks for the disk. A failure is reported, and
    /// tried again the next time.
    pub(crate) fn save(&self) {
        let Some(path) = &self.config.file else { return };
        let _writing = self.saving.lock();
        if !self.changed.swap(false, Ordering::Relaxed) {
            return;
        }
        let now = (self.clock.now(), self.nanos(self.clock.instant()));
        let mut saved: Vec<_> = self
            .versions
            .pin()
            .values()
            .map(|record| {
                let ago = now.1.saturating_sub(record.last_arrival());
                record.save((now.0 - Duration::from_nanos(ago)).millis())
            })
            .collect();
        saved.sort_by_key(|saved| std::cmp::Reverse(saved.last_arrival));
        if let Err(error) = file::write(path, &saved) {
            self.changed.store(true, Ordering::Relaxed);
            tracing::error!(%error, path = %path.display(), "estimates can't be saved");
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        OPENED.saturating_add(record::nanos(at.saturating_duration_since(self.opened)))
    }

    /// Drops an eighth of the versions, those called longest ago, so that it is seldom done.
    fn evict(&self) {
        if self.evicting.swap(true, Ordering::AcqRel) {
            return;
        }
        let versions = self.versions.pin();
        let mut by_age: Vec<(u64, Key)> = versions.iter().map(|(key, record)| (record.last_arrival(), *key)).collect();
        let keep = self.config.max_versions - self.config.max_versions / 8;
        let drop = by_age.len().saturating_sub(keep);
        // The one that is being added has no arrival yet, and is the last to go.
        by_age.sort_unstable_by_key(|(last, key)| (if *last == 0 { u64::MAX } else { *last }, *key));
        for (_, key) in by_age.into_iter().take(drop) {
            versions.remove(&key);
        }
        self.evicting.store(false, Ordering::Release);
    }
}
