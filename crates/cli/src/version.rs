//! `lyra version`. Needs no server.

use crate::failure::Result;
use crate::output::print_line;
use crate::session::{Format, Global};

/// Flags of `version`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra version
  lyra version -o json")]
pub struct Args {}

/// Prints the version of this binary.
///
/// # Errors
/// When stdout can't be written.
pub fn run(_: &Args, global: &Global) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    match global.format {
        Format::Json => print_line(&serde_json::json!({ "version": version }).to_string()),
        Format::Table if global.quiet => print_line(version),
        Format::Table => print_line(&format!("lyra {version}")),
    }
}
