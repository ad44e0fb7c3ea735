//! `lyra workflow`: from a document to the output of its run, over `kill -9`, with tasks that wait for somebody.

use std::time::Duration;

use anyhow::{Context, Result};
use lyra_testkit::{Lyra, Options};
use serde_json::{Value, json};

use super::start::{BINARY, deploy, repository, server};

fn example(file: &str) -> String {
    repository().join("examples/workflows").join(file).display().to_string()
}

/// Deploys an example with the functions that it uses.
async fn with(lyra: &Lyra, name: &str, functions: &[&str]) -> Result<()> {
    for function in functions {
        lyra.cli(["deploy", &example(&format!("functions/{function}.js")), "--runtime", "js"]).await?.ok()?;
    }
    let (document, mappings) = (example(&format!("{name}.yaml")), example(&format!("{name}.mappings.json")));
    lyra.cli(["workflow", "deploy", &document, "--mappings", &mappings]).await?.ok()?;
    Ok(())
}

async fn run(lyra: &Lyra, name: &str, input: &Value) -> Result<Value> {
    lyra.cli(["workflow", "run", name, "--wait", "-d", &input.to_string()]).await?.json()
}

#[tokio::test]
async fn the_worked_examples_give_their_outputs() -> Result<()> {
    let lyra = server().await?;
    with(&lyra, "word-count", &["count-words", "add-counts"]).await?;
    let lines = json!({"lines": ["a b", "b c", "c c"], "parts": 2});
    assert_eq!(run(&lyra, "word-count", &lines).await?, json!({"counts": {"a": 1, "b": 2, "c": 3}, "words": 6}));
    with(&lyra, "converge", &["newton-step"]).await?;
    let root = run(&lyra, "converge", &json!({"number": 9, "estimate": 1})).await?;
    assert!((root["root"].as_f64().context("a number")? - 3.0).abs() < 1e-6, "{root}");
    with(&lyra, "image-pipeline", &["measure", "resize", "watermark", "as-list"]).await?;
    // A plain PGM of 2 by 2: too small, so it is left as it is.
    let picture = "UDIKMiAyCjkKMCA5IDkgMAo=";
    let input = json!({"picture": picture, "widths": [1600]});
    assert_eq!(run(&lyra, "image-pipeline", &input).await?, json!({"pictures": [picture]}));
    Ok(())
}

const SLOW: &str = r#"
name: slow
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - while:
      name: again
      dataIns: [{ name: sum, type: number, source: slow/n }]
      loopBody:
        - function:
            name: add
            type: Addition
            dataIns:
              - { name: firstSummand, type: number, source: again/sum }
              - { name: secondSummand, type: number, source: "1" }
              - { name: waitTimeIn, type: number, source: "50" }
            dataOuts: [{ name: sum, type: number }]
      condition:
        - { data1: again/counter, data2: "40", type: number, operator: "<", negation: false, combinedWith: and }
      dataOuts: [{ name: sum, type: number, source: add/sum }]
  - function:
      name: approve
      type: "lyra:callback"
      dataIns: [{ name: sum, type: number, source: again/sum }]
      dataOuts: [{ name: approved, type: boolean }]
dataOuts:
  - { name: sum, type: number, source: again/sum }
  - { name: approved, type: boolean, source: approve/approved }
"#;

/// A server with the workflow `slow`: forty additions of 50 ms, then somebody must approve.
async fn with_slow() -> Result<Lyra> {
    let lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), ..Options::default() }).await?;
    std::fs::write(lyra.scratch().join("slow.yaml"), SLOW)?;
    let mapping = r#"[{"functionType":"Addition","resources":[{"type":"Demo","properties":{}}]}]"#;
    std::fs::write(lyra.scratch().join("slow.json"), mapping)?;
    lyra.cli(["workflow", "deploy", "slow.yaml", "--mappings", "slow.json"]).await?.ok()?;
    Ok(lyra)
}

async fn shown(lyra: &Lyra, id: &str) -> Result<Value> {
    lyra.cli(["workflow", "get", id, "-o", "json"]).await?.json()
}

