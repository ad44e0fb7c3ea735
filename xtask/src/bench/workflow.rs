//! `workflow`: durable runs. One step and ten steps, beside Restate's server, from the request to the run's output; chains and
//! wide loops of operations that Lyra computes itself.

use anyhow::Context;
use hyper::Method;
use lyra_kit::Clock;
use serde_json::{Value, json};

use super::client::Client;
use super::load::Request;
use super::lyra::{self, Data};
use super::report::{Record, median, micros, percentile};
use super::rounds::{Contestant, compare};
use super::{Bench, restate};

const NAME: &str = "workflow";
/// A step: a function that the chain's members are.
const STEP: &str = "export default (event) => ({ a: event.a + event.b });";
/// Runs that are under way at once.
const AT_ONCE: usize = 1_000;
/// How long each of them waits, in milliseconds: longer than it takes to start all.
const WAITS: u32 = 8_000;
/// Times that each of the long workflows runs.
const TIMES: usize = 11;

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    let mut client = Client::connect(server.address).await?;
    lyra::deploy_js(&mut client, "step", STEP, false).await?;
    let step = json!([{"functionType": "Step", "resources": [{"type": "Function", "properties": {"name": "step"}}]}]);
    for (name, length) in [("one", 1), ("ten", 10), ("hundred", 100)] {
        deploy(&mut client, name, &chain(length, "Step", ["a", "b"], "a", ""), &step).await?;
    }
    let demo = json!([{"functionType": "Addition", "resources": [{"type": "Demo", "properties": {}}]}]);
    let wait = "          - { name: waitTimeIn, type: number, source: \"0\" }\n";
    let members = ["firstSummand", "secondSummand"];
    deploy(&mut client, "demo-hundred", &chain(100, "Addition", members, "sum", wait), &demo).await?;
    deploy(&mut client, "fan", FAN, &demo).await?;

    let folder = tempfile::tempdir()?;
    let peer = match bench.tools.restate() {
        Some(found) => Some(restate::start(&found.program, &found.modules, folder.path()).await?),
        None => None,
    };
    let mut records = Vec::new();
    for (name, scenario) in [("one", "workflow-1-step"), ("ten", "workflow-10-steps")] {
        let mut all = vec![Contestant { system: "lyra", server: &server, request: request(name) }];
        if let Some(peer) = &peer {
            all.push(Contestant { system: "restate", server: &peer.server, request: restate::request(name) });
        }
        records.extend(compare(bench, scenario, &all).await?);
    }
    // The other connection has idled too long for a server to keep it.
    let mut client = Client::connect(server.address).await?;
    let sum = json!({"a": 1, "b": 1});
    records.push(long(&mut client, "hundred", "chain-100-functions", &sum, 100).await?);
    records.push(long(&mut client, "demo-hundred", "chain-100-at-once", &sum, 100).await?);
    for width in [1_000, 10_000] {
        let list: Vec<u32> = (0..width).collect();
        let name = format!("fan-{width}");
        let mut record = long(&mut client, "fan", &name, &json!({"list": list}), width).await?;
        record.rss_mb = Some(server.memory()?.rss_mb);
        records.push(record);
    }
    let waits = format!("          - {{ name: waitTimeIn, type: number, source: \"{WAITS}\" }}\n");
    deploy(&mut client, "waits", &chain(1, "Addition", members, "sum", &waits), &demo).await?;
    let mut record = at_once(&mut client).await?;
    record.rss_mb = Some(server.memory()?.rss_mb);
    records.push(record);
    Ok(records)
}

/// Starts many runs, each of which waits until all are there; `p50_us` and `p99_us` are of the start's answer, the rate is that of
/// starts, and `late_ms` is how long after the last one was due all had ended.
async fn at_once(client: &mut Client) -> anyhow::Result<Record> {
    let (clock, mut took) = (Clock::system(), Vec::with_capacity(AT_ONCE));
    let began = clock.instant();
    for _ in 0..AT_ONCE {
        let body = json!({"input": {"a": 1, "b": 1}}).to_string();
        took.push(micros(client.send(Method::POST, "/v1/workflows/waits/runs", body).await?.ok()?.took));
    }
    let started = began.elapsed();
    let under_way = running(client).await?;
    anyhow::ensure!(under_way == AT_ONCE, "{under_way} of {AT_ONCE} runs are under way at once");
    while running(client).await? > 0 {
        clock.sleep(std::time::Duration::from_millis(20)).await;
    }
    let late = (began.elapsed() - started).as_secs_f64() * 1e3 - f64::from(WAITS);
    let mut record = Record::new(NAME, "runs-1000-at-once").with_number("late_ms", late);
    record.rps = Some(AT_ONCE as f64 / started.as_secs_f64());
    record.p50_us = Some(median(took.iter().copied()));
    record.p99_us = Some(percentile(took, 0.99));
    Ok(record)
}

