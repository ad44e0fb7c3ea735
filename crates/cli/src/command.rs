//! The command tree, and how one command is run.

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use crate::failure::{Failure, Result};
use crate::session::{Format, Global};
use crate::{
    app, app_session, audit, completions, config, control, dead_letter, demo, function, job, kubeconfig, load, login,
    logs, node, openapi, quota, scaler, schedule, secret, tenant, tls, token, trigger, up, usage, user, version,
    webhook, whoami, worker, workflow,
};

/// Help is not wider than this: what is laid out by hand stays as it is.
const WIDTH: usize = 100;

/// Functions on your own machines: deploy, call, run as jobs, log.
#[derive(Debug, Parser)]
#[command(
    name = "lyra",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = WIDTH,
    after_help = "Examples:
  lyra demo                          see everything work, in a temporary directory
  lyra up                            start the platform on http://127.0.0.1:8080
  lyra deploy hello.js               deploy a function
  lyra invoke hello -d '{\"name\":\"Ada\"}'

Exit codes: 0 done, 1 the function or job failed, 2 wrong usage or input, 3 not found,
4 not allowed, 5 overloaded, 6 deadline passed, 7 platform unavailable, 70 internal fault."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take the tour: start everything, deploy, call, break and repair things, stop
    Demo(demo::Args),
    /// Start the platform: all roles in this process
    Up(up::Args),
    /// Start some of the roles in this process, the others being elsewhere
    Node(Box<node::Args>),
    /// Deploy a function (same as `fn deploy`)
    Deploy(Box<function::deploy::Args>),
    /// Call a function (same as `fn invoke`)
    Invoke(function::invoke::Args),
    /// Show what a function wrote, or a session, an application, an instance
    Logs(logs::Args),
    /// Functions, their versions and aliases
    #[command(subcommand)]
    Fn(function::Command),
    /// Jobs: calls that were accepted durably and run later
    #[command(subcommand)]
    Job(job::Command),
    /// Jobs whose tries are used up
    #[command(subcommand)]
    DeadLetter(dead_letter::Command),
    /// Schedules: functions that are called by themselves
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// Triggers: functions that are called by events, in batches
    #[command(subcommand)]
    Trigger(trigger::Command),
    /// Who hears of the ends of jobs and runs, and the deliveries that tell them
    #[command(subcommand)]
    Webhook(webhook::Command),
    /// Workflows: compositions of functions
    #[command(subcommand)]
    Workflow(workflow::Command),
    /// Applications: code whose instances stand ready for sessions
    #[command(subcommand)]
    App(app::Command),
    /// Sessions of applications: an instance and an endpoint each
    #[command(subcommand)]
    Session(app_session::Command),
    /// Workers: what they hold, and operations on them
    #[command(subcommand)]
    Worker(worker::Command),
    /// What calls used: counts, time, memory, bytes
    Usage(usage::Args),
    /// Control processes: which one leads, which stand by
    #[command(subcommand)]
    Control(control::Command),
    /// The scaler: how many workers it wants, why, and what it is to keep to
    #[command(subcommand)]
    Scaler(scaler::Command),
    /// Secrets that functions and applications are given, and the keys that seal them
    #[command(subcommand)]
    Secret(secret::Command),
    /// Tenants: who owns functions, sessions and everything else
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Quotas: how much a tenant or a function may take
    #[command(subcommand)]
    Quota(quota::Command),
    /// Users of a tenant
    #[command(subcommand)]
    User(user::Command),
    /// Tokens: what callers show to be let in
    #[command(subcommand)]
    Token(token::Command),
    /// Log in by password: prints a token that ends soon
    Login(login::Args),
    /// Show who the server takes this token for
    Whoami(whoami::Args),
    /// Who changed what
    #[command(subcommand)]
    Audit(audit::Command),
    /// Certificates of the nodes of a site
    #[command(subcommand)]
    Tls(tls::Command),
    /// Settings of a platform started here
    #[command(subcommand)]
    Config(config::Command),
    /// Traces, simulations, and load on a running server
    #[command(subcommand)]
    Load(Box<load::Command>),
    /// Print a configuration for kubectl
    Kubeconfig(kubeconfig::Args),
    /// Print the server's OpenAPI document
    Openapi(openapi::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print the version
    Version(version::Args),
}

/// How long threads that do blocking work may hold up the end.
const LAST_THREADS: Duration = Duration::from_secs(2);

