//! `lyra completions`: scripts that complete commands and flags in a shell.

use crate::failure::Result;
use crate::output::print_bytes;

/// Flags of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra completions bash > ~/.local/share/bash-completion/completions/lyra
  lyra completions zsh > ~/.zfunc/_lyra
  lyra completions fish > ~/.config/fish/completions/lyra.fish")]
pub struct Args {
    /// Shell to make the script for
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Prints the script.
///
/// # Errors
/// When stdout can't be written.
pub fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::command::tree(), "lyra", &mut script);
    print_bytes(&script)
}
