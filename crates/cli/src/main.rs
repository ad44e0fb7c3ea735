//! The `lyra` binary: reads the command line, runs one command, ends with an exit code of the table in
//! `docs/reference/cli.md`.
//!
//! Each noun has a file of its own with its flags, its help and what it does. Data goes to stdout, everything
//! else to stderr; nothing here knows how the platform works inside but `up` and `demo`, which start it, and `load`, which simulates it.

mod app;
mod app_session;
mod args;
mod audit;
mod command;
mod completions;
mod config;
mod control;
mod dead_letter;
mod demo;
mod directory;
mod duration;
mod excerpt;
mod failure;
mod function;
mod job;
mod kubeconfig;
mod load;
mod login;
mod logs;
mod manifest;
mod node;
mod openapi;
mod output;
mod paint;
mod password;
mod quota;
mod scaler;
mod schedule;
mod secret;
mod session;
mod source;
mod table;
mod tenant;
mod tls;
mod token;
mod trigger;
mod up;
mod usage;
mod user;
mod version;
mod webhook;
mod whoami;
mod worker;
mod workflow;

/// Of what opening a session takes, a quarter was memory management with glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    lyra_kit::memory::keep_pages_small();
    // Before anything makes a thread: some of these children fork.
    lyra_node::child::run(std::env::args_os()).unwrap_or_else(command::run)
}
