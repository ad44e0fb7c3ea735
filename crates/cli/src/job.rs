//! `lyra job`: calls that were accepted durably and run later.

use std::time::Duration;

use lyra_client::{Answer, JobFilter, JobResult};
use lyra_types::api::{JobError, JobView};
use lyra_types::job::JobStatus;
use lyra_types::{Code, FunctionName, JobId};

use crate::failure::{Failure, Result};
use crate::output::print_bytes;
use crate::session::Session;
use crate::table::{age, fields, short};

/// Verbs of `job`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra job ls --status running
  lyra job wait job_01jd6gkz5w3v9q0x7y2m4n8abc")]
pub enum Command {
    /// List jobs, newest first
    #[command(after_help = "Examples:
  lyra job ls --function thumbnail --status dead
  lyra job ls -q --limit 1000 | wc -l")]
    Ls(Ls),
    /// Show a job
    #[command(after_help = "Example:
  lyra job get job_01jd6gkz5w3v9q0x7y2m4n8abc")]
    Get(One),
    /// Print a job's result; if the job failed, its error
    #[command(after_help = "Examples:
  lyra job result job_01jd6gkz5w3v9q0x7y2m4n8abc
  lyra job result job_01jd6gkz5w3v9q0x7y2m4n8abc --wait 30s")]
    Result(ResultArgs),
    /// Wait until a job has ended; the exit code tells how
    #[command(after_help = "Example:
  lyra job wait job_01jd6gkz5w3v9q0x7y2m4n8abc --timeout 5m

Exit codes: 0 succeeded, 1 failed, dead or cancelled, 6 timed out, or not ended in time.")]
    Wait(Wait),
    /// Cancel a job, a running one too
    #[command(after_help = "Example:
  lyra job cancel job_01jd6gkz5w3v9q0x7y2m4n8abc")]
    Cancel(One),
}

/// Flags of `job ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Only jobs of this function
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
    /// Only jobs with this status: queued, running, succeeded, failed, timed_out, cancelled, dead
    #[arg(long, value_name = "STATUS", value_parser = parse_status)]
    status: Option<JobStatus>,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// A job by its id.
#[derive(Debug, clap::Args)]
pub struct One {
    /// The job, `job_…`
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Flags of `job result`.
#[derive(Debug, clap::Args)]
pub struct ResultArgs {
    #[command(flatten)]
    job: One,
    /// Wait so long for the job to end
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = crate::duration::parse)]
    wait: Duration,
}

/// Flags of `job wait`.
#[derive(Debug, clap::Args)]
pub struct Wait {
    #[command(flatten)]
    job: One,
    /// Give up after so long
    #[arg(long, visible_alias = "wait", value_name = "TIME", default_value = "1h", value_parser = crate::duration::parse)]
    timeout: Duration,
}

fn parse_status(text: &str) -> Result<JobStatus, String> {
    JobStatus::parse(text).ok_or_else(|| {
        let all: Vec<&str> = JobStatus::ALL.iter().map(|status| status.as_str()).collect();
        format!("one of {}", all.join(", "))
    })
}

/// Reads a job id; text that is none is a job that does not exist.
///
/// # Errors
/// `not_found`.
pub fn parse_id(text: &str) -> Result<JobId> {
    Ok(text.parse::<JobId>()?)
}

/// Runs a verb.
///
/// # Errors
/// Those of the API; for `wait` and `result` the job's own failure.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = &session.client;
    match command {
        Command::Ls(args) => {
            let filter = JobFilter { function: args.function, status: args.status };
            let jobs = client.jobs(&filter, args.limit).await?;
            session.list(&jobs, |job| job.id.clone(), &HEADER, |job| row(session, job))
        }
        Command::Get(one) => show(session, &client.job(parse_id(&one.id)?, Duration::ZERO).await?),
        Command::Result(args) => result(&args, session).await,
        Command::Wait(args) => {
            let job = client.wait_job(parse_id(&args.job.id)?, args.timeout).await?;
            show(session, &job)?;
            outcome(session, &job, args.timeout)
        }
        Command::Cancel(one) => {
            let job = client.cancel_job(parse_id(&one.id)?).await?;
            show(session, &job)?;
            if job.status.is_final() && job.status != JobStatus::Cancelled {
                session.note(&format!("the job had ended before: {}", job.status));
            }
            Ok(())
        }
    }
}

