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
    Ok(records)
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
