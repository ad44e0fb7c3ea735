//! Workflows that want everything for themselves, on a server that others use, too.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_testkit::{Cli, Lyra, Options};
use serde_json::{Value, json};

use super::start::BINARY;

const OPERATOR: &str = "an-operators-token-of-some-length";

const MAPPINGS: &str = r#"[{"functionType":"Addition","resources":[{"type":"Demo"}]},
    {"functionType":"SumCollection","resources":[{"type":"Demo"}]},
    {"functionType":"SplitArray","resources":[{"type":"Demo"}]}]"#;

const ADDS: &str = r#"{ name: f, type: Addition, dataIns: [{ name: firstSummand, type: number, source: "1" },
      { name: secondSummand, type: number, source: "1" }, { name: waitTimeIn, type: number, source: "0" }],
      dataOuts: [{ name: sum, type: number }] }"#;

/// A million times a million iterations, of which none calls anything.
fn spin() -> String {
    format!(
        r#"
name: spin
dataIns: [{{ name: never, type: boolean, source: never }}]
workflowBody:
  - parallelFor:
      name: p
      iterators: [1000000]
      loopBody:
        - parallelFor:
            name: q
            iterators: [1000000]
            loopBody:
              - if:
                  name: i
                  condition: [{{ data1: spin/never, data2: "true", type: boolean, operator: "==" }}]
                  then:
                    - function: {ADDS}
"#
    )
}

/// A value that is put into an array, or joined to itself, each time round.
fn grows(name: &str, source: &str, how: &str) -> String {
    format!(
        r#"
name: {name}
dataIns: [{{ name: first, type: collection, source: first }}]
workflowBody:
  - while:
      name: again
      dataIns: [{{ name: x, type: collection, source: {name}/first }}]
      loopBody:
        - parallel:
            name: p
            dataIns: [{{ name: v, type: collection, source: again/x }}]
            parallelBody:
              - section:
                  - if:
                      name: i
                      condition: [{{ data1: "1", data2: "2", type: number, operator: "==" }}]
                      then:
                        - function: {ADDS}
            dataOuts: [{{ name: y, type: collection, source: "{source}", constraints: [{{ name: aggregation, value: "{how}" }}] }}]
      condition: [{{ data1: again/counter, data2: "1000000", type: number, operator: "<" }}]
      dataOuts: [{{ name: x, type: collection, source: p/y }}]
dataOuts: [{{ name: out, type: collection, source: again/x }}]
"#
    )
}

/// A small list, a million times.
const BOMB: &str = r#"
name: bomb
dataIns: [{ name: list, type: collection, source: list }]
workflowBody:
  - function:
      name: f
      type: SplitArray
      dataIns:
        - { name: arrayToSplit, type: collection, source: bomb/list, constraints: [{ name: replicate, value: "1000000" }] }
        - { name: splitNumber, type: number, source: "2" }
        - { name: waitTimeIn, type: number, source: "0" }
      dataOuts: [{ name: subArrays, type: collection }]
"#;

/// A stride beyond all numbers.
const STRIDE: &str = r#"
name: stride
dataIns: [{ name: list, type: collection, source: list }]
workflowBody:
  - function:
      name: f
      type: SumCollection
      dataIns:
        - { name: collectionToSum, type: collection, source: stride/list, constraints: [{ name: element-index, value: "1::9223372036854775807" }] }
        - { name: waitTimeIn, type: number, source: "0" }
      dataOuts: [{ name: collectionSum, type: number }]
dataOuts: [{ name: sum, type: number, source: f/collectionSum }]
"#;

const SUM: &str = r#"
name: sum
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function:
      name: add
      type: Addition
      dataIns: [{ name: firstSummand, type: number, source: sum/n }, { name: secondSummand, type: number, source: "1" }, { name: waitTimeIn, type: number, source: "0" }]
      dataOuts: [{ name: sum, type: number }]
dataOuts: [{ name: sum, type: number, source: add/sum }]
"#;

async fn deploy(lyra: &Lyra, cli: &Cli, name: &str, document: &str) -> Result<()> {
    std::fs::write(lyra.scratch().join(format!("{name}.yaml")), document)?;
    std::fs::write(lyra.scratch().join("map.json"), MAPPINGS)?;
    cli.run(["workflow", "deploy", &format!("{name}.yaml"), "--mappings", "map.json"]).await?.ok()?;
    Ok(())
}

async fn start(cli: &Cli, name: &str, id: &str, input: &Value) -> Result<()> {
    cli.run(["workflow", "run", name, "--id", id, "-d", &input.to_string()]).await?.ok()?;
    Ok(())
}

