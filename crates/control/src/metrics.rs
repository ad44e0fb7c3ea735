//! Metrics of the control role.

use lyra_kit::telemetry::Metrics as Registry;
use lyra_types::job::JobStatus;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// Metrics of the control role.
pub(crate) struct Metrics {
    /// By outcome: `ok`, or the error's code.
    pub(crate) deploys: IntCounterVec,
    pub(crate) functions: IntGauge,
    pub(crate) jobs_accepted: IntCounter,
    /// By status.
    pub(crate) jobs_finished: IntCounterVec,
    /// By the failed try's code.
    pub(crate) job_retries: IntCounterVec,
    /// By status.
    pub(crate) jobs: IntGaugeVec,
    pub(crate) job_wait: Histogram,
    pub(crate) job_run: Histogram,
    pub(crate) in_flight: IntGauge,
    /// By limit.
    pub(crate) quota_held: IntCounterVec,
    pub(crate) leader: IntGauge,
    /// By outcome: `ok`, or the error's code.
    pub(crate) placement_commands: IntCounterVec,
    pub(crate) unplaced: IntGauge,
    /// By what they came to: `available`, or why they ended before.
    pub(crate) session_opens: IntCounterVec,
    pub(crate) session_open: Histogram,
    /// By outcome: `ok`, or the error's code.
    pub(crate) logins: IntCounterVec,
    pub(crate) grants: IntGauge,
    /// By what came of them: `manual`, or the word of [`lyra_types::schedule::FiringOutcome`].
    pub(crate) firings: IntCounterVec,
    pub(crate) firing_delay: Histogram,
    /// By kind of source.
    pub(crate) trigger_records: IntCounterVec,
    /// By kind of source.
    pub(crate) trigger_left_out: IntCounterVec,
    /// By what came of them: `submitted`, then `succeeded`, `dead` or `failed`.
    pub(crate) trigger_batches: IntCounterVec,
    pub(crate) trigger_failures: IntCounter,
    pub(crate) trigger_lag: IntGauge,
    /// By how they went: `ok`, `failed`.
    pub(crate) delivery_tries: IntCounterVec,
    /// By how they ended: `delivered`, `failed`.
    pub(crate) deliveries: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Metrics {
        let jobs_finished = registry.counter("lyra_jobs_finished_total", "Jobs that ended, by status.", &["status"]);
        for status in JobStatus::ALL.into_iter().filter(|status| status.is_final()) {
            jobs_finished.with_label_values(&[status.as_str()]);
        }
        let plain = |name, help| registry.gauge(name, help, &[]).with_label_values::<&str>(&[]);
        let seconds = |name, help| registry.histogram(name, help, &[]).with_label_values::<&str>(&[]);
        Metrics {
            deploys: registry.counter("lyra_deploys_total", "Deploys, by outcome: ok or an error code.", &["outcome"]),
            functions: plain("lyra_functions", "Functions that are deployed."),
            jobs_accepted: registry
                .counter("lyra_jobs_accepted_total", "Jobs accepted.", &[])
                .with_label_values::<&str>(&[]),
            jobs_finished,
            job_retries: registry.counter(
                "lyra_job_retries_total",
                "Tries that failed and are retried, by code.",
                &["code"],
            ),
            jobs: registry.gauge("lyra_jobs", "Jobs in the record, by status.", &["status"]),
            job_wait: seconds("lyra_job_wait_seconds", "From when a job was accepted to its first try."),
            job_run: seconds("lyra_job_run_seconds", "Duration of a try, with its wait in the worker's queue."),
            in_flight: plain("lyra_job_dispatcher_in_flight", "Jobs that the dispatcher runs now."),
            quota_held: registry.counter(
                "lyra_job_quota_held_total",
                "Jobs that were put back since their try found no place under a quota, by limit.",
                &["limit"],
            ),
            leader: plain("lyra_control_epoch", "Epoch of this control process while it leads; else 0."),
            placement_commands: registry.counter(
                "lyra_placement_commands_total",
                "Commands to workers to hold instances up or not, by outcome: ok or an error code.",
                &["outcome"],
            ),
            unplaced: plain("lyra_placement_unplaced", "Versions of which instances find no place."),
            session_opens: registry.counter(
                "lyra_control_session_opens_total",
                "Sessions that were opened, or ended before, by outcome: available, or the reason.",
                &["outcome"],
            ),
            session_open: seconds(
                "lyra_control_session_open_seconds",
                "From when the leader saw a session's object to when the session was available.",
            ),
            logins: registry.counter("lyra_logins_total", "Logins, by outcome: ok or an error code.", &["outcome"]),
            firings: registry.counter(
                "lyra_schedule_firings_total",
                "Firings of schedules, by outcome: started, overlapped, waiting, refused, manual.",
                &["outcome"],
            ),
            firing_delay: seconds(
                "lyra_schedule_firing_delay_seconds",
                "From the time that a schedule means to its job being accepted.",
            ),
            trigger_records: registry.counter(
                "lyra_trigger_records_total",
                "Records that triggers handed to jobs, by kind of source: http, nats, s3.",
                &["kind"],
            ),
            trigger_left_out: registry.counter(
                "lyra_trigger_left_out_total",
                "Events of triggers that did not pass the filter or were there before, by kind of source.",
                &["kind"],
            ),
            trigger_batches: registry.counter(
                "lyra_trigger_batches_total",
                "Batches of triggers: submitted; and of those from NATS, how they ended: succeeded, dead, failed.",
                &["outcome"],
            ),
            trigger_failures: registry
                .counter("lyra_trigger_failures_total", "Times that a trigger could take no messages from NATS.", &[])
                .with_label_values::<&str>(&[]),
            trigger_lag: plain("lyra_trigger_lag", "Messages that wait for triggers of this control process."),
            delivery_tries: registry.counter(
                "lyra_delivery_tries_total",
                "Tries of deliveries, by how they went: ok or failed.",
                &["outcome"],
            ),
            deliveries: registry.counter(
                "lyra_deliveries_total",
                "Deliveries that ended, by status: delivered or failed.",
                &["status"],
            ),
            grants: plain("lyra_grants", "Tokens that are good for something, as gateways are told."),
        }
    }

    pub(crate) fn job_ended(&self, status: JobStatus) {
        self.jobs_finished.with_label_values(&[status.as_str()]).inc();
    }
}
