//! Metrics of the scaler.

use lyra_kit::telemetry::Metrics as Registry;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

/// Metrics of the scaler.
pub(crate) struct Metrics {
    pub(crate) desired: IntGauge,
    /// By state: `present`, `ready`.
    pub(crate) workers: IntGaugeVec,
    pub(crate) queued: IntGauge,
    pub(crate) leads: IntGauge,
    /// By direction and reason.
    pub(crate) decisions: IntCounterVec,
    /// By outcome: `ok`, `failed`, `given_up`.
    pub(crate) changes: IntCounterVec,
    /// By outcome: `ended`, `late`, `failed`.
    pub(crate) drains: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Metrics {
        let plain = |name, help| registry.gauge(name, help, &[]).with_label_values::<&str>(&[]);
        Metrics {
            desired: plain("lyra_scaler_desired", "Workers that the scaler wants."),
            workers: registry.gauge("lyra_scaler_workers", "Workers that the scaler sees.", &["state"]),
            queued: plain("lyra_scaler_queued", "Jobs and calls that wait, as the scaler saw them last."),
            leads: plain("lyra_scaler_leads", "1 while this scaler leads, else 0."),
            decisions: registry.counter(
                "lyra_scaler_decisions_total",
                "Decisions of the scaler while it leads.",
                &["direction", "reason"],
            ),
            changes: registry.counter("lyra_scaler_changes_total", "Changes that were begun.", &["outcome"]),
            drains: registry.counter(
                "lyra_scaler_drains_total",
                "Workers that were emptied to be ended.",
                &["outcome"],
            ),
        }
    }
}
