//! `lyra worker`: what workers hold, and every single operation on one of them.

use std::time::Duration;

use lyra_client::Answer;
use lyra_kit::Clock;
use lyra_types::Code;
use lyra_types::api::{BackendStatus, CharacteristicsView, InstanceView, PrewarmRequest, Resource, WorkerView};

use crate::failure::{Failure, Result};
use crate::function::invoke::{self, Target};
use crate::output::print_line;
use crate::session::Session;
use crate::table::{age, fields, size};

/// Verbs of `worker`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Examples:
  lyra worker ls
  lyra worker get local
  lyra worker prewarm local hello -n 2
  lyra worker drain local --wait 1m")]
pub enum Command {
    /// List workers
    #[command(after_help = "Example:
  lyra worker ls -o json")]
    Ls(Ls),
    /// Show a worker: load, resources, instances by state, back ends
    #[command(after_help = "Example:
  lyra worker get local")]
    Get(One),
    /// List instances that are kept or have resources of their own
    #[command(after_help = "Example:
  lyra worker instances")]
    Instances(Ls),
    /// Show what a worker knows of each version from its calls
    #[command(after_help = "Example:
  lyra worker characteristics local")]
    Characteristics(Listed),
    /// Ask a worker for an answer, and say how long it took
    #[command(after_help = "Example:
  lyra worker ping local")]
    Ping(One),
    /// Run a worker's checks of itself; exit code 7 when one fails
    #[command(after_help = "Example:
  lyra worker health local")]
    Health(One),
    /// Load a function's code and start instances of it ahead of its calls
    #[command(after_help = "Example:
  lyra worker prewarm local hello@2 -n 3")]
    Prewarm(Prewarm),
    /// Have a worker take no more calls; those that run or wait go on
    #[command(after_help = "Example:
  lyra worker cordon local")]
    Cordon(One),
    /// Have a worker take calls again
    #[command(after_help = "Example:
  lyra worker uncordon local")]
    Uncordon(One),
    /// Cordon a worker, wait for its calls to end, end its idle instances; exit code 6 when calls are left
    #[command(after_help = "Example:
  lyra worker drain local --wait 1m")]
    Drain(Drain),
    /// End an idle instance
    #[command(after_help = "Example:
  lyra worker terminate local ins_01JD…")]
    Terminate(OfInstance),
    /// Hibernate an idle instance: it stops where it stands and gives its memory back
    #[command(after_help = "Example:
  lyra worker hibernate local ins_01JD…")]
    Hibernate(OfInstance),
    /// Wake a hibernated instance ahead of its next call
    #[command(after_help = "Example:
  lyra worker activate local ins_01JD…")]
    Activate(OfInstance),
    /// Call a function on this worker
    #[command(after_help = "Example:
  lyra worker invoke local hello -d '{\"name\":\"Ada\"}'")]
    Invoke(Invoke),
    /// End a worker's idle instances and drop its loaded code; both come back when needed
    #[command(after_help = "Example:
  lyra worker clean local")]
    Clean(One),
}

/// Flags of `worker ls` and `worker instances`.
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = crate::session::limit)]
    limit: usize,
}

/// Names a worker.
#[derive(Debug, clap::Args)]
pub struct One {
    /// The worker
    #[arg(value_name = "WORKER")]
    worker: String,
}

/// Names an instance.
#[derive(Debug, clap::Args)]
pub struct OfInstance {
    #[command(flatten)]
    one: One,
    /// The instance, as `lyra worker instances` lists it
    #[arg(value_name = "INSTANCE")]
    instance: String,
}

/// Flags of `worker characteristics`.
#[derive(Debug, clap::Args)]
pub struct Listed {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    list: Ls,
}

/// Flags of `worker prewarm`.
#[derive(Debug, clap::Args)]
pub struct Prewarm {
    #[command(flatten)]
    one: One,
    /// The function, with a version or an alias if it is not to be `live`
    #[arg(value_name = "NAME[@VERSION|@ALIAS]")]
    function: String,
    /// Instances that shall be there
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1)]
    instances: u32,
}

/// Flags of `worker drain`.
#[derive(Debug, clap::Args)]
pub struct Drain {
    #[command(flatten)]
    one: One,
    /// Wait no longer than this for calls to end
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::duration::parse)]
    wait: Duration,
}

/// Flags of `worker invoke`.
#[derive(Debug, clap::Args)]
pub struct Invoke {
    #[command(flatten)]
    one: One,
    /// The function, with a version or an alias if it is not to be `live`
    #[arg(value_name = "NAME[@VERSION|@ALIAS]", value_parser = invoke::parse_target)]
    target: Target,
    /// The event: JSON, @FILE, or - for stdin [default: {}]
    #[arg(long, short = 'd', value_name = "JSON|@FILE|-")]
    data: Option<String>,
}

