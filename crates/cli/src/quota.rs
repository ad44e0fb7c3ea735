//! `lyra quota`: how much of the platform a tenant, or a function, may take.

use lyra_types::FunctionName;
use lyra_types::api::QuotaView;
use lyra_types::quota::{Period, Quota, rate_text};

use crate::failure::{Failure, Result};
use crate::output::print_line;
use crate::session::Session;
use crate::table::fields;

/// Verbs of `quota`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra quota set --tenant acme --rate 100/s --burst 200 --concurrency 50
  lyra quota get --tenant acme")]
pub enum Command {
    /// List quotas that were set, of all tenants and functions
    #[command(after_help = "Example:
  lyra quota ls -o json")]
    Ls(Ls),
    /// Show a quota, and what counts against it now
    #[command(after_help = "Examples:
  lyra quota get --tenant acme
  lyra quota get --tenant acme --function resize")]
    Get(One),
    /// Set a quota in place of the one before; what is not given has no limit
    #[command(after_help = "Examples:
  lyra quota set --tenant acme --rate 100/s --burst 200 --concurrency 50 --memory 8192
  lyra quota set --tenant acme --stored-bytes 1GiB --functions 20 --queued-jobs 10000
  lyra quota set --tenant acme --workflows 50 --runs 1000
  lyra quota set --tenant acme --function resize --cpu-ms 3600000/day")]
    Set(Box<Set>),
    /// Take a quota back: that of the server's settings is in force then
    #[command(after_help = "Examples:
  lyra quota rm --tenant acme
  lyra quota rm --tenant acme --function resize")]
    Rm(One),
}

/// Flags of `quota ls`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// Whose quota.
#[derive(Debug, clap::Args)]
pub struct One {
    /// Of this function instead of the whole tenant
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
}

/// Flags of `quota set`.
#[derive(Debug, clap::Args)]
pub struct Set {
    #[command(flatten)]
    one: One,
    /// Calls and submitted jobs: 100/s, 30/min, 500/h or 1000/day
    #[arg(long, value_name = "N/UNIT", value_parser = rate)]
    rate: Option<f64>,
    /// Calls that may come at once after a pause; by default those of one second
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<u32>,
    /// Calls, and tries of jobs, at one time
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Memory limits of all calls at one time, in MiB
    #[arg(long, value_name = "MB")]
    memory: Option<u32>,
    /// Code of all versions: 500MB, 1GiB, or a number of bytes
    #[arg(long, value_name = "SIZE", value_parser = size)]
    stored_bytes: Option<u64>,
    /// Functions
    #[arg(long, value_name = "N", conflicts_with = "function")]
    functions: Option<u32>,
    /// Sessions that have not ended, and the instances that stand for some
    #[arg(long, value_name = "N", conflicts_with = "function")]
    sessions: Option<u32>,
    /// Workflows
    #[arg(long, value_name = "N", conflicts_with = "function")]
    workflows: Option<u32>,
    /// Runs of workflows that have not ended, those of sub-workflows among them
    #[arg(long, value_name = "N", conflicts_with = "function")]
    runs: Option<u32>,
    /// Jobs that wait
    #[arg(long, value_name = "N")]
    queued_jobs: Option<u64>,
    /// Processor time in ms of one hour, day or month of UTC: 3600000/day
    #[arg(long, value_name = "N/PERIOD", value_parser = cpu)]
    cpu_ms: Option<(u64, Period)>,
}

fn rate(text: &str) -> std::result::Result<f64, String> {
    let wrong = || "a number and a unit: 100/s, 30/min, 500/h, 1000/day".to_owned();
    let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3_600.0,
        "day" => 86_400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    if number.is_finite() && number > 0.0 { Ok(number / seconds) } else { Err(wrong()) }
}

fn size(text: &str) -> std::result::Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let wrong = || "a number of bytes, or one with KiB, MiB, GiB, TiB, KB, MB or GB".to_owned();
    let found = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, bytes) = found.unwrap_or((text, 1));
    let number: u64 = number.trim().parse().map_err(|_| wrong())?;
    number.checked_mul(bytes).ok_or_else(wrong)
}

fn cpu(text: &str) -> std::result::Result<(u64, Period), String> {
    let wrong = || "a number and a period: 3600000/day (or /hour, /month)".to_owned();
    let (number, period) = text.split_once('/').ok_or_else(wrong)?;
    Ok((number.parse().map_err(|_| wrong())?, Period::parse(period).ok_or_else(wrong)?))
}

