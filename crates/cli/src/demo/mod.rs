//! `lyra demo`: a tour of the platform that a newcomer can read, and a check that it works.
//!
//! It starts a node in this process, in a temporary directory and on a free port of the loopback address, and
//! then does everything over HTTP, with the client that the other commands use. Every step checks what it
//! shows; the first that is not as promised ends the tour with exit code 1.

mod deploys;
mod hostile;
mod jobs;
mod node;
mod numbers;
mod processes;
mod rollout;
mod sessions;
mod stage;
mod survival;
mod tenants;
mod tour;
mod web;
mod workflows;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use lyra_kit::telemetry;
use lyra_types::Code;

use crate::failure::{self, Failure};
use crate::session::{Format, Global};
use node::Running;
use stage::Stage;
use tour::Tour;

/// The example functions, as they stand in `examples/`.
mod example {
    pub const HELLO: &str = include_str!("../../../../examples/js-hello/index.js");
    pub const ORDER_TOTAL: &str = include_str!("../../../../examples/js-order-total/index.js");
    pub const BATCH: &str = include_str!("../../../../examples/js-batch/index.js");
    pub const HOSTILE: &str = include_str!("../../../../examples/js-hostile/index.js");
    pub const PYTHON_INSIDE: &str = include_str!("../../../../examples/python-inside/main.py");
    pub const NODE_INSIDE: &str = include_str!("../../../../examples/node-inside/index.js");
    pub const SESSION_COUNT: &str = include_str!("../../../../examples/session-count/bootstrap");
    pub const COUNT_WORDS: &str = include_str!("../../../../examples/workflows/functions/count-words.js");
    pub const ADD_COUNTS: &str = include_str!("../../../../examples/workflows/functions/add-counts.js");
    pub const WORD_COUNT: &str = include_str!("../../../../examples/workflows/word-count.yaml");
    pub const WORD_COUNT_MAPPINGS: &str = include_str!("../../../../examples/workflows/word-count.mappings.json");
    pub const WASM_HTTP: &[u8] = include_bytes!("../../../../examples/wasm-http-hello/hello.wasm");
}

/// Longest that the tour may take without pauses; it takes seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// Longest with pauses.
const LIMIT_WITH_PAUSES: Duration = Duration::from_secs(3_600);

/// Flags of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra demo
  lyra demo --pause       wait for Enter after each step
  lyra demo -o json       only the outcome, for programs

Needs nothing and leaves nothing: a temporary directory, a free port, one process. Exit code 0
only if every step really worked.")]
pub struct Args {
    /// Wait for Enter after each step
    #[arg(long)]
    pause: bool,
}

/// Takes the tour.
///
/// # Errors
/// Exit code 1 when a step is not as promised.
pub async fn run(args: Args, global: &Global) -> failure::Result<()> {
    // What Lyra logs of itself would get between the lines; errors are of interest all the same.
    telemetry::init(telemetry::Format::Text, "error");
    let stop = lyra_kit::shutdown::on_signals()
        .map_err(|error| Failure::internal(format!("signals can't be handled: {error}")))?;
    let mut stage = Stage::new(global.format == Format::Json, global.quiet, args.pause);
    let mut node = Running::prepare()
        .map_err(|error| Failure::new(Code::Unavailable, format!("there is no temporary directory: {error}")))?;
    let limit = if args.pause { LIMIT_WITH_PAUSES } else { LIMIT };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(limit, Box::pin(take(&mut stage, &mut node))) => {
            outcome.unwrap_or_else(|_| Err(anyhow!("it took longer than {} s", limit.as_secs())))
        }
        () = stop.cancelled() => Err(anyhow!("stopped by a signal")),
    };
    // Before its directory goes, also when the tour was broken off.
    let outcome = outcome.and(node.stop().await);
    stage.finish(outcome.as_ref().err().map(|error| format!("{error:#}")).as_deref())?;
    outcome.map_err(|_| Failure::silent(Code::FunctionError))
}

async fn take(stage: &mut Stage, node: &mut Running) -> Result<()> {
    stage.intro();
    let mut tour = Tour::begin(stage, node).await.context("the platform does not start")?;
    deploys::first_function(&mut tour).await?;
    deploys::warm_calls(&mut tour).await?;
    deploys::own_errors(&mut tour).await?;
    deploys::timers(&mut tour).await?;
    deploys::refused_code(&mut tour).await?;
    rollout::split_and_back(&mut tour).await?;
    web::component(&mut tour).await?;
    processes::sandboxed(&mut tour).await?;
    sessions::two(&mut tour).await?;
    hostile::contained(&mut tour).await?;
    jobs::two_hundred(&mut tour).await?;
    jobs::dead_letter(&mut tour).await?;
    workflows::over_functions(&mut tour).await?;
    tenants::limited(&mut tour).await?;
    survival::logs_of_a_call(&mut tour).await?;
    survival::restart(&mut tour).await
}