/// How many runs of the workflow `waits` have not ended.
async fn running(client: &mut Client) -> anyhow::Result<usize> {
    let path = "/v1/runs?workflow=waits&status=running&limit=1000";
    let answer = client.send(Method::GET, path, String::new()).await?.ok()?;
    let page: Value = serde_json::from_slice(&answer.body)?;
    Ok(page["items"].as_array().map_or(0, Vec::len))
}

/// Runs a workflow one time after the other; `rps` is tasks a second.
async fn long(client: &mut Client, name: &str, system: &str, input: &Value, tasks: u32) -> anyhow::Result<Record> {
    let mut took = Vec::new();
    let body = json!({ "input": input }).to_string();
    for _ in 0..TIMES {
        let began = Clock::system().instant();
        let path = format!("/v1/workflows/{name}/runs?wait=30");
        let answer = client.send(Method::POST, &path, body.clone()).await?.ok()?;
        took.push(micros(began.elapsed()));
        let run: Value = serde_json::from_slice(&answer.body)?;
        anyhow::ensure!(run["status"] == "succeeded", "{name}: {run}");
    }
    let mut record = Record::new(NAME, system).with("tasks", tasks);
    let middle = median(took.iter().copied());
    record = record.with_number("us_per_task", middle / f64::from(tasks));
    record.rps = Some(f64::from(tasks) * 1e6 / middle);
    record.p50_us = Some(middle);
    record.p99_us = Some(percentile(took, 0.99));
    Ok(record)
}

async fn deploy(client: &mut Client, name: &str, definition: &str, mappings: &Value) -> anyhow::Result<()> {
    let body = json!({ "name": name, "definition": definition, "mappings": mappings });
    client.send(Method::POST, "/v1/workflows", body.to_string()).await?.ok().context("deploy a workflow")?;
    Ok(())
}

fn request(name: &str) -> Request {
    let body = format!("{{\"input\":{}}}", lyra::EVENT);
    Request { method: "POST", path: format!("/v1/workflows/{name}/runs?wait=30"), body: Some(body) }
}

/// Functions, each of which takes what the one before made.
fn chain(length: usize, function_type: &str, members: [&str; 2], made: &str, more: &str) -> String {
    let [first, second] = members;
    let mut body = String::new();
    for n in 0..length {
        let source = if n == 0 { "w/a".to_owned() } else { format!("f{}/{made}", n - 1) };
        body += &format!(
            "  - function:
      name: f{n}
      type: {function_type}
      dataIns:
          - {{ name: {first}, type: number, source: {source} }}
          - {{ name: {second}, type: number, source: w/b }}
{more}      dataOuts: [{{ name: {made}, type: number }}]
"
        );
    }
    format!(
        "name: w
dataIns: [{{ name: a, type: number, source: a }}, {{ name: b, type: number, source: b }}]
workflowBody:
{body}dataOuts: [{{ name: sum, type: number, source: f{}/{made} }}]
",
        length - 1
    )
}

const FAN: &str = r#"
name: fan
dataIns: [{ name: list, type: collection, source: list }]
workflowBody:
  - parallelFor:
      name: each
      dataIns: [{ name: one, type: number, source: fan/list }]
      iterators: [one]
      loopBody:
        - function:
            name: add
            type: Addition
            dataIns:
              - { name: firstSummand, type: number, source: each/one }
              - { name: secondSummand, type: number, source: "1" }
              - { name: waitTimeIn, type: number, source: "0" }
            dataOuts: [{ name: sum, type: number }]
      dataOuts: [{ name: all, type: collection, source: add/sum }]
dataOuts: [{ name: all, type: collection, source: each/all }]
"#;
