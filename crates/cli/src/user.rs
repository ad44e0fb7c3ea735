//! `lyra user`: users of a tenant, their roles and passwords.

use lyra_types::Role;
use lyra_types::api::{UserRequest, UserView};

use crate::failure::Result;
use crate::output::print_line;
use crate::password::Source;
use crate::session::Session;
use crate::table::{age, fields};

/// Verbs of `user`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra user create ada --role developer --tenant acme
  lyra user passwd ada --tenant acme < password.txt
  lyra user ls --tenant acme")]
pub enum Command {
    /// List a tenant's users
    #[command(after_help = "Example:
  lyra user ls --tenant acme -o json")]
    Ls(Ls),
    /// Make a user
    #[command(after_help = "Examples:
  lyra user create ada --role developer
  lyra user create ada --role owner --password-file password.txt
  lyra user create ada --with-password < password.txt

Roles: owner (all in the tenant), developer (deploy, call, see), invoker (call), viewer (see).")]
    Create(Create),
    /// Show a user
    #[command(after_help = "Example:
  lyra user get ada")]
    Get(One),
    /// Give a user another role; tokens of the user are narrowed by it at once
    #[command(after_help = "Example:
  lyra user role ada viewer")]
    Role(SetRole),
    /// Set a user's password; what was logged in by the old one ends
    #[command(after_help = "Examples:
  lyra user passwd ada < password.txt
  lyra user passwd ada --password-file password.txt
  printf '%s\\n' \"$OLD\" \"$NEW\" | lyra user passwd ada --own")]
    Passwd(Passwd),
    /// Delete a user and revoke the user's tokens
    #[command(after_help = "Example:
  lyra user rm ada")]
    Rm(One),
}

/// Flags of `user ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// One user.
#[derive(Debug, clap::Args)]
pub struct One {
    /// The user
    #[arg(value_name = "NAME")]
    name: String,
}

/// Flags of `user create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    #[command(flatten)]
    one: One,
    /// What the user may do: owner, developer, invoker, viewer
    #[arg(long, value_name = "ROLE", default_value = "developer", value_parser = parse_role)]
    role: Role,
    /// Read a password from standard input
    #[arg(long)]
    with_password: bool,
    #[command(flatten)]
    password: Source,
}

/// Flags of `user role`.
#[derive(Debug, clap::Args)]
pub struct SetRole {
    #[command(flatten)]
    one: One,
    /// What the user may do from now on: owner, developer, invoker, viewer
    #[arg(value_name = "ROLE", value_parser = parse_role)]
    role: Role,
}

/// Flags of `user passwd`.
#[derive(Debug, clap::Args)]
pub struct Passwd {
    #[command(flatten)]
    one: One,
    /// It is your own: two lines are read, the password that holds now and the new one
    #[arg(long)]
    own: bool,
    #[command(flatten)]
    password: Source,
}

fn parse_role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| Role::ALL.map(Role::as_str).join(", "))
}

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = &session.client;
    let name = |user: &UserView| user.name.clone();
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let people = |user: &UserView| {
        fields(&[
            ("name", user.name.clone()),
            ("tenant", user.tenant.clone()),
            ("role", user.role.as_str().to_owned()),
            ("password", yes(user.has_password)),
            ("age", age(&session.clock, user.created_at)),
        ])
    };
    match command {
        Command::Ls(args) => {
            let row = |user: &UserView| {
                let age = age(&session.clock, user.created_at);
                vec![user.name.clone(), user.role.as_str().to_owned(), yes(user.has_password), age]
            };
            session.list(&client.users(args.limit).await?, name, &["name", "role", "password", "age"], row)
        }
        Command::Create(Create { one, role, with_password, password }) => {
            let password = match with_password || password.is_given() {
                true => Some(password.read_one()?),
                false => None,
            };
            let user = UserRequest { name: one.name, role, password };
            session.show(&client.create_user(&user).await?, name, people)
        }
        Command::Get(one) => session.show(&client.get_user(&one.name).await?, name, people),
        Command::Role(SetRole { one, role }) => session.show(&client.set_role(&one.name, role).await?, name, people),
        Command::Passwd(Passwd { one, own, password }) => {
            let mut lines = password.read(if own { 2 } else { 1 })?.into_iter();
            let current = if own { lines.next() } else { None };
            let new = lines.next().unwrap_or_default();
            client.set_password(&one.name, new, current).await?;
            said(session, &one.name, "has a new password")
        }
        Command::Rm(one) => {
            client.delete_user(&one.name).await?;
            said(session, &one.name, "deleted")
        }
    }
}

fn said(session: &Session, name: &str, done: &str) -> Result<()> {
    match (session.json(), session.quiet) {
        (true, _) => Ok(()),
        (false, true) => print_line(name),
        (false, false) => print_line(&format!("{name} {done}")),
    }
}
