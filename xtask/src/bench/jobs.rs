//! `jobs`: how many jobs a second are accepted (durable before the 202), and how fast they drain. For scale, how
//! often the disk can make one write durable.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use lyra_kit::Clock;
use serde_json::Value;

use super::Bench;
use super::client::Client;
use super::load::{self, Arrivals, Request};
use super::lyra::{self, Data};
use super::report::{Record, median, micros, percentile};
use super::rounds::MANY;

const NAME: &str = "jobs";
/// Longest wait for the queue to drain.
const PATIENCE: Duration = Duration::from_secs(300);

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for connections in [1, MANY, 4 * MANY] {
        records.extend(accept_and_drain(bench, Arrivals::Closed { connections }).await?);
    }
    records.extend(accept_and_drain(bench, Arrivals::Open { connections: 4 * MANY, rate: 5_000.0 }).await?);
    records.push(disk()?);
    Ok(records)
}

async fn accept_and_drain(bench: &Bench, arrivals: Arrivals) -> anyhow::Result<[Record; 2]> {
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    let mut client = Client::connect(server.address).await?;
    lyra::deploy_js(&mut client, "add", lyra::ADD, false).await?;
    let path = format!("{}?async=true", lyra::invoke_path("add"));
    let request = Request { method: "POST", path, body: Some(lyra::EVENT.to_owned()) };
    let before = server.processor_time()?;
    let began = Clock::system().instant();
    let sample = load::run(&bench.tools.oha, server.address, &request, arrivals, bench.seconds, 202).await?;
    let accepted_after = began.elapsed();
    while unfinished(&mut client).await? {
        anyhow::ensure!(began.elapsed() < PATIENCE, "jobs do not drain");
        Clock::system().sleep(Duration::from_millis(20)).await;
    }
    let drained_after = began.elapsed();
    let cpu = server.processor_time()?.saturating_sub(before);
    let memory = server.memory()?;
    let with_load = |record: Record| match arrivals {
        Arrivals::Closed { connections } => record.with("connections", connections).with("loop", "closed"),
        Arrivals::Open { connections, rate } => {
            record.with("connections", connections).with("loop", "open").with_number("rate", rate)
        }
    };
    let mut accept = with_load(Record::new(NAME, "lyra-accept"))
        .with("jobs", sample.answers)
        .with_number("p999_us", sample.p999_us)
        .with_number("cpu_us_per_job", cpu.as_secs_f64() * 1e6 / sample.answers as f64);
    accept.p50_us = Some(sample.p50_us);
    accept.p99_us = Some(sample.p99_us);
    accept.rps = Some(sample.rps);
    accept.rss_mb = Some(memory.rss_mb);
    let mut drain = with_load(Record::new(NAME, "lyra-drain"))
        .with("jobs", sample.answers)
        .with_number("after_last_accept_ms", drained_after.saturating_sub(accepted_after).as_secs_f64() * 1e3);
    drain.rps = Some(sample.answers as f64 / drained_after.as_secs_f64());
    drain.rss_mb = Some(memory.rss_mb);
    Ok([accept, drain])
}

async fn unfinished(client: &mut Client) -> anyhow::Result<bool> {
    for status in ["queued", "running"] {
        let answer = client.send(Method::GET, &format!("/v1/jobs?status={status}&limit=1"), "").await?.ok()?;
        let page: Value = serde_json::from_slice(&answer.body)?;
        if !page["items"].as_array().context("a page of jobs")?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One write of 4 KiB and `fdatasync`, again and again.
fn disk() -> anyhow::Result<Record> {
    let mut file = tempfile::tempfile()?;
    let block = [7u8; 4_096];
    file.write_all(&block)?;
    file.sync_all()?;
    let mut took = Vec::new();
    for _ in 0..500 {
        let began = Clock::system().instant();
        file.write_all_at(&block, 0)?;
        file.sync_data()?;
        took.push(micros(began.elapsed()));
    }
    let mut record = Record::new(NAME, "disk-fdatasync").with("writes", took.len());
    record.rps = Some(took.len() as f64 * 1e6 / took.iter().sum::<f64>());
    record.p50_us = Some(median(took.iter().copied()));
    record.p99_us = Some(percentile(took, 0.99));
    Ok(record)
}
