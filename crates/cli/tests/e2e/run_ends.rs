//! What goes with a run: values by URL, who hears of its end, over `kill -9`, who is charged for its calls, and how it keeps to quotas.

use std::time::Duration;

use anyhow::{Context, Result};
use lyra_testkit::{Lyra, Options};
use serde_json::{Value, json};

use super::start::{BINARY, ECHO, deploy, server_with};

const DOUBLES: &str = r"
name: doubles
dataIns: [{ name: list, type: collection, source: list }]
workflowBody:
  - parallelFor:
      name: each
      dataIns: [{ name: n, type: number, source: doubles/list }]
      iterators: [n]
      loopBody:
        - function:
            name: double
            type: Double
            dataIns: [{ name: n, type: number, source: each/n }]
            dataOuts: [{ name: out, type: number }]
      dataOuts: [{ name: out, type: collection, source: double/out }]
dataOuts: [{ name: out, type: collection, source: each/out }]
";
const DOUBLE: &str = "export default ({ n }) => { if (n < 0) throw new Error('no'); return { out: 2 * n } }";

/// Deploys `doubles`, whose tasks call the function `double`.
async fn with_doubles(lyra: &Lyra, cli: &lyra_testkit::Cli) -> Result<()> {
    std::fs::write(lyra.scratch().join("double.js"), DOUBLE)?;
    std::fs::write(lyra.scratch().join("doubles.yaml"), DOUBLES)?;
    let mappings =
        json!([{"functionType": "Double", "resources": [{"type": "Function", "properties": {"name": "double"}}]}]);
    std::fs::write(lyra.scratch().join("doubles.json"), mappings.to_string())?;
    cli.run(["deploy", "double.js", "--name", "double"]).await?.ok()?;
    cli.run(["workflow", "deploy", "doubles.yaml", "--mappings", "doubles.json"]).await?.ok()?;
    Ok(())
}

