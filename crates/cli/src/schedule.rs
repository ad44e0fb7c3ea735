//! `lyra schedule`: functions that are called by themselves.

use std::time::Duration;

use lyra_types::ScheduleName;
use lyra_types::schedule::{Firing, MissedPolicy, OverlapPolicy, ScheduleRequest, ScheduleView};

use crate::args::{Ls, One, Several};
use crate::failure::{Failure, Result};
use crate::function::invoke::read_event;
use crate::output::print_line;
use crate::session::Session;
use crate::table::{Table, fields};

/// Verbs of `schedule`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra schedule create nightly --cron '0 3 * * *' --tz Europe/Madrid --function report
  lyra schedule ls
  lyra schedule get nightly")]
pub enum Command {
    /// Make a schedule, or replace the one of this name
    #[command(after_help = "Examples:
  lyra schedule create nightly --cron '0 3 * * *' --tz Europe/Madrid --function report -d '{}'
  lyra schedule create beat --cron '*/10 * * * * *' --function probe@live --overlap queue
  lyra schedule create bill --cron '@monthly' --function bill --missed all --catch-up 24h

A pattern has five or six fields: [second] minute hour day month weekday. Each of its times starts
one job. Where clocks are put forward, a daily time that is left out fires right after the gap;
where they are put back, a daily time that comes twice fires the first time.")]
    Create(Box<Create>),
    /// List schedules by name
    #[command(after_help = "Example:
  lyra schedule ls -o json

Workflows that start runs by themselves are in `lyra workflow ls`.")]
    Ls(Ls),
    /// Show a schedule, its next times and its last firings
    #[command(after_help = "Example:
  lyra schedule get nightly")]
    Get(One<ScheduleName>),
    /// Delete schedules; jobs that they started go on
    #[command(after_help = "Example:
  lyra schedule rm nightly")]
    Rm(Several<ScheduleName>),
    /// Have a schedule fire no more
    #[command(after_help = "Example:
  lyra schedule pause nightly")]
    Pause(One<ScheduleName>),
    /// Have a paused schedule fire again, from now on
    #[command(after_help = "Example:
  lyra schedule resume nightly")]
    Resume(One<ScheduleName>),
    /// Start a job of a schedule now and print its id
    #[command(after_help = "Example:
  lyra job wait $(lyra schedule run nightly)")]
    Run(One<ScheduleName>),
}

/// Flags of `schedule create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Its name
    #[arg(value_name = "NAME")]
    name: ScheduleName,
    /// When: [second] minute hour day month weekday, or @hourly, @daily, @weekly, @monthly, @yearly
    #[arg(long, value_name = "PATTERN")]
    cron: String,
    /// Time zone of the pattern, such as Europe/Madrid [default: UTC]
    #[arg(long = "tz", value_name = "ZONE")]
    time_zone: Option<String>,
    /// What to call, with a version or an alias where it is not to be `live`
    #[arg(long, value_name = "NAME[@VERSION|@ALIAS]")]
    function: String,
    /// The event of each call: JSON, @FILE, or - for stdin [default: {}]
    #[arg(long, short = 'd', value_name = "JSON|@FILE|-")]
    data: Option<String>,
    /// When the job before has not ended: skip, allow, queue (one), replace (cancel it)
    #[arg(long, value_name = "POLICY", default_value = "skip", value_parser = parse_overlap)]
    overlap: OverlapPolicy,
    /// Of times that nobody was there for, make up for: skip (none), once (the last), all
    #[arg(long, value_name = "POLICY", default_value = "once", value_parser = parse_missed)]
    missed: MissedPolicy,
    /// Make up for times that are no longer ago than this, at most 24h
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = crate::duration::parse)]
    catch_up: Duration,
    /// With `--missed all`: at most so many
    #[arg(long, value_name = "N", default_value_t = 10)]
    max_missed: u32,
    /// Make it paused
    #[arg(long)]
    paused: bool,
}

fn parse_overlap(text: &str) -> Result<OverlapPolicy, String> {
    OverlapPolicy::parse(text).ok_or_else(|| OverlapPolicy::ALL.map(OverlapPolicy::as_str).join(", "))
}

