//! `lyra load`: traces, simulations of the worker under virtual time, and load on a running Lyra.

mod overhead;
mod run;
mod simulate;
mod site;
mod trace;

use crate::command::on_many_threads;
use crate::failure::{Failure, Result};
use crate::session::Global;
use lyra_types::Code;

/// Verbs of `load`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra load run hello --clients 8 --duration 10s
  lyra load compare --plot plots")]
pub enum Command {
    /// Send calls to a function, in a closed or an open loop, and show the latencies
    Run(run::Args),
    /// Make, read and look at traces of calls
    #[command(subcommand)]
    Trace(trace::Command),
    /// Run a trace through the worker under virtual time
    Simulate(simulate::Args),
    /// Run a trace under many policies and machines, and plot what comes out
    Compare(simulate::CompareArgs),
    /// Measure what the worker adds to a call, in this process, without a network
    Overhead(overhead::Args),
    /// Join simulated workers to a control process, and measure how long placing instances takes
    Site(site::Args),
}

/// Runs a verb.
///
/// # Errors
/// Wrong input, or a server that can't be reached.
pub fn run(command: Command, global: &Global) -> Result<()> {
    match command {
        Command::Run(args) => on_many_threads(run::run(args, global)),
        Command::Trace(command) => trace::run(command, global),
        Command::Simulate(args) => simulate::run(&args, global),
        Command::Compare(args) => simulate::compare(&args, global),
        Command::Overhead(args) => on_many_threads(overhead::run(args, global)),
        Command::Site(args) => on_many_threads(site::run(args, global)),
    }
}

impl From<lyra_load::Error> for Failure {
    fn from(error: lyra_load::Error) -> Failure {
        let code = match &error {
            lyra_load::Error::Runtime(_) | lyra_load::Error::Plot { .. } => Code::Internal,
            lyra_load::Error::Refused { source, .. } => source.code,
            lyra_load::Error::File { .. } | lyra_load::Error::Format { .. } | lyra_load::Error::Setting(_) => {
                Code::BadRequest
            }
        };
        Failure::new(code, error.to_string())
    }
}

/// `value` as one line of JSON.
///
/// # Errors
/// Never for what this command prints.
fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Failure::internal(format!("the figures can't be written: {error}")))
}