/// Runs a verb.
///
/// # Errors
/// Those of the API.
pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = &session.client;
    match command {
        Command::Ls(args) => {
            let header = ["name", "state", "running", "queued", "idle", "memory", "policies", "up"];
            session.list(&client.workers(args.limit).await?, |w| w.name.clone(), &header, row)
        }
        Command::Get(one) => show(session, &client.worker(&one.worker).await?),
        Command::Instances(args) => {
            let row = |of: &InstanceView| instance_row(&session.clock, of);
            session.list(&client.instances(args.limit).await?, |of| of.id.clone(), &INSTANCE_COLUMNS, row)
        }
        Command::Characteristics(args) => {
            let header = ["function", "version", "calls", "cold", "warm", "exec", "between calls", "memory"];
            let known = client.characteristics(&args.one.worker, args.list.limit).await?;
            session.list(&known, |of| format!("{}@{}", of.function, of.version), &header, known_row)
        }
        Command::Ping(one) => ping(&one.worker, session).await,
        Command::Health(one) => health(&one.worker, session).await,
        Command::Prewarm(args) => {
            let request = PrewarmRequest { function: args.function, instances: Some(args.instances) };
            let warmed = client.prewarm(&args.one.worker, &request).await?;
            session.show(
                &warmed,
                |of| of.instances.to_string(),
                |of| format!("{}@{} is loaded, {} instances wait", of.function, of.version, of.instances),
            )
        }
        Command::Cordon(one) => show(session, &client.cordon(&one.worker).await?),
        Command::Uncordon(one) => show(session, &client.uncordon(&one.worker).await?),
        Command::Terminate(args) => {
            client.terminate(&args.one.worker, &args.instance).await?;
            told(session, &args.instance, "is gone")
        }
        Command::Hibernate(args) => {
            client.hibernate(&args.one.worker, &args.instance).await?;
            told(session, &args.instance, "sleeps")
        }
        Command::Activate(args) => {
            client.activate(&args.one.worker, &args.instance).await?;
            told(session, &args.instance, "is awake")
        }
        Command::Drain(args) => drain(&args, session).await,
        Command::Invoke(args) => {
            let event = invoke::read_event(args.data.as_deref())?;
            let Target { name, qualifier } = &args.target;
            let called = client.invoke_on(&args.one.worker, name, qualifier, event).await;
            let invocation = called.map_err(|error| invoke::call_failure(error, name))?;
            crate::job::print_result(&invocation.body)
        }
        Command::Clean(one) => {
            let cleaned = client.clean(&one.worker).await?;
            session.show(&cleaned, |of| of.instances.to_string(), |of| format!("{} idle instances ended", of.instances))
        }
    }
}

fn told(session: &Session, instance: &str, what: &str) -> Result<()> {
    match (session.json(), session.quiet) {
        (true, _) => Ok(()),
        (false, true) => print_line(instance),
        (false, false) => print_line(&format!("instance {instance} {what}")),
    }
}

async fn ping(worker: &str, session: &Session) -> Result<()> {
    let begin = session.clock.instant();
    let answer = session.client.worker(worker).await?;
    let took = session.clock.instant() - begin;
    if session.json() {
        let pong = serde_json::json!({ "worker": answer.name, "round_trip_ms": took.as_secs_f64() * 1e3 });
        return print_line(&pong.to_string());
    }
    print_line(&format!("{} answered in {:.1} ms", answer.name, took.as_secs_f64() * 1e3))
}

async fn health(worker: &str, session: &Session) -> Result<()> {
    let health = session.client.worker_health(worker).await?;
    let word = |healthy| if healthy { "ok" } else { "FAILED" };
    session.show(
        &health,
        |health| word(health.healthy).to_owned(),
        |health| {
            let lines: Vec<_> = health
                .checks
                .iter()
                .map(|c| (c.name.as_str(), format!("{} ({})", word(c.healthy), c.detail)))
                .collect();
            fields(&lines)
        },
    )?;
    if health.healthy { Ok(()) } else { Err(Failure::silent(Code::Unavailable)) }
}

async fn drain(args: &Drain, session: &Session) -> Result<()> {
    let drained = session.client.drain(&args.one.worker, args.wait).await?;
    session.show(
        &drained,
        |of| of.left.to_string(),
        |of| format!("{} idle instances ended, {} calls left; it is cordoned", of.evacuated, of.left),
    )?;
    if drained.ended { Ok(()) } else { Err(Failure::silent(Code::Timeout)) }
}

