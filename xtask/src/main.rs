//! Chores of this repository: `cargo xtask --help`.
//!
//! One file (or folder) for each subcommand; this one only dispatches.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program for developers")]

use std::path::Path;

use clap::{Parser, Subcommand};

mod bench;
mod chaos;
mod examples;
mod guest;
mod tidy;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the Lyra repository")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures Lyra beside its peers.
    Bench(bench::Arguments),
    /// The floor that `bench` measures the platform's overhead from.
    #[command(hide = true)]
    BareServer(bench::BareArguments),
    /// Runs a site under traffic and has its parts fail by chance, for minutes; fails where something does not hold.
    Chaos(chaos::Arguments),
    /// Rebuilds the committed WebAssembly of the examples and tests (needs the Rust target wasm32-wasip2).
    Examples {
        /// Only checks that no committed file is older than its sources.
        #[arg(long)]
        check: bool,
    },
    /// Rebuilds the QuickJS guest of the js runtime (needs clang-19, lld-19 and libclang-rt-19-dev-wasm32).
    Guest {
        /// Only checks that the committed guest is what its sources give.
        #[arg(long)]
        check: bool,
    },
    /// Checks the rules that would otherwise rot: crate edges, file sizes, docs that name everything.
    Tidy,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Examples { check } => examples::run(check),
        Command::Guest { check } => guest::run(check),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Chaos(arguments) => chaos::run(arguments),
        Command::BareServer(arguments) => bench::run_bare(&arguments),
        Command::Tidy => tidy::run(),
    }
}

/// The root of the repository that this program was built from.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}
