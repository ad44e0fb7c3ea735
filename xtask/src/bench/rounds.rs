//! Systems that take turns under the same load, so that a noisy minute hits all of them.

use std::net::SocketAddr;

use super::Bench;
use super::load::{self, Arrivals, Request, Sample};
use super::process::Server;
use super::report::{Record, median};

/// Rounds of each kind of load for each system; the medians over them are reported.
const ROUNDS: usize = 3;
/// Connections of the loaded rounds.
pub const MANY: u32 = 32;
/// Share of what the slowest system can do that the open loop asks for.
const OPEN_SHARE: f64 = 0.5;

/// A system under load. The first of a comparison is Lyra; ratios are to the last.
pub struct Contestant<'a> {
    /// Name in the report.
    pub system: &'a str,
    /// Its process.
    pub server: &'a Server,
    /// What to ask it.
    pub request: Request,
}

/// Medians over the rounds.
struct Outcome {
    sample: Sample,
    cpu_us: f64,
    rss_mb: f64,
    pss_mb: f64,
}

/// Closed loop with 1 and with many connections, then open loop at half of what the slowest can do.
///
/// # Errors
/// When a server answers anything but 200.
pub async fn compare(bench: &Bench, scenario: &'static str, all: &[Contestant<'_>]) -> anyhow::Result<Vec<Record>> {
    compare_at(bench, scenario, &[1, MANY], all).await
}

/// Closed loops with so many connections, then open loop at half of what the slowest can do.
///
/// # Errors
/// When a server answers anything but 200.
pub async fn compare_at(
    bench: &Bench,
    scenario: &'static str,
    closed: &[u32],
    all: &[Contestant<'_>],
) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut slowest = f64::MAX;
    for &connections in closed {
        let outcomes = rounds(bench, all, Arrivals::Closed { connections }).await?;
        slowest = outcomes.iter().map(|outcome| outcome.sample.rps).fold(f64::MAX, f64::min);
        records.extend(report(scenario, all, &outcomes, Arrivals::Closed { connections }));
    }
    let open = Arrivals::Open { connections: MANY, rate: slowest * OPEN_SHARE };
    let outcomes = rounds(bench, all, open).await?;
    records.extend(report(scenario, all, &outcomes, open));
    Ok(records)
}

async fn rounds(bench: &Bench, all: &[Contestant<'_>], arrivals: Arrivals) -> anyhow::Result<Vec<Outcome>> {
    let mut seen: Vec<Vec<Outcome>> = all.iter().map(|_| Vec::new()).collect();
    for contestant in all {
        one(bench, contestant, arrivals, 1).await?;
    }
    for _ in 0..ROUNDS {
        for (contestant, seen) in all.iter().zip(&mut seen) {
            seen.push(one(bench, contestant, arrivals, bench.seconds).await?);
        }
    }
    Ok(seen.iter().map(|rounds| middle(rounds)).collect())
}

async fn one(bench: &Bench, of: &Contestant<'_>, arrivals: Arrivals, seconds: u64) -> anyhow::Result<Outcome> {
    let address: SocketAddr = of.server.address;
    let before = of.server.processor_time()?;
    let sample = load::run(&bench.tools.oha, address, &of.request, arrivals, seconds, 200)
        .await
        .map_err(|error| error.context(of.system.to_owned()))?;
    let cpu = of.server.processor_time()?.saturating_sub(before);
    let memory = of.server.memory()?;
    let cpu_us = cpu.as_secs_f64() * 1e6 / sample.answers as f64;
    Ok(Outcome { sample, cpu_us, rss_mb: memory.rss_mb, pss_mb: memory.pss_mb })
}

fn middle(rounds: &[Outcome]) -> Outcome {
    let of = |figure: fn(&Outcome) -> f64| median(rounds.iter().map(figure));
    Outcome {
        sample: Sample {
            rps: of(|outcome| outcome.sample.rps),
            p50_us: of(|outcome| outcome.sample.p50_us),
            p99_us: of(|outcome| outcome.sample.p99_us),
            p999_us: of(|outcome| outcome.sample.p999_us),
            answers: rounds.iter().map(|outcome| outcome.sample.answers).sum(),
        },
        cpu_us: of(|outcome| outcome.cpu_us),
        rss_mb: of(|outcome| outcome.rss_mb),
        pss_mb: of(|outcome| outcome.pss_mb),
    }
}

fn report(scenario: &'static str, all: &[Contestant<'_>], outcomes: &[Outcome], arrivals: Arrivals) -> Vec<Record> {
    let peer = all.last().zip(outcomes.last()).filter(|(peer, _)| peer.system != "lyra" && all.len() > 1);
    let mut records = Vec::new();
    for (contestant, outcome) in all.iter().zip(outcomes) {
        let mut record = Record::new(scenario, contestant.system)
            .with("connections", arrivals.connections())
            .with_number("p999_us", outcome.sample.p999_us)
            .with_number("cpu_us_per_call", outcome.cpu_us)
            .with_number("pss_mb", outcome.pss_mb);
        record.p50_us = Some(outcome.sample.p50_us);
        record.p99_us = Some(outcome.sample.p99_us);
        record.rps = Some(outcome.sample.rps);
        record.rss_mb = Some(outcome.rss_mb);
        record = match arrivals {
            Arrivals::Closed { .. } => record.with("loop", "closed"),
            Arrivals::Open { rate, .. } => record.with("loop", "open").with_number("rate", rate.round()),
        };
        if let Some((peer, theirs)) = peer
            && peer.system != contestant.system
        {
            record = record.with_number("p99_ratio", theirs.sample.p99_us / outcome.sample.p99_us);
            record = match arrivals {
                Arrivals::Closed { .. } => record.against(peer.system, "rps", outcome.sample.rps / theirs.sample.rps),
                Arrivals::Open { .. } => {
                    record.against(peer.system, "p50", theirs.sample.p50_us / outcome.sample.p50_us)
                }
            };
        }
        records.push(record);
    }
    records
}
