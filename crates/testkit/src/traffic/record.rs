//! What became of calls and jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use lyra_client::{Error, Invocation};
use lyra_types::api::{Resource, WorkerView};

use super::is_right;

/// Faults that are kept in words; more are counted only.
pub(super) const KEPT: usize = 20;

/// Counts, for messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Calls with the right result.
    pub ok: u64,
    /// Calls without one, by code: those of Lyra, and `no_gateway` (none was reached) and `broken` (the connection broke).
    pub failed: BTreeMap<String, u64>,
    /// Jobs that were accepted.
    pub jobs: usize,
    /// Times that a job was not accepted and handed in again, by code.
    pub refused: BTreeMap<String, u64>,
}

/// What became of each call and job.
#[derive(Debug, Default)]
pub struct Record {
    seen: Seen,
    latencies: Vec<Duration>,
    jobs: BTreeMap<u64, String>,
    unaccepted: Vec<u64>,
    failures: Vec<String>,
    violations: Vec<String>,
}

pub(super) fn code(error: &Error) -> String {
    match error {
        Error::Unreachable { .. } => "no_gateway".to_owned(),
        Error::Broken { .. } => "broken".to_owned(),
        error => error.code().to_string(),
    }
}

impl Record {
    /// Counts.
    pub fn seen(&self) -> Seen {
        Seen { jobs: self.jobs.len(), ..self.seen.clone() }
    }

    /// Jobs that were accepted: the event of each, and its id.
    pub fn jobs(&self) -> &BTreeMap<u64, String> {
        &self.jobs
    }

    /// The first failures, in words.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// What may never be: a wrong result, an instance that served two versions, a worker that charged more than it has,
    /// a job that nobody accepted.
    pub fn violations(&self) -> Vec<String> {
        let unaccepted = self.unaccepted.iter().map(|number| format!("job {number} was never accepted"));
        self.violations.iter().cloned().chain(unaccepted).collect()
    }

    /// The latency that this share of the calls with a result stayed under.
    pub fn latency(&mut self, share: f64) -> Duration {
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }

    pub(super) fn answered(&self) -> u64 {
        self.seen.ok + self.seen.failed.values().sum::<u64>()
    }

    fn violated(&mut self, what: String) {
        if self.violations.len() < KEPT {
            self.violations.push(what);
        }
    }

    pub(super) fn called(&mut self, number: u64, took: Duration, outcome: Result<Invocation, Error>) {
        match outcome {
            Ok(answer) if is_right(number, &answer.body, answer.call.version) => {
                self.seen.ok += 1;
                self.latencies.push(took);
            }
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                self.violated(format!("call {number} of version {:?} returned {body}", answer.call.version));
            }
            Err(error) => {
                *self.seen.failed.entry(code(&error)).or_default() += 1;
                if self.failures.len() < KEPT {
                    self.failures.push(format!("call {number} after {took:.1?}: {error}"));
                }
            }
        }
    }

    pub(super) fn no_gateway(&mut self) {
        *self.seen.failed.entry("no_gateway".to_owned()).or_default() += 1;
    }

    pub(super) fn accepted(&mut self, number: u64, id: &str) {
        self.jobs.insert(number, id.to_owned());
    }

    pub(super) fn refused(&mut self, error: &Error) {
        *self.seen.refused.entry(code(error)).or_default() += 1;
    }

    pub(super) fn never_accepted(&mut self, number: u64) {
        self.unaccepted.push(number);
    }

    pub(super) fn sampled<'a>(&mut self, workers: impl Iterator<Item = &'a WorkerView>) {
        for worker in workers {
            for (name, resource) in [("memory", worker.memory), ("cpu", worker.cpu), ("gpu", worker.gpu)] {
                if is_over(resource) {
                    self.violated(format!("{} has charged {resource:?} of {name}", worker.name));
                }
            }
        }
    }
}

fn is_over(resource: Resource) -> bool {
    resource.total.is_some_and(|total| resource.charged > total)
}
