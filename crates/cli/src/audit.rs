//! `lyra audit`: who changed what.

use lyra_types::api::AuditView;

use crate::failure::Result;
use crate::session::Session;

/// Verbs of `audit`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:
  lyra audit ls --tenant acme")]
pub enum Command {
    /// List changes and attempts at them, newest first
    #[command(after_help = "Examples:
  lyra audit ls
  lyra audit ls --tenant acme --limit 1000 -o json")]
    Ls(Ls),
}

/// Flags of `audit ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let Command::Ls(args) = command;
    let row = |entry: &AuditView| {
        let method = entry.action.split(' ').next().unwrap_or_default();
        let tenant = entry.tenant.clone().unwrap_or_default();
        let what = format!("{method} {}", entry.target);
        vec![entry.time.to_string(), entry.actor.clone(), tenant, what, entry.outcome.clone()]
    };
    let found = session.client.audit(args.limit).await?;
    session.list(
        &found,
        |entry| format!("{} {}", entry.time, entry.target),
        &["time", "who", "tenant", "what", "outcome"],
        row,
    )
}
