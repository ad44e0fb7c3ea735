//! Runs in runs, on this Lyra and on another one; runs that start by themselves; runs that have a time; what tasks may call, and with
//! what; what a tenant may have of them.

use std::time::Duration;

use anyhow::{Context, Result};
use lyra_testkit::{Lyra, Options};
use serde_json::{Value, json};

use super::start::{BINARY, ECHO, deploy, server, server_with};

const OPERATOR: &str = "an-operators-token-of-some-length";

const CHILD: &str = r#"
name: child
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function: { name: double, type: Double, dataIns: [{ name: n, type: number, source: child/n }], dataOuts: [{ name: n, type: number }] }
dataOuts: [{ name: n, type: number, source: double/n }]
"#;

const EACH: &str = r#"
name: each
dataIns: [{ name: list, type: collection, source: list }]
workflowBody:
  - parallelFor:
      name: all
      dataIns: [{ name: e, type: number, source: each/list }]
      iterators: [e]
      loopBody:
        - function: { name: sub, type: Child, dataIns: [{ name: n, type: number, source: all/e }], dataOuts: [{ name: n, type: number }] }
      dataOuts: [{ name: all, type: collection, source: sub/n }]
dataOuts: [{ name: all, type: collection, source: all/all }]
"#;

/// Waits for somebody.
const ASK: &str = r#"
name: ask
workflowBody:
  - function: { name: approve, type: "lyra:callback", dataOuts: [{ name: ok, type: boolean }] }
dataOuts: [{ name: ok, type: boolean, source: approve/ok }]
"#;

/// Has one task, which is tried once.
const PARENT: &str = r#"
name: parent
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function:
      name: sub
      type: Sub
      dataIns: [{ name: n, type: number, source: parent/n }]
      dataOuts: [{ name: ok, type: boolean }]
      properties: [{ name: retry-attempts, value: "1" }, { name: timeout, value: 1h }]
dataOuts: [{ name: ok, type: boolean, source: sub/ok }]
"#;

/// `parent`, with its task on another Lyra.
const CUT: &str = "cuts: [{ name: edge, members: [sub] }]\n";

async fn with_env(env: &[(&str, &str)]) -> Result<Lyra> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Lyra::start_with(Options { binary: Some(BINARY.into()), env, ..Options::default() }).await
}

fn mapped(function_type: &str, kind: &str, properties: &Value) -> Value {
    json!({"functionType": function_type, "resources": [{"type": kind, "properties": properties}]})
}

/// Deploys a workflow and gives what the command said on stderr.
async fn with(lyra: &Lyra, name: &str, definition: &str, mappings: &Value, flags: &[&str]) -> Result<String> {
    let (document, mapping) = (format!("{name}.yaml"), format!("{name}.json"));
    std::fs::write(lyra.scratch().join(&document), definition)?;
    std::fs::write(lyra.scratch().join(&mapping), mappings.to_string())?;
    let deploy = ["workflow", "deploy", &document, "--name", name, "--mappings", &mapping];
    let done = lyra.cli([&deploy[..], flags].concat()).await?;
    let said = done.stderr.clone();
    done.ok()?;
    Ok(said)
}

/// Asks until `found` gives something.
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

/// The runs of a workflow, oldest first.
async fn runs(lyra: &Lyra, workflow: &str) -> Result<Vec<Value>> {
    let listed = lyra.cli(["workflow", "runs", workflow, "-o", "json"]).await?.json()?;
    let mut runs = listed["items"].as_array().context("runs")?.clone();
    runs.reverse();
    Ok(runs)
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().with_context(|| format!("a text, not {value}"))?.to_owned())
}

/// The ids of the runs of a workflow, once there are so many.
async fn started(lyra: &Lyra, workflow: &str, count: usize) -> Result<Vec<String>> {
    eventually(async || {
        let runs = runs(lyra, workflow).await?;
        if runs.len() < count {
            return Ok(None);
        }
        runs.iter().map(|run| text(&run["id"])).collect::<Result<Vec<String>>>().map(Some)
    })
    .await
}

