//! `lyra secret`: secrets that functions and applications are given, and the keys that seal them.
//!
//! Values come from stdin or a file, never from an argument: arguments show in the list of processes and stay in the shell's history.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use lyra_kit::Random;
use lyra_node::key_file;
use lyra_types::api::{SecretKeyView, SecretView};
use lyra_types::secret::MAX_SECRET;
use lyra_types::{Code, SecretBytes};
use serde_json::json;

use crate::args::Ls;
use crate::failure::{Failure, Result};
use crate::output::{note, print_line};
use crate::session::{Format, Global, Session};
use crate::table::{Table, age, fields};

/// Verbs of `secret`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra secret set db-password < password.txt
  lyra deploy report.py --secret db-password=DB_PASSWORD
  lyra secret ls")]
pub enum Command {
    /// Set a secret, from standard input or a file
    #[command(after_help = "Examples:
  lyra secret set db-password < password.txt
  openssl rand -hex 32 | lyra secret set api-key --value-stdin
  lyra secret set tls-key --from-file tls.key

From standard input, one line end at the end is left out; a file is taken as it is. A value in the
arguments is refused: it would show in the list of processes and stay in the shell's history. New
instances get the new value; kept ones are ended within seconds, busy ones after their call.
Instances of applications see the new value in their files; docs/guide/secrets.md says more.")]
    Set(Set),
    /// List secrets, without their values
    #[command(after_help = "Example:
  lyra secret ls -o json")]
    Ls(Ls),
    /// Show what is known of a secret; its value is never shown
    #[command(after_help = "Example:
  lyra secret get db-password")]
    Get(One),
    /// Delete a secret
    #[command(after_help = "Examples:
  lyra secret rm db-password
  lyra secret rm db-password --force    also where something is given it, which can't start any more")]
    Rm(Rm),
    /// Show the keys that seal secrets, and how many each has sealed
    #[command(after_help = "Example:
  lyra secret keys")]
    Keys,
    /// Put a new key into a key file on this machine
    #[command(after_help = "Examples:
  lyra secret new-key secrets.key              the first key: it seals from now on
  lyra secret new-key secrets.key --last       it opens only, until it is put first

Makes the file where it is not there, for its owner alone. Where several control processes have the
same keys, give all of them the new key as the last one before it is the first one anywhere.")]
    NewKey(NewKey),
    /// Seal all secrets with the first key of the server's key file
    #[command(after_help = "Example:
  lyra secret new-key ~/.local/share/lyra/secrets.key
  lyra secret rotate-key
  lyra secret keys                       a key that has sealed none can be taken out of the file

For operators. Where it is broken off, doing it again goes on.")]
    RotateKey,
}

/// Flags of `secret set`.
#[derive(Debug, clap::Args)]
pub struct Set {
    /// The secret: 1 to 63 lower-case letters, digits and -
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: String,
    /// File with the value, taken as it is
    #[arg(long, value_name = "FILE", conflicts_with = "value_stdin")]
    from_file: Option<PathBuf>,
    /// Read the value from standard input, as without any flag
    #[arg(long)]
    value_stdin: bool,
}

/// One secret.
#[derive(Debug, clap::Args)]
pub struct One {
    /// The secret
    #[arg(value_name = "NAME")]
    name: String,
}

/// Flags of `secret rm`.
#[derive(Debug, clap::Args)]
pub struct Rm {
    #[command(flatten)]
    one: One,
    /// Also where functions or applications are given it
    #[arg(long)]
    force: bool,
}

/// Flags of `secret new-key`.
#[derive(Debug, clap::Args)]
pub struct NewKey {
    /// The key file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Put it behind the others: it opens, and seals nothing
    #[arg(long)]
    last: bool,
}

/// A name, and nothing behind it. clap would repeat what it refuses, so this takes everything; [`run`] refuses.
fn parse_name(text: &str) -> Result<String, String> {
    Ok(text.split_once('=').map_or(text, |(name, _)| &text[..=name.len()]).to_owned())
}

fn read_value(set: &Set) -> Result<SecretBytes> {
    let failed = |place: &dyn std::fmt::Display, error: std::io::Error| {
        Failure::usage(format!("the value can't be read from {place}: {error}"))
    };
    // One more byte than is taken, with a line end, so that what is too large is seen to be.
    let most = MAX_SECRET as u64 + 3;
    let mut bytes = Vec::with_capacity(MAX_SECRET + 3);
    match &set.from_file {
        Some(path) => {
            let read = std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
            read.map_err(|error| failed(&path.display(), error))?;
        }
        None => {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                note("type the value, then Ctrl-D; it shows on the screen (pipe it in, or use --from-file)");
            }
            let read = stdin.lock().take(most).read_to_end(&mut bytes);
            read.map_err(|error| failed(&"standard input", error))?;
            without_line_end(&mut bytes);
        }
    }
    match bytes.len() {
        0 => Err(Failure::usage("the value is empty")),
        1..=MAX_SECRET => Ok(SecretBytes::new(bytes)),
        _ => Err(Failure::usage(format!("the value has more than {MAX_SECRET} bytes"))),
    }
}

