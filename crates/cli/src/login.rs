//! `lyra login`: a token for a password. Nothing is kept: the token goes where the caller puts it.

use crate::failure::Result;
use crate::password::Source;
use crate::session::Session;
use crate::token::show_issued;

/// Flags of `login`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra login ada --tenant acme < password.txt
  export LYRA_TOKEN=$(lyra login ada --tenant acme --password-file password.txt -q)

Prints the token on stdout and nothing else. It ends soon; `lyra token create` makes one that lasts.")]
pub struct Args {
    /// The user
    #[arg(value_name = "USER")]
    user: String,
    #[command(flatten)]
    password: Source,
}

/// Logs in.
///
/// # Errors
/// Those of the API.
pub async fn run(args: Args, session: &Session) -> Result<()> {
    let password = args.password.read_one()?;
    show_issued(session, &session.client.login(&args.user, password).await?)
}
