//! The verbs of `lyra workflow` that ask a server.

use std::time::Duration;

use lyra_client::Answer;
use lyra_types::RunId;
use lyra_types::workflow::Run;

use super::runs::{self, One};
use super::{deploy, members, outside, start, trace};
use crate::failure::Result;
use crate::output::print_line;
use crate::session::Session;

/// Verbs that ask a server.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a workflow, or a new version of it
    Deploy(deploy::Args),
    /// Start a run
    Run(start::Args),
    /// List workflows, with when each starts runs by itself
    #[command(after_help = "Examples:
  lyra workflow ls
  lyra workflow ls -q --limit 1000")]
    Ls(deploy::Ls),
    /// Print the document of a workflow
    #[command(after_help = "Examples:
  lyra workflow show thumbnails > thumbnails.yaml
  lyra workflow show thumbnails@2 -o json

Where the workflow starts runs by itself, stderr says when; -o json has it as schedule.")]
    Show(deploy::Named),
    /// Delete a workflow with its versions; its runs go on
    #[command(after_help = "Example:
  lyra workflow rm thumbnails")]
    Rm(deploy::Rm),
    /// List runs, newest first
    #[command(after_help = "Examples:
  lyra workflow runs
  lyra workflow runs thumbnails --status failed")]
    Runs(runs::Ls),
    /// Show a run
    #[command(after_help = "Examples:
  lyra workflow get run_01jd6gkz5w3v9q0x7y2m4n8abc
  lyra workflow get run_01jd6gkz5w3v9q0x7y2m4n8abc -o json")]
    Get(One),
    /// Show what happened in a run: its tokens in order
    Trace(trace::Args),
    /// Have a run begin no further task
    #[command(after_help = "Example:
  lyra workflow pause run_01jd6gkz5w3v9q0x7y2m4n8abc")]
    Pause(One),
    /// Have a paused run go on
    #[command(after_help = "Example:
  lyra workflow resume run_01jd6gkz5w3v9q0x7y2m4n8abc")]
    Resume(One),
    /// End a run; calls that are under way are given up
    #[command(after_help = "Example:
  lyra workflow cancel run_01jd6gkz5w3v9q0x7y2m4n8abc")]
    Cancel(One),
    /// Take a failed or cancelled run up where it failed
    #[command(after_help = "Example:
  lyra workflow redrive run_01jd6gkz5w3v9q0x7y2m4n8abc")]
    Redrive(One),
    /// Delete runs that have ended, with their history; cancel one that goes on first
    #[command(after_help = "Examples:
  lyra workflow forget run_01jd6gkz5w3v9q0x7y2m4n8abc
  lyra workflow runs thumbnails --status succeeded -q | xargs lyra workflow forget")]
    Forget(runs::Many),
    /// List the tasks of a run that wait for somebody outside
    #[command(after_help = "Example:
  lyra workflow waiting run_01jd6gkz5w3v9q0x7y2m4n8abc")]
    Waiting(One),
    /// Complete a task that waits for somebody outside
    Complete(outside::Args),
    /// List the processes that run workflows, with the runs that each owns
    #[command(after_help = "Examples:
  lyra workflow members
  lyra workflow members -o json")]
    Members(members::Ls),
}

/// Runs a verb.
///
/// # Errors
/// Those of the API; for `run --wait` the run's own failure.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = &session.client;
    match command {
        Command::Deploy(args) => deploy::run(args, session).await,
        Command::Run(args) => start::run(args, session).await,
        Command::Ls(args) => deploy::list(&args, session).await,
        Command::Show(args) => deploy::show(&args, session).await,
        Command::Rm(args) => deploy::remove(&args, session).await,
        Command::Runs(args) => runs::list(args, session).await,
        Command::Get(one) => runs::show(session, &client.run(&one.id()?, Duration::ZERO).await?),
        Command::Trace(args) => trace::run(&args, session).await,
        Command::Pause(one) => changed(session, &client.pause_run(&one.id()?).await?),
        Command::Resume(one) => changed(session, &client.resume_run(&one.id()?).await?),
        Command::Cancel(one) => changed(session, &client.cancel_run(&one.id()?).await?),
        Command::Redrive(one) => changed(session, &client.redrive_run(&one.id()?).await?),
        Command::Forget(many) => runs::forget(&many, session).await,
        Command::Waiting(one) => outside::list(&one.id()?, session).await,
        Command::Complete(args) => outside::complete(args, session).await,
        Command::Members(args) => members::list(&args, session).await,
    }
}

fn changed(session: &Session, run: &Answer<Run>) -> Result<()> {
    session.show(run, |run| run.id.to_string(), |run| format!("{} is {} now", run.id, run.status))
}

/// Prints an id, or the answer as JSON.
pub(super) fn print_id<T>(session: &Session, answer: &Answer<T>, id: &RunId) -> Result<()> {
    if session.json() { print_line(answer.json()) } else { print_line(id.as_str()) }
}
