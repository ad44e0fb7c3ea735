//! `density`: what one more idle instance takes of the machine's memory, by runtime.
//!
//! Memory is the proportional set size of the whole process tree (pages that processes share count by their share),
//! with many idle instances less that with one, by instance. A server of its own for each runtime.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Method;
use lyra_kit::Clock;
use serde_json::{Value, json};

use super::client::Client;
use super::languages::{Ground, Language};
use super::lyra::{self, Data};
use super::process::Memory;
use super::report::Record;
use super::{Bench, wasmtime};

const NAME: &str = "density";
/// Idle instances of runtimes whose instances are processes, and of the others.
const PROCESSES: u32 = 20;
const IN_WASM: u32 = 100;
/// Memory limit of those in Wasm, for which the worker is charged.
const WASM_MB: u32 = 64;
/// Until what was started has come to rest.
const SETTLE: Duration = Duration::from_secs(2);

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for runtime in ["js", "wasm"] {
        records.push(measure(bench, runtime, None).await?);
    }
    for language in [Language::Python, Language::Node, Language::Native] {
        records.push(measure(bench, language.runtime(), Some(language)).await?);
    }
    Ok(records)
}

async fn measure(bench: &Bench, runtime: &'static str, language: Option<Language>) -> anyhow::Result<Record> {
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    let mut client = Client::connect(server.address).await?;
    let instances = if language.is_some() { PROCESSES } else { IN_WASM };
    match language {
        Some(language) => Ground::new(language)?.deploy(&bench.lyra, server.address, runtime).await?,
        None => deploy_kept(&mut client, runtime).await?,
    }
    // The one that has served is the first; those beside it have loaded their code and wait for a first call.
    call(&mut client, runtime).await?;
    Clock::system().sleep(SETTLE).await;
    let one = server.memory()?;
    let body = json!({"function": runtime, "instances": instances}).to_string();
    client.send(Method::POST, "/v1/workers/local/prewarm", body).await?.ok()?;
    let listed = client.send(Method::GET, "/v1/instances?limit=1000", "").await?.ok()?;
    let listed: Value = serde_json::from_slice(&listed.body)?;
    let idle = listed["items"].as_array().map_or(0, |items| items.iter().filter(|it| it["state"] == "standby").count());
    anyhow::ensure!(idle >= instances as usize, "{idle} idle instances of {runtime}, not {instances}");
    Clock::system().sleep(SETTLE).await;
    let many = server.memory()?;
    Ok(record(runtime, instances, one, many))
}

fn record(runtime: &str, instances: u32, one: Memory, many: Memory) -> Record {
    let each = (many.pss_mb - one.pss_mb) / f64::from(instances - 1);
    let mut record = Record::new(NAME, format!("lyra-{runtime}"))
        .with("instances", instances)
        .with_number("pss_with_one_mb", one.pss_mb)
        .with_number("pss_mb", many.pss_mb)
        .with_number("pss_each_mb", each)
        .with_number("instances_per_gb", (1e3 / each.max(1e-3)).floor());
    record.rss_mb = Some(many.rss_mb);
    record
}

/// Kept instances of the runtimes that have a fresh one for each call unless told otherwise.
async fn deploy_kept(client: &mut Client, runtime: &str) -> anyhow::Result<()> {
    let code = match runtime {
        "js" => json!({"source": lyra::ADD}),
        _ => json!({"wasm": BASE64_STANDARD.encode(wasmtime::component()?)}),
    };
    let body = json!({"runtime": runtime, "code": code, "reuse": true, "memory_mb": WASM_MB}).to_string();
    client.send(Method::PUT, &format!("/v1/functions/{runtime}"), body).await?.ok()?;
    Ok(())
}

async fn call(client: &mut Client, runtime: &str) -> anyhow::Result<()> {
    match runtime {
        "wasm" => client.send(Method::GET, &lyra::http_request(runtime).path, "").await?.ok()?,
        _ => lyra::invoke(client, runtime).await?,
    };
    Ok(())
}
