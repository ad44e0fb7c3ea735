//! The `lyra` binary: reads the command line, runs one command, ends with an exit code of the table in
//! `docs/reference/cli.md`.
//!
//! Each noun has a file of its own with its flags, its help and what it does. Data goes to stdout, everything
//! else to stderr; nothing here knows how the platform works inside but `up` and `demo`, which start it.

mod command;
mod completions;
mod dead_letter;
mod demo;
mod directory;
mod duration;
mod excerpt;
mod failure;
mod function;
mod job;
mod logs;
mod openapi;
mod output;
mod paint;
mod session;
mod source;
mod table;
mod up;
mod version;

/// The one argument of the process that makes sandboxes: this very program, started by `lyra up`. No command for people.
const SANDBOX_LAUNCHER: &str = "sandbox-launcher";

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == SANDBOX_LAUNCHER) && arguments.next().is_none() {
        return lyra_node::sandbox_launcher();
    }
    command::run()
}
