//! Metrics of a fleet: what became of the calls that went to each worker, and which workers are known.

use std::sync::Arc;

use lyra_kit::telemetry::Metrics as Registry;
use lyra_kit::telemetry::prometheus::{IntCounter, IntCounterVec, IntGaugeVec};
use lyra_types::{Code, Error};
use lyra_wire::registry::MemberState;

/// All metrics of a fleet.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    calls: IntCounterVec,
    retries: IntCounterVec,
    workers: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Metrics {
        Metrics {
            calls: registry.counter(
                "lyra_fleet_calls_total",
                "Calls that were sent to a worker, by outcome: ok, failed, refused, lost",
                &["worker", "outcome"],
            ),
            retries: registry.counter(
                "lyra_fleet_retries_total",
                "Calls that a worker did not take and that were tried on another",
                &["worker"],
            ),
            workers: registry.gauge("lyra_fleet_workers", "Workers that are known, by state", &["state"]),
        }
    }

    /// Handles for one worker.
    pub(crate) fn of(&self, worker: &str) -> OfWorker {
        let calls = |outcome: Outcome| self.calls.with_label_values(&[worker, outcome.as_str()]);
        OfWorker { calls: Outcome::ALL.map(calls), retries: self.retries.with_label_values(&[worker]) }
    }

    /// Forgets a worker that is gone.
    pub(crate) fn forget(&self, worker: &str) {
        for outcome in Outcome::ALL {
            drop(self.calls.remove_label_values(&[worker, outcome.as_str()]));
        }
        drop(self.retries.remove_label_values(&[worker]));
    }

    /// Sets how many workers there are in each state.
    pub(crate) fn set_workers(&self, states: impl Iterator<Item = MemberState>) {
        let mut counts = [0; MemberState::ALL.len()];
        for state in states {
            counts[state as usize] += 1;
        }
        for state in MemberState::ALL {
            self.workers.with_label_values(&[state.as_str()]).set(counts[state as usize]);
        }
    }
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has a result.
    Ok,
    /// It has ended with an error.
    Failed,
    /// It was not taken, so it has not run.
    Refused,
    /// The worker was lost while it had it.
    Lost,
}

impl Outcome {
    const ALL: [Outcome; 4] = [Outcome::Ok, Outcome::Failed, Outcome::Refused, Outcome::Lost];

    const fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Failed => "failed",
            Outcome::Refused => "refused",
            Outcome::Lost => "lost",
        }
    }

    /// That of an answer; `begun` where the call has run.
    pub(crate) fn of<T>(outcome: &Result<T, Error>, begun: bool) -> Outcome {
        match outcome {
            Ok(_) => Outcome::Ok,
            Err(error) if error.code == Code::WorkerLost => Outcome::Lost,
            Err(error) if !begun && matches!(error.code, Code::Unavailable | Code::Overloaded) => Outcome::Refused,
            Err(_) => Outcome::Failed,
        }
    }
}

/// Handles for one worker.
#[derive(Debug)]
pub(crate) struct OfWorker {
    calls: [IntCounter; 4],
    retries: IntCounter,
}

impl OfWorker {
    /// Counts a call.
    pub(crate) fn called(&self, outcome: Outcome) {
        self.calls[outcome as usize].inc();
    }

    /// Counts a call that is tried elsewhere.
    pub(crate) fn retried(&self) {
        self.retries.inc();
    }
}

/// Handles for workers, once somebody measures.
#[derive(Debug, Default)]
pub(crate) struct Measured(std::sync::OnceLock<Arc<Metrics>>);

impl Measured {
    /// Begins to count.
    pub(crate) fn begin(&self, metrics: Metrics) {
        drop(self.0.set(Arc::new(metrics)));
    }

    /// The metrics, if somebody measures.
    pub(crate) fn get(&self) -> Option<&Metrics> {
        self.0.get().map(|metrics| &**metrics)
    }
}
