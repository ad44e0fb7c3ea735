//! `cold-python`, `cold-node` and `cold-native`: the first call of versions that have no instance, through the running
//! platform, over HTTP, each beside a bare start of the same handler in the same second.
//!
//! Two situations: with a pause before each call, as on a quiet machine, and one call right after the other, where what
//! waits ahead of calls runs out.

use std::time::Duration;

use lyra_kit::Clock;

use super::Bench;
use super::client::{Answer, Client};
use super::languages::{Ground, Language};
use super::lyra::{self, Data};
use super::report::{Record, median, micros, percentile};

/// Most functions of each situation: every one of them stays as an instance.
const MOST: usize = 60;
/// Before each call of a quiet machine: what was started for the last one has come to rest, and its place is filled.
const PAUSE: Duration = Duration::from_millis(300);

/// Measures first calls and bare starts.
///
/// # Errors
/// When a call or a start fails, or a first call is not cold.
pub async fn run(bench: &Bench, name: &'static str, language: Language) -> anyhow::Result<Vec<Record>> {
    let ground = Ground::new(language)?;
    let data = Data::new()?;
    let count = bench.count.min(MOST);
    let server = data.start(&bench.lyra)?;
    for number in 0..=2 * count {
        ground.deploy(&bench.lyra, server.address, &function(number)).await?;
    }
    // Nothing of a deploy is left in memory.
    server.stop()?;
    let server = data.start(&bench.lyra)?;
    let mut client = Client::connect(server.address).await?;
    // The first one also pays for what all functions of the language share.
    let first = vec![cold_call(&mut client, 0).await?];
    let (mut quiet, mut burst, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=count {
        Clock::system().sleep(PAUSE).await;
        quiet.push(cold_call(&mut client, number).await?);
        bare.push(micros(ground.start_once()?));
    }
    Clock::system().sleep(PAUSE).await;
    for number in count + 1..=2 * count {
        burst.push(cold_call(&mut client, number).await?);
    }
    let mut peer = Record::new(name, language.bare_start()).with("starts", count);
    peer.p50_us = Some(median(bare.iter().copied()));
    peer.p99_us = Some(percentile(bare, 0.99));
    let memory = server.memory()?;
    let ours = [("lyra", &quiet), ("lyra-burst", &burst), ("lyra-first", &first)];
    let mut records: Vec<Record> = ours.map(|(system, answers)| record(name, system, answers)).to_vec();
    for record in &mut records {
        record.rss_mb = Some(memory.rss_mb);
    }
    let mut records = super::cold::against(records, &peer);
    records.push(peer);
    Ok(records)
}

fn function(number: usize) -> String {
    format!("f-{number}")
}

async fn cold_call(client: &mut Client, number: usize) -> anyhow::Result<Answer> {
    let answer = lyra::invoke(client, &function(number)).await?;
    anyhow::ensure!(answer.body == lyra::SUM, "the function answers {:?}", answer.body);
    let start = answer.header("lyra-start");
    anyhow::ensure!(start == "cold", "a first call says Lyra-Start: {start}");
    Ok(answer)
}

fn record(name: &'static str, system: &str, answers: &[Answer]) -> Record {
    let took = || answers.iter().map(|answer| micros(answer.took));
    let phase = |phase: &'static str| answers.iter().filter_map(move |answer| answer.phase_us(phase));
    let mut record = Record::new(name, system)
        .with("calls", answers.len())
        .with_number("start_phase_p50_us", median(phase("start")))
        .with_number("start_phase_p99_us", percentile(phase("start"), 0.99))
        .with_number("exec_phase_p50_us", median(phase("exec")));
    record.p50_us = Some(median(took()));
    record.p99_us = Some(percentile(took(), 0.99));
    record
}
