//! `lyra workflow run`: starts a run, and waits for it where asked.

use std::time::Duration;

use lyra_client::Answer;
use lyra_types::api::workflows::NewRun;
use lyra_types::workflow::{Run, RunStatus};
use lyra_types::{Code, RunId};

use super::deploy::{Target, parse_target};
use super::input::read_object;
use super::runs::reason;
use super::served::print_id;
use crate::failure::{Failure, Result};
use crate::output::print_line;
use crate::session::Session;
use crate::webhook::Own;

/// Flags of `workflow run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra workflow run thumbnails -d '{\"image\":\"cat.png\"}'
  lyra workflow run thumbnails@2 -d @input.json --wait
  lyra workflow run report --id report-2026-05 --wait 10m
  lyra workflow run report --timeout 5m --wait
  lyra workflow run report --on-failure function:repair

Without --wait it prints the run's id. With it, the run's output goes to stdout; -o json prints the
whole run. Exit codes: 0 succeeded, 1 failed or cancelled, 6 not ended in time.")]
pub struct Args {
    /// The workflow, with a version if it is not to be the newest
    #[arg(value_name = "NAME[@VERSION]", value_parser = parse_target)]
    target: Target,
    /// The input, an object: JSON, @FILE, or - for stdin [default: {}]
    #[arg(long, short = 'd', value_name = "JSON|@FILE|-")]
    data: Option<String>,
    /// Id of the run; starting it again with the same input is the same run
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Have the run fail when it has not ended after this; a redrive gives it that time anew
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    timeout: Option<Duration>,
    #[command(flatten)]
    told: Own,
    /// Wait for the run to end, no longer than this
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "1h", value_parser = crate::duration::parse)]
    wait: Option<Duration>,
}

/// Starts the run.
///
/// # Errors
/// Those of the API; with `--wait` the run's own failure.
pub async fn run(args: Args, session: &Session) -> Result<()> {
    let id = args.id.as_deref().map(RunId::new).transpose()?;
    let (input, version) = (read_object(args.data.as_deref())?, args.target.version);
    let destinations = args.told.request()?.map(Box::new);
    let timeout_ms = args.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    let run = NewRun { input, id, version, timeout_ms, destinations, ..NewRun::default() };
    let started = session.client.start_run(&args.target.name, &run).await?;
    if !started.created {
        session.note(&format!("run {} was started before", started.id));
    }
    let Some(limit) = args.wait else { return print_id(session, &started, &started.id) };
    ended(session, &session.client.wait_run(&started.id, limit).await?, limit)
}

/// Prints what came of a run that was waited for.
fn ended(session: &Session, run: &Answer<Run>, waited: Duration) -> Result<()> {
    if session.json() {
        print_line(run.json())?;
    }
    match run.status {
        RunStatus::Succeeded => {
            if !session.json() {
                let output = serde_json::to_string(&run.output.clone().unwrap_or_default());
                let output =
                    output.map_err(|error| Failure::internal(format!("the output can't be shown: {error}")))?;
                print_line(&output)?;
            }
            Ok(())
        }
        RunStatus::Failed | RunStatus::Cancelled => {
            let detail = match &run.error {
                Some(error) => format!("run {} has failed: {}", run.id, reason(error)),
                None => format!("run {} was cancelled", run.id),
            };
            let hint = format!("`lyra workflow trace {}` shows what happened", run.id);
            match session.json() {
                true => Err(Failure::silent(Code::FunctionError)),
                false => Err(Failure::new(Code::FunctionError, detail).hint(hint)),
            }
        }
        RunStatus::Running | RunStatus::Paused => {
            let after = humantime::format_duration(waited);
            session.note(&format!("run {} is still {} after {after}", run.id, run.status));
            Err(Failure::silent(Code::Timeout))
        }
    }
}