async fn run(lyra: &Lyra, id: &str) -> Result<Value> {
    lyra.cli(["workflow", "get", id, "-o", "json"]).await?.json()
}

async fn until(lyra: &Lyra, id: &str, status: &str) -> Result<Value> {
    eventually(async || Ok(Some(run(lyra, id).await?).filter(|run| run["status"] == status))).await
}

/// Completes the one task of a run that waits for somebody.
async fn approve(lyra: &Lyra, id: &str) -> Result<()> {
    let token = eventually(async || {
        let waiting = lyra.cli(["workflow", "waiting", id, "-o", "json"]).await?.json()?;
        Ok(waiting["items"].get(0).map(|task| text(&task["token"])))
    })
    .await??;
    lyra.cli(["workflow", "complete", &token, "-d", r#"{"ok":true}"#]).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn more_sub_workflows_than_there_are_places_for_calls_all_end() -> Result<()> {
    let lyra = with_env(&[("LYRA__WORKFLOW__IN_FLIGHT", "4")]).await?;
    deploy(&lyra, "double", "export default (event) => ({ n: event.n * 2 })\n", &[]).await?;
    with(&lyra, "child", CHILD, &json!([mapped("Double", "Function", &json!({"name": "double"}))]), &[]).await?;
    with(&lyra, "each", EACH, &json!([mapped("Child", "Workflow", &json!({"name": "child"}))]), &[]).await?;
    let input = r#"{"list":[1,2,3,4,5,6,7,8]}"#;
    let output = lyra.cli(["workflow", "run", "each", "--wait", "60s", "-d", input]).await?.json()?;
    assert_eq!(output, json!({"all": [2, 4, 6, 8, 10, 12, 14, 16]}));
    Ok(())
}

#[tokio::test]
async fn a_run_is_redriven_with_a_sub_workflow_and_a_job_that_were_under_way() -> Result<()> {
    let lyra = server().await?;
    with(&lyra, "ask", ASK, &json!([]), &[]).await?;
    with(&lyra, "parent", PARENT, &json!([mapped("Sub", "Workflow", &json!({"name": "ask"}))]), &[]).await?;
    lyra.cli(["workflow", "run", "parent", "--id", "p", "-d", r#"{"n":1}"#]).await?.ok()?;
    let first = started(&lyra, "ask", 1).await?.remove(0);
    lyra.cli(["workflow", "cancel", "p"]).await?.ok()?;
    until(&lyra, &first, "cancelled").await?;
    lyra.cli(["workflow", "redrive", "p"]).await?.ok()?;
    let second = started(&lyra, "ask", 2).await?.remove(1);
    assert_ne!(first, second);
    approve(&lyra, &second).await?;
    until(&lyra, "p", "succeeded").await?;
    // A job has its one try as well.
    let slow = "export default async (event) => {
      await new Promise((done) => setTimeout(done, event.n));
      return { ok: true };
    }";
    deploy(&lyra, "slow", slow, &[]).await?;
    let mapping = mapped("Sub", "Function", &json!({"name": "slow", "job": true}));
    with(&lyra, "parent", PARENT, &json!([mapping]), &[]).await?;
    lyra.cli(["workflow", "run", "parent", "--id", "j", "-d", r#"{"n":3000}"#]).await?.ok()?;
    eventually(async || {
        let jobs = lyra.cli(["job", "ls", "-o", "json"]).await?.json()?;
        Ok(jobs["items"].as_array().filter(|jobs| !jobs.is_empty()).map(|_| ()))
    })
    .await?;
    lyra.cli(["workflow", "cancel", "j"]).await?.ok()?;
    lyra.cli(["workflow", "redrive", "j"]).await?.ok()?;
    until(&lyra, "j", "succeeded").await?;
    Ok(())
}

#[tokio::test]
async fn a_cancel_reaches_the_part_that_runs_on_another_lyra() -> Result<()> {
    let (cloud, edge) = (server().await?, server().await?);
    // Over there the part waits, for somebody.
    with(&edge, "ask", ASK, &json!([]), &[]).await?;
    let mappings = json!([
        mapped("Sub", "Workflow", &json!({"name": "ask"})),
        mapped("lyra:cut/edge", "Cut", &json!({"url": edge.url()})),
    ]);
    with(&cloud, "parent", &format!("{PARENT}{CUT}"), &mappings, &[]).await?;
    cloud.cli(["workflow", "run", "parent", "--id", "p", "-d", r#"{"n":1}"#]).await?.ok()?;
    let inner = started(&edge, "ask", 1).await?.remove(0);
    let part = text(&run(&edge, &inner).await?["parent"]["run"])?;
    assert!(part.starts_with("p."), "{part}");
    cloud.cli(["workflow", "cancel", "p"]).await?.ok()?;
    until(&edge, &part, "cancelled").await?;
    until(&edge, &inner, "cancelled").await?;
    // Taken up again, it is another part.
    cloud.cli(["workflow", "redrive", "p"]).await?.ok()?;
    let inner = started(&edge, "ask", 2).await?.remove(1);
    approve(&edge, &inner).await?;
    until(&cloud, "p", "succeeded").await?;
    Ok(())
}

#[tokio::test]
async fn a_part_is_run_for_a_token_that_may_deploy_and_invoke() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, format!("{OPERATOR}\n"))?;
    let args = vec!["--token-file".to_owned(), tokens.display().to_string()];
    let edge = Lyra::start_with(Options { binary: Some(BINARY.into()), args, ..Options::default() }).await?;
    let root = edge.commands().env("LYRA_TOKEN", OPERATOR);
    std::fs::write(edge.scratch().join("ask.yaml"), ASK)?;
    root.run(["workflow", "deploy", "ask.yaml"]).await?.ok()?;
    // One file, whose token is changed while the cloud goes on.
    let file = dir.path().join("edge-token");
    let give = async |scopes: &str| {
        let token = root.run(["token", "create", scopes, "--no-user", "--scope", scopes, "-q"]).await?.ok()?;
        std::fs::write(&file, token)?;
        anyhow::Ok(())
    };
    give("invoke").await?;
    let path = file.display().to_string();
    let cloud = with_env(&[
        ("LYRA__WORKFLOW__CUT_TOKENS__EDGE__URL", edge.url()),
        ("LYRA__WORKFLOW__CUT_TOKENS__EDGE__FILE", path.as_str()),
    ])
    .await?;
    let mappings = json!([
        mapped("Sub", "Workflow", &json!({"name": "ask"})),
        mapped("lyra:cut/edge", "Cut", &json!({"url": edge.url(), "token": "edge"})),
    ]);
    with(&cloud, "parent", &format!("{PARENT}{CUT}"), &mappings, &[]).await?;
    let refused = cloud.cli(["workflow", "run", "parent", "--wait", "-d", r#"{"n":1}"#]).await?.expect(1)?;
    assert!(refused.stderr.contains("http_403") && refused.stderr.contains("needs the scopes"), "{}", refused.stderr);
    give("deploy,invoke").await?;
    cloud.cli(["workflow", "run", "parent", "--id", "p", "-d", r#"{"n":1}"#]).await?.ok()?;
    let inner = eventually(async || {
        let runs = root.run(["workflow", "runs", "ask", "-o", "json"]).await?.json()?;
        Ok(runs["items"].get(0).cloned())
    })
    .await?;
    cloud.cli(["workflow", "cancel", "p"]).await?.ok()?;
    eventually(async || {
        let run = root.run(["workflow", "get", &text(&inner["id"])?, "-o", "json"]).await?.json()?;
        Ok(Some(()).filter(|()| run["status"] == "cancelled"))
    })
    .await?;
    // Who has cancelled it stands in the audit log there.
    eventually(async || {
        let log = root.run(["audit", "ls"]).await?.ok()?;
        Ok(log.contains("/cancel").then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_workflow_starts_runs_by_itself_over_deploys_and_a_kill_until_that_is_ended() -> Result<()> {
    let mut lyra = server().await?;
    let cron = ["--cron", "* * * * * *", "--overlap", "skip"];
    with(&lyra, "ask", ASK, &json!([]), &cron).await?;
    let first = started(&lyra, "ask", 1).await?.remove(0);
    let listed = eventually(async || {
        let listed = lyra.cli(["workflow", "ls", "-o", "json"]).await?.json()?;
        Ok(Some(listed["items"][0]["schedule"].clone()).filter(|schedule| !schedule["last"].is_null()))
    })
    .await?;
    assert_eq!((&listed["cron"], &listed["overlap"]), (&json!("* * * * * *"), &json!("skip")));
    assert_eq!((text(&listed["last"]["run"])?, listed["next"].is_string()), (first.clone(), true));
    let table = lyra.cli(["workflow", "ls"]).await?.ok()?;
    assert!(table.contains("* * * * * *") && table.contains(&first), "{table}");
    let shown = lyra.cli(["workflow", "show", "ask"]).await?;
    assert!(shown.stderr.contains(&format!("last run {first}")), "{}", shown.stderr);
    assert_eq!(shown.ok()?, ASK);
    // Its run has not ended: over deploys, with and without a word of the schedule, and over a kill no other one starts.
    with(&lyra, "ask", &format!("{ASK}# two\n"), &json!([]), &cron).await?;
    with(&lyra, "ask", &format!("{ASK}# three\n"), &json!([]), &[]).await?;
    lyra.kill().await?;
    lyra.restart().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(runs(&lyra, "ask").await?.len(), 1);
    approve(&lyra, &first).await?;
    let second = started(&lyra, "ask", 2).await?.remove(1);
    let second = run(&lyra, &second).await?;
    assert_eq!((&second["version"], &second["schedule"]), (&json!(3), &json!("* * * * * *")));
    with(&lyra, "ask", ASK, &json!([]), &["--no-cron"]).await?;
    approve(&lyra, &text(&second["id"])?).await?;
    let before = runs(&lyra, "ask").await?.len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(runs(&lyra, "ask").await?.len(), before, "nothing starts by itself any more");
    let shown = lyra.cli(["workflow", "show", "ask", "-o", "json"]).await?.json()?;
    assert_eq!(shown.get("schedule"), None);
    lyra.cli(["workflow", "deploy", "ask.yaml", "--cron", "@daily", "--no-cron"]).await?.expect(2)?;
    Ok(())
}

#[tokio::test]
async fn a_run_has_the_time_that_its_starter_or_the_operator_gives_it() -> Result<()> {
    let lyra = with_env(&[("LYRA__WORKFLOW__RUN_TIMEOUT", "6s")]).await?;
    with(&lyra, "ask", ASK, &json!([]), &[]).await?;
    for (id, timeout, why) in [("own", "300ms", "the time that it was started with"), ("most", "1h", "run_timeout")] {
        let start = ["workflow", "run", "ask", "--id", id, "--timeout", timeout, "--wait", "60s"];
        let failed = lyra.cli(start).await?.expect(1)?;
        assert!(failed.stderr.contains("timeout") && failed.stderr.contains(why), "{}", failed.stderr);
    }
    // A redrive gives it its time anew.
    lyra.cli(["workflow", "redrive", "most"]).await?.ok()?;
    approve(&lyra, "most").await?;
    until(&lyra, "most", "succeeded").await?;
    lyra.cli(["workflow", "run", "ask", "--timeout", "0s"]).await?.expect(2)?;
    Ok(())
}

#[tokio::test]
async fn an_image_that_nothing_here_runs_is_left_out_beside_other_resources() -> Result<()> {
    let lyra = server_with("double", "export default (event) => ({ n: event.n * 2 })\n").await?;
    let image = json!({"type": "Local", "properties": {"Image": "apollo/double:1"}});
    let function = json!({"type": "Function", "properties": {"name": "double"}});
    let both = json!([{"functionType": "Double", "resources": [image, function]}]);
    let said = with(&lyra, "child", CHILD, &both, &[]).await?;
    assert!(said.contains("mappings[0].resources[0]: Local") && said.contains("left out"), "{said}");
    let output = lyra.cli(["workflow", "run", "child", "--wait", "-d", r#"{"n":4}"#]).await?.json()?;
    assert_eq!(output, json!({"n": 8}));
    let alone = json!([{"functionType": "Double", "resources": [image]}]);
    std::fs::write(lyra.scratch().join("child.json"), alone.to_string())?;
    lyra.cli(["workflow", "deploy", "child.yaml", "--mappings", "child.json"]).await?.expect(2)?;
    Ok(())
}

#[tokio::test]
async fn with_authentication_tasks_reach_no_private_address_that_is_not_allowed() -> Result<()> {
    let target = server_with("echo", ECHO).await?;
    let tokens = tempfile::NamedTempFile::new()?;
    std::fs::write(tokens.path(), format!("{OPERATOR}\n"))?;
    let args = vec!["--token-file".to_owned(), tokens.path().display().to_string()];
    let url = format!("{}/v1/functions/echo/invoke", target.url());
    for (allow, code) in [(None, 1), (Some(r#"["127.0.0.0/8"]"#), 0)] {
        let env = allow.map(|nets| ("LYRA__WORKFLOW__HTTP__ALLOW".to_owned(), nets.to_owned()));
        let env = env.into_iter().collect();
        let options = Options { binary: Some(BINARY.into()), args: args.clone(), env };
        let lyra = Lyra::start_with(options).await?;
        let root = lyra.commands().env("LYRA_TOKEN", OPERATOR);
        std::fs::write(lyra.scratch().join("child.yaml"), CHILD)?;
        let mapping = json!([mapped("Double", "Serverless", &json!({"Uri": url}))]);
        std::fs::write(lyra.scratch().join("child.json"), mapping.to_string())?;
        root.run(["workflow", "deploy", "child.yaml", "--mappings", "child.json"]).await?.ok()?;
        let done = root.run(["workflow", "run", "child", "--wait", "-d", r#"{"n":4}"#]).await?.expect(code)?;
        if code != 0 {
            assert!(done.stderr.contains("forbidden_address"), "{}", done.stderr);
            assert!(done.stderr.contains("workflow.http.allow"), "{}", done.stderr);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_schedule_that_is_run_by_hand_counts_against_the_rate() -> Result<()> {
    let lyra = server_with("echo", ECHO).await?;
    let create = ["schedule", "create", "nightly", "--cron", "0 3 1 1 *", "--function", "echo"];
    lyra.cli(create).await?.ok()?;
    lyra.cli(["quota", "set", "--rate", "1/h", "--burst", "1"]).await?.ok()?;
    lyra.cli(["schedule", "run", "nightly"]).await?.ok()?;
    let refused = lyra.cli(["schedule", "run", "nightly"]).await?.expect(5)?;
    assert!(refused.stderr.contains("the quota of tenant default"), "{}", refused.stderr);
    lyra.cli(["quota", "rm"]).await?.ok()?;
    let quota = ["quota", "set", "--function", "echo", "--rate", "1/h", "--burst", "1"];
    lyra.cli(quota).await?.ok()?;
    lyra.cli(["schedule", "run", "nightly"]).await?.ok()?;
    lyra.cli(["schedule", "run", "nightly"]).await?.expect(5)?;
    Ok(())
}

#[tokio::test]
async fn a_run_that_is_over_is_deleted_and_one_more_than_the_quota_says_is_refused() -> Result<()> {
    let lyra = server().await?;
    with(&lyra, "ask", ASK, &json!([]), &[]).await?;
    let set = lyra.cli(["quota", "set", "--runs", "1", "--workflows", "1", "-o", "json"]).await?.json()?;
    assert_eq!(
        (&set["quota"]["runs"], &set["used"]["runs"], &set["used"]["workflows"]),
        (&json!(1), &json!(0), &json!(1))
    );
    lyra.cli(["workflow", "run", "ask", "--id", "one"]).await?.ok()?;
    let refused = lyra.cli(["workflow", "run", "ask", "--id", "two"]).await?.expect(5)?;
    assert!(
        refused.stderr.contains("the quota of tenant default is reached: 1 runs of workflows"),
        "{}",
        refused.stderr
    );
    std::fs::write(lyra.scratch().join("more.yaml"), ASK)?;
    let refused = lyra.cli(["workflow", "deploy", "more.yaml", "--name", "more"]).await?.expect(5)?;
    assert!(refused.stderr.contains("1 workflows"), "{}", refused.stderr);
    let shown = lyra.cli(["quota", "get"]).await?.ok()?;
    assert!(shown.contains("runs") && shown.contains("workflows"), "{shown}");
    let used = lyra.cli(["quota", "get", "-o", "json"]).await?.json()?;
    assert_eq!((&used["used"]["runs"], &used["used"]["workflows"]), (&json!(1), &json!(1)));

    let refused = lyra.cli(["workflow", "forget", "one"]).await?;
    assert!(refused.stderr.contains("cancel it first"), "{}", refused.stderr);
    lyra.cli(["workflow", "cancel", "one"]).await?.ok()?;
    assert_eq!(lyra.cli(["workflow", "forget", "one"]).await?.ok()?, "run one deleted\n");
    lyra.cli(["workflow", "get", "one"]).await?.expect(3)?;
    lyra.cli(["workflow", "trace", "one"]).await?.expect(3)?;
    lyra.cli(["workflow", "forget", "one"]).await?.expect(3)?;
    lyra.cli(["workflow", "run", "ask", "--id", "one"]).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn a_run_that_is_paused_has_its_sub_workflow_stand_still() -> Result<()> {
    let lyra = server().await?;
    with(&lyra, "ask", ASK, &json!([]), &[]).await?;
    with(&lyra, "parent", PARENT, &json!([mapped("Sub", "Workflow", &json!({"name": "ask"}))]), &[]).await?;
    lyra.cli(["workflow", "run", "parent", "--id", "whole", "-d", r#"{"n":1}"#]).await?.ok()?;
    let sub = started(&lyra, "ask", 1).await?.remove(0);
    lyra.cli(["workflow", "pause", "whole"]).await?.ok()?;
    until(&lyra, &sub, "paused").await?;
    lyra.cli(["workflow", "resume", "whole"]).await?.ok()?;
    until(&lyra, &sub, "running").await?;
    approve(&lyra, &sub).await?;
    until(&lyra, "whole", "succeeded").await?;
    Ok(())
}

const SEEN: &str =
    "export default ({ headers }) => ({ key: headers['x-api-key'] === 'opensesame', trace: headers.traceparent })";

const CALL: &str = r#"
name: call
workflowBody:
  - function: { name: ask, type: Ask, dataOuts: [{ name: key, type: boolean }, { name: trace, type: string }] }
dataOuts: [{ name: key, type: boolean, source: ask/key }, { name: trace, type: string, source: ask/trace }]
"#;

#[tokio::test]
async fn a_task_calls_a_url_with_a_secret_of_its_tenant() -> Result<()> {
    let lyra = server_with("seen", SEEN).await?;
    let uri = format!("{}/fn/default/seen", lyra.url());
    let ask = mapped("Ask", "Serverless", &json!({"Uri": uri, "headers": {"X-Api-Key": {"secret": "door"}}}));
    let said = with(&lyra, "call", CALL, &json!([ask]), &[]).await?;
    assert!(said.contains("in the clear"), "{said}");
    let failed = lyra.cli(["workflow", "run", "call", "--wait"]).await?.expect(1)?;
    assert!(failed.stderr.contains("door"), "{}", failed.stderr);
    lyra.commands().run_with_input(["secret", "set", "door"], b"opensesame\n").await?.ok()?;
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let start = lyra.http()?.post(format!("{}/v1/workflows/call/runs?wait=30", lyra.url()));
    let start = start.header("content-type", "application/json").body(r#"{"id":"mine"}"#);
    let start = start.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let run: Value = start.send().await?.error_for_status()?.json().await?;
    assert_eq!(run["output"]["key"], true, "{run}");
    // What was called is a child of the span of its try.
    let spans = lyra.cli(["workflow", "trace", "mine", "--format", "otlp"]).await?.json()?;
    let spans = spans["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().context("spans")?.clone();
    let call = spans.iter().find(|span| span["name"] == "call ask").context("the span of the try")?;
    assert_eq!(run["output"]["trace"], format!("00-{TRACE}-{}-01", text(&call["spanId"])?));
    for shown in [["workflow", "show", "call"], ["workflow", "get", "mine"], ["workflow", "trace", "mine"]] {
        let shown = lyra.cli([&shown[..], &["-o", "json"]].concat()).await?.ok()?;
        assert!(!shown.contains("opensesame"), "{shown}");
    }
    Ok(())
}

const KEPT: &str = r#"
name: kept
workflowBody:
  - function: { name: ask, type: Ask, dataOuts: [{ name: n, type: number }], properties: [{ name: memo, value: "true" }] }
dataOuts: [{ name: n, type: number, source: ask/n }]
"#;

#[tokio::test]
async fn a_result_that_is_kept_is_of_the_version_that_is_live() -> Result<()> {
    let lyra = server_with("ask", "export default () => ({ n: 1 })").await?;
    with(&lyra, "kept", KEPT, &json!([mapped("Ask", "Function", &json!({"name": "ask@live"}))]), &[]).await?;
    let resource = async |id: &str| -> Result<(Value, Value)> {
        lyra.cli(["workflow", "run", "kept", "--id", id, "--wait"]).await?.ok()?;
        let trace = lyra.cli(["workflow", "trace", id, "-o", "json"]).await?.json()?;
        let tokens = trace["items"].as_array().context("tokens")?.clone();
        let ended = tokens.iter().find(|token| token["step"] == "X" && token["node"] == "ask").context("an end")?;
        Ok((run(&lyra, id).await?["output"]["n"].clone(), ended["resources"][0].clone()))
    };
    assert_eq!(resource("a").await?, (json!(1), json!("function:ask@live")));
    assert_eq!(resource("b").await?, (json!(1), json!("memo")));
    deploy(&lyra, "ask", "export default () => ({ n: 2 })", &[]).await?;
    assert_eq!(resource("c").await?, (json!(2), json!("function:ask@live")));
    assert_eq!(resource("d").await?, (json!(2), json!("memo")));
    Ok(())
}

const TRACED: &str = r#"
name: traced
workflowBody:
  - function: { name: script, type: Script, dataOuts: [{ name: trace, type: string }] }
  - function: { name: python, type: Python, dataOuts: [{ name: trace, type: string }] }
dataOuts: [{ name: script, type: string, source: script/trace }, { name: python, type: string, source: python/trace }]
"#;

#[tokio::test]
async fn functions_that_tasks_call_are_told_the_span_of_their_try() -> Result<()> {
    let lyra = server_with("script", "export default (_, { env }) => ({ trace: env.TRACEPARENT })").await?;
    let python = "def handler(event, context):\n    return {'trace': context.traceparent}\n";
    std::fs::write(lyra.scratch().join("python.py"), python)?;
    lyra.cli(["deploy", "python.py"]).await?.ok()?;
    let script = mapped("Script", "Function", &json!({"name": "script"}));
    let mapping = json!([script, mapped("Python", "Function", &json!({"name": "python"}))]);
    with(&lyra, "traced", TRACED, &mapping, &[]).await?;
    lyra.cli(["workflow", "run", "traced", "--id", "mine", "--wait"]).await?.ok()?;
    let output = run(&lyra, "mine").await?["output"].clone();
    let spans = lyra.cli(["workflow", "trace", "mine", "--format", "otlp"]).await?.json()?;
    let spans = spans["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().context("spans")?.clone();
    for task in ["script", "python"] {
        let call = spans.iter().find(|span| span["name"] == format!("call {task}")).context("the span of the try")?;
        let (trace, span) = (text(&call["traceId"])?, text(&call["spanId"])?);
        assert_eq!(output[task], format!("00-{trace}-{span}-01"), "{task}");
    }
    // A call by itself stands in none.
    let alone = lyra.cli(["invoke", "python", "-d", "{}"]).await?.json()?;
    assert_eq!(alone, json!({"trace": null}));
    Ok(())
}
