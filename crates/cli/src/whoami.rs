//! `lyra whoami`: who the server takes the caller for.

use lyra_types::api::WhoAmI;

use crate::failure::Result;
use crate::session::Session;
use crate::table::fields;

/// Flags of `whoami`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  lyra whoami -o json")]
pub struct Args {}

/// Shows it.
///
/// # Errors
/// Those of the API.
pub async fn run(session: &Session) -> Result<()> {
    let people = |who: &WhoAmI| {
        fields(&[
            ("name", who.name.clone()),
            ("tenant", who.tenant.clone().unwrap_or_else(|| "every one".to_owned())),
            ("user", who.user.clone().unwrap_or_default()),
            ("scopes", who.scopes.to_string()),
            ("known by", who.by.clone()),
            ("token", who.token.clone().unwrap_or_default()),
            ("until", who.expires_at.map(|end| end.to_string()).unwrap_or_default()),
        ])
    };
    session.show(&session.client.whoami().await?, |who| who.name.clone(), people)
}