async fn eventually<T>(mut found: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let ask = async {
        loop {
            if let Some(found) = found().await? {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ask).await.context("it does not come to be")?
}

/// The delivery of a run that its destination has.
async fn delivered(lyra: &Lyra, run: &str) -> Result<Value> {
    eventually(async || {
        let found = lyra.cli(["webhook", "ls", "--run", run, "--status", "delivered", "-o", "json"]).await?.json()?;
        let items = found.get("items").unwrap_or(&found);
        Ok(items.get(0).cloned())
    })
    .await
}

#[tokio::test]
async fn destinations_hear_of_the_ends_of_runs_over_a_kill() -> Result<()> {
    let mut lyra = server_with("g", ECHO).await?;
    with_doubles(&lyra, &lyra.commands()).await?;
    lyra.cli(["webhook", "set", "--workflow", "nothing", "--on-failure", "function:g"]).await?.expect(3)?;
    let set = ["webhook", "set", "--workflow", "doubles", "--on-failure", "function:g"];
    assert!(lyra.cli(set).await?.ok()?.contains("doubles"));
    let run = lyra.cli(["workflow", "run", "doubles", "-d", r#"{"list":[1,-1]}"#]).await?.ok()?.trim().to_owned();
    eventually(async || {
        let url = format!("{}/v1/runs/{run}", lyra.url());
        let shown: Value = lyra.http()?.get(url).send().await?.error_for_status()?.json().await?;
        Ok((shown["status"] == "failed").then_some(()))
    })
    .await?;
    lyra.kill().await?;
    lyra.restart().await?;
    let delivery = delivered(&lyra, &run).await?;
    assert_eq!(
        (&delivery["type"], &delivery["workflow"], &delivery["run"], &delivery["to"]),
        (&"run.failed".into(), &"doubles".into(), &run.clone().into(), &json!({"function": "g"}))
    );
    let started = delivery["started_job"].as_str().context("a job")?;
    let message = lyra.cli(["job", "result", started, "--wait", "30s"]).await?.json()?;
    assert_eq!((&message["type"], &message["data"]["run"]["id"]), (&"run.failed".into(), &run.into()));
    assert_eq!(message["data"]["run"]["error"]["cause"]["code"], "function_error", "{message}");

    // A run of its own destinations, and nobody for the next.
    let own = ["workflow", "run", "doubles", "-d", r#"{"list":[4]}"#, "--on-success", "function:g"];
    let run = lyra.cli(own).await?.ok()?.trim().to_owned();
    let delivery = delivered(&lyra, &run).await?;
    let message =
        lyra.cli(["job", "result", delivery["started_job"].as_str().context("a job")?, "--wait", "30s"]).await?;
    assert_eq!(message.json()?["data"]["run"]["output"], json!({"out": [8]}));
    let refused = lyra.cli(["workflow", "run", "doubles", "--on-success", "https://example.org/"]).await?.expect(2)?;
    assert!(refused.stderr.contains("--secret-file"), "{}", refused.stderr);
    lyra.cli(["webhook", "rm", "--workflow", "doubles"]).await?.ok()?;
    lyra.cli(["webhook", "show", "--workflow", "doubles"]).await?.expect(3)?;
    // What is set for a workflow goes with it.
    lyra.cli(set).await?.ok()?;
    lyra.cli(["workflow", "rm", "doubles"]).await?.ok()?;
    with_doubles(&lyra, &lyra.commands()).await?;
    lyra.cli(["webhook", "show", "--workflow", "doubles"]).await?.expect(3)?;
    Ok(())
}

#[tokio::test]
async fn a_job_has_destinations_of_its_own_by_flags() -> Result<()> {
    let lyra = server_with("g", ECHO).await?;
    deploy(&lyra, "f", "export default () => { throw new Error('no') }", &["--max-attempts", "1"]).await?;
    let id = lyra.cli(["invoke", "f", "--async", "-q", "--on-failure", "function:g"]).await?.ok()?.trim().to_owned();
    let delivery = eventually(async || {
        let found = lyra.cli(["webhook", "ls", "--job", &id, "--status", "delivered", "-o", "json"]).await?.json()?;
        Ok(found.get("items").unwrap_or(&found).get(0).cloned())
    })
    .await?;
    assert_eq!((&delivery["type"], &delivery["function"]), (&"job.failed".into(), &"f".into()));
    lyra.cli(["invoke", "f", "--on-failure", "function:g"]).await?.expect(2)?;
    lyra.cli(["invoke", "f", "--async", "--on-failure", "function:nobody"]).await?.expect(2)?;
    Ok(())
}

#[tokio::test]
async fn tasks_wait_for_room_under_a_quota_and_are_charged_to_whoever_started_the_run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "an-operators-token-of-some-length\n")?;
    let args = vec!["--token-file".to_owned(), tokens.display().to_string()];
    let lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), args, ..Options::default() }).await?;
    let root = lyra.commands().env("LYRA_TOKEN", "an-operators-token-of-some-length");
    root.run(["tenant", "create", "acme"]).await?.ok()?;
    root.run(["user", "create", "ada", "--role", "owner", "--tenant", "acme"]).await?.ok()?;
    let token = root.run(["token", "create", "adas", "--user", "ada", "--tenant", "acme", "-q"]).await?.ok()?;
    let ada = lyra.commands().env("LYRA_TOKEN", token.trim());
    with_doubles(&lyra, &ada).await?;
    root.run(["quota", "set", "--tenant", "acme", "--concurrency", "1"]).await?.ok()?;
    let list: Vec<u32> = (0..12).collect();
    let input = json!({"list": list}).to_string();
    let output = ada.run(["workflow", "run", "doubles", "--wait", "-d", &input]).await?.json()?;
    assert_eq!(output["out"].as_array().map(Vec::len), Some(12), "none of them failed: {output}");
    // What a user may not say is who is charged.
    let asked = json!({"input": {"list": []}, "user": "bob"});
    let url = format!("{}/v1/workflows/doubles/runs", lyra.url());
    let refused = lyra.http()?.post(url).bearer_auth(token.trim()).json(&asked).send().await?;
    assert_eq!(refused.status(), 422);
    let counted = eventually(async || {
        let counted = ada.run(["usage", "--group", "user,function", "-o", "json"]).await?.json()?;
        let rows = counted.get("items").unwrap_or(&counted).as_array().cloned().unwrap_or_default();
        Ok(rows.into_iter().find(|row| row["invocations"] == 12))
    })
    .await?;
    assert_eq!((&counted["user"], &counted["function"]), (&"ada".into(), &"double".into()));
    Ok(())
}