fn parse_missed(text: &str) -> Result<MissedPolicy, String> {
    MissedPolicy::parse(text).ok_or_else(|| MissedPolicy::ALL.map(MissedPolicy::as_str).join(", "))
}

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = &session.client;
    match command {
        Command::Create(args) => create(*args, session).await,
        Command::Ls(Ls { limit }) => {
            let found = client.schedules(limit).await?;
            session.list(&found, |it| it.name.to_string(), &["name", "function", "cron", "zone", "next", "last"], row)
        }
        Command::Get(One { name }) => session.show(&client.schedule(&name).await?, |it| it.name.to_string(), shown),
        Command::Rm(Several { names }) => {
            for name in names {
                client.delete_schedule(&name).await?;
                match (session.json(), session.quiet) {
                    (true, _) => {}
                    (false, true) => print_line(name.as_str())?,
                    (false, false) => print_line(&format!("{name} deleted"))?,
                }
            }
            Ok(())
        }
        Command::Pause(One { name }) => {
            let said = |it: &ScheduleView| format!("{} paused", it.name);
            session.show(&client.pause_schedule(&name, true).await?, |it| it.name.to_string(), said)
        }
        Command::Resume(One { name }) => {
            let said = |it: &ScheduleView| format!("{} fires next {}", it.name, next(it));
            session.show(&client.pause_schedule(&name, false).await?, |it| it.name.to_string(), said)
        }
        Command::Run(One { name }) => {
            let ran = client.run_schedule(&name).await?;
            session.show(&ran, |ran| ran.job.to_string(), |ran| ran.job.to_string())
        }
    }
}

async fn create(args: Create, session: &Session) -> Result<()> {
    let event = serde_json::from_slice(&read_event(args.data.as_deref())?)
        .map_err(|error| Failure::usage(format!("the event is not JSON: {error}")))?;
    let request = ScheduleRequest {
        cron: args.cron,
        time_zone: args.time_zone,
        function: args.function,
        event,
        overlap: args.overlap,
        missed: args.missed,
        catch_up_seconds: args.catch_up.as_secs(),
        max_missed: args.max_missed,
        paused: args.paused,
    };
    let made = session.client.put_schedule(&args.name, &request).await?;
    let said = |it: &ScheduleView| format!("{} fires next {}", it.name, next(it));
    session.show(&made, |it| it.name.to_string(), said)
}

fn next(schedule: &ScheduleView) -> String {
    match (schedule.next.first(), schedule.schedule.paused) {
        (Some(next), _) => next.to_string(),
        (None, true) => "when it is resumed".to_owned(),
        (None, false) => "never".to_owned(),
    }
}

fn row(schedule: &ScheduleView) -> Vec<String> {
    let asked = &schedule.schedule;
    let zone = asked.time_zone.clone().unwrap_or_else(|| "UTC".to_owned());
    let next = if asked.paused { "paused".to_owned() } else { next(schedule) };
    let last = schedule.history.first().map(|firing| firing.outcome.as_str().to_owned()).unwrap_or_default();
    vec![schedule.name.to_string(), asked.function.clone(), asked.cron.clone(), zone, next, last]
}

fn shown(schedule: &ScheduleView) -> String {
    let asked = &schedule.schedule;
    let times: Vec<String> = schedule.next.iter().map(ToString::to_string).collect();
    let mut text = fields(&[
        ("name", schedule.name.to_string()),
        ("function", asked.function.clone()),
        ("cron", asked.cron.clone()),
        ("zone", asked.time_zone.clone().unwrap_or_else(|| "UTC".to_owned())),
        ("event", asked.event.to_string()),
        ("overlap", asked.overlap.as_str().to_owned()),
        ("missed", missed(asked)),
        ("paused", if asked.paused { "yes".to_owned() } else { String::new() }),
        ("next", times.join(", ")),
    ]);
    if !schedule.history.is_empty() {
        let mut table = Table::new(&["scheduled", "outcome", "job", "error"]);
        for firing in &schedule.history {
            table.row(firing_row(firing));
        }
        text.push_str("\n\n");
        text.push_str(&table.to_string());
    }
    text
}

fn missed(asked: &ScheduleRequest) -> String {
    let within = crate::table::short(Duration::from_secs(asked.catch_up_seconds));
    match asked.missed {
        MissedPolicy::Skip => "skip".to_owned(),
        MissedPolicy::Once => format!("once, within {within}"),
        MissedPolicy::All => format!("all, at most {} within {within}", asked.max_missed),
    }
}

fn firing_row(firing: &Firing) -> Vec<String> {
    let outcome = match firing.manual {
        true => format!("{} by hand", firing.outcome.as_str()),
        false => firing.outcome.as_str().to_owned(),
    };
    let job = firing.job.map(|job| job.to_string()).unwrap_or_default();
    vec![firing.scheduled_at.to_string(), outcome, job, firing.error.clone().unwrap_or_default()]
}
