//! The worker's metrics.

use lyra_kit::telemetry::Metrics as Registry;
use lyra_kit::telemetry::prometheus::{Histogram, HistogramVec, IntCounterVec, IntGaugeVec};
use lyra_types::invocation::{Report, Start};
use lyra_types::{Error, FunctionVersion, Runtime};
use lyra_wire::worker::{InstanceState, Status};

use crate::pool::Reason;

/// Every metric of the worker.
pub(crate) struct Metrics {
    invocations: IntCounterVec,
    phases: Phases,
    calls: IntGaugeVec,
    instances: IntGaugeVec,
    loads: IntCounterVec,
    cold: IntCounterVec,
    states: IntGaugeVec,
    memory: IntGaugeVec,
    cpu: IntGaugeVec,
    gpus: IntGaugeVec,
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
            calls: registry.gauge(
                "lyra_worker_calls",
                "Calls on this worker, by state (running, queued; waiting: of those that run, for resources).",
                &["state"],
            ),
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
            cold: registry.counter(
                "lyra_worker_cold_starts_total",
                "Calls for which code had to be loaded or an instance that is kept had to be started.",
                &["runtime"],
            ),
            states: registry.gauge(
                "lyra_worker_instance_states",
                "Instances that are charged for, by state of their life.",
                &["state"],
            ),
            memory: registry.gauge(
                "lyra_worker_memory_bytes",
                "Memory of instances (total, charged, waiting).",
                &["kind"],
            ),
            cpu: registry.gauge(
                "lyra_worker_cpu_millis",
                "Processor time of instances, in thousandths of a core (total, charged, waiting).",
                &["kind"],
            ),
            gpus: registry.gauge("lyra_worker_gpu_slots", "Slots of GPUs (total, charged, waiting).", &["kind"]),
        }
    }

    pub(crate) fn ended(&self, version: &FunctionVersion, report: &Report, error: Option<&Error>) {
        let outcome = error.map_or("ok", |error| error.code.as_str());
        self.count(version, outcome, report.start);
        if let Some(start) = report.start
            && let Some([queue, begin, exec]) = self.phases.of(version.runtime, start)
        {
            if start == Start::Cold {
                self.cold.with_label_values(&[version.runtime.as_str()]).inc();
            }
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
        let holdings = &status.holdings;
        set(&self.calls, "waiting", holdings.waiting);
        for state in InstanceState::ALL.into_iter().filter(|state| *state != InstanceState::Terminated) {
            set(&self.states, state.as_str(), holdings.instances.of(state));
        }
        let resources = [(&self.memory, &holdings.memory), (&self.cpu, &holdings.cpu), (&self.gpus, &holdings.gpu)];
        for (gauge, resource) in resources {
            let set = |kind: &str, value: u64| {
                gauge.with_label_values(&[kind]).set(i64::try_from(value).unwrap_or(i64::MAX));
            };
            set("charged", resource.charged);
            set("waiting", resource.waiting);
            // What is not limited has no total.
            if let Some(total) = resource.total {
                set("total", total);
            }
        }
    }
}

/// What the pool counts.
#[derive(Debug, Clone)]
pub(crate) struct PoolMetrics {
    ended: IntCounterVec,
    prewarms: IntCounterVec,
    hibernations: IntCounterVec,
    probes: IntCounterVec,
}

impl PoolMetrics {
    pub(crate) fn new(registry: &Registry) -> PoolMetrics {
        PoolMetrics {
            ended: registry.counter(
                "lyra_worker_instances_ended_total",
                "Kept instances that were ended, by keep-alive policy and reason.",
                &["policy", "reason"],
            ),
            prewarms: registry.counter(
                "lyra_worker_prewarms_total",
                "Instances started ahead of a call, by what asked for them (request, minimum, schedule, predicted).",
                &["reason"],
            ),
            hibernations: registry.counter(
                "lyra_worker_hibernations_total",
                "Hibernations of idle instances, by result (hibernated, woken, lost).",
                &["result"],
            ),
            probes: registry.counter(
                "lyra_worker_failed_probes_total",
                "Idle instances that failed their probe or did not answer it.",
                &["runtime"],
            ),
        }
    }

    pub(crate) fn ended(&self, policy: &str, reason: Reason) {
        self.ended.with_label_values(&[policy, reason.as_str()]).inc();
    }

    pub(crate) fn prewarmed(&self, why: &str) {
        self.prewarms.with_label_values(&[why]).inc();
    }

    pub(crate) fn hibernated(&self, result: &str) {
        self.hibernations.with_label_values(&[result]).inc();
    }

    pub(crate) fn failed_probe(&self, policy: &str, runtime: Runtime) {
        self.ended(policy, Reason::Probe);
        self.probes.with_label_values(&[runtime.as_str()]).inc();
    }
}
