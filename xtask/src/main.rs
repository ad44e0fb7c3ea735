//! Chores of this repository: `cargo xtask --help`.
//!
//! One file (or folder) for each subcommand; this one only dispatches.
#![expect(clippy::print_stdout, reason = "a command-line program for developers")]

use std::path::Path;

use clap::{Parser, Subcommand};

mod tidy;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the Lyra repository")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks the rules that would otherwise rot: crate edges, file sizes, docs that name everything.
    Tidy,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Tidy => tidy::run(),
    }
}

/// The root of the repository that this program was built from.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}
