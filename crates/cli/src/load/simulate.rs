//! `lyra load simulate` and `lyra load compare`: days of calls through the real worker, under virtual time.

use std::path::{Path, PathBuf};

use lyra_load::compare::{Run, compare as run_all};
use lyra_load::report::table;
use lyra_load::simulation::Machine;
use lyra_load::{Policy, Report, Trace, plot};

use super::json;
use super::trace::{Shape, read};
use crate::failure::{Failure, Result};
use crate::output::{note, print_line};
use crate::session::{Format, Global};
use crate::table::Table;

/// Which trace.
#[derive(Debug, clap::Args)]
struct Input {
    /// File of the calls; without one, a trace is generated
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// File of the trace's functions [default: the trace's with the ending .functions.csv]
    #[arg(long, value_name = "FILE", requires = "trace")]
    trace_functions: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
}

impl Input {
    fn load(&self) -> Result<Trace> {
        match &self.trace {
            Some(file) => read(file, self.trace_functions.as_deref()),
            None => self.shape.generate(),
        }
    }
}

/// Where the figures go besides stdout.
#[derive(Debug, clap::Args)]
struct Output {
    /// Also write the reports to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw plots (SVG) into this folder
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
}

/// Flags of `load simulate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra load simulate
  lyra load simulate --trace day.csv --policy keep_alive=ttl:60s --memory-mb 8192 -o json

Time, memory and failures are simulated; queue, pool and everything else is the worker that serves
real calls. The same trace, policies, machine and seed give the same report, bit by bit.")]
pub struct Args {
    #[command(flatten)]
    input: Input,
    /// Policies of the worker: queue=…,keep_alive=…
    #[arg(long, value_name = "POLICY", default_value = "")]
    policy: Policy,
    /// Memory for instances
    #[arg(long, value_name = "MB", default_value_t = 16_384)]
    memory_mb: u64,
    /// Calls that may run at once
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    max_running: usize,
    #[command(flatten)]
    output: Output,
}

/// Flags of `load compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  lyra load compare --plot plots
  lyra load compare --policy keep_alive=ttl:60s --policy keep_alive=ttl:600s --memory-mb 8192,16384

Without --policy, all keep-alive policies are compared over the memory of the machine, then all
queue policies over the number of calls that may run at once.")]
pub struct CompareArgs {
    #[command(flatten)]
    input: Input,
    /// Policies to compare: queue=…,keep_alive=… (may be given several times)
    #[arg(long, value_name = "POLICY")]
    policy: Vec<Policy>,
    /// Memory for instances, in MiB, parted by commas
    #[arg(long, value_name = "MB,…", value_delimiter = ',')]
    memory_mb: Vec<u64>,
    /// Calls that may run at once, parted by commas
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    max_running: Vec<usize>,
    #[command(flatten)]
    output: Output,
}

/// Runs `load simulate`.
///
/// # Errors
/// When the trace can't be read, or a file can't be written.
pub fn run(args: &Args, global: &Global) -> Result<()> {
    let machine =
        Machine { memory_mb: args.memory_mb, max_running: args.max_running.max(1), seed: args.input.shape.seed };
    let runs = [Run { policy: args.policy.clone(), machine }];
    let reports = study(&args.input.load()?, &runs, global)?;
    save(&reports, args.output.json.as_deref())?;
    if let Some(folder) = &args.output.plot {
        plot::draw(&reports, folder, "")?;
    }
    show(&reports, global)
}

/// Runs `load compare`.
///
/// # Errors
/// As [`run`].
pub fn compare(args: &CompareArgs, global: &Global) -> Result<()> {
    let trace = args.input.load()?;
    let mut all = Vec::new();
    for (prefix, runs) in studies(args) {
        let reports = study(&trace, &runs, global)?;
        if let Some(folder) = &args.output.plot {
            plot::draw(&reports, folder, prefix)?;
        }
        all.extend(reports);
    }
    save(&all, args.output.json.as_deref())?;
    show(&all, global)
}

/// What is compared, with the prefix of its plots.
fn studies(args: &CompareArgs) -> Vec<(&'static str, Vec<Run>)> {
    let seed = args.input.shape.seed;
    let or = |given: &[u64], default: &[u64]| if given.is_empty() { default.to_vec() } else { given.to_vec() };
    let running: Vec<u64> = args.max_running.iter().map(|most| *most as u64).collect();
    let cross = |policies: &[Policy], memory: &[u64], running: &[u64]| {
        let mut runs = Vec::new();
        for policy in policies {
            for memory_mb in memory {
                for most in running {
                    let max_running = usize::try_from(*most).unwrap_or(usize::MAX).max(1);
                    runs.push(Run {
                        policy: policy.clone(),
                        machine: Machine { memory_mb: *memory_mb, max_running, seed },
                    });
                }
            }
        }
        runs
    };
    if !args.policy.is_empty() {
        return vec![("", cross(&args.policy, &or(&args.memory_mb, &[16_384]), &or(&running, &[1_000])))];
    }
    let memory = or(&args.memory_mb, &[16_384, 32_768, 65_536]);
    let keep_alive = cross(&Policy::keep_alives(), &memory, &or(&running, &[1_000]));
    let queue = cross(&Policy::queues(), &or(&args.memory_mb, &[32_768]), &or(&running, &[24, 28, 32, 40]));
    vec![("keep-alive-", keep_alive), ("queue-", queue)]
}

fn study(trace: &Trace, runs: &[Run], global: &Global) -> Result<Vec<Report>> {
    let quiet = global.quiet || runs.len() == 1;
    let reports = run_all(trace, runs, |report| {
        if !quiet {
            note(&format!("{}, {} MiB, {} at once: done", report.policy, report.memory_mb, report.max_running));
        }
    });
    Ok(reports?)
}

fn save(reports: &[Report], file: Option<&Path>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let lines: Result<Vec<String>> = reports.iter().map(|report| Ok(json(report)? + "\n")).collect();
    std::fs::write(file, lines?.concat())
        .map_err(|error| Failure::usage(format!("{} can't be written: {error}", file.display())))
}

fn show(reports: &[Report], global: &Global) -> Result<()> {
    if global.format == Format::Json {
        for report in reports {
            print_line(&json(report)?)?;
        }
        return Ok(());
    }
    let (header, rows) = table(reports);
    let mut shown = Table::new(&header);
    rows.into_iter().for_each(|row| shown.row(row));
    print_line(&shown.to_string())
}
