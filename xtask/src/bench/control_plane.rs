//! `control-plane`: what one control process takes of processor and memory with 100 workers and 20,000 instances, at rest and
//! while 100 instances are placed in a second, and how long each of them takes from its deploy to its start. The same with 20,000
//! sessions, of which 100 are opened in a second and as many closed.
//!
//! The workers are simulated ones in one process beside it (`lyra load site`), over the real protocol.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::Bench;
use super::lyra::Data;
use super::process::Server;
use super::report::Record;

const NAME: &str = "control-plane";
/// Least time over which processor time is taken, which is known to 10 ms.
const LEAST_SPAN: u64 = 30;

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let mut records = measured(bench, &["--instances", "20000"], 4).await?;
    records.extend(measured(bench, &["--instances", "0", "--sessions", "20000"], 4).await?);
    Ok(records)
}

/// Runs one site on a control process of its own, which tells so many phases.
async fn measured(bench: &Bench, what: &'static [&str], count: usize) -> anyhow::Result<Vec<Record>> {
    let data = Data::new()?;
    let control = data.start_control(&bench.lyra)?;
    let mut command = Command::new(&bench.lyra);
    command.args(["load", "site", "-o", "json", "--control", &control.address.to_string()]);
    command.args(["--duration", &format!("{}s", bench.seconds.max(LEAST_SPAN))]).args(what);
    let records = lyra_kit::tasks::blocking(move || {
        let outcome = phases(command, &control, count);
        control.stop().and(outcome)
    });
    records.await?
}

/// Reads the phases as they end, and what control has used until then.
fn phases(mut command: Command, control: &Server, count: usize) -> anyhow::Result<Vec<Record>> {
    let mut before = control.processor_time()?;
    let mut site = command.stdout(Stdio::piped()).spawn().context("lyra load site")?;
    let lines = BufReader::new(site.stdout.take().context("stdout is piped")?).lines();
    let mut records = Vec::new();
    for line in lines {
        let phase: Value = serde_json::from_str(&line?).context("what lyra load printed")?;
        let used = control.processor_time()?;
        records.push(record(&phase, used.saturating_sub(before), control)?);
        before = used;
    }
    let ended = site.wait()?;
    anyhow::ensure!(ended.success() && records.len() == count, "lyra load site: {ended}, {} phases", records.len());
    Ok(records)
}

fn record(phase: &Value, used: Duration, control: &Server) -> anyhow::Result<Record> {
    let number = |name: &str| phase[name].as_f64().with_context(|| format!("no {name}"));
    let seconds = number("seconds")?;
    let mut record = Record::new(NAME, phase["phase"].as_str().context("no phase")?)
        .with("instances", phase["instances"].clone())
        .with("sessions", phase["sessions"].clone())
        .with("started", phase["started"].clone())
        .with_number("seconds", seconds)
        .with_number("cpu", used.as_secs_f64() / seconds.max(0.01));
    let started = number("started")?;
    if started > 0.0 {
        record.p50_us = Some(number("p50_us")?);
        record.p99_us = Some(number("p99_us")?);
        record.rps = Some(started / seconds);
    }
    record.rss_mb = Some(control.own_memory()?.rss_mb);
    Ok(record)
}
