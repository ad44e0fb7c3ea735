//! `lyra tenant`: who owns functions, sessions and everything else.

use lyra_types::api::TenantView;

use crate::args::Ls;
use crate::failure::Result;
use crate::output::print_line;
use crate::session::Session;
use crate::table::{age, fields};

/// Verbs of `tenant`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra tenant create acme
  lyra tenant ls")]
pub enum Command {
    /// List tenants: all for operators, else one's own
    #[command(after_help = "Example:
  lyra tenant ls -o json")]
    Ls(Ls),
    /// Make a tenant
    #[command(after_help = "Example:
  lyra tenant create acme")]
    Create(One),
    /// Show a tenant
    #[command(after_help = "Example:
  lyra tenant get acme")]
    Get(One),
    /// Delete a tenant: nobody is let in any more, and all that it has is cleared away
    #[command(after_help = "Examples:
  lyra tenant rm acme
  lyra tenant rm acme --force      also while it has functions, applications or sessions")]
    Rm(Rm),
}

/// One tenant.
#[derive(Debug, clap::Args)]
pub struct One {
    /// The tenant
    #[arg(value_name = "NAME")]
    name: String,
}

/// Flags of `tenant rm`.
#[derive(Debug, clap::Args)]
pub struct Rm {
    #[command(flatten)]
    one: One,
    /// Also while it has functions, applications or sessions
    #[arg(long)]
    force: bool,
}

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = &session.client;
    let name = |tenant: &TenantView| tenant.name.clone();
    let made = |tenant: &TenantView| tenant.created_at.map(|at| age(&session.clock, at)).unwrap_or_default();
    let people = |tenant: &TenantView| {
        fields(&[("name", tenant.name.clone()), ("state", tenant.state.clone()), ("age", made(tenant))])
    };
    match command {
        Command::Ls(args) => {
            let row = |tenant: &TenantView| vec![tenant.name.clone(), tenant.state.clone(), made(tenant)];
            session.list(&client.tenants(args.limit).await?, name, &["name", "state", "age"], row)
        }
        Command::Create(one) => session.show(&client.create_tenant(&one.name).await?, name, people),
        Command::Get(one) => session.show(&client.get_tenant(&one.name).await?, name, people),
        Command::Rm(Rm { one, force }) => {
            let done = match client.delete_tenant(&one.name, force).await? {
                true => "deleted",
                false => "is being deleted",
            };
            match (session.json(), session.quiet) {
                (true, _) => Ok(()),
                (false, true) => print_line(&one.name),
                (false, false) => print_line(&format!("{} {done}", one.name)),
            }
        }
    }
}
