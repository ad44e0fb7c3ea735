//! Metrics of the log service.

use lyra_kit::telemetry::Metrics as Registry;
use lyra_kit::telemetry::prometheus::{IntCounter, IntGauge};

/// Handles that are cheap to bump.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Lines written.
    pub stored: IntCounter,
    /// Lines lost: no room in the queue, or a write that failed.
    pub dropped: IntCounter,
    /// Bytes kept, as [`crate::Config::max_bytes`] counts them.
    pub bytes: IntGauge,
    /// Streams that follow.
    pub followers: IntGauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Metrics {
        let lines =
            registry.counter("lyra_log_lines_total", "Log lines of functions, by what became of them", &["result"]);
        Metrics {
            stored: lines.with_label_values(&["stored"]),
            dropped: lines.with_label_values(&["dropped"]),
            bytes: registry.gauge("lyra_log_bytes", "Bytes of log lines kept", &[]).with_label_values::<&str>(&[]),
            followers: registry
                .gauge("lyra_log_followers", "Streams that follow logs", &[])
                .with_label_values::<&str>(&[]),
        }
    }
}