/// Looks at a run until `what` holds.
async fn until(lyra: &Lyra, id: &str, what: impl Fn(&Value) -> bool) -> Result<Value> {
    loop {
        let run = shown(lyra, id).await?;
        if what(&run) {
            return Ok(run);
        }
        anyhow::ensure!(run["status"] == "running" || run["status"] == "paused", "{run}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_run_goes_on_after_a_kill() -> Result<()> {
    let mut lyra = with_slow().await?;
    for n in 0..10 {
        let input = json!({ "n": n }).to_string();
        lyra.cli(["workflow", "run", "slow", "--id", &format!("r{n}"), "-d", &input]).await?.ok()?;
    }
    for _ in 0..3 {
        let before = shown(&lyra, "r3").await?["tasks"]["succeeded"].as_u64().context("a number")?;
        until(&lyra, "r3", |run| run["tasks"]["succeeded"].as_u64() > Some(before) || before >= 40).await?;
        lyra.kill().await?;
        lyra.restart().await?;
        // What had ended is not done again: the engine's own tests count the calls.
        let after = shown(&lyra, "r3").await?["tasks"]["succeeded"].as_u64();
        assert!(after >= Some(before), "{after:?} of {before}");
    }
    // Control deletes code that nothing names at each start. What workflows keep is none of it.
    let definition = lyra.cli(["workflow", "show", "slow"]).await?.ok()?;
    assert!(definition.contains("workflowBody"), "{definition}");
    for n in 0..10 {
        let id = format!("r{n}");
        until(&lyra, &id, |run| run["tasks"]["succeeded"] == 40).await?;
        let waiting: Value = lyra.cli(["workflow", "waiting", &id, "-o", "json"]).await?.json()?;
        let token = waiting["items"][0]["token"].as_str().context("a token")?.to_owned();
        if n == 0 {
            let bad = lyra.cli(["workflow", "complete", &token.replace('~', "~0"), "-d", "{}"]).await?;
            bad.expect(3)?;
            lyra.cli(["workflow", "complete", &token, "-d", "{}"]).await?.expect(2)?;
        }
        lyra.cli(["workflow", "complete", &token, "-d", r#"{"approved":true}"#]).await?.ok()?;
        let run = until(&lyra, &id, |run| run["status"] == "succeeded").await?;
        assert_eq!(run["output"], json!({"sum": n + 40, "approved": true}));
    }
    // The id was used before: the run from then.
    let known = lyra.cli(["workflow", "run", "slow", "--id", "r3", "-d", r#"{"n":3}"#, "-q"]).await?.ok()?;
    assert_eq!(known, "r3\n");
    lyra.cli(["workflow", "run", "slow", "--id", "r3", "-d", r#"{"n":4}"#]).await?.expect(2)?;
    Ok(())
}

#[tokio::test]
async fn pause_resume_cancel_and_redrive_do_what_they_say() -> Result<()> {
    let lyra = with_slow().await?;
    lyra.cli(["workflow", "run", "slow", "--id", "r", "-d", r#"{"n":0}"#]).await?.ok()?;
    lyra.cli(["workflow", "pause", "r"]).await?.ok()?;
    assert_eq!(shown(&lyra, "r").await?["status"], "paused");
    lyra.cli(["workflow", "resume", "r"]).await?.ok()?;
    lyra.cli(["workflow", "cancel", "r"]).await?.ok()?;
    assert_eq!(shown(&lyra, "r").await?["status"], "cancelled");
    lyra.cli(["workflow", "cancel", "r"]).await?.ok()?;
    lyra.cli(["workflow", "pause", "r"]).await?.expect(2)?;
    lyra.cli(["workflow", "redrive", "r"]).await?.ok()?;
    until(&lyra, "r", |run| run["tasks"]["succeeded"] == 40).await?;
    let trace = lyra.cli(["workflow", "trace", "r", "-o", "json"]).await?.json()?;
    let steps: Vec<&str> =
        trace["items"].as_array().context("tokens")?.iter().filter_map(|t| t["step"].as_str()).collect();
    for step in ["T", "S", "E", "X", "F", "P", "C", "Q"] {
        assert!(steps.contains(&step), "no {step} in {steps:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_run_that_fails_names_its_task_and_a_wrong_document_its_place() -> Result<()> {
    let lyra = server().await?;
    deploy(&lyra, "throws", "export default (event) => { throw new RangeError('no ' + event.x) }\n", &[]).await?;
    let document = r#"
name: w
dataIns: [{ name: x, type: number, source: x }]
workflowBody:
  - function:
      name: first
      type: Throws
      dataIns: [{ name: x, type: number, source: w/x }]
      dataOuts: [{ name: y, type: number }]
      properties: [{ name: retry-attempts, value: "2" }]
dataOuts: [{ name: y, type: number, source: first/y }]
"#;
    std::fs::write(lyra.scratch().join("w.yaml"), document)?;
    std::fs::write(lyra.scratch().join("bad.yaml"), document.replace("w/x", "w/z"))?;
    let mapping = r#"[{"functionType":"Throws","resources":[{"type":"Function","properties":{"name":"throws"}}]}]"#;
    std::fs::write(lyra.scratch().join("w.json"), mapping)?;
    let refused = lyra.cli(["workflow", "deploy", "bad.yaml", "--mappings", "w.json"]).await?.expect(2)?;
    assert!(refused.stderr.contains("bad.yaml:8:"), "{}", refused.stderr);
    lyra.cli(["workflow", "deploy", "w.yaml"]).await?.expect(2)?;
    lyra.cli(["workflow", "deploy", "w.yaml", "--mappings", "w.json"]).await?.ok()?;
    lyra.cli(["workflow", "run", "w", "-d", "{}"]).await?.expect(2)?;
    lyra.cli(["workflow", "run", "nowhere", "-d", "{}"]).await?.expect(3)?;
    let failed = lyra.cli(["workflow", "run", "w", "--id", "r", "--wait", "-d", r#"{"x":7}"#]).await?.expect(1)?;
    assert!(failed.stderr.contains("first") && failed.stderr.contains("no 7"), "{}", failed.stderr);
    let run = shown(&lyra, "r").await?;
    assert_eq!((&run["error"]["task"], &run["error"]["attempts"]), (&json!("first"), &json!(2)), "{run}");
    assert_eq!(run["error"]["cause"]["name"], "RangeError");
    Ok(())
}

#[tokio::test]
async fn a_part_of_a_workflow_runs_on_another_lyra() -> Result<()> {
    let (cloud, edge) = (server().await?, server().await?);
    for function in ["capture", "detect"] {
        edge.cli(["deploy", &example(&format!("functions/{function}.js")), "--runtime", "js"]).await?.ok()?;
    }
    cloud.cli(["deploy", &example("functions/report.js"), "--runtime", "js"]).await?.ok()?;
    let mappings = std::fs::read_to_string(example("edge-cloud.mappings.json"))?;
    let mappings = mappings.replace("http://127.0.0.1:8090", edge.url());
    std::fs::write(cloud.scratch().join("mappings.json"), mappings)?;
    cloud.cli(["workflow", "deploy", &example("edge-cloud.yaml"), "--mappings", "mappings.json"]).await?.ok()?;
    let output = run(&cloud, "edge-cloud", &json!({"camera": "hall", "frames": 7})).await?;
    assert_eq!(output["report"]["frames"], json!(["hall-0", "hall-3", "hall-6"]));
    let parts = edge.cli(["workflow", "runs", "-o", "json"]).await?.json()?;
    assert_eq!(parts["items"][0]["status"], "succeeded", "{parts}");
    // The other Lyra goes away: the run says so, in time.
    drop(edge);
    let lost = cloud.cli(["workflow", "run", "edge-cloud", "--wait", "-d", r#"{"camera":"hall","frames":1}"#]).await?;
    let lost = lost.expect(1)?;
    assert!(lost.stderr.contains("edge") || lost.stderr.contains("connect"), "{}", lost.stderr);
    Ok(())
}

const PASSED_ON: &str = r#"
name: passed-on
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function:
      name: make
      type: Make
      dataIns: [{ name: n, type: number, source: passed-on/n }]
      dataOuts: [{ name: text, type: string }]
  - function:
      name: ask
      type: "lyra:callback"
      dataIns: [{ name: n, type: number, source: passed-on/n }]
      dataOuts: [{ name: go, type: boolean }]
  - function:
      name: measure
      type: Measure
      dataIns:
        - { name: text, type: string, source: make/text }
        - { name: go, type: boolean, source: ask/go }
      dataOuts: [{ name: length, type: number }]
dataOuts:
  - { name: length, type: number, source: measure/length }
  - { name: text, type: string, source: make/text }
"#;

#[tokio::test]
async fn a_large_value_is_there_after_a_kill_and_its_run_is_a_tree_of_spans() -> Result<()> {
    let mut lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), ..Options::default() }).await?;
    deploy(&lyra, "make", "export default (event) => ({ text: 'x'.repeat(event.n) })\n", &[]).await?;
    deploy(&lyra, "measure", "export default (event) => ({ length: event.text.length })\n", &[]).await?;
    std::fs::write(lyra.scratch().join("w.yaml"), PASSED_ON)?;
    let mapping = ["Make", "Measure"].map(|of| {
        json!({"functionType": of, "resources": [{"type": "Function", "properties": {"name": of.to_lowercase()}}]})
    });
    std::fs::write(lyra.scratch().join("w.json"), json!(mapping).to_string())?;
    lyra.cli(["workflow", "deploy", "w.yaml", "--mappings", "w.json"]).await?.ok()?;
    lyra.cli(["workflow", "run", "passed-on", "--id", "r", "-d", r#"{"n":300000}"#]).await?.ok()?;
    until(&lyra, "r", |run| run["tasks"]["succeeded"] == 1).await?;
    lyra.kill().await?;
    lyra.restart().await?;
    until(&lyra, "r", |run| run["tasks"]["active"] == 1).await?;
    let waiting: Value = lyra.cli(["workflow", "waiting", "r", "-o", "json"]).await?.json()?;
    let token = waiting["items"][0]["token"].as_str().context("a token")?.to_owned();
    lyra.cli(["workflow", "complete", &token, "-d", r#"{"go":true}"#]).await?.ok()?;
    let run = until(&lyra, "r", |run| run["status"] == "succeeded").await?;
    assert_eq!(run["output"]["length"], 300_000);
    assert_eq!(run["output"]["text"].as_str().map(str::len), Some(300_000));
    let spans = lyra.cli(["workflow", "trace", "r", "--format", "otlp"]).await?.json()?;
    let spans = spans["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().context("spans")?.clone();
    let named = |name: &str| spans.iter().find(|span| span["name"] == name).with_context(|| format!("no {name}"));
    let (whole, task, call) = (named("run passed-on")?, named("task measure")?, named("call measure")?);
    assert_eq!((&task["parentSpanId"], &call["parentSpanId"]), (&whole["spanId"], &task["spanId"]));
    assert!(spans.iter().all(|span| span["traceId"] == whole["traceId"]));
    let again = lyra.cli(["workflow", "trace", "r", "--format", "otlp"]).await?.json()?;
    assert_eq!(again["resourceSpans"][0]["scopeSpans"][0]["spans"], Value::from(spans));
    Ok(())
}

#[tokio::test]
async fn a_cut_is_proposed_and_runs_on_the_lyra_that_it_names() -> Result<()> {
    let (cloud, edge) = (server().await?, server().await?);
    for function in ["capture", "detect"] {
        edge.cli(["deploy", &example(&format!("functions/{function}.js")), "--runtime", "js"]).await?.ok()?;
    }
    cloud.cli(["deploy", &example("functions/report.js"), "--runtime", "js"]).await?.ok()?;
    let text = std::fs::read_to_string(example("edge-cloud.yaml"))?;
    let text = text.split("cuts:").next().context("a document")?;
    std::fs::write(cloud.scratch().join("plain.yaml"), text)?;
    let cut = ["workflow", "cut", "plain.yaml", "--capacity", "2", "--load", "detect=8", "--name", "edge"];
    let sizes = ["--bytes", "capture/frames=50000000", "--bytes", "scan/found=200", "--bytes", "report/report=5000"];
    let said = cloud.cli(cut.iter().chain(&sizes).copied().chain(["-o", "json"])).await?.json()?;
    assert_eq!((&said["members"], &said["bytes"]), (&json!(["capture", "scan"]), &json!(308)));
    let document = cloud.cli(cut.iter().chain(&sizes).copied()).await?.ok()?;
    std::fs::write(cloud.scratch().join("cut.yaml"), document)?;
    let mappings = std::fs::read_to_string(example("edge-cloud.mappings.json"))?;
    std::fs::write(cloud.scratch().join("m.json"), mappings.replace("http://127.0.0.1:8090", edge.url()))?;
    cloud.cli(["workflow", "deploy", "cut.yaml", "--mappings", "m.json"]).await?.ok()?;
    let output = run(&cloud, "edge-cloud", &json!({"camera": "hall", "frames": 7})).await?;
    assert_eq!(output["report"]["frames"], json!(["hall-0", "hall-3", "hall-6"]));
    Ok(())
}
