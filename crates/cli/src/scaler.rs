//! `lyra scaler`: how many workers the scaler wants, why, and what it is to keep to.

use std::io::Read;
use std::path::PathBuf;

use lyra_node::scaler::decide::{Decider, Decision, Sample, Seasons};
use lyra_node::settings::Flags;
use lyra_types::Timestamp;
use lyra_types::api::{ScalerChange, ScalerDecision, ScalerLook, ScalerView};
use serde::Deserialize;

use crate::config::{self, File};
use crate::failure::{Failure, Result};
use crate::output::{print, print_line};
use crate::session::{Format, Global, Session};
use crate::table::{Table, age, fields};

/// Verbs of `scaler`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra scaler status
  lyra scaler set --min 2 --max 16
  lyra scaler decide --trace trace.jsonl --config scaler.toml")]
pub enum Command {
    /// Show how the scaler stands
    #[command(after_help = "Example:
  lyra scaler status -o json")]
    Status(Nothing),
    /// List the last changes that it has decided on, newest first
    #[command(after_help = "Example:
  lyra scaler history --limit 20")]
    History(History),
    /// Set the fewest and the most workers, over the scaler's settings
    #[command(after_help = "Examples:
  lyra scaler set --min 2 --max 16
  lyra scaler set --min 0             as the scaler's settings say, again")]
    Set(Set),
    /// Have it decide nothing
    #[command(after_help = "Example:
  lyra scaler pause")]
    Pause(Nothing),
    /// Have it go on
    #[command(after_help = "Example:
  lyra scaler resume")]
    Resume(Nothing),
    /// Show what would be decided on a trace; asks no server
    #[command(after_help = "Examples:
  lyra scaler decide --trace trace.jsonl
  lyra scaler decide --trace - --config scaler.toml -o json < trace.jsonl

A trace has one JSON object a line: time (RFC 3339), queued, and where they matter running,
workers, ready, wait_ms, utilisation. Without workers, those are there that were decided before.")]
    Decide(Decide),
}

/// No flags.
#[derive(Debug, clap::Args)]
pub struct Nothing {}

/// Flags of `scaler history`.
#[derive(Debug, clap::Args)]
pub struct History {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// Flags of `scaler set`.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct Set {
    /// Fewest workers; 0: as the scaler's settings say
    #[arg(long, value_name = "N")]
    min: Option<u32>,
    /// Most workers; 0: as the scaler's settings say
    #[arg(long, value_name = "N")]
    max: Option<u32>,
}

/// Flags of `scaler decide`.
#[derive(Debug, clap::Args)]
pub struct Decide {
    #[command(flatten)]
    file: File,
    /// The trace; - reads stdin
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
}

/// One line of a trace.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    time: Timestamp,
    queued: u64,
    #[serde(default)]
    running: u64,
    workers: Option<u32>,
    ready: Option<u32>,
    #[serde(default)]
    wait_ms: u64,
    #[serde(default)]
    utilisation: f64,
}

/// Runs a verb that asks a server.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let change = |change: ScalerChange| async move {
        session.show(&session.client.steer_scaler(&change).await?, name, |view| people(session, view))
    };
    match command {
        Command::Status(Nothing {}) => {
            session.show(&session.client.scaler().await?, name, |view| people(session, view))
        }
        Command::History(History { limit }) => {
            let all = session.client.scaler_history(limit).await?;
            let header = ["ago", "from", "to", "reason", "queued", "running", "ready", "wait", "used"];
            let row = |of: &ScalerDecision| {
                let mut row = vec![age(&session.clock, of.time)];
                row.extend(cells(of));
                row
            };
            session.list(&all, |of| format!("{} {}", of.time, of.to), &header, row)
        }
        Command::Set(Set { min, max }) => change(ScalerChange { min, max, paused: None }).await,
        Command::Pause(Nothing {}) => change(ScalerChange { paused: Some(true), ..ScalerChange::default() }).await,
        Command::Resume(Nothing {}) => change(ScalerChange { paused: Some(false), ..ScalerChange::default() }).await,
        Command::Decide(_) => unreachable!("dispatched before"),
    }
}

fn name(view: &ScalerView) -> String {
    view.state.clone()
}

