//! `lyra control`: which control processes there are, and which of them leads.

use lyra_types::api::ControlView;

use crate::failure::Result;
use crate::session::Session;
use crate::table::age;

/// Verbs of `control`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:
  lyra control ls")]
pub enum Command {
    /// List control processes: the leader and those that stand by
    #[command(after_help = "Example:
  lyra control ls -o json")]
    Ls(Ls),
}

/// Flags of `control ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Most to list
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,
}

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    match command {
        Command::Ls(args) => {
            let all = session.client.control(args.limit).await?;
            let row = |of: &ControlView| {
                vec![
                    of.name.clone(),
                    of.state.clone(),
                    of.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
                    of.address.clone().unwrap_or_default(),
                    age(&session.clock, of.since),
                ]
            };
            session.list(&all, |of| of.name.clone(), &["name", "state", "epoch", "address", "up"], row)
        }
    }
}