/// The run once it has ended.
async fn ended(cli: &Cli, id: &str) -> Result<Value> {
    for _ in 0..1_200 {
        let run = cli.run(["workflow", "get", id, "-o", "json"]).await?.json()?;
        if run["status"] != "running" && run["status"] != "paused" {
            return Ok(run);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("{id} does not end")
}

/// Why a run failed.
async fn cause(cli: &Cli, id: &str) -> Result<(String, String)> {
    let run = ended(cli, id).await?;
    ensure!(run["status"] == "failed", "{run}");
    let cause = &run["error"]["cause"];
    Ok((cause["code"].as_str().context("a code")?.to_owned(), cause["message"].as_str().context("why")?.to_owned()))
}

/// That somebody else's run, and a question whether the server is ready, are answered soon.
async fn others_go_on(lyra: &Lyra, beside: &Cli) -> Result<()> {
    let soon = Duration::from_secs(20);
    let ready = lyra.http()?.get(format!("{}/readyz", lyra.url())).send();
    ensure!(tokio::time::timeout(soon, ready).await.context("not ready in time")??.status().is_success());
    let run = beside.run(["workflow", "run", "sum", "--wait", "-d", r#"{"n":1}"#]);
    let output = tokio::time::timeout(soon, run).await.context("the run beside took too long")??.json()?;
    ensure!(output == json!({"sum": 2}), "{output}");
    Ok(())
}

/// The most memory that a process has had, in MiB.
fn most_memory(lyra: &Lyra) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", lyra.pid().context("it runs")?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1_024)
}

#[tokio::test]
async fn no_workflow_takes_the_server_from_others() -> Result<()> {
    let tokens = tempfile::tempdir()?;
    let file = tokens.path().join("tokens");
    std::fs::write(&file, format!("{OPERATOR}\n"))?;
    let options = Options {
        binary: Some(BINARY.into()),
        args: vec!["--token-file".to_owned(), file.display().to_string()],
        // As many as a slow machine has in some seconds.
        env: vec![("LYRA__WORKFLOW__MAX_STEPS".to_owned(), "300000".to_owned())],
    };
    let mut lyra = Lyra::start_with(options).await?;
    let root = lyra.commands().env("LYRA_TOKEN", OPERATOR);
    for tenant in ["wild", "calm"] {
        root.run(["tenant", "create", tenant]).await?.ok()?;
    }
    let wild = lyra.commands().env("LYRA_TOKEN", OPERATOR).env("LYRA_TENANT", "wild");
    let calm = lyra.commands().env("LYRA_TOKEN", OPERATOR).env("LYRA_TENANT", "calm");
    deploy(&lyra, &calm, "sum", SUM).await?;
    let (deep, doubles) = (grows("deep", "p/v", ","), grows("doubles", "p/v,p/v", "+"));
    for (name, document) in
        [("spin", &spin()[..]), ("deep", &deep), ("doubles", &doubles), ("bomb", BOMB), ("stride", STRIDE)]
    {
        deploy(&lyra, &wild, name, document).await?;
    }
    others_go_on(&lyra, &calm).await?;
    let before = most_memory(&lyra)?;

    for n in 0..8 {
        start(&wild, "spin", &format!("spin-{n}"), &json!({"never": false})).await?;
    }
    let first = json!({"first": ["x"]});
    start(&wild, "deep", "deep", &first).await?;
    start(&wild, "doubles", "doubles", &first).await?;
    start(&wild, "bomb", "bomb", &json!({"list": ["x".repeat(4_000)]})).await?;
    start(&wild, "stride", "stride", &json!({"list": [1, 2, 3]})).await?;
    others_go_on(&lyra, &calm).await?;
    // What turns in circles is cancelled as anything else is, and stays so.
    wild.run(["workflow", "cancel", "spin-0"]).await?.ok()?;
    assert_eq!(ended(&wild, "spin-0").await?["status"], "cancelled");
    wild.run(["workflow", "trace", "spin-1"]).await?.ok()?;
    assert_eq!(cause(&wild, "deep").await?.0, "invalid_data");
    for id in ["doubles", "bomb"] {
        let (code, message) = cause(&wild, id).await?;
        assert_eq!(
            (&code[..], message.contains("workflow.max_result_bytes")),
            ("limit_reached", true),
            "{id}: {message}"
        );
    }
    let run = ended(&wild, "stride").await?;
    assert_eq!((&run["status"], &run["output"]), (&json!("succeeded"), &json!({"sum": 2})), "{run}");
    let memory = most_memory(&lyra)?;
    assert!(memory < before + 1_024, "{memory} MiB, {before} before");

    // A restart waits for none of them, with lower limits neither: what runs has those that it was begun with.
    lyra.kill().await?;
    lyra.restart().await?;
    others_go_on(&lyra, &calm).await?;
    for n in 1..8 {
        let (code, message) = cause(&wild, &format!("spin-{n}")).await?;
        assert_eq!((&code[..], message.contains("workflow.max_steps")), ("limit_reached", true), "{message}");
    }
    others_go_on(&lyra, &calm).await?;
    root.run(["tenant", "rm", "wild", "--force"]).await?.ok()?;
    Ok(())
}