fn cells(of: &ScalerDecision) -> Vec<String> {
    let ScalerLook { queued, running, ready, wait_ms, utilisation, .. } = of.look;
    let reason = if of.dry_run { format!("{} (dry run)", of.reason) } else { of.reason.clone() };
    let (used, wait) = (format!("{:.0} %", utilisation * 100.0), format!("{wait_ms} ms"));
    let (from, to) = (of.from.to_string(), of.to.to_string());
    vec![from, to, reason, queued.to_string(), running.to_string(), ready.to_string(), wait, used]
}

fn people(session: &Session, view: &ScalerView) -> String {
    let number = |count: Option<u32>| count.map(|count| count.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let look = |of: fn(&ScalerLook) -> String| view.look.as_ref().map(of).unwrap_or_default();
    let ordered = |count: Option<u32>| count.map(|count| format!("{count}")).unwrap_or_default();
    let last = |last: &ScalerDecision| {
        format!("{} to {} for {}, {} ago", last.from, last.to, last.reason, age(&session.clock, last.time))
    };
    fields(&[
        ("state", if view.dry_run { format!("{} (dry run)", view.state) } else { view.state.clone() }),
        ("name", text(&view.name)),
        ("mode", text(&view.mode)),
        ("backend", text(&view.backend)),
        ("desired", number(view.desired)),
        ("workers", look(|look| format!("{} ({} ready)", look.workers, look.ready))),
        ("min", number(view.min)),
        ("max", number(view.max)),
        ("ordered min", ordered(view.orders.min)),
        ("ordered max", ordered(view.orders.max)),
        ("queued", look(|look| look.queued.to_string())),
        ("running", look(|look| look.running.to_string())),
        ("wait", look(|look| format!("{} ms", look.wait_ms))),
        ("in use", look(|look| format!("{:.0} %", look.utilisation * 100.0))),
        ("fault", text(&view.fault)),
        ("last", view.last.as_ref().map(last).unwrap_or_default()),
        ("seen", view.seen_at.map(|at| format!("{} ago", age(&session.clock, at))).unwrap_or_default()),
    ])
}

/// Shows what would be decided on a trace.
///
/// # Errors
/// When the settings or the trace can't be read.
pub fn decide(args: &Decide, global: &Global) -> Result<()> {
    let settings = config::settings(&args.file, Flags::default())?.scaler;
    let text = read(&args.trace)?;
    let bounds = settings.bounds();
    let mut workers = bounds.min;
    let mut decider = Decider::new(settings, Seasons::default());
    let mut made = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let fault = |error: serde_json::Error| {
            Failure::usage(format!("{}: line {}: {error}", args.trace.display(), number + 1))
        };
        let line: Line = serde_json::from_str(line).map_err(fault)?;
        let decision = decider.decide(sample(&line, workers), bounds);
        workers = decision.to;
        made.push(decision);
    }
    match (global.format, global.quiet) {
        (Format::Json, _) => made.iter().try_for_each(|decision| {
            let told = serde_json::to_string(&decision.told(true));
            print_line(&told.map_err(|error| Failure::internal(format!("it can't be printed: {error}")))?)
        }),
        (Format::Table, true) => made.iter().try_for_each(|decision| print_line(&decision.to.to_string())),
        (Format::Table, false) => print(&table(&made)),
    }
}

fn sample(line: &Line, before: u32) -> Sample {
    let workers = line.workers.unwrap_or(before);
    let look = ScalerLook {
        queued: line.queued,
        running: line.running,
        workers,
        ready: line.ready.unwrap_or(workers),
        wait_ms: line.wait_ms,
        utilisation: line.utilisation,
    };
    Sample { time: line.time, look }
}

fn table(made: &[Decision]) -> String {
    let mut table = Table::new(&["time", "from", "to", "reason", "queued", "running", "ready", "wait", "used"]);
    for decision in made {
        let mut row = vec![decision.sample.time.to_string()];
        row.extend(cells(&decision.told(false)));
        table.row(row);
    }
    format!("{table}\n")
}

fn read(path: &PathBuf) -> Result<String> {
    let read = match path.as_os_str() == "-" {
        true => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        false => std::fs::read_to_string(path),
    };
    read.map_err(|error| Failure::usage(format!("{} can't be read: {error}", path.display())))
}
