//! `lyra openapi`: the server's description of its own API.

use crate::failure::Result;
use crate::output::print_line;
use crate::session::Session;

/// Flags of `openapi`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  lyra openapi > lyra.json")]
pub struct Args {}

/// Prints the OpenAPI document as the server sends it.
///
/// # Errors
/// Those of every request.
pub async fn run(session: &Session) -> Result<()> {
    print_line(session.client.openapi().await?.json())
}
