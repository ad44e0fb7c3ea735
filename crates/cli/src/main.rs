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

/// How the binary starts itself as the parent of sandboxed processes. Not a command for people: it speaks with the
/// process that started it, on its standard input, and is never shown.
const LAUNCHER: &str = "sandbox-launcher";

fn main() -> std::process::ExitCode {
    // Before anything makes a thread: this process forks.
    if std::env::args_os().nth(1).is_some_and(|word| word == LAUNCHER) {
        return lyra_node::serve_sandbox_launcher();
    }
    command::run()
}
