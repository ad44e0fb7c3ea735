//! What came out of a simulation: by call while it runs, in figures when it has ended.

mod figures;

use std::collections::BTreeMap;
use std::time::Duration;

use lyra_isolation::simulated::Figures as Held;
use lyra_types::invocation::Start;
use lyra_wire::worker::Reply;
use sha2::{Digest, Sha256};

pub use figures::{Distribution, Report, table};

use crate::simulation::{Machine, Policy};
use crate::trace::Arrival;

/// What is kept of each call until the end.
#[derive(Default)]
pub(crate) struct Records {
    latencies: Vec<f32>,
    queued: Vec<f32>,
    slowdowns: Vec<f32>,
    /// By function: calls with a result, and cold starts.
    functions: Vec<(u32, u32)>,
    cold: u64,
    prewarmed: u64,
    cold_wait: Duration,
    errors: BTreeMap<&'static str, u64>,
    digest: Sha256,
}

#[expect(clippy::cast_possible_truncation, reason = "seven digits of a latency are enough")]
fn ms(duration: Duration) -> f32 {
    (duration.as_secs_f64() * 1e3) as f32
}

impl Records {
    pub(crate) fn new(functions: usize, calls: usize) -> Records {
        let room = || Vec::with_capacity(calls);
        let functions = vec![(0, 0); functions];
        Records { latencies: room(), queued: room(), slowdowns: room(), functions, ..Records::default() }
    }

    /// Takes a call that has ended, in the order in which they end. `latency` counts from when it was due.
    pub(crate) fn add(&mut self, arrival: &Arrival, reply: &Reply, latency: Duration) {
        let report = &reply.report;
        let start = report.start.map_or("none", Start::as_str);
        self.digest.update(arrival.at_ms.to_le_bytes());
        self.digest.update(arrival.function.to_le_bytes());
        self.digest.update(latency.as_micros().to_le_bytes());
        self.digest.update(start);
        if let Err(error) = &reply.outcome {
            *self.errors.entry(error.code.as_str()).or_default() += 1;
            self.digest.update(error.code.as_str());
            return;
        }
        let of_function = &mut self.functions[arrival.function as usize];
        of_function.0 += 1;
        match report.start {
            Some(Start::Cold) => {
                of_function.1 += 1;
                self.cold += 1;
                self.cold_wait += report.phases.start;
            }
            Some(Start::Prewarmed) => self.prewarmed += 1,
            Some(Start::Warm) | None => {}
        }
        self.latencies.push(ms(latency));
        self.queued.push(ms(report.phases.queue));
        self.slowdowns.push(ms(latency) / arrival.exec_ms.max(1) as f32);
    }

    pub(crate) fn report(self, policy: &Policy, machine: &Machine, length: Duration, held: Held) -> Report {
        let failed: u64 = self.errors.values().sum();
        let done = self.latencies.len() as u64;
        let called = self.functions.iter().filter(|(calls, _)| *calls > 0);
        let function_cold_share = Distribution::of(called.map(|(calls, cold)| *cold as f32 / *calls as f32).collect());
        Report {
            policy: policy.to_string(),
            memory_mb: machine.memory_mb,
            max_running: machine.max_running,
            seed: machine.seed,
            invocations: done + failed,
            failed,
            errors: self.errors.into_iter().map(|(code, count)| (code.to_owned(), count)).collect(),
            cold_starts: self.cold,
            cold_share: if done == 0 { 0.0 } else { self.cold as f64 / done as f64 },
            function_cold_share,
            prewarmed_starts: self.prewarmed,
            cold_start_seconds: self.cold_wait.as_secs_f64(),
            instances_started: held.starts,
            latency_ms: Distribution::of(self.latencies),
            queue_ms: Distribution::of(self.queued),
            slowdown: Distribution::of(self.slowdowns),
            peak_memory_mb: held.peak_memory_mb,
            mean_memory_mb: held.memory_ms as f64 / (length.as_secs_f64() * 1e3).max(1.0),
            memory_gb_hours: held.memory_ms as f64 / 1_024.0 / 3_600_000.0,
            seconds: length.as_secs_f64(),
            digest: hex::encode(self.digest.finalize()),
        }
    }
}
