//! `lyra config`: what a platform started here would be set to, and why.

use std::path::PathBuf;

use lyra_node::apart::Role;
use lyra_node::settings::{Classic, Flags, Layers, Settings, SettingsError};

use crate::failure::{Failure, Result};
use crate::output::{print, print_line};
use crate::session::{Format, Global};
use crate::table::Table;

/// The file of settings, for every command that reads them.
#[derive(Debug, clap::Args)]
pub struct File {
    /// File of settings, in TOML
    #[arg(long, env = "LYRA_CONFIG", value_name = "FILE", hide_env_values = true)]
    config: Option<PathBuf>,
}

/// Verbs of `config`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra config print
  LYRA__WORKER__MAX_RUNNING=50 lyra config print --config lyra.toml")]
pub enum Command {
    /// Print every setting, its value, and where that comes from
    #[command(after_help = "Examples:
  lyra config print
  lyra config print --config lyra.toml -o json
  LYRA__WORKER__MAX_RUNNING=50 lyra config print
  DB_URL=tcp://c1:7070 PORT=8080 lyra config print --role gateway")]
    Print(Print),
}

/// Flags of `config print`.
#[derive(Debug, clap::Args)]
pub struct Print {
    #[command(flatten)]
    file: File,
    /// As `lyra node --role ROLE` reads them: with the variables DB_URL, JQ_URL and PORT
    #[arg(long, value_name = "ROLE", value_parser = crate::node::parse_role)]
    role: Option<Role>,
}

/// Puts the layers together: defaults, the file, the environment, flags.
///
/// # Errors
/// When the file can't be read.
pub fn layers(file: &File, flags: &Flags) -> Result<Layers> {
    layers_with(file, &Classic::default(), flags)
}

/// The same with the variables of the classic system.
///
/// # Errors
/// When the file can't be read, or nothing can be made of a variable.
pub fn layers_with(file: &File, classic: &Classic, flags: &Flags) -> Result<Layers> {
    // An empty variable counts as one that is not set.
    let path = file.config.as_deref().filter(|path| !path.as_os_str().is_empty());
    Layers::read_with(path, classic, flags).map_err(refused)
}

/// The settings that hold.
///
/// # Errors
/// When a layer holds what is not a setting.
pub fn settings(file: &File, flags: &Flags) -> Result<Settings> {
    layers(file, flags)?.settings().map_err(refused)
}

/// Settings that can't be used, for people.
pub fn refused(error: SettingsError) -> Failure {
    Failure::usage(error.to_string())
        .hint("`lyra config print` lists every setting; docs/reference/configuration.md explains them")
}

/// Runs a verb.
///
/// # Errors
/// When a layer can't be read, or holds what is not a setting.
pub fn run(command: &Command, global: &Global) -> Result<()> {
    let Command::Print(Print { file, role }) = command;
    let classic = crate::node::classic(role.as_slice());
    let origins = layers_with(file, &classic, &Flags::default())?.origins().map_err(refused)?;
    if global.format == Format::Json {
        let text = serde_json::to_string_pretty(&origins);
        return print_line(&text.map_err(|error| Failure::internal(format!("settings can't be printed: {error}")))?);
    }
    if global.quiet {
        return origins.iter().try_for_each(|(name, origin)| print_line(&format!("{name} = {}", origin.value)));
    }
    let mut table = Table::new(&["setting", "value", "from"]);
    for (name, origin) in &origins {
        table.row(vec![name.clone(), origin.value.to_string(), origin.source.clone()]);
    }
    print(&table.to_string())
}
