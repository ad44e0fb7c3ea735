//! The worker's metrics.

use lyra_kit::telemetry::Metrics as Registry;
use lyra_kit::telemetry::prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use lyra_types::invocation::{Report, Start};
use lyra_types::{Error, FunctionVersion, Runtime};
use lyra_wire::worker::{BackendStatus, InstanceState, Status};

use crate::pool::Reason;
use crate::queue::{Permit, Refused};

/// Every metric of the worker.
pub(crate) struct Metrics {
    invocations: IntCounterVec,
    phases: Phases,
    calls: IntGaugeVec,
    instances: IntGaugeVec,
    loads: IntCounterVec,
    waits: Waits,
    refused: IntCounterVec,
    queue: IntGaugeVec,
    cold: IntCounterVec,
    states: IntGaugeVec,
    memory: IntGaugeVec,
    cpu: IntGaugeVec,
    gpus: IntGaugeVec,
    backends: Backends,
}

/// What back ends have and keep ahead of calls.
struct Backends {
    available: IntGaugeVec,
    waiting: IntGaugeVec,
    waiting_memory: IntGaugeVec,
    reserved: IntGaugeVec,
}

/// What happens to calls that find no place at once.
struct Waits {
    held: Histogram,
    eligible: Histogram,
    aged: IntCounter,
    bypassed: IntCounter,
    limit: IntGauge,
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

impl Waits {
    fn new(registry: &Registry) -> Waits {
        let waits = registry.histogram(
            "lyra_worker_queue_wait_seconds",
            "Time that calls waited, of those that did, by what for (held: their function's limit, eligible: the worker's).",
            &["state"],
        );
        let count = |name: &str, help: &str| registry.counter(name, help, &[]).with_label_values(&[] as &[&str]);
        Waits {
            held: waits.with_label_values(&["held"]),
            eligible: waits.with_label_values(&["eligible"]),
            aged: count("lyra_worker_aged_total", "Calls let in for their age, past what the queue's policy says."),
            bypassed: count("lyra_worker_bypassed_total", "Calls let past the worker's limit, being short."),
            limit: registry
                .gauge("lyra_worker_concurrency_limit", "Calls that the worker lets run at once now.", &[])
                .with_label_values(&[] as &[&str]),
        }
    }
}

impl Backends {
    fn new(registry: &Registry) -> Backends {
        Backends {
            available: registry.gauge(
                "lyra_worker_backend_available",
                "Whether an isolation back end can be used on this machine.",
                &["backend"],
            ),
            waiting: registry.gauge(
                "lyra_worker_waiting_interpreters",
                "Interpreters started ahead of calls that belong to no instance (cells, zygotes).",
                &["backend", "kind"],
            ),
            waiting_memory: registry.gauge(
                "lyra_worker_waiting_interpreters_bytes",
                "Memory that they hold.",
                &["backend", "kind"],
            ),
            reserved: registry.gauge(
                "lyra_worker_reserved_bytes",
                "Memory that is set aside for them and that instances are never charged for.",
                &["backend"],
            ),
        }
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
            waits: Waits::new(registry),
            refused: registry.counter(
                "lyra_worker_refused_total",
                "Calls that got no place, by reason (function_full, worker_full, closed, waited_too_long).",
                &["reason"],
            ),
            queue: registry.gauge(
                "lyra_worker_queue_calls",
                "Calls that wait, by what for (held: their function's limit, eligible: the worker's).",
                &["state"],
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
            backends: Backends::new(registry),
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

    /// A call has got its place.
    pub(crate) fn admitted(&self, permit: &Permit) {
        if permit.bypasses() {
            self.waits.bypassed.inc();
        }
        let Some(waited) = permit.waited() else { return };
        if !waited.held.is_zero() {
            self.waits.held.observe(waited.held.as_secs_f64());
        }
        self.waits.eligible.observe(waited.eligible.as_secs_f64());
        if waited.aged {
            self.waits.aged.inc();
        }
    }

    /// A call got no place; `None`: not in time.
    pub(crate) fn refused(&self, refused: Option<Refused>) {
        let reason = match refused {
            Some(Refused::FunctionFull) => "function_full",
            Some(Refused::WorkerFull) => "worker_full",
            Some(Refused::Closed) => "closed",
            None => "waited_too_long",
        };
        self.refused.with_label_values(&[reason]).inc();
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
        set(&self.queue, "held", status.held);
        set(&self.queue, "eligible", status.eligible);
        self.waits.limit.set(i64::try_from(status.concurrency_limit).unwrap_or(i64::MAX));
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

impl Metrics {
    /// Sets the gauges of the back ends.
    pub(crate) fn refresh_backends(&self, backends: &[BackendStatus]) {
        let gauges = &self.backends;
        let set = |gauge: &IntGaugeVec, labels: &[&str], value: u64| {
            gauge.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        for backend in backends {
            let name = backend.name.as_str();
            set(&gauges.available, &[name], u64::from(backend.unavailable.is_none()));
            set(&gauges.reserved, &[name], backend.reserved);
            for waiting in &backend.waiting {
                let labels = [name, waiting.kind.as_str()];
                set(&gauges.waiting, &labels, waiting.count as u64);
                set(&gauges.waiting_memory, &labels, waiting.memory);
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
