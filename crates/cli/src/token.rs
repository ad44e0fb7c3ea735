//! `lyra token`: what callers show to be let in.

use std::time::Duration;

use lyra_client::TokenFilter;
use lyra_types::api::{IssuedView, TokenRequest, TokenView};
use lyra_types::{Scope, Scopes};

use crate::failure::{Failure, Result};
use crate::output::print_line;
use crate::session::Session;
use crate::table::age;

/// Verbs of `token`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra token create ci --scope deploy,read --expires 30d --tenant acme
  lyra token ls --tenant acme
  lyra token rm tok_01jd6gkz5w3v9q0x7y2m4n8abc")]
pub enum Command {
    /// List tokens: a tenant's for its administrators, else one's own
    #[command(after_help = "Examples:
  lyra token ls --tenant acme -o json
  lyra token ls --user ada")]
    Ls(Ls),
    /// Make a token and print it: this once
    #[command(after_help = "Examples:
  lyra token create laptop                                       for yourself
  lyra token create ci --no-user --scope deploy,read --expires 30d
  lyra token create ada --user ada --tenant acme
  TOKEN=$(lyra token create ci --no-user --scope invoke -q)

Scopes: deploy, invoke, read, admin (the tenant's users, tokens and audit log), operator (all, in every
tenant; operators give it). Without --scope, a user's token has what the user's role allows.")]
    Create(Create),
    /// Revoke tokens
    #[command(after_help = "Example:
  lyra token rm tok_01jd6gkz5w3v9q0x7y2m4n8abc")]
    Rm(Rm),
}

/// Flags of `token ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Only this user's
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Those of operators
    #[arg(long, conflicts_with = "user")]
    operators: bool,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// Flags of `token create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// What it is for, for people
    #[arg(value_name = "NAME")]
    name: String,
    /// What it allows: deploy, invoke, read, admin, operator
    #[arg(long = "scope", value_name = "SCOPE,…", value_delimiter = ',', value_parser = parse_scope)]
    scopes: Vec<Scope>,
    /// Whose it is [default: your own]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// It is the tenant's and no user's
    #[arg(long, conflicts_with = "user")]
    no_user: bool,
    /// How long it is good for, such as 12h or 30d [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    expires: Option<Duration>,
}

/// Flags of `token rm`.
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// The tokens, `tok_…`
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| Scope::ALL.map(Scope::as_str).join(", "))
}

/// Prints a new token: the token alone on stdout, what is known of it on stderr.
///
/// # Errors
/// When stdout can't be written.
pub fn show_issued(session: &Session, issued: &lyra_client::Answer<IssuedView>) -> Result<()> {
    if session.json() {
        return print_line(issued.json());
    }
    let about = &issued.about;
    let until = about.expires_at.map_or_else(|| "until it is revoked".to_owned(), |end| format!("until {end}"));
    session.note(&format!("{} allows {} in {}, {until}; it is shown this once", about.id, about.scopes, place(about)));
    print_line(issued.token.reveal())
}

fn place(about: &TokenView) -> &str {
    about.tenant.as_deref().unwrap_or("every tenant")
}

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = &session.client;
    match command {
        Command::Ls(Ls { user, operators, limit }) => {
            let row = |token: &TokenView| {
                let end = token.expires_at.map_or_else(|| "never".to_owned(), |end| end.to_string());
                let user = token.user.clone().unwrap_or_default();
                let age = age(&session.clock, token.created_at);
                vec![token.id.clone(), token.name.clone(), user, token.scopes.to_string(), end, age]
            };
            let found = client.tokens(TokenFilter { user, operators }, limit).await?;
            session.list(&found, |token| token.id.clone(), &["id", "name", "user", "scopes", "expires", "age"], row)
        }
        Command::Create(Create { name, scopes, user, no_user, expires }) => {
            let expires_in = match expires {
                Some(life) if life < Duration::from_secs(1) => return Err(Failure::usage("--expires is at least 1s")),
                life => life.map(|life| life.as_secs()),
            };
            let scopes = (!scopes.is_empty()).then(|| scopes.into_iter().collect::<Scopes>());
            let user = if no_user { Some(String::new()) } else { user };
            let issued = client.create_token(&TokenRequest { name, scopes, user, expires_in }).await?;
            show_issued(session, &issued)
        }
        Command::Rm(Rm { ids }) => {
            for id in ids {
                client.delete_token(&id).await?;
                match (session.json(), session.quiet) {
                    (true, _) => {}
                    (false, true) => print_line(&id)?,
                    (false, false) => print_line(&format!("{id} revoked"))?,
                }
            }
            Ok(())
        }
    }
}