/// Reads the command line and runs it.
pub fn run() -> ExitCode {
    // clap prints help and usage errors itself: exit codes 0 and 2.
    let cli = Cli::parse();
    let as_json = cli.global.format == Format::Json;
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(as_json);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// The tree itself, for completions.
pub fn tree() -> clap::Command {
    Cli::command()
}

fn dispatch(cli: Cli) -> Result<()> {
    let Cli { global, command } = cli;
    match command {
        Command::Completions(args) => completions::run(&args),
        Command::Config(command) => config::run(command, &global),
        Command::Tls(command) => tls::run(&command, &global),
        Command::Secret(secret::Command::NewKey(args)) => secret::new_key(&args, &global),
        Command::Workflow(command) => workflow::run(command, &global),
        Command::Kubeconfig(args) => one_thread()?.block_on(Box::pin(kubeconfig::run(&args, &global))),
        Command::Scaler(scaler::Command::Decide(args)) => scaler::decide(&args, &global),
        Command::Version(args) => version::run(&args, &global),
        Command::Up(args) => on_many_threads(up::run(args)),
        Command::Node(args) => on_many_threads(node::run(*args)),
        Command::Demo(args) => on_many_threads(demo::run(args, &global)),
        Command::Load(command) => load::run(*command, &global),
        remote => one_thread()?.block_on(Box::pin(run_remote(remote, &global))),
    }
}

async fn run_remote(command: Command, global: &Global) -> Result<()> {
    let session = global.session()?;
    match command {
        Command::Tenant(command) => tenant::run(command, &session).await,
        Command::Quota(command) => quota::run(command, &session.in_own_tenant(global).await?).await,
        Command::User(command) => user::run(command, &session.in_own_tenant(global).await?).await,
        Command::Token(command) => token::run(command, &session).await,
        Command::Login(args) => login::run(args, &session).await,
        Command::Whoami(_) => whoami::run(&session).await,
        Command::Audit(command) => audit::run(command, &session).await,
        // What it prints names the function's URL.
        Command::Deploy(args) => function::deploy::run(*args, &session.in_own_tenant(global).await?).await,
        Command::Invoke(args) => function::invoke::run(args, &session).await,
        Command::Logs(args) => logs::run(args, &session).await,
        Command::Fn(command) => function::run(command, &session).await,
        Command::Job(command) => job::run(command, &session).await,
        Command::DeadLetter(command) => dead_letter::run(command, &session).await,
        Command::Webhook(command) => webhook::run(command, &session).await,
        Command::Schedule(command) => schedule::run(command, &session).await,
        Command::Trigger(command) => trigger::run(command, &session).await,
        Command::App(command) => app::run(command, &session.in_own_tenant(global).await?).await,
        Command::Session(command) => app_session::run(command, &session.in_own_tenant(global).await?).await,
        Command::Worker(command) => worker::run(command, &session).await,
        Command::Secret(command) => secret::run(command, &session).await,
        Command::Usage(args) => usage::run(args, &session).await,
        Command::Control(command) => control::run(command, &session).await,
        Command::Scaler(command) => scaler::run(command, &session).await,
        Command::Openapi(_) => openapi::run(&session).await,
        Command::Completions(_)
        | Command::Config(_)
        | Command::Kubeconfig(_)
        | Command::Tls(_)
        | Command::Workflow(_)
        | Command::Version(_)
        | Command::Up(_)
        | Command::Node(_)
        | Command::Demo(_)
        | Command::Load(_) => {
            unreachable!("dispatched before")
        }
    }
}

/// A runtime for what waits for a server and does nothing else.
///
/// # Errors
/// When it can't start.
pub fn one_thread() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::internal(format!("the async runtime can't start: {error}")))
}

/// Runs `work` on a runtime with a thread for each processor.
///
/// # Errors
/// Those of the work, or that the runtime can't start.
pub fn on_many_threads(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::internal(format!("the async runtime can't start: {error}")))?;
    let outcome = runtime.block_on(work);
    // A thread that waits for a key to be pressed must not hold up the end.
    runtime.shutdown_timeout(LAST_THREADS);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        tree().debug_assert();
    }

    fn each(command: &clap::Command, path: &str, check: &mut dyn FnMut(&clap::Command, &str)) {
        check(command, path);
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            each(sub, &format!("{path} {}", sub.get_name()), check);
        }
    }

    #[test]
    fn every_command_has_an_example_that_parses() {
        let mut wide = Vec::new();
        each(&tree(), "lyra", &mut |command, path| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "`{path}` has no example");
            assert!(help.contains(path), "the example of `{path}` does not show it");
            wide.extend(help.lines().filter(|line| line.chars().count() > WIDTH).map(|line| format!("{path}: {line}")));
        });
        assert!(wide.is_empty(), "these are too wide: {wide:#?}");
    }

    #[test]
    fn every_flag_says_what_it_does() {
        each(&tree(), "lyra", &mut |command, path| {
            assert!(command.get_about().is_some(), "{path}");
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{path} {}", arg.get_id());
            }
        });
    }
}
