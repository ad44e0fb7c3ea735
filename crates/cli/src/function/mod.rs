//! `lyra fn`: functions, their versions and aliases.

pub mod alias;
pub mod deploy;
pub mod invoke;
pub mod show;
pub mod watch;

use lyra_types::FunctionName;

use crate::failure::Result;
use crate::output::print_line;
use crate::session::Session;

/// Verbs of `fn`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra fn ls
  lyra fn alias hello live 1:90,2:10")]
pub enum Command {
    /// Deploy a function: make it, or a new version of it
    Deploy(Box<deploy::Args>),
    /// Call a function
    Invoke(invoke::Args),
    /// List functions
    #[command(after_help = "Examples:
  lyra fn ls
  lyra fn ls -o json")]
    Ls(show::Ls),
    /// Show a function and its settings
    #[command(after_help = "Example:
  lyra fn get hello")]
    Get(Name),
    /// Delete a function with its versions, aliases, logs, and jobs that have not begun
    #[command(after_help = "Example:
  lyra fn rm hello")]
    Rm(Name),
    /// List the versions of a function, newest first
    #[command(after_help = "Example:
  lyra fn versions hello")]
    Versions(show::Versions),
    /// Show, set or delete an alias; without its name, list all
    Alias(alias::Args),
    /// Move `live` to the version it pointed at before
    #[command(after_help = "Example:
  lyra fn rollback hello")]
    Rollback(Name),
}

/// A function by its name.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// The function
    #[arg(value_name = "NAME")]
    pub name: FunctionName,
}

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    match command {
        Command::Deploy(args) => deploy::run(*args, session).await,
        Command::Invoke(args) => invoke::run(args, session).await,
        Command::Ls(args) => show::functions(&args, session).await,
        Command::Get(args) => show::function(&args.name, session).await,
        Command::Rm(args) => {
            session.client.delete_function(&args.name).await?;
            match (session.json(), session.quiet) {
                (true, _) => Ok(()),
                (false, true) => print_line(args.name.as_str()),
                (false, false) => print_line(&format!("function {} deleted", args.name)),
            }
        }
        Command::Versions(args) => show::versions(&args, session).await,
        Command::Alias(args) => alias::run(args, session).await,
        Command::Rollback(args) => alias::show(&session.client.rollback(&args.name).await?, session),
    }
}