fn without_line_end(bytes: &mut Vec<u8>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
}

/// `secret new-key`, which needs no server.
///
/// # Errors
/// When the file can't be read, is no key file, or can't be written.
pub fn new_key(args: &NewKey, global: &Global) -> Result<()> {
    let failed = |error: key_file::KeyFileError| Failure::new(Code::InvalidField, error.to_string());
    let path: &Path = &args.file;
    let id = key_file::add(path, !args.last, &Random::system()).map_err(failed)?;
    if global.format == Format::Json {
        return print_line(&json!({ "key": id, "file": path, "first": !args.last }).to_string());
    }
    let place = if args.last { "last" } else { "first" };
    print_line(&format!("key {id} is the {place} one of {}", path.display()))
}

/// Runs a verb that asks the server.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = &session.client;
    let name = |secret: &SecretView| secret.name.clone();
    let people = |secret: &SecretView| {
        fields(&[
            ("name", secret.name.clone()),
            ("tenant", secret.tenant.clone()),
            ("version", secret.version.to_string()),
            ("functions", secret.functions.join(", ")),
            ("applications", secret.applications.join(", ")),
            ("created", format!("{} ({} ago)", secret.created_at, age(&session.clock, secret.created_at))),
            ("updated", format!("{} ({} ago)", secret.updated_at, age(&session.clock, secret.updated_at))),
        ])
    };
    match command {
        Command::Set(set) => {
            if set.name.contains('=') {
                let why = "a value in the arguments shows in the list of processes and stays in the shell's history";
                return Err(Failure::usage(why)
                    .hint(format!("pipe it in: lyra secret set {} < FILE", set.name.trim_end_matches('='))));
            }
            let value = read_value(&set)?;
            let put = client.put_secret(&set.name, &value).await?;
            session.show(&put, name, |secret| format!("{} set (version {})", secret.name, secret.version))
        }
        Command::Ls(args) => {
            let row = |secret: &SecretView| {
                let (functions, applications) = (secret.functions.join(", "), secret.applications.join(", "));
                let (version, age) = (secret.version.to_string(), age(&session.clock, secret.updated_at));
                vec![secret.name.clone(), version, functions, applications, age]
            };
            let columns = ["name", "version", "functions", "applications", "age"];
            session.list(&client.secrets(args.limit).await?, name, &columns, row)
        }
        Command::Get(one) => session.show(&client.get_secret(&one.name).await?, name, people),
        Command::Rm(Rm { one, force }) => {
            client.delete_secret(&one.name, force).await?;
            match (session.json(), session.quiet) {
                (true, _) => Ok(()),
                (false, true) => print_line(&one.name),
                (false, false) => print_line(&format!("{} deleted", one.name)),
            }
        }
        Command::Keys => {
            let keys = client.secret_keys().await?;
            let ids = |keys: &[SecretKeyView]| keys.iter().map(|key| key.id.clone()).collect::<Vec<_>>().join("\n");
            session.show(&keys, |keys| ids(&keys.keys), |keys| shown(&keys.keys))
        }
        Command::RotateKey => {
            let done = client.rotate_secret_key().await?;
            let people = |key: &str, n: u64| format!("all secrets are sealed with key {key}; {n} were with another");
            session.show(&done, |done| done.key.clone(), |done| people(&done.key, done.resealed))
        }
        Command::NewKey(_) => unreachable!("dispatched before"),
    }
}

fn shown(keys: &[SecretKeyView]) -> String {
    let mut table = Table::new(&["key", "use", "secrets"]);
    for key in keys {
        let of = match (key.seals, key.known) {
            (true, _) => "seals and opens",
            (false, true) => "opens",
            (false, false) => "is missing in the key file",
        };
        table.row(vec![key.id.clone(), of.to_owned(), key.secrets.to_string()]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_the_arguments_does_not_get_further() {
        assert_eq!(parse_name("db-password=hunter2").unwrap(), "db-password=");
        assert_eq!(parse_name("db-password").unwrap(), "db-password");
    }

    #[test]
    fn one_line_end_is_left_out() {
        for (text, kept) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a"), ("a\r", "a\r"), ("\n", "")] {
            let mut bytes = text.as_bytes().to_vec();
            without_line_end(&mut bytes);
            assert_eq!(bytes, kept.as_bytes(), "{text:?}");
        }
    }
}
