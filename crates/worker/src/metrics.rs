//! The worker's metrics.

use lyra_kit::telemetry::Metrics as Registry;
use lyra_kit::telemetry::prometheus::{Histogram, HistogramVec, IntCounterVec, IntGaugeVec};
use lyra_types::invocation::{Report, Start};
use lyra_types::{Error, FunctionVersion, Runtime};
use lyra_wire::worker::Status;

/// Every metric of the worker.
pub(crate) struct Metrics {
    invocations: IntCounterVec,
    phases: Phases,
    calls: IntGaugeVec,
    instances: IntGaugeVec,
    loads: IntCounterVec,
}

/// The histograms by runtime, start and phase, looked up once.
struct Phases(Vec<[Histogram; 3]>);

const STARTS: [Start; 3] = [Start::Warm, Start::Prewarmed, Start::Cold];

impl Phases {
    fn new(histogram: &HistogramVec) -> Phases {
        let of = |runtime: Runtime, start: Start| {
            ["queue", "start", "exec"]
                .map(|phase| histogram.with_label_values(&[phase, runtime.as_str(), start.as_str()]))
        };
        Phases(Runtime::ALL.into_iter().flat_map(|runtime| STARTS.map(|start| of(runtime, start))).collect())
    }

    fn of(&self, runtime: Runtime, start: Start) -> Option<&[Histogram; 3]> {
        let runtime = Runtime::ALL.into_iter().position(|r| r == runtime)?;
        let start = STARTS.into_iter().position(|s| s == start)?;
        self.0.get(runtime * STARTS.len() + start)
    }
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Metrics {
        let phases = registry.histogram(
            "lyra_invocation_phase_seconds",
            "Time of invocations by phase (queue, start, exec), runtime and start kind.",
            &["phase", "runtime", "start"],
        );
        Metrics {
            invocations: registry.counter(
                "lyra_invocations_total",
                "Invocations by function, outcome (ok, cancelled, or an error code) and start kind.",
                &["tenant", "function", "outcome", "start"],
            ),
            phases: Phases::new(&phases),
            calls: registry.gauge("lyra_worker_calls", "Calls on this worker, by state (running, queued).", &["state"]),
            instances: registry.gauge(
                "lyra_worker_instances",
                "Instances on this worker, by state (busy, idle).",
                &["state"],
            ),
            loads: registry.counter(
                "lyra_worker_code_loads_total",
                "Loads of a version's code into memory.",
                &["runtime"],
            ),
        }
    }

    pub(crate) fn ended(&self, version: &FunctionVersion, report: &Report, error: Option<&Error>) {
        let outcome = error.map_or("ok", |error| error.code.as_str());
        self.count(version, outcome, report.start);
        if let Some(start) = report.start
            && let Some([queue, begin, exec]) = self.phases.of(version.runtime, start)
        {
            queue.observe(report.phases.queue.as_secs_f64());
            begin.observe(report.phases.start.as_secs_f64());
            exec.observe(report.phases.exec.as_secs_f64());
        }
    }

    pub(crate) fn count(&self, version: &FunctionVersion, outcome: &str, start: Option<Start>) {
        let start = start.map_or("none", Start::as_str);
        self.invocations.with_label_values(&[version.tenant.as_str(), version.function.as_str(), outcome, start]).inc();
    }

    pub(crate) fn loaded(&self, runtime: Runtime) {
        self.loads.with_label_values(&[runtime.as_str()]).inc();
    }

    /// Sets the gauges to `status`.
    pub(crate) fn refresh(&self, status: &Status) {
        let set = |gauge: &IntGaugeVec, state: &str, value: usize| {
            gauge.with_label_values(&[state]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.calls, "running", status.running);
        set(&self.calls, "queued", status.queued);
        set(&self.instances, "busy", status.running);
        set(&self.instances, "idle", status.idle_instances);
    }
}
