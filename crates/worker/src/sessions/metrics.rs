//! Metrics of sessions.

use std::time::Duration;

use lyra_kit::telemetry::Metrics as Registry;
use lyra_kit::telemetry::prometheus::{Histogram, IntCounterVec, IntGaugeVec};
use lyra_wire::worker::InstanceState;

/// What sessions count.
pub(crate) struct SessionMetrics {
    opens: IntCounterVec,
    ends: IntCounterVec,
    starts: IntCounterVec,
    instance: Histogram,
    program: Histogram,
    endpoint: Histogram,
    instances: IntGaugeVec,
    sessions: IntGaugeVec,
}

impl SessionMetrics {
    pub(crate) fn new(registry: &Registry) -> SessionMetrics {
        let latency = registry.histogram(
            "lyra_session_open_seconds",
            "Time to open a session, by phase: until its instance is ready (instance), until its ports are open (endpoint), until its program says that it is open (program).",
            &["phase"],
        );
        SessionMetrics {
            opens: registry.counter(
                "lyra_session_opens_total",
                "Sessions that this worker was to open, by outcome (Open, or why they ended before).",
                &["outcome"],
            ),
            ends: registry.counter("lyra_session_ends_total", "Sessions that ended, by reason.", &["reason"]),
            starts: registry.counter(
                "lyra_session_instance_starts_total",
                "Starts of instances of applications, by result (ready, failed).",
                &["result"],
            ),
            instance: latency.with_label_values(&["instance"]),
            program: latency.with_label_values(&["program"]),
            endpoint: latency.with_label_values(&["endpoint"]),
            instances: registry.gauge(
                "lyra_session_instances",
                "Instances of applications, by state of their life.",
                &["state"],
            ),
            sessions: registry.gauge(
                "lyra_session_sessions",
                "Sessions, by state (starting, available, in_use, closing).",
                &["state"],
            ),
        }
    }

    pub(super) fn opened(&self, outcome: &str) {
        self.opens.with_label_values(&[outcome]).inc();
    }

    pub(super) fn ended(&self, reason: &str) {
        self.ends.with_label_values(&[reason]).inc();
    }

    pub(super) fn started(&self, is_ready: bool) {
        self.starts.with_label_values(&[if is_ready { "ready" } else { "failed" }]).inc();
    }

    pub(super) fn took(&self, instance: Duration, endpoint: Duration, program: Duration) {
        self.instance.observe(instance.as_secs_f64());
        self.endpoint.observe(endpoint.as_secs_f64());
        self.program.observe(program.as_secs_f64());
    }

    /// Sets the gauges: instances in the order of [`InstanceState::ALL`], sessions in that of the metric's help.
    pub(super) fn refresh(&self, instances: &[i64], sessions: [i64; 4]) {
        for (state, count) in InstanceState::ALL.into_iter().zip(instances) {
            if state != InstanceState::Terminated {
                self.instances.with_label_values(&[state.as_str()]).set(*count);
            }
        }
        for (state, count) in ["starting", "available", "in_use", "closing"].into_iter().zip(sessions) {
            self.sessions.with_label_values(&[state]).set(count);
        }
    }
}