impl Set {
    fn quota(&self) -> Result<Quota> {
        let quota = Quota {
            rate: self.rate,
            burst: self.burst,
            concurrency: self.concurrency,
            memory_mb: self.memory,
            stored_bytes: self.stored_bytes,
            functions: self.functions,
            sessions: self.sessions,
            workflows: self.workflows,
            runs: self.runs,
            queued_jobs: self.queued_jobs,
            cpu_ms: self.cpu_ms.map(|(most, _)| most),
            cpu_period: self.cpu_ms.map(|(_, period)| period),
        };
        match quota.is_empty() {
            true => Err(Failure::usage("no limit is given; `lyra quota rm` takes a quota back".to_owned())),
            false => Ok(quota),
        }
    }
}

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = &session.client;
    let function = |one: &One| one.function.as_ref().map(ToString::to_string);
    match command {
        Command::Ls(args) => {
            let row = |view: &QuotaView| {
                vec![view.tenant.clone(), view.function.clone().unwrap_or_default(), limits(view).join(", ")]
            };
            session.list(&client.quotas(args.limit).await?, name, &["tenant", "function", "limits"], row)
        }
        Command::Get(one) => session.show(&client.quota(function(&one).as_deref()).await?, name, people),
        Command::Set(set) => {
            let view = client.set_quota(function(&set.one).as_deref(), &set.quota()?).await?;
            session.show(&view, name, people)
        }
        Command::Rm(one) => {
            client.remove_quota(function(&one).as_deref()).await?;
            match (session.json(), session.quiet) {
                (true, _) => Ok(()),
                (false, true) => print_line(function(&one).as_deref().unwrap_or("own")),
                (false, false) => print_line("quota removed"),
            }
        }
    }
}

fn name(view: &QuotaView) -> String {
    match &view.function {
        None => view.tenant.clone(),
        Some(function) => format!("{}/{function}", view.tenant),
    }
}

/// Limits of a quota, in a word each.
fn limits(view: &QuotaView) -> Vec<String> {
    rows(view).into_iter().filter(|row| row.limit != NONE).map(|row| format!("{} {}", row.name, row.limit)).collect()
}

const NONE: &str = "-";

struct Row {
    name: &'static str,
    limit: String,
    used: String,
}

fn rows(view: &QuotaView) -> Vec<Row> {
    let (quota, used) = (&view.quota, &view.used);
    let row = |name, limit: Option<String>, used: Option<String>| Row {
        name,
        limit: limit.unwrap_or_else(|| NONE.to_owned()),
        used: used.unwrap_or_default(),
    };
    let text = |number: Option<u64>| number.map(|number| number.to_string());
    let burst = quota.burst().unwrap_or_default();
    let mut rows = vec![
        row(
            "rate",
            quota.rate.map(|rate| format!("{}, {burst} at once", rate_text(rate))),
            used.rate.map(|rate| format!("{rate}/s")),
        ),
        row("concurrency", text(quota.concurrency.map(u64::from)), text(used.concurrency)),
        row("memory", quota.memory_mb.map(|most| format!("{most} MiB")), used.memory_mb.map(|mb| format!("{mb} MiB"))),
        row("stored bytes", text(quota.stored_bytes), Some(used.stored_bytes.to_string())),
    ];
    if view.function.is_none() {
        rows.push(row("functions", text(quota.functions.map(u64::from)), Some(used.functions.to_string())));
        rows.push(row("sessions", text(quota.sessions.map(u64::from)), Some(used.sessions.to_string())));
        rows.push(row("workflows", text(quota.workflows.map(u64::from)), text(used.workflows)));
        rows.push(row("runs", text(quota.runs.map(u64::from)), text(used.runs)));
    }
    rows.push(row("queued jobs", text(quota.queued_jobs), Some(used.queued_jobs.to_string())));
    let cpu = quota.cpu().map(|(most, period)| format!("{most} ms in a {period}"));
    rows.push(row("cpu", cpu, used.cpu_ms.map(|ms| format!("{ms} ms"))));
    rows
}

fn people(view: &QuotaView) -> String {
    let mut table = crate::table::Table::new(&["limit", "at most", "now"]);
    for row in rows(view) {
        table.row(vec![row.name.to_owned(), row.limit, row.used]);
    }
    let whose = match (&view.function, view.is_default) {
        (Some(function), _) => format!("function {function}"),
        (None, true) => "the settings' default".to_owned(),
        (None, false) => "set".to_owned(),
    };
    let mut text = fields(&[("tenant", view.tenant.clone()), ("quota", whose)]);
    text.push('\n');
    text.push_str(&table.to_string());
    for function in &view.functions {
        text.push_str(&format!("\nfunction {}: {}", name(function), limits(function).join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_their_units() {
        assert_eq!((rate("100/s"), rate("30/min"), rate("1800/h")), (Ok(100.0), Ok(0.5), Ok(0.5)));
        assert_eq!((size("1GiB"), size("5 MB"), size("77")), (Ok(1 << 30), Ok(5_000_000), Ok(77)));
        assert_eq!(cpu("60000/hour"), Ok((60_000, Period::Hour)));
        for wrong in ["100", "/s", "0/s", "x/s", "1/week", "inf/s"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert!(size("1.5GiB").is_err() && size("").is_err() && cpu("1").is_err() && cpu("1/week").is_err());
    }
}
