//! `cargo xtask chaos`: a site under traffic whose parts are killed, frozen, cut off, drained and restarted by chance.
//!
//! The seed repeats which faults come in which order, and which packets are lost; not to the millisecond what the
//! processes do meanwhile. Every fault is undone before the next one, so what is checked is what the design promises: the
//! loss of any one part.

mod fault;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_kit::{Clock, Random};
use lyra_testkit::traffic::{Plan, Traffic, Visits};
use lyra_testkit::{Layout, Rooms, Site};
use lyra_types::FunctionName;

use fault::Fault;
use report::Report;

/// The function that traffic calls.
const FUNCTION: &str = "work";
/// Faults between two checks, for which the traffic ends and begins anew.
const FAULTS: usize = 8;
/// A deploy comes with one in so many faults.
const DEPLOYS: usize = 4;
/// Instances of sessions that stand ready.
const STANDING: u32 = 4;
/// How long each visitor of a session stays.
const STAY: Duration = Duration::from_secs(5);
/// Sessions that show that the site works again.
const OPENED: u64 = 2;
/// Answers that show that the site works again.
const ENOUGH: u64 = 100;

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How long, in minutes.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Which faults come; one by chance where none is given.
    #[arg(long)]
    seed: Option<u64>,
    /// Gives each process a host of its own (network namespaces, needs root), with faults of the network; else all share
    /// the loopback.
    #[arg(long)]
    hosts: bool,
    /// The `lyra` binary; else the one beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where logs and data are kept.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Control processes.
    #[arg(long, default_value_t = 2)]
    controls: usize,
    /// Workers.
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// Gateways.
    #[arg(long, default_value_t = 2)]
    gateways: usize,
    /// Calls a second.
    #[arg(long, default_value_t = 100.0)]
    calls: f64,
    /// Jobs a second.
    #[arg(long, default_value_t = 25.0)]
    jobs: f64,
    /// Sessions that are opened in a second, each held open with a connection for a while; 0 for none. Needs python3.
    #[arg(long, default_value_t = 1.0)]
    sessions: f64,
}

/// Runs it.
///
/// # Errors
/// With what did not hold, the seed, and where the logs are.
pub fn run(arguments: Arguments) -> Result<()> {
    // One thread, since it moves to the host of the client.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_all(&arguments))
}

async fn run_all(arguments: &Arguments) -> Result<()> {
    let seed = arguments.seed.unwrap_or_else(|| Random::system().u64() % 1_000_000);
    let name = format!("lyra-chaos-{seed}-{}", std::process::id());
    let directory = arguments.directory.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
    println!("seed {seed}, logs in {}", directory.display());
    let layout = Layout {
        controls: arguments.controls,
        workers: arguments.workers,
        gateways: arguments.gateways,
        apart: arguments.hosts,
        seed,
        binary: arguments.binary.clone(),
        directory: Some(directory.clone()),
        ..Layout::default()
    };
    let site = Site::start(layout).await?;
    let plan = Plan { function: FunctionName::new(FUNCTION)?, calls: arguments.calls, jobs: arguments.jobs };
    let (random, report) = (Random::seeded(seed), Report::new(Clock::system()));
    let mut chaos = Chaos { site, plan, sessions: arguments.sessions, random, report, versions: 0 };
    let outcome = chaos.run(Duration::from_secs_f64(arguments.minutes * 60.0)).await;
    chaos.report.summary();
    outcome.with_context(|| format!("chaos with seed {seed} found a fault; logs in {}", directory.display()))
}

struct Chaos {
    site: Site,
    plan: Plan,
    /// Sessions a second.
    sessions: f64,
    random: Random,
    report: Report,
    versions: u64,
}

impl Chaos {
    async fn run(&mut self, duration: Duration) -> Result<()> {
        let clock = Clock::system();
        let end = clock.instant() + duration;
        self.deploy().await?;
        while clock.instant() < end {
            self.round(&clock).await?;
        }
        Ok(())
    }

    async fn deploy(&mut self) -> Result<()> {
        self.versions = self.site.deploy(FUNCTION).await.context("a deploy failed")?;
        self.report.say(&format!("deployed version {}", self.versions));
        Ok(())
    }

    /// Visitors of sessions, where there are to be any.
    async fn rooms(&self) -> Result<Option<(Rooms, Visits)>> {
        if self.sessions <= 0.0 {
            return Ok(None);
        }
        let rooms = self.site.rooms(STANDING).await.context("sessions can't be visited")?;
        Ok(Some((rooms, self.site.visit(self.sessions, STAY)?)))
    }

    /// Some faults one after the other under traffic, then the checks.
    async fn round(&mut self, clock: &Clock) -> Result<()> {
        let clients: Result<Vec<_>> = self.site.names("gateway").iter().map(|name| self.site.client(name)).collect();
        let rooms = self.rooms().await?;
        let traffic = Traffic::start(clients?, &self.plan);
        let mut allowed = Vec::new();
        for _ in 0..FAULTS {
            let fault = Fault::draw(&self.site, &self.random);
            self.report.begun(&fault);
            allowed.extend(fault.allows(&self.site));
            fault.begin(&mut self.site).await.with_context(|| fault.to_string())?;
            clock.sleep(Duration::from_secs_f64(1.0 + 4.0 * self.random.unit())).await;
            fault.end(&mut self.site).await.with_context(|| format!("after {fault}"))?;
            self.site.until_ready().await.with_context(|| format!("after {fault}"))?;
            self.site.until_answered("g1").await.with_context(|| format!("after {fault}"))?;
            traffic.go_on(ENOUGH).await.with_context(|| format!("after {fault}"))?;
            if let Some((_, visits)) = &rooms {
                visits.go_on(OPENED).await.with_context(|| format!("after {fault}"))?;
            }
            self.report.healed();
            if fault::below(&self.random, DEPLOYS) == 0 {
                self.deploy().await?;
            }
        }
        let mut record = traffic.end().await;
        let seen = record.seen();
        self.report.add(&seen, record.latency(0.5), record.latency(1.0));
        let others: Vec<_> = seen.failed.keys().filter(|code| !allowed.contains(&code.as_str())).collect();
        ensure!(others.is_empty(), "calls failed with {others:?}: {seen:?}\n{}", record.failures().join("\n"));
        if let Some((rooms, visits)) = rooms {
            let visited = self.site.check_rooms(rooms, visits, false).await?;
            self.report.visited(&visited);
        }
        let checked = self.site.check(FUNCTION, self.versions, &record).await?;
        self.report.checked(&checked);
        Ok(())
    }
}
