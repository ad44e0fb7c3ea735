//! `lyra config`: what a platform started here would be set to, and why.

use std::path::PathBuf;

use clap::parser::ValueSource;
use lyra_node::apart::Role;
use lyra_node::settings::{Flags, Layers, Over, Settings, SettingsError};

use crate::failure::{Failure, Result};
use crate::output::{print, print_line};
use crate::session::{Format, Global};
use crate::table::Table;
use crate::up::Set;

/// The variable of `--log-filter`, which every node reads.
const LOG: &str = "LYRA_LOG";

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
  lyra config print --data-dir ./data --listen 127.0.0.1:0     as `lyra up` with these flags
  DB_URL=tcp://c1:7070 PORT=8080 lyra config print --role gateway")]
    Print(Box<Print>),
}

/// Flags of `config print`.
#[derive(Debug, clap::Args)]
pub struct Print {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    set: Traced,
    /// As `lyra node --role ROLE` reads them: with the variables DB_URL, JQ_URL and PORT
    #[arg(long, value_name = "ROLE", value_parser = crate::node::parse_role)]
    role: Option<Role>,
}

/// The flags of `lyra up`, each with where its value comes from.
#[derive(Debug)]
struct Traced {
    flags: Flags,
    variables: Vec<(&'static str, Flags)>,
}

impl clap::Args for Traced {
    fn augment_args(command: clap::Command) -> clap::Command {
        Set::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Set::augment_args_for_update(command)
    }
}

impl clap::FromArgMatches for Traced {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Traced, clap::Error> {
        let of_variable = |id: &str| matches.value_source(id) == Some(ValueSource::EnvVariable);
        let mut flags = Set::from_arg_matches(matches)?.flags();
        let mut variables = Vec::new();
        if of_variable("data_dir") {
            variables.push(("LYRA_DATA_DIR", Flags { data_dir: flags.data_dir.take(), ..Flags::default() }));
        }
        if of_variable("listen") {
            variables.push(("LYRA_LISTEN", Flags { listen: flags.listen.take(), ..Flags::default() }));
        }
        if of_variable("token_file") {
            variables.push(("LYRA_TOKEN_FILE", Flags { token_file: flags.token_file.take(), ..Flags::default() }));
        }
        if of_variable("log_filter") {
            variables.push((LOG, Flags { log_filter: flags.log_filter.take(), ..Flags::default() }));
        }
        Ok(Traced { flags, variables })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Traced::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Puts the layers together for a node of these roles (none: of all): defaults, the file, the environment, flags.
///
/// # Errors
/// When the file can't be read, or nothing can be made of a variable.
pub fn layers(file: &File, roles: &[Role], flags: Flags) -> Result<Layers> {
    traced(file, roles, Vec::new(), flags)
}

fn traced(file: &File, roles: &[Role], variables: Vec<(&'static str, Flags)>, flags: Flags) -> Result<Layers> {
    // An empty variable counts as one that is not set.
    let file = file.config.as_deref().filter(|path| !path.as_os_str().is_empty());
    Layers::read(Over { file, roles, classic: crate::node::classic(roles), variables, flags }).map_err(refused)
}

/// The settings that hold.
///
/// # Errors
/// When a layer holds what is not a setting.
pub fn settings(file: &File, flags: Flags) -> Result<Settings> {
    layers(file, &[], flags)?.settings().map_err(refused)
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
pub fn run(command: Command, global: &Global) -> Result<()> {
    let Command::Print(asked) = command;
    let Print { file, set: Traced { flags, mut variables }, role } = *asked;
    // The others are those of `lyra up`.
    variables.retain(|(name, _)| role.is_none() || *name == LOG);
    let origins = traced(&file, role.as_slice(), variables, flags)?.origins().map_err(refused)?;
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
