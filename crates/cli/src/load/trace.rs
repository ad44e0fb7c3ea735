//! `lyra load trace`: make traces, read foreign ones, look at them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lyra_load::Trace;
use lyra_load::trace::{Settings, Summary, azure, files, generate};

use super::json;
use crate::failure::Result;
use crate::output::print_line;
use crate::session::{Format, Global};
use crate::table::fields;

/// Verbs of `load trace`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra load trace generate day.csv
  lyra load trace inspect day.csv")]
pub enum Command {
    /// Make a trace with the statistics that were published of Azure Functions
    #[command(after_help = "Examples:
  lyra load trace generate day.csv
  lyra load trace generate hour.csv --functions 50 --invocations 20000 --length 1h --seed 7

Writes two files: day.csv (function, arrival_ms, exec_ms) and day.functions.csv (function, cold_ms,
warm_ms, memory_mb, tenant).")]
    Generate(Generate),
    /// Show what a trace is like
    #[command(after_help = "Example:
  lyra load trace inspect day.csv")]
    Inspect(Inspect),
    /// Read a public trace of Azure Functions, and write it as a trace of ours
    #[command(after_help = "Examples:
  lyra load trace import day.csv --azure-2021 AzureFunctionsInvocationTraceForTwoWeeksJan2021.txt
  lyra load trace import day.csv --azure-2019 invocations.csv,durations.csv,memory.csv")]
    Import(Import),
}

/// Flags of `load trace generate`.
#[derive(Debug, clap::Args)]
pub struct Generate {
    /// File of the calls; the functions go into one beside it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    shape: Shape,
}

/// What a generated trace is like.
#[derive(Debug, clap::Args)]
pub struct Shape {
    /// Functions of the generated trace
    #[arg(long, value_name = "N", default_value_t = 400)]
    functions: usize,
    /// Calls of the generated trace, of all functions together
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    invocations: u64,
    /// Length of the generated trace
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = crate::duration::parse)]
    length: Duration,
    /// How much popular functions stand out: calls go by rank to the power of minus this
    #[arg(long, value_name = "S", default_value_t = 1.9)]
    skew: f64,
    /// The same seed gives the same trace, and the same simulation of it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

impl Shape {
    /// Makes the trace.
    ///
    /// # Errors
    /// When a setting is out of range.
    pub fn generate(&self) -> Result<Trace> {
        let settings = Settings {
            functions: self.functions,
            invocations: self.invocations,
            seconds: self.length.as_secs(),
            skew: self.skew,
            seed: self.seed,
        };
        Ok(generate(&settings)?)
    }
}

/// Flags of `load trace inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// File of the calls
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// File of the functions [default: FILE with the ending .functions.csv]
    #[arg(long, value_name = "FILE")]
    functions: Option<PathBuf>,
}

/// Flags of `load trace import`.
#[derive(Debug, clap::Args)]
#[group(id = "from", required = true, multiple = false, args = ["azure_2019", "azure_2021"])]
pub struct Import {
    /// File of the calls to write; the functions go into one beside it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A day of the trace of 2019: its files of invocations, durations and memory
    #[arg(long, value_name = "FILE,FILE,FILE", value_delimiter = ',', num_args = 3)]
    azure_2019: Option<Vec<PathBuf>>,
    /// The trace of 2021
    #[arg(long, value_name = "FILE")]
    azure_2021: Option<PathBuf>,
    /// Time to start an instance, in ms, which these traces do not have
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    start_ms: u32,
    /// Memory of an instance where the trace has none
    #[arg(long, value_name = "MB", default_value_t = 170)]
    memory: u32,
}

/// Reads a trace; its functions stand beside it unless said otherwise.
///
/// # Errors
/// When it can't be read.
pub fn read(file: &Path, functions: Option<&Path>) -> Result<Trace> {
    let beside = files::functions_beside(file);
    Ok(files::read(file, functions.unwrap_or(&beside))?)
}

/// Runs a verb.
///
/// # Errors
/// When a file can't be read or written, or a setting is out of range.
pub fn run(command: Command, global: &Global) -> Result<()> {
    match command {
        Command::Generate(args) => write(&args.shape.generate()?, &args.file, global),
        Command::Inspect(args) => show(&read(&args.file, args.functions.as_deref())?, global),
        Command::Import(args) => {
            let missing = azure::Missing { start_ms: f64::from(args.start_ms), memory_mb: args.memory };
            let trace = match (args.azure_2019.as_deref(), &args.azure_2021) {
                (Some([invocations, durations, memory]), _) => {
                    azure::read_2019(invocations, durations, memory, &missing)?
                }
                (_, Some(file)) => azure::read_2021(file, &missing)?,
                _ => return Err(crate::failure::Failure::usage("--azure-2019 takes three files, parted by commas")),
            };
            write(&trace, &args.file, global)
        }
    }
}

fn write(trace: &Trace, file: &Path, global: &Global) -> Result<()> {
    files::write(trace, file, &files::functions_beside(file))?;
    show(trace, global)
}

fn show(trace: &Trace, global: &Global) -> Result<()> {
    let summary = Summary::of(trace);
    if global.format == Format::Json {
        return print_line(&json(&summary)?);
    }
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    print_line(&fields(&[
        ("functions", format!("{} of {} tenants", summary.functions, summary.tenants)),
        ("calls", format!("{} in {:.0} s, {:.1} a second", summary.invocations, summary.seconds, summary.rate)),
        ("popular", format!("a fifth of the functions gets {} of the calls", percent(summary.popular_fifth))),
        ("rare", format!("{} of the functions are called once an hour or less", percent(summary.hourly_or_less))),
        ("execution", format!("p50 {} ms, p99 {} ms", summary.exec_p50_ms, summary.exec_p99_ms)),
        ("busy", format!("{:.1} calls run at once on average", summary.busy)),
        ("start", format!("p50 {:.0} ms", summary.start_p50_ms)),
        ("memory", format!("p50 {} MiB, all functions {} MiB", summary.memory_p50_mb, summary.memory_all_mb)),
    ]))
}
