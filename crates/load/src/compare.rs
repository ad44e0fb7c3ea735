//! Runs a trace under many policies and on many machines, as many at once as there are processors.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::simulation::{Machine, simulate};
use crate::{Error, Policy, Report, Trace};

/// One simulation of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The policies.
    pub policy: Policy,
    /// The machine.
    pub machine: Machine,
}

/// Runs them all; the reports come in the same order. `done` is told of each that has ended.
///
/// # Errors
/// The first error of any.
pub fn compare(trace: &Trace, runs: &[Run], done: impl Fn(&Report) + Sync) -> Result<Vec<Report>, Error> {
    let next = AtomicUsize::new(0);
    let reports: Mutex<Vec<Option<Result<Report, Error>>>> = Mutex::new(runs.iter().map(|_| None).collect());
    let at_once = std::thread::available_parallelism().map_or(1, usize::from).min(runs.len());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((index, run)) = take(&next, runs) {
                    let report = simulate(trace, &run.machine, &run.policy);
                    if let Ok(report) = &report {
                        done(report);
                    }
                    reports.lock()[index] = Some(report);
                }
            });
        }
    });
    reports.into_inner().into_iter().flatten().collect()
}

fn take<'a>(next: &AtomicUsize, runs: &'a [Run]) -> Option<(usize, &'a Run)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, runs.get(index)?))
}
