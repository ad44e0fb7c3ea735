//! What the end of a try means for its job. Pure: the rules stand in the documentation of the module above.

use bytes::Bytes;
use lyra_kit::Random;
use lyra_store::jobs::Outcome;
use lyra_types::job::{Job, JobStatus};
use lyra_types::{Code, Error, Result, Timestamp};

use crate::config::JobsConfig;

/// Longest text of an error that is kept with a job, in bytes: its sentence, and what was thrown.
const MAX_TEXT: usize = 4 << 10;

/// What to record for a try of `job` that ended with `result` at `now`.
pub(super) fn outcome(
    job: &Job,
    result: Result<Bytes>,
    now: Timestamp,
    config: &JobsConfig,
    random: &Random,
) -> Outcome {
    let error = match result {
        Ok(result) => return Outcome::Succeeded(result),
        Err(error) => bounded(error),
    };
    match error.code {
        Code::Overloaded | Code::LimitReached | Code::Unavailable | Code::Cancelled => {
            let wait = error.retry_after.unwrap_or_default().max(config.busy.delay(1, random)).min(config.busy.max);
            Outcome::Released { run_at: now + wait, error: Some(error) }
        }
        Code::FunctionError
        | Code::Timeout
        | Code::OutOfMemory
        | Code::InstanceCrashed
        | Code::WorkerLost
        | Code::Internal => {
            if job.attempts < job.max_attempts {
                return Outcome::Retry { run_at: now + config.retry.delay(job.attempts, random), error };
            }
            let status = match (job.max_attempts, error.code) {
                (1, Code::Timeout) => JobStatus::TimedOut,
                (1, _) => JobStatus::Failed,
                _ => JobStatus::Dead,
            };
            Outcome::Ended(status, error)
        }
        _ => Outcome::Ended(JobStatus::Failed, error),
    }
}

/// Whether an error is the function's own doing, and not that of whoever ran it.
pub(super) fn is_functions_own(code: Code) -> bool {
    matches!(code, Code::FunctionError | Code::Timeout | Code::OutOfMemory)
}

/// The error of a job whose function or version is gone.
pub(super) fn gone(job: &Job) -> Outcome {
    let detail = format!("version {} of function {} was deleted after the job was accepted", job.version, job.function);
    Outcome::Ended(JobStatus::Failed, Error::new(Code::NotFound, detail))
}

/// Rows of jobs are small: a long text is cut.
fn bounded(mut error: Error) -> Error {
    cut(&mut error.detail);
    if let Some(thrown) = &mut error.thrown {
        cut(&mut thrown.name);
        cut(&mut thrown.message);
        cut(&mut thrown.stack);
    }
    error
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lyra_types::error::Thrown;
    use lyra_types::{FunctionName, JobId, TenantName};

    use super::*;

    fn job(attempts: u32, max_attempts: u32) -> Job {
        Job {
            id: JobId::from_parts(1, 1),
            tenant: TenantName::default_tenant(),
            function: FunctionName::new("f").unwrap(),
            version: 1,
            generation: 1,
            status: JobStatus::Running,
            attempts,
            max_attempts,
            created_at: Timestamp::default(),
            started_at: None,
            finished_at: None,
            next_attempt_at: None,
            invocation: None,
            error: None,
            cancel_requested: false,
        }
    }

    fn of(job: &Job, code: Code) -> Outcome {
        let error = Error::new(code, "x");
        outcome(job, Err(error), Timestamp::from_millis(0), &JobsConfig::default(), &Random::seeded(1))
    }

    #[test]
    fn every_code_is_retried_given_back_or_final() {
        for code in Code::ALL {
            match of(&job(1, 3), code) {
                Outcome::Retry { run_at, .. } => {
                    assert!(matches!(
                        code,
                        Code::FunctionError
                            | Code::Timeout
                            | Code::OutOfMemory
                            | Code::InstanceCrashed
                            | Code::WorkerLost
                            | Code::Internal
                    ));
                    assert!((500..=1_000).contains(&run_at.millis()), "{run_at}");
                }
                Outcome::Released { run_at, error } => {
                    assert!(matches!(
                        code,
                        Code::Overloaded | Code::LimitReached | Code::Unavailable | Code::Cancelled
                    ));
                    assert!(run_at.millis() > 0 && error.is_some());
                }
                Outcome::Ended(status, _) => assert_eq!(status, JobStatus::Failed, "{code}"),
                Outcome::Succeeded(_) => panic!("{code}"),
            }
        }
    }

    #[test]
    fn the_last_try_decides_how_the_job_ends() {
        let status = |job: &Job, code| match of(job, code) {
            Outcome::Ended(status, _) => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status(&job(1, 1), Code::FunctionError), JobStatus::Failed);
        assert_eq!(status(&job(1, 1), Code::Timeout), JobStatus::TimedOut);
        assert_eq!(status(&job(3, 3), Code::FunctionError), JobStatus::Dead);
        assert_eq!(status(&job(3, 3), Code::Timeout), JobStatus::Dead);
        assert!(matches!(of(&job(3, 3), Code::Overloaded), Outcome::Released { .. }), "no capacity is no try");
    }

    #[test]
    fn a_long_error_is_cut_and_a_long_wait_is_bounded() {
        let mut error =
            Error::thrown(Thrown { name: "E".into(), message: "é".repeat(9_999), stack: "s".repeat(9_999) });
        error.retry_after = Some(Duration::from_secs(9_999));
        let error = bounded(error);
        let thrown = error.thrown.unwrap();
        assert!(error.detail.len() < 5_000 && thrown.message.len() < 5_000 && thrown.stack.len() < 5_000);
        let busy = Error::new(Code::Overloaded, "x").with_retry_after(Duration::from_secs(9_999));
        let now = Timestamp::from_millis(0);
        match outcome(&job(1, 3), Err(busy), now, &JobsConfig::default(), &Random::seeded(1)) {
            Outcome::Released { run_at, .. } => assert!(run_at.millis() <= 5_000),
            other => panic!("{other:?}"),
        }
    }
}