async fn result(args: &ResultArgs, session: &Session) -> Result<()> {
    let id = parse_id(&args.job.id)?;
    if args.wait.is_zero() {
        return match session.client.job_result(id, Duration::ZERO).await? {
            JobResult::Ready(result) => print_result(&result),
            JobResult::Pending => Err(Failure::new(Code::Timeout, format!("job {id} has not ended yet"))
                .hint("--wait 30s waits for it; `lyra job get` shows where it stands")),
        };
    }
    print_result(&session.client.wait_job_result(id, args.wait).await?)
}

/// Prints a result as it is, with a line's end if it has none.
///
/// # Errors
/// When stdout can't be written.
pub fn print_result(result: &[u8]) -> Result<()> {
    print_bytes(result)?;
    if result.ends_with(b"\n") { Ok(()) } else { print_bytes(b"\n") }
}

/// The exit code that a job's status stands for.
fn outcome(session: &Session, job: &JobView, waited: Duration) -> Result<()> {
    match job.status {
        JobStatus::Succeeded => Ok(()),
        JobStatus::TimedOut => Err(Failure::silent(Code::Timeout)),
        JobStatus::Failed | JobStatus::Dead | JobStatus::Cancelled => {
            let timed_out = job.error.as_ref().is_some_and(|error| error.code == Code::Timeout.as_str());
            Err(Failure::silent(if timed_out { Code::Timeout } else { Code::FunctionError }))
        }
        JobStatus::Queued | JobStatus::Running => {
            session.note(&format!("still {} after {}", job.status, humantime::format_duration(waited)));
            Err(Failure::silent(Code::Timeout))
        }
    }
}

/// Columns of a list of jobs.
pub const HEADER: [&str; 7] = ["id", "function", "version", "status", "tries", "age", "error"];

/// The row of a job in a list.
pub fn row(session: &Session, job: &JobView) -> Vec<String> {
    let error = job.error.as_ref().map(|error| first_line(&error.detail, 60)).unwrap_or_default();
    vec![
        job.id.clone(),
        job.function.clone(),
        job.version.to_string(),
        job.status.to_string(),
        format!("{}/{}", job.attempts, job.max_attempts),
        age(&session.clock, job.created_at),
        error,
    ]
}

fn first_line(text: &str, most: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= most { line.to_owned() } else { line.chars().take(most - 1).chain(['…']).collect() }
}

/// The first of the records that are left of a batch.
fn left(error: &JobError) -> String {
    const SHOWN: usize = 10;
    let records: Vec<_> = error.errors.iter().filter(|field| field.field.starts_with("records[")).collect();
    let first: Vec<_> = records.iter().take(SHOWN).map(|left| first_line(&left.reason, 60)).collect();
    let more = records.len().saturating_sub(SHOWN);
    first.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}

/// Prints a job.
///
/// # Errors
/// When stdout can't be written.
pub fn show(session: &Session, job: &Answer<JobView>) -> Result<()> {
    let people = |job: &JobView| {
        let ran = job.started_at.zip(job.finished_at).map(|(start, end)| short(end.since(start)));
        let ago = |time| format!("{time} ({} ago)", age(&session.clock, time));
        let status = match &ran {
            Some(ran) => format!("{} (last try took {ran})", job.status),
            None => job.status.to_string(),
        };
        fields(&[
            ("id", job.id.clone()),
            ("function", format!("{}@{}", job.function, job.version)),
            ("status", status),
            ("tries", format!("{} of {}", job.attempts, job.max_attempts)),
            ("accepted", ago(job.created_at)),
            ("started", job.started_at.map(ago).unwrap_or_default()),
            ("ended", job.finished_at.map(ago).unwrap_or_default()),
            ("next try", job.next_attempt_at.map(|time| time.to_string()).unwrap_or_default()),
            ("error", job.error.as_ref().map(|e| format!("{}: {}", e.code, e.detail)).unwrap_or_default()),
            ("records", job.error.as_ref().map(left).unwrap_or_default()),
            ("invocation", job.invocation.clone().unwrap_or_default()),
        ])
    };
    session.show(job, |job| job.id.clone(), people)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_cut_to_one_short_line() {
        assert_eq!(first_line("a\nb", 10), "a");
        assert_eq!(first_line("abcdef", 4), "abc…");
    }
}
