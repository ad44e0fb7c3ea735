//! The figures of a simulation, and how they are shown.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::trace::summary::at_share;

/// A distribution in a few figures.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Distribution {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 75th percentile.
    pub p75: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Distribution {
    /// Of these values.
    pub(crate) fn of(mut values: Vec<f32>) -> Distribution {
        values.sort_unstable_by(f32::total_cmp);
        let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
        let at = |share| f64::from(at_share(&values, share));
        let mean = if values.is_empty() { 0.0 } else { sum / values.len() as f64 };
        Distribution { mean, p50: at(0.5), p75: at(0.75), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

/// What a simulation showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The policies.
    pub policy: String,
    /// Memory for instances, in MiB.
    pub memory_mb: u64,
    /// Calls that may run at once.
    pub max_running: usize,
    /// The seed.
    pub seed: u64,
    /// Calls.
    pub invocations: u64,
    /// Those without a result.
    pub failed: u64,
    /// How many of them by error code.
    pub errors: BTreeMap<String, u64>,
    /// Calls that waited for an instance to start.
    pub cold_starts: u64,
    /// Their share of the calls with a result.
    pub cold_share: f64,
    /// The share of each function's calls that were cold starts, over the functions: what the owner of a function that is
    /// called rarely sees, whose calls count for nothing in `cold_share`.
    pub function_cold_share: Distribution,
    /// Calls that were the first of an instance that was started ahead.
    pub prewarmed_starts: u64,
    /// How long calls waited for instances to start, all together, in seconds.
    pub cold_start_seconds: f64,
    /// Instances that were started, for a call or ahead of one.
    pub instances_started: u64,
    /// From when a call was due to its result, in ms.
    pub latency_ms: Distribution,
    /// In the queue, in ms.
    pub queue_ms: Distribution,
    /// Latency over the time that the call takes on a warm instance of an idle worker.
    pub slowdown: Distribution,
    /// Most memory held at one time, in MiB.
    pub peak_memory_mb: u64,
    /// Memory held on average, in MiB.
    pub mean_memory_mb: f64,
    /// Memory × time, in GiB · hours.
    pub memory_gb_hours: f64,
    /// Length of the simulated time, in seconds.
    pub seconds: f64,
    /// SHA-256 over how each call went, in the order in which they ended: the same for the same trace, policy, machine
    /// and seed.
    pub digest: String,
}

/// The reports as a table for people: the header, then a row for each.
pub fn table(reports: &[Report]) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let header = vec![
        "policy", "mem GiB", "cold", "cold %", "cold s", "p50 ms", "p99 ms", "mean ms", "slowdown", "GiB h", "failed",
    ];
    let rows = reports.iter().map(|report| {
        vec![
            report.policy.clone(),
            format!("{:.1}", report.memory_mb as f64 / 1_024.0),
            report.cold_starts.to_string(),
            format!("{:.2}", report.cold_share * 100.0),
            format!("{:.0}", report.cold_start_seconds),
            format!("{:.0}", report.latency_ms.p50),
            format!("{:.0}", report.latency_ms.p99),
            format!("{:.0}", report.latency_ms.mean),
            format!("{:.2}", report.slowdown.mean),
            format!("{:.0}", report.memory_gb_hours),
            report.failed.to_string(),
        ]
    });
    (header, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_by_nearest_rank() {
        let of = Distribution::of((1..=100u8).rev().map(f32::from).collect());
        assert_eq!((of.mean, of.p50, of.p99, of.max), (50.5, 50.0, 99.0, 100.0));
        assert_eq!(Distribution::of(Vec::new()), Distribution::default());
    }
}
