//! `idle`: memory of a platform that does nothing, and the time from starting its process to ready, with many
//! deployed functions; and what it takes of the processor while instances of each process runtime are kept.

use std::time::Duration;

use lyra_kit::Clock;

use super::Bench;
use super::client::Client;
use super::languages::{Ground, Language};
use super::lyra::{self, Data};
use super::process::Server;
use super::report::{Record, median};

const NAME: &str = "idle";
/// Starts; the median is reported.
const STARTS: usize = 5;
/// Until background work after a start has settled.
const SETTLE: Duration = Duration::from_secs(2);
/// Until a process that does nothing has unmapped what it went through to start: two of its looks, which come each 10 s.
pub const REST: Duration = Duration::from_secs(22);
/// Least time over which processor time is taken, which is known to 10 ms.
const LEAST_SPAN: Duration = Duration::from_secs(10);
/// Connections that deploy at once.
const DEPLOYERS: usize = 4;

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let data = Data::new()?;
    let mut records = Vec::new();
    let mut deployed = 0;
    for &functions in &bench.functions {
        let mut record = Record::new(NAME, "lyra").with("functions", functions);
        let server = data.start(&bench.lyra)?;
        let began = Clock::system().instant();
        deploy(&server, deployed..functions).await?;
        if functions > deployed {
            let seconds = began.elapsed().as_secs_f64();
            record = record.with_number("deploys_per_s", (functions - deployed) as f64 / seconds);
            deployed = functions;
        }
        // Where there is nothing yet, the base of all JavaScript functions is compiled meanwhile.
        Clock::system().sleep(SETTLE).await;
        record = record.with_number("rss_after_deploys_mb", server.memory()?.rss_mb);
        server.stop()?;
        records.push(restarts(bench, &data, record, functions).await?);
    }
    records.push(kept_processes(bench).await?);
    Ok(records)
}

/// A kept instance of each runtime that runs processes, and interpreters that wait for a function: what does all of that
/// take while nobody calls?
async fn kept_processes(bench: &Bench) -> anyhow::Result<Record> {
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    let mut client = Client::connect(server.address).await?;
    for language in [Language::Python, Language::Node, Language::Native] {
        let name = language.runtime();
        Ground::new(language)?.deploy(&bench.lyra, server.address, name).await?;
        lyra::invoke(&mut client, name).await?;
    }
    drop(client);
    Clock::system().sleep(REST).await;
    let span = Duration::from_secs(bench.seconds).max(LEAST_SPAN);
    let before = server.processor_time()?;
    Clock::system().sleep(span).await;
    let used = server.processor_time()?.saturating_sub(before);
    let (own, all) = (server.own_memory()?, server.memory()?);
    let mut record = Record::new(NAME, "lyra-processes")
        .with("functions", 3)
        .with_number("cpu", used.as_secs_f64() / span.as_secs_f64())
        .with_number("pss_mb", own.pss_mb)
        .with_number("pss_with_instances_mb", all.pss_mb);
    record.rss_mb = Some(own.rss_mb);
    server.stop()?;
    Ok(record)
}

async fn deploy(server: &Server, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
    let numbers = &numbers;
    let lanes = (0..DEPLOYERS).map(|lane| async move {
        let mut client = Client::connect(server.address).await?;
        for number in numbers.clone().skip(lane).step_by(DEPLOYERS) {
            let source = format!("const own = {number};\n{}", lyra::ADD);
            lyra::deploy_js(&mut client, &format!("f-{number}"), &source, false).await?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(lanes).await?;
    Ok(())
}

async fn restarts(bench: &Bench, data: &Data, record: Record, functions: usize) -> anyhow::Result<Record> {
    let mut record = record;
    let mut ready_ms = Vec::new();
    for start in 0..STARTS {
        let server = data.start(&bench.lyra)?;
        ready_ms.push(server.ready_after.as_secs_f64() * 1e3);
        if start + 1 == STARTS {
            Clock::system().sleep(SETTLE).await;
            let memory = server.memory()?;
            record = record.with_number("started_pss_mb", memory.pss_mb).with_number("started_rss_mb", memory.rss_mb);
            Clock::system().sleep(REST).await;
            let memory = server.memory()?;
            record = record.with_number("pss_mb", memory.pss_mb);
            record.rss_mb = Some(memory.rss_mb);
        }
        if let Some(last) = functions.checked_sub(1) {
            let mut client = Client::connect(server.address).await?;
            let answer = lyra::invoke(&mut client, &format!("f-{last}")).await?;
            anyhow::ensure!(answer.body == lyra::SUM, "after a restart: {:?}", answer.body);
        }
        server.stop()?;
    }
    Ok(record.with_number("ready_ms", median(ready_ms)).with_number("disk_mb", data.disk_mb()?))
}
