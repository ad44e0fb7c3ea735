//! `lyra load site`: what a control process takes for many workers.

use std::time::Duration;

use lyra_load::site::{self, Phase, Settings};

use super::json;
use crate::failure::{Failure, Result};
use crate::output::print_line;
use crate::session::{Format, Global};

/// Flags of `load site`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra load site --control 127.0.0.1:7070
  lyra load site --control 127.0.0.1:7070 --workers 10 --instances 1000 --rate 20 -o json
  lyra load site --control 127.0.0.1:7070 --instances 0 --sessions 20000

Starts simulated workers in this process that join the control processes as real ones would,
deploys functions until so many instances stand, and then goes on to deploy and delete functions
at the rate; with --sessions, it then opens so many sessions, and goes on to open and close them at
the rate. It leaves all of it behind: use it on a control process of its own, and look at what that
takes of processor and memory at the end of each line.")]
pub struct Args {
    /// Addresses of the control processes, parted by commas
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true)]
    control: Vec<String>,
    /// Workers
    #[arg(long, value_name = "N", default_value_t = 100)]
    workers: usize,
    /// Instances that stand before the placing begins; 0: none are placed
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    instances: usize,
    /// Instances of each function
    #[arg(long, value_name = "N", default_value_t = 20)]
    each: u32,
    /// Sessions that are open before further ones are opened; 0: none are opened
    #[arg(long, value_name = "N", default_value_t = 0)]
    sessions: usize,
    /// Instances that are placed, and sessions that are opened, in a second
    #[arg(long, value_name = "N", default_value_t = 100.0)]
    rate: f64,
    /// How long each of these goes on
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::duration::parse)]
    duration: Duration,
}

/// Measures, and prints a line at the end of each phase.
///
/// # Errors
/// When control can't be reached, or an instance does not come up.
pub async fn run(args: Args, global: &Global) -> Result<()> {
    let Args { control, workers, instances, each, sessions, rate, duration } = args;
    let directory =
        tempfile::tempdir().map_err(|error| Failure::internal(format!("there is no temporary directory: {error}")))?;
    let settings = Settings {
        control,
        directory: directory.path().to_owned(),
        workers,
        instances,
        each,
        sessions,
        rate,
        duration,
    };
    let as_json = global.format == Format::Json;
    let tell = |phase: Phase| {
        let line = if as_json { json(&phase) } else { Ok(shown(&phase)) };
        // Who reads no more has seen enough.
        let _ = line.and_then(|line| print_line(&line));
    };
    site::measure(&settings, tell).await?;
    Ok(())
}

fn shown(phase: &Phase) -> String {
    let Phase { phase, seconds, instances, sessions, started, p50_us, p99_us, longest_us } = phase;
    let held = if *sessions > 0 { format!("{sessions} sessions") } else { format!("{instances} instances") };
    let mut line = format!("{phase:7} after {seconds:6.1} s: {held}");
    if *started > 0 {
        let what = if *sessions > 0 { "opened" } else { "started" };
        let ms = [p50_us, p99_us, longest_us].map(|us| us / 1e3);
        line += &format!(", {started} {what}, p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms", ms[0], ms[1], ms[2]);
    }
    line
}
