//! How a job goes from one state to the next, whoever keeps it.

use lyra_types::job::{Job, JobStatus};
use lyra_types::{Code, Error, InvocationId, Timestamp};

/// The error of a cancelled job.
pub(super) fn cancelled() -> Error {
    Error::new(Code::Cancelled, "the job was cancelled by its owner")
}

/// A try begins.
pub(super) fn begin(job: &mut Job, invocation: InvocationId, now: Timestamp) {
    job.status = JobStatus::Running;
    job.attempts += 1;
    job.started_at = Some(now);
    job.next_attempt_at = None;
    job.invocation = Some(invocation);
}

/// The job has ended.
pub(super) fn end(job: &mut Job, status: JobStatus, now: Timestamp, error: Option<Error>) {
    job.status = status;
    job.finished_at = Some(now);
    job.next_attempt_at = None;
    job.cancel_requested = false;
    job.error = error;
}

/// The job waits for its next try.
pub(super) fn queue(job: &mut Job, run_at: Timestamp, error: Option<Error>) {
    job.status = JobStatus::Queued;
    job.next_attempt_at = Some(run_at);
    if error.is_some() {
        job.error = error;
    }
}

/// The lease has run out, or its owner is gone. The try counts: nobody knows how far it came.
pub(super) fn lose(job: &mut Job, now: Timestamp) {
    if job.cancel_requested {
        return end(job, JobStatus::Cancelled, now, Some(cancelled()));
    }
    let mut error = Error::new(
        Code::Unavailable,
        format!("the process that ran try {} of {} was lost before the try ended", job.attempts, job.max_attempts),
    );
    // What the tries before left to do is still to be done, and nothing else.
    error.errors = job.error.take().map(|before| before.errors).unwrap_or_default();
    if job.attempts < job.max_attempts {
        queue(job, now, Some(error));
    } else {
        let status = if job.max_attempts == 1 { JobStatus::Failed } else { JobStatus::Dead };
        end(job, status, now, Some(error));
    }
}

/// A dead job is put back.
pub(super) fn redrive(job: &mut Job, now: Timestamp) {
    job.status = JobStatus::Queued;
    job.attempts = 0;
    job.finished_at = None;
    job.next_attempt_at = Some(now);
}
