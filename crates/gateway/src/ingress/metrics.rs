//! Metrics of the way to sessions. Requests are counted with all others, by route.

use lyra_kit::telemetry::Metrics as Registry;
use lyra_kit::telemetry::prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// How something is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request and its answer.
    Http,
    /// A connection that was a request once.
    Upgraded,
    /// A connection to a TCP port.
    Tcp,
    /// A client of a UDP port.
    Udp,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Http, Kind::Upgraded, Kind::Tcp, Kind::Udp];

    const fn as_str(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Upgraded => "upgraded",
            Kind::Tcp => "tcp",
            Kind::Udp => "udp",
        }
    }
}

/// Bytes carried, either way.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    /// From clients to sessions.
    pub up: IntCounter,
    /// From sessions to clients.
    pub down: IntCounter,
}

/// All metrics of the way to sessions.
#[derive(Debug, Clone)]
pub(crate) struct IngressMetrics {
    /// Sessions in the table.
    pub sessions: IntGauge,
    /// Sessions that came into the table.
    pub opened: IntCounter,
    /// Sessions that left it.
    pub closed: IntCounter,
    /// Ports that are listened on.
    pub ports: IntGauge,
    /// Tries to listen on a port that failed.
    pub bind_failures: IntCounter,
    /// Datagrams that were not passed on.
    pub dropped: IntCounter,
    /// Refused since the session has too many connections.
    pub session_full: IntCounter,
    /// Refused since the gateway has.
    pub gateway_full: IntCounter,
    /// Refused since the session's endpoint does not answer.
    pub unreachable: IntCounter,
    /// Ended since nothing moved.
    pub idle: IntCounter,
    open: [IntGauge; 4],
    begun: [IntCounter; 4],
    carried: [Carried; 4],
}

impl IngressMetrics {
    pub(crate) fn new(registry: &Registry) -> IngressMetrics {
        let counter = |name, help| registry.counter(name, help, &[]).with_label_values::<&str>(&[]);
        let gauge = |name, help| registry.gauge(name, help, &[]).with_label_values::<&str>(&[]);
        let changes = registry.counter("lyra_ingress_changes_total", "Changes of the table of sessions", &["change"]);
        let refused = registry.counter("lyra_ingress_refused_total", "What was not carried to a session", &["reason"]);
        let open: IntGaugeVec = registry.gauge("lyra_ingress_connections", "Carried to sessions now", &["kind"]);
        let begun: IntCounterVec = registry.counter("lyra_ingress_connections_total", "Carried to sessions", &["kind"]);
        let bytes = registry.counter("lyra_ingress_bytes_total", "Bytes carried", &["kind", "direction"]);
        IngressMetrics {
            sessions: gauge("lyra_ingress_sessions", "Open sessions in the gateway's table"),
            opened: changes.with_label_values(&["open"]),
            closed: changes.with_label_values(&["close"]),
            ports: gauge("lyra_ingress_ports", "Ports of sessions that are listened on"),
            bind_failures: counter(
                "lyra_ingress_bind_failures_total",
                "Tries to listen on a session's port that failed",
            ),
            dropped: counter("lyra_ingress_dropped_datagrams_total", "Datagrams that were not passed on"),
            session_full: refused.with_label_values(&["session_full"]),
            gateway_full: refused.with_label_values(&["gateway_full"]),
            unreachable: refused.with_label_values(&["unreachable"]),
            idle: counter("lyra_ingress_idle_total", "Connections to sessions that ended since nothing moved on them"),
            open: Kind::ALL.map(|kind| open.with_label_values(&[kind.as_str()])),
            begun: Kind::ALL.map(|kind| begun.with_label_values(&[kind.as_str()])),
            carried: Kind::ALL.map(|kind| Carried {
                up: bytes.with_label_values(&[kind.as_str(), "up"]),
                down: bytes.with_label_values(&[kind.as_str(), "down"]),
            }),
        }
    }

    /// What is carried of this kind now.
    pub(crate) fn open(&self, kind: Kind) -> &IntGauge {
        &self.open[kind as usize]
    }

    /// What was carried of this kind, ever.
    pub(crate) fn begun(&self, kind: Kind) -> &IntCounter {
        &self.begun[kind as usize]
    }

    /// Bytes of this kind.
    pub(crate) fn carried(&self, kind: Kind) -> &Carried {
        &self.carried[kind as usize]
    }
}
