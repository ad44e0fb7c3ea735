//! `classic`: the classic routes. From the submission of a job to its result on an idle system, by polling and by one wait; and 10,000 jobs
//! from 8 clients, until the last result was read. All of it in one process, then with four workers apart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use hyper::Method;
use lyra_kit::Clock;
use serde_json::Value;

use super::Bench;
use super::client::Client;
use super::lyra::Data;
use super::report::{Record, median, micros, percentile};

const NAME: &str = "classic";
const CLIENTS: usize = 8;
const JOBS: usize = 10_000;
const WORKERS: usize = 4;
const RUN: &str = "/u/user1/fn/add/run";

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    let mut records = measured(bench, server.address, "lyra").await?;
    if let Some(last) = records.last_mut() {
        last.rss_mb = Some(server.memory()?.rss_mb);
    }
    server.stop()?;
    records.extend(apart(bench).await?);
    Ok(records)
}

/// The same where control, gateway and each of the workers are processes of their own.
async fn apart(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let data = Data::new()?;
    let control = data.start_control(&bench.lyra)?;
    let gateway = data.start_gateway(&bench.lyra, &control)?;
    let workers: Vec<_> = (1..=WORKERS)
        .map(|number| data.start_worker(&bench.lyra, &format!("worker-{number}"), &control))
        .collect::<anyhow::Result<_>>()?;
    let mut client = Client::connect(gateway.address).await?;
    super::lyra::until_workers(&mut client, WORKERS).await?;
    let records = measured(bench, gateway.address, "lyra-4-workers").await?;
    for server in workers.into_iter().chain([gateway, control]) {
        server.stop()?;
    }
    Ok(records)
}

async fn measured(bench: &Bench, address: SocketAddr, name: &str) -> anyhow::Result<Vec<Record>> {
    let mut client = Client::connect(address).await?;
    said(&mut client, Method::POST, "/u/user1", "").await?;
    said(&mut client, Method::POST, "/u/user1/fn/add", "function add(a,b){return a+b;}").await?;
    let mut records = Vec::new();
    for (system, how) in [("poll", How::Poll), ("wait", How::Wait), ("one-request", How::One)] {
        let mut took = Vec::new();
        for _ in 0..bench.count {
            let began = Clock::system().instant();
            let text = submit_to_result(&mut client, how).await?;
            took.push(micros(began.elapsed()));
            anyhow::ensure!(text == "9", "{text}");
        }
        let mut record = Record::new(NAME, format!("{name}-{system}")).with("jobs", took.len()).with("clients", 1);
        record.p50_us = Some(median(took.iter().copied()));
        record.p99_us = Some(percentile(took, 0.99));
        records.push(record);
    }
    records.push(many(address, name).await?);
    Ok(records)
}

/// How a client learns the result.
#[derive(Debug, Clone, Copy)]
enum How {
    /// Asks for the status until it is 1, then for the result.
    Poll,
    /// Asks for the result once, and waits.
    Wait,
    /// The run itself waits.
    One,
}

async fn said(client: &mut Client, method: Method, path: &str, body: &str) -> anyhow::Result<Value> {
    let answer = client.send_as(method, path, "text/plain", body.to_owned()).await?.ok()?;
    let answer: Value = serde_json::from_slice(&answer.body)?;
    anyhow::ensure!(answer["error"] == false, "{path}: {answer}");
    Ok(answer)
}

async fn submit_to_result(client: &mut Client, how: How) -> anyhow::Result<String> {
    let path = if matches!(how, How::One) { format!("{RUN}?wait=30") } else { RUN.to_owned() };
    let submitted = said(client, Method::POST, &path, "[4,5]").await?;
    let id = submitted["res"].as_str().context("an id")?;
    let text = match how {
        How::One => submitted["result"].clone(),
        How::Wait => said(client, Method::GET, &format!("/j/{id}/res?wait=30"), "").await?["res"].clone(),
        How::Poll => {
            while said(client, Method::GET, &format!("/j/{id}"), "").await?["res"] != 1 {}
            said(client, Method::GET, &format!("/j/{id}/res"), "").await?["res"].clone()
        }
    };
    Ok(text.as_str().context("a text")?.to_owned())
}

/// Each client submits its part, then reads every result, waiting where it must.
async fn many(address: SocketAddr, name: &str) -> anyhow::Result<Record> {
    let next = Arc::new(AtomicUsize::new(0));
    let began = Clock::system().instant();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let next = Arc::clone(&next);
            lyra_kit::tasks::spawn("classic client", async move {
                let mut client = Client::connect(address).await?;
                let mut ids = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= JOBS {
                        break;
                    }
                    let submitted = said(&mut client, Method::POST, RUN, &format!("[{number},1]")).await?;
                    ids.push((number, submitted["res"].as_str().context("an id")?.to_owned()));
                }
                let submitted = began.elapsed();
                for (number, id) in &ids {
                    let answer = said(&mut client, Method::GET, &format!("/j/{id}/res?wait=60"), "").await?;
                    let sum = answer["res"].as_str().and_then(|text| text.parse::<usize>().ok());
                    anyhow::ensure!(sum == Some(number + 1), "job {number}: {answer}");
                }
                anyhow::Ok((ids.len(), submitted))
            })
        })
        .collect();
    let (mut jobs, mut submitted) = (0, std::time::Duration::ZERO);
    for client in clients {
        let (some, after) = client.await??;
        jobs += some;
        submitted = submitted.max(after);
    }
    let all = began.elapsed();
    let mut record = Record::new(NAME, format!("{name}-8-clients"))
        .with("jobs", jobs)
        .with("clients", CLIENTS)
        .with_number("submitted_per_second", jobs as f64 / submitted.as_secs_f64())
        .with_number("seconds", all.as_secs_f64());
    record.rps = Some(jobs as f64 / all.as_secs_f64());
    Ok(record)
}