fn row(worker: &WorkerView) -> Vec<String> {
    vec![
        worker.name.clone(),
        worker.state.clone(),
        worker.running.to_string(),
        worker.queued.to_string(),
        worker.idle_instances.to_string(),
        share(&worker.memory, size),
        format!("{}, {}", worker.queue_policy, worker.keep_alive),
        seconds(worker.uptime_s),
    ]
}

fn seconds(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

fn share(of: &Resource, shown: impl Fn(u64) -> String) -> String {
    let total = of.total.map_or_else(|| "no limit".to_owned(), &shown);
    let waiting = if of.waiting > 0 { format!(", {} asked for", shown(of.waiting)) } else { String::new() };
    format!("{} of {total}{waiting}", shown(of.charged))
}

fn show(session: &Session, worker: &Answer<WorkerView>) -> Result<()> {
    let people = |w: &WorkerView| {
        let cores = |millis: u64| format!("{:.2} cores", f64::from(u32::try_from(millis).unwrap_or(u32::MAX)) / 1e3);
        let instances: Vec<String> = w
            .instances
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        let backends: Vec<String> = w.backends.iter().map(|b| b.name.clone()).collect();
        let gpus: Vec<String> = w
            .gpus
            .iter()
            .map(|g| format!("{} {} ({} of {} slots)", g.index, g.name, g.slots_charged, g.slots))
            .collect();
        let overview = fields(&[
            ("name", w.name.clone()),
            ("state", w.state.clone()),
            ("up", seconds(w.uptime_s)),
            ("calls", format!("{} run (at most {}), {} wait", w.running, w.concurrency_limit, w.queued)),
            ("queue", w.queue_policy.clone()),
            ("keep-alive", w.keep_alive.clone()),
            ("instances", instances.join(", ")),
            ("memory", share(&w.memory, size)),
            ("processors", share(&w.cpu, cores)),
            ("gpu slots", if w.gpus.is_empty() { String::new() } else { share(&w.gpu, |slots| slots.to_string()) }),
            ("gpus", gpus.join(", ")),
            ("load", w.load.map(|[a, b, c]| format!("{a:.2} {b:.2} {c:.2}")).unwrap_or_default()),
            ("isolation", backends.join(", ")),
        ]);
        let backends = w.backends.iter().map(|backend| format!("\n{}", self::backend(backend)));
        std::iter::once(overview).chain(backends).collect::<Vec<_>>().join("\n")
    };
    session.show(worker, |w| w.name.clone(), people)
}

/// One back end: what it can't do, its runtimes, its abilities, what waits.
fn backend(of: &BackendStatus) -> String {
    let mut lines = vec![("isolation", of.name.clone())];
    lines.extend(of.unavailable.iter().map(|why| ("unavailable", why.clone())));
    for offer in of.offers.iter().filter(|_| of.unavailable.is_none()) {
        let how = match (offer.available, offer.detail.as_str()) {
            (true, "") => "yes".to_owned(),
            (true, what) => what.to_owned(),
            (false, why) => format!("no: {why}"),
        };
        let elsewhere = if offer.auto { "" } else { "; only when asked for" };
        lines.push((offer.runtime.as_str(), format!("{how}{elsewhere}")));
    }
    lines.extend(of.abilities.iter().map(|(name, what)| (name.as_str(), what.clone())));
    for waiting in &of.waiting {
        lines.push((waiting.kind.as_str(), format!("{} wait, with {}", waiting.count, size(waiting.memory))));
    }
    if of.reserved > 0 {
        lines.push(("reserved", size(of.reserved)));
    }
    fields(&lines)
}

const INSTANCE_COLUMNS: [&str; 11] =
    ["id", "worker", "function", "version", "runtime", "state", "since", "calls", "memory", "application", "session"];

fn instance_row(clock: &Clock, of: &InstanceView) -> Vec<String> {
    vec![
        of.id.clone(),
        of.worker.clone(),
        of.function.clone(),
        of.version.to_string(),
        of.runtime.to_string(),
        of.state.clone(),
        age(clock, of.since),
        of.served.to_string(),
        size(of.memory),
        of.application.clone().unwrap_or_default(),
        of.session.clone().unwrap_or_default(),
    ]
}

fn known_row(of: &CharacteristicsView) -> Vec<String> {
    let ms = |name: &str| of.times.get(name).map(|time| format!("{:.2} ms", time.average_ms)).unwrap_or_default();
    vec![
        of.function.clone(),
        of.version.to_string(),
        of.calls.to_string(),
        ms("cold"),
        ms("warm"),
        ms("exec"),
        ms("inter_arrival"),
        of.memory.map(size).unwrap_or_default(),
    ]
}
