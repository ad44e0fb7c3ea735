//! `lyra dead-letter`: jobs whose tries are used up, kept until someone decides.

use lyra_client::Answer;

use crate::failure::Result;
use crate::job::{HEADER, One, parse_id, row, show};
use crate::output::print_line;
use crate::session::Session;

/// Verbs of `dead-letter`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra dead-letter ls
  lyra dead-letter redrive --all")]
pub enum Command {
    /// List dead jobs, newest first
    #[command(after_help = "Example:
  lyra dead-letter ls -o json")]
    Ls(Ls),
    /// Show a dead job and its last error
    #[command(after_help = "Example:
  lyra dead-letter get job_01jd6gkz5w3v9q0x7y2m4n8abc")]
    Get(One),
    /// Put dead jobs back in the queue, with their tries counted from zero
    #[command(after_help = "Examples:
  lyra dead-letter redrive job_01jd6gkz5w3v9q0x7y2m4n8abc
  lyra dead-letter redrive --all")]
    Redrive(Redrive),
    /// Delete dead jobs for good: all, or one
    #[command(after_help = "Examples:
  lyra dead-letter purge
  lyra dead-letter purge job_01jd6gkz5w3v9q0x7y2m4n8abc")]
    Purge(Purge),
}

/// Flags of `dead-letter ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// Flags of `dead-letter redrive`.
#[derive(Debug, clap::Args)]
pub struct Redrive {
    /// The job, `job_…`
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    id: Option<String>,
    /// Every dead job
    #[arg(long)]
    all: bool,
}

/// Flags of `dead-letter purge`.
#[derive(Debug, clap::Args)]
pub struct Purge {
    /// Only this job, `job_…`
    #[arg(value_name = "ID")]
    id: Option<String>,
}

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = &session.client;
    match command {
        Command::Ls(args) => {
            let jobs = client.dead_letters(args.limit).await?;
            session.list(&jobs, |job| job.id.clone(), &HEADER, |job| row(session, job))
        }
        Command::Get(one) => show(session, &client.dead_letter(parse_id(&one.id)?).await?),
        Command::Redrive(Redrive { id: Some(id), .. }) => show(session, &client.redrive(parse_id(&id)?).await?),
        Command::Redrive(_) => affected(session, &client.redrive_all().await?, "put back in the queue"),
        Command::Purge(Purge { id: Some(id) }) => {
            let id = parse_id(&id)?;
            client.purge(id).await?;
            if session.json() { Ok(()) } else { print_line(&said(session, &id.to_string(), "deleted")) }
        }
        Command::Purge(_) => affected(session, &client.purge_all().await?, "deleted"),
    }
}

fn said(session: &Session, what: &str, done: &str) -> String {
    if session.quiet { what.to_owned() } else { format!("{what} {done}") }
}

/// Prints how many jobs a command changed: the one number of the answer.
fn affected(session: &Session, answer: &Answer<lyra_client::Affected>, done: &str) -> Result<()> {
    let people = |count: &lyra_client::Affected| match count.0 {
        1 => format!("1 job {done}"),
        count => format!("{count} jobs {done}"),
    };
    session.show(answer, |count| count.0.to_string(), people)
}
