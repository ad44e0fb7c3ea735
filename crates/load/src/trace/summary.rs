//! What a trace is like, in a few figures.

use serde::Serialize;

use super::Trace;

/// A trace in a few figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Functions.
    pub functions: usize,
    /// Owners.
    pub tenants: usize,
    /// Calls.
    pub invocations: usize,
    /// From the begin to the last call, in seconds.
    pub seconds: f64,
    /// Calls a second, on average.
    pub rate: f64,
    /// Share of the calls that the most popular fifth of the functions gets.
    pub popular_fifth: f64,
    /// Share of the functions that are called once an hour or less.
    pub hourly_or_less: f64,
    /// Time of calls on warm instances, in ms: median.
    pub exec_p50_ms: u32,
    /// The same: 99th percentile.
    pub exec_p99_ms: u32,
    /// Calls that run at once on average, if none ever waits.
    pub busy: f64,
    /// Time to start an instance, in ms: median over functions.
    pub start_p50_ms: f64,
    /// Memory of an instance, in MiB: median over functions.
    pub memory_p50_mb: u32,
    /// Memory of one instance of each function together, in MiB.
    pub memory_all_mb: u64,
}

/// The value that `share` of all are not above (nearest rank). Sorted values; the default of nothing.
pub(crate) fn at_share<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

impl Summary {
    /// Looks through a trace.
    pub fn of(trace: &Trace) -> Summary {
        let seconds = trace.length_ms() as f64 / 1e3;
        let mut counts = vec![0usize; trace.functions.len()];
        for call in &trace.arrivals {
            counts[call.function as usize] += 1;
        }
        counts.sort_unstable();
        let hourly = seconds / 3_600.0;
        let rare = counts.iter().filter(|count| **count as f64 <= hourly).count();
        let popular: usize = counts.iter().rev().take(counts.len().div_ceil(5)).sum();
        let mut execs: Vec<u32> = trace.arrivals.iter().map(|call| call.exec_ms).collect();
        execs.sort_unstable();
        let mut starts: Vec<f64> = trace.functions.iter().map(|function| function.start_ms).collect();
        starts.sort_by(f64::total_cmp);
        let mut memory: Vec<u32> = trace.functions.iter().map(|function| function.memory_mb).collect();
        memory.sort_unstable();
        let tenants: std::collections::BTreeSet<&str> =
            trace.functions.iter().map(|function| function.tenant.as_str()).collect();
        let per = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        Summary {
            functions: trace.functions.len(),
            tenants: tenants.len(),
            invocations: trace.arrivals.len(),
            seconds,
            rate: per(trace.arrivals.len() as f64, seconds),
            popular_fifth: per(popular as f64, trace.arrivals.len() as f64),
            hourly_or_less: per(rare as f64, counts.len() as f64),
            exec_p50_ms: at_share(&execs, 0.5),
            exec_p99_ms: at_share(&execs, 0.99),
            busy: per(execs.iter().map(|exec| f64::from(*exec)).sum::<f64>() / 1e3, seconds),
            start_p50_ms: at_share(&starts, 0.5),
            memory_p50_mb: at_share(&memory, 0.5),
            memory_all_mb: memory.iter().map(|memory| u64::from(*memory)).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arrival, Function};
    use super::*;

    #[test]
    fn a_small_trace_in_figures() {
        let function = |name: &str| Function {
            name: name.to_owned(),
            tenant: "t".to_owned(),
            start_ms: 100.0,
            exec_ms: 10.0,
            memory_mb: 64,
        };
        let arrivals =
            (0..10).map(|n| Arrival { at_ms: n * 1_000, function: u32::from(n == 0), exec_ms: 900 }).collect();
        let summary = Summary::of(&Trace { functions: vec![function("a"), function("b")], arrivals });
        assert_eq!((summary.invocations, summary.tenants, summary.memory_all_mb), (10, 1, 128));
        assert_eq!((summary.popular_fifth, summary.busy, summary.rate), (0.9, 1.0, 10.0 / 9.0));
        assert_eq!(Summary::of(&Trace::default()).exec_p99_ms, 0);
    }
}
