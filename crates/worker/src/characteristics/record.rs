//! What is known of one version: how long it takes to start and to run, how often it is called, what it needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lyra_types::invocation::{Phases, Start};
use lyra_types::{FunctionName, FunctionVersion, Runtime, TenantName};
use lyra_wire::worker::{Characteristics as View, Estimate as EstimateView};
use serde::{Deserialize, Serialize};

use super::estimate::{self, Estimate};
use crate::templates::{Key, key_of};

/// What the next call of a version is expected to take. Measured where it was measured, else the runtime's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// From the decision to run until a new instance is ready.
    pub cold: Duration,
    /// The same, on an instance that was started ahead and has served nothing.
    pub prewarmed: Duration,
    /// The same, on an instance that is there.
    pub warm: Duration,
    /// In the handler.
    pub exec: Duration,
    /// From arrival to answer.
    pub end_to_end: Duration,
    /// Between two arrivals; `None` before the second one.
    pub inter_arrival: Option<Duration>,
    /// Memory of an instance, in bytes; the version's limit until it was measured.
    pub memory: u64,
}

impl Expected {
    /// The start of that kind.
    pub fn start(&self, kind: Start) -> Duration {
        match kind {
            Start::Warm => self.warm,
            Start::Prewarmed => self.prewarmed,
            Start::Cold => self.cold,
        }
    }

    /// What is assumed of a version that was never called. Orders of magnitude: they decide only how the very first
    /// calls of a version are placed among others.
    pub fn of_runtime(runtime: Runtime, memory_mb: u32) -> Expected {
        let us = Duration::from_micros;
        let (cold, warm) = match runtime {
            // The code is read and compiled at the first call; an instance is a copy-on-write view of it.
            Runtime::Js | Runtime::Wasm => (us(2_000), us(20)),
            // A process: forked from one that waits, or started.
            Runtime::Python | Runtime::Native => (us(20_000), us(100)),
            Runtime::Nodejs => (us(40_000), us(100)),
            Runtime::Http => (us(100_000), us(100)),
            Runtime::Simulated => (us(100_000), us(10)),
        };
        let exec = us(10_000);
        Expected {
            cold,
            prewarmed: warm,
            warm,
            exec,
            end_to_end: warm + exec,
            inter_arrival: None,
            memory: u64::from(memory_mb) << 20,
        }
    }
}

/// The record of one version. Written by its calls, without a lock; read by policies in constant time.
#[derive(Debug)]
pub struct Record {
    key: Key,
    tenant: TenantName,
    function: FunctionName,
    runtime: Runtime,
    reuse: bool,
    memory_mb: u32,
    calls: AtomicU64,
    /// In the store's nanoseconds; 0 before the first arrival.
    last_arrival: AtomicU64,
    starts: [Estimate; 3],
    exec: Estimate,
    end_to_end: Estimate,
    inter_arrival: Estimate,
    memory: Estimate,
}

/// A [`Record`] in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    tenant: TenantName,
    function: FunctionName,
    generation: u64,
    version: u64,
    runtime: Runtime,
    reuse: bool,
    memory_mb: u32,
    calls: u64,
    /// Wall-clock milliseconds.
    pub(super) last_arrival: i64,
    warm: Option<estimate::Saved>,
    prewarmed: Option<estimate::Saved>,
    cold: Option<estimate::Saved>,
    exec: Option<estimate::Saved>,
    end_to_end: Option<estimate::Saved>,
    inter_arrival: Option<estimate::Saved>,
    memory: Option<estimate::Saved>,
}

impl Record {
    /// An empty record of a version.
    pub fn new(version: &FunctionVersion) -> Arc<Record> {
        Arc::new(Record {
            key: key_of(version),
            tenant: version.tenant.clone(),
            function: version.function.clone(),
            runtime: version.runtime,
            reuse: version.reuse,
            memory_mb: version.memory_mb,
            calls: AtomicU64::new(0),
            last_arrival: AtomicU64::new(0),
            starts: Default::default(),
            exec: Estimate::default(),
            end_to_end: Estimate::default(),
            inter_arrival: Estimate::default(),
            memory: Estimate::default(),
        })
    }

    /// Generation and number of the version.
    pub fn key(&self) -> (u64, u64) {
        self.key
    }

    /// Whose it is.
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// The function's name.
    pub fn function(&self) -> &FunctionName {
        &self.function
    }

    /// Whether instances of the version are kept between calls.
    pub fn reuse(&self) -> bool {
        self.reuse
    }