/// Takes `{text: {$ref}}`, fetches the text as anybody could, and answers with its length and the same reference.
async fn length_of_what_is_fetched(http: reqwest::Client) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let _serving = lyra_kit::tasks::spawn("target", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            let body = loop {
                if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    break None;
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((_, body)) = text.split_once("\r\n\r\n") else { continue };
                if let Ok(body) = serde_json::from_str::<Value>(body) {
                    break Some(body);
                }
            };
            let Some(body) = body else { continue };
            let url = body["text"]["$ref"]["url"].as_str().unwrap_or_default().to_owned();
            let answer = match http.get(url).send().await {
                Ok(found) => match found.json::<String>().await {
                    Ok(text) => json!({"length": text.len(), "same": body["text"]}).to_string(),
                    Err(error) => json!({"error": error.to_string()}).to_string(),
                },
                Err(error) => json!({"error": error.to_string()}).to_string(),
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
            drop(stream.write_all((head + &answer).as_bytes()).await);
        }
    });
    Ok(format!("http://{address}/"))
}

const MEASURES: &str = r"
name: measures
dataIns: [{ name: text, type: string, source: text }]
workflowBody:
  - function:
      name: measure
      type: Measure
      dataIns: [{ name: text, type: string, source: measures/text }]
      dataOuts:
        - { name: length, type: number }
        - { name: same, type: string }
dataOuts:
  - { name: length, type: number, source: measure/length }
  - { name: same, type: string, source: measure/same }
";

#[tokio::test]
async fn a_target_elsewhere_fetches_a_large_input_by_its_url() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("lyra.toml");
    std::fs::write(&config, "")?;
    let args = vec!["--config".to_owned(), config.display().to_string()];
    let mut lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), args, ..Options::default() }).await?;
    let target = length_of_what_is_fetched(lyra.http()?).await?;
    let resource =
        json!({"type": "Serverless", "properties": {"Uri": target}, "transmission": {"referencesAbove": 10_000}});
    let mappings = json!([{"functionType": "Measure", "resources": [resource]}]);
    std::fs::write(lyra.scratch().join("measures.yaml"), MEASURES)?;
    std::fs::write(lyra.scratch().join("measures.json"), mappings.to_string())?;
    let deploy = ["workflow", "deploy", "measures.yaml", "--mappings", "measures.json"];
    let refused = lyra.cli(deploy).await?.expect(2)?;
    assert!(refused.stderr.contains("workflow.public_url"), "{}", refused.stderr);
    std::fs::write(&config, format!("[workflow]\npublic_url = \"{}\"\n", lyra.url()))?;
    lyra.kill().await?;
    lyra.restart().await?;
    lyra.cli(deploy).await?.ok()?;
    let text = "word ".repeat(40_000);
    std::fs::write(lyra.scratch().join("input.json"), json!({"text": text}).to_string())?;
    let output = lyra.cli(["workflow", "run", "measures", "--wait", "-d", "@input.json"]).await?.json()?;
    assert_eq!(output["length"], text.len());
    assert_eq!(output["same"], text.as_str(), "its own reference is the value again");
    let url = format!("{}/v1/values/AAAA.AAAA", lyra.url());
    assert_eq!(lyra.http()?.get(url).send().await?.status(), 404);
    Ok(())
}
