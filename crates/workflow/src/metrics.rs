//! Metrics of the workflow role.

use lyra_kit::telemetry::Metrics as Registry;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

/// Metrics of the workflow role.
pub(crate) struct Metrics {
    pub(crate) started: IntCounter,
    /// By status.
    pub(crate) ended: IntCounterVec,
    pub(crate) active: IntGauge,
    /// By outcome: `ok`, or the cause's code.
    pub(crate) attempts: IntCounterVec,
    pub(crate) in_flight: IntGauge,
    pub(crate) batches: IntCounter,
    pub(crate) entries: IntCounter,
    pub(crate) duration: Histogram,
    pub(crate) taken_over: IntCounter,
    pub(crate) stuck: IntGauge,
    pub(crate) processes: IntGauge,
    pub(crate) blobs_deleted: IntCounter,
    pub(crate) spans_dropped: IntCounter,
    /// By limit.
    pub(crate) quota_held: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Metrics {
        let counter = |name, help| registry.counter(name, help, &[]).with_label_values::<&str>(&[]);
        let gauge = |name, help| registry.gauge(name, help, &[]).with_label_values::<&str>(&[]);
        Metrics {
            started: counter("lyra_workflow_runs_started_total", "Runs that were started."),
            ended: registry.counter("lyra_workflow_runs_ended_total", "Runs that ended, by status.", &["status"]),
            active: gauge("lyra_workflow_runs_active", "Runs under way that this process owns."),
            attempts: registry.counter(
                "lyra_workflow_attempts_total",
                "Tries of tasks that ended, by outcome: ok or the cause's code.",
                &["outcome"],
            ),
            in_flight: gauge("lyra_workflow_calls_in_flight", "Tries of tasks under way."),
            batches: counter("lyra_workflow_journal_batches_total", "Batches written to journals."),
            entries: counter("lyra_workflow_journal_entries_total", "Entries written to journals."),
            duration: registry
                .histogram("lyra_workflow_run_seconds", "Time from a run's start to its end.", &[])
                .with_label_values::<&str>(&[]),
            taken_over: counter(
                "lyra_workflow_runs_taken_over_total",
                "Runs that were taken up from another process or an earlier one.",
            ),
            stuck: gauge(
                "lyra_workflow_runs_stuck",
                "Runs of this host that can't go on, because their journal or workflow can't be read.",
            ),
            processes: gauge("lyra_workflow_processes", "Processes that run workflows, as this one sees them."),
            blobs_deleted: counter(
                "lyra_workflow_blobs_deleted_total",
                "Programs, definitions and values that no version and no run referred to any more, and were deleted.",
            ),
            spans_dropped: counter(
                "lyra_workflow_spans_dropped_total",
                "Runs whose spans were not sent, because too many waited or the collector did not take them.",
            ),
            quota_held: registry.counter(
                "lyra_workflow_quota_held_total",
                "Calls of tasks that had to wait for room under a quota, by limit.",
                &["limit"],
            ),
        }
    }
}