    /// What its next call is expected to take.
    pub fn expected(&self) -> Expected {
        let default = Expected::of_runtime(self.runtime, self.memory_mb);
        let or = |estimate: &Estimate, default: Duration| estimate.average().map_or(default, Duration::from_nanos);
        let [warm, prewarmed, cold] = &self.starts;
        let (warm, exec) = (or(warm, default.warm), or(&self.exec, default.exec));
        Expected {
            cold: or(cold, default.cold),
            prewarmed: or(prewarmed, default.prewarmed),
            warm,
            exec,
            end_to_end: or(&self.end_to_end, warm + exec),
            inter_arrival: self.inter_arrival.average().map(Duration::from_nanos),
            memory: self.memory.average().unwrap_or(default.memory),
        }
    }

    /// Its measured time in the handler; `None` when it never ended a call.
    pub fn measured_exec(&self) -> Option<Duration> {
        self.exec.average().map(Duration::from_nanos)
    }

    /// Notes that a call has come, at `now` in the store's nanoseconds.
    pub(crate) fn arrived(&self, now: u64) {
        let before = self.last_arrival.swap(now, Ordering::Relaxed);
        if before != 0 {
            self.inter_arrival.add(now.saturating_sub(before));
        }
    }

    /// Notes how long it took to get an instance, and how long the call ran, where it ran to an end of its own.
    pub(crate) fn ended(&self, start: Start, phases: &Phases, ran: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.starts[slot(start)].add(nanos(phases.start));
        if ran {
            self.exec.add(nanos(phases.exec));
            self.end_to_end.add(nanos(phases.queue + phases.start + phases.exec));
        }
    }

    /// Notes what an instance was seen to need, in bytes.
    pub fn needed(&self, memory: u64) {
        self.memory.add(memory);
    }

    pub(super) fn last_arrival(&self) -> u64 {
        self.last_arrival.load(Ordering::Relaxed)
    }

    pub(super) fn save(&self, last_arrival: i64) -> Saved {
        let [warm, prewarmed, cold] = &self.starts;
        Saved {
            tenant: self.tenant.clone(),
            function: self.function.clone(),
            generation: self.key.0,
            version: self.key.1,
            runtime: self.runtime,
            reuse: self.reuse,
            memory_mb: self.memory_mb,
            calls: self.calls.load(Ordering::Relaxed),
            last_arrival,
            warm: warm.save(),
            prewarmed: prewarmed.save(),
            cold: cold.save(),
            exec: self.exec.save(),
            end_to_end: self.end_to_end.save(),
            inter_arrival: self.inter_arrival.save(),
            memory: self.memory.save(),
        }
    }

    pub(super) fn restore(saved: Saved, last_arrival: u64) -> Arc<Record> {
        let restore = |saved: &Option<estimate::Saved>| Estimate::restore(saved.as_ref());
        Arc::new(Record {
            key: (saved.generation, saved.version),
            starts: [restore(&saved.warm), restore(&saved.prewarmed), restore(&saved.cold)],
            exec: restore(&saved.exec),
            end_to_end: restore(&saved.end_to_end),
            inter_arrival: restore(&saved.inter_arrival),
            memory: restore(&saved.memory),
            tenant: saved.tenant,
            function: saved.function,
            runtime: saved.runtime,
            reuse: saved.reuse,
            memory_mb: saved.memory_mb,
            calls: AtomicU64::new(saved.calls),
            last_arrival: AtomicU64::new(last_arrival),
        })
    }

    /// For the worker's status.
    pub(super) fn view(&self) -> View {
        let times = |estimate: &Estimate| {
            estimate.summary().map(|summary| EstimateView {
                samples: summary.samples,
                average: Duration::from_nanos(summary.average),
                recent_median: Duration::from_nanos(summary.median),
                recent_max: Duration::from_nanos(summary.greatest),
            })
        };
        let [warm, prewarmed, cold] = &self.starts;
        View {
            tenant: self.tenant.clone(),
            function: self.function.clone(),
            generation: self.key.0,
            version: self.key.1,
            calls: self.calls.load(Ordering::Relaxed),
            cold: times(cold),
            prewarmed: times(prewarmed),
            warm: times(warm),
            exec: times(&self.exec),
            end_to_end: times(&self.end_to_end),
            inter_arrival: times(&self.inter_arrival),
            memory: self.memory.average(),
        }
    }
}

const fn slot(start: Start) -> usize {
    match start {
        Start::Warm => 0,
        Start::Prewarmed => 1,
        Start::Cold => 2,
    }
}

/// Saturates after 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
