//! Logs of sessions: by `lyra session logs`, by `lyra logs`, over HTTP; and following them while control is away. Needs python3.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use lyra_testkit::{Cli, Cluster, Lyra};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use super::start::server;

/// Says what it starts as, and each visit of its session.
const PROGRAM: &str = r#"#!/usr/bin/env python3
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        name = json.load(open(os.path.join(os.environ["LYRA_SESSION_DIR"], "session.json")))["name"]
        print(name, "was asked for", self.path, flush=True)
        print(name, "has a complaint", file=sys.stderr, flush=True)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
print("program started", flush=True)
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// Of instances that stand by a session gets the one that has stood for the shortest time, which has just served another one.
fn application(name: &str, function: &str) -> String {
    let spec = json!({"apiVersion": "lyra.dev/v1", "kind": "Application", "metadata": {"name": name}, "spec": {
        "containers": [{"name": "main", "function": function, "ports": [{"containerPort": 8080}]}],
        "scalingPolicy": {"maximumInstance": 3, "scalingPolicyType": "idle_session_number",
            "idleSessionNumThreshold": {"low": 1, "high": 2}},
    }});
    spec.to_string()
}

async fn apply(lyra: &Lyra, manifest: &str) -> Result<()> {
    lyra.commands().run_with_input(["app", "apply", "-f", "-"], manifest.as_bytes()).await?.ok().map(drop)
}

async fn with_talks() -> Result<Lyra> {
    let lyra = server().await?;
    fs::create_dir(lyra.scratch().join("talks"))?;
    fs::write(lyra.scratch().join("talks/bootstrap"), PROGRAM)?;
    fs::set_permissions(lyra.scratch().join("talks/bootstrap"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    lyra.cli(["deploy", "talks", "--name", "talks", "--runtime", "http"]).await?.ok()?;
    apply(&lyra, &application("chat", "talks")).await?;
    Ok(lyra)
}

/// A session whose instance serves another one after it.
fn session(application: &str, name: &str) -> String {
    let object = json!({"apiVersion": "lyra.dev/v1", "kind": "ApplicationSession", "metadata": {"name": name},
        "spec": {"applicationName": application, "openTimeoutSeconds": 60, "killInstanceWhenSessionClosed": false}});
    object.to_string()
}

async fn open(lyra: &Lyra, application: &str, name: &str) -> Result<Value> {
    apply(lyra, &session(application, name)).await?;
    lyra.commands().until_shown(&["session", "get", name], "Available").await?;
    lyra.cli(["session", "get", name, "-o", "json"]).await?.json()
}

async fn visit(lyra: &Lyra, session: &str, path: &str) -> Result<()> {
    let answer = lyra.http()?.get(format!("{}/s/default/{session}/{path}", lyra.url())).send().await?;
    anyhow::ensure!(answer.status() == 200, "{answer:?}");
    Ok(())
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<String> {
    let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await.context("no line came")??;
    line.context("the stream goes on")
}

fn follow(cli: &Cli, args: &[&str]) -> Result<(Child, Lines<BufReader<ChildStdout>>)> {
    let mut child = cli.command(args).spawn()?;
    let lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    Ok((child, lines))
}

#[tokio::test]
async fn each_session_of_an_instance_has_its_own_lines_also_after_its_end() -> Result<()> {
    let lyra = with_talks().await?;
    let commands = lyra.commands();
    let one = open(&lyra, "chat", "one").await?;
    visit(&lyra, "one", "tea").await?;
    commands.until_shown(&["session", "logs", "one", "-q"], "one has a complaint").await?;
    let (_child, mut followed) = follow(&commands, &["session", "logs", "one", "--follow", "-q", "--limit", "1"])?;
    next(&mut followed).await?;
    visit(&lyra, "one", "milk").await?;
    let said = [next(&mut followed).await?, next(&mut followed).await?];
    assert!(said.contains(&"one was asked for /milk".to_owned()), "{said:?}");
    lyra.cli(["session", "close", "one"]).await?.ok()?;

    // The next one is made by kubectl, and is given the same instance.
    fs::write(lyra.scratch().join("kubeconfig"), lyra.cli(["kubeconfig"]).await?.ok()?)?;
    let kubeconfig = lyra.scratch().join("kubeconfig").display().to_string();
    let kubectl = Cli::new("kubectl").within(lyra.scratch()).env("KUBECONFIG", &kubeconfig);
    fs::write(lyra.scratch().join("two.json"), session("chat", "two"))?;
    kubectl.run(["apply", "-f", "two.json"]).await.context("this test needs kubectl")?.ok()?;
    commands.until_shown(&["session", "get", "two"], "Available").await?;
    visit(&lyra, "two", "tea").await?;
    commands.until_shown(&["session", "logs", "two", "-q"], "two has a complaint").await?;
    let two = lyra.cli(["session", "get", "two", "-o", "json"]).await?.json()?;
    let instance = two["status"]["instance"].as_str().context("an instance")?;
    assert_eq!(one["status"]["instance"], instance, "it serves both");

    let of_two = lyra.cli(["session", "logs", "two", "-q"]).await?.ok()?;
    assert_eq!(of_two.lines().count(), 2, "{of_two}");
    assert!(of_two.lines().all(|line| line.starts_with("two ")), "{of_two}");
    lyra.cli(["session", "get", "one"]).await?.expect(3)?;
    let of_one = lyra.cli(["session", "logs", "one", "-q"]).await?.ok()?;
    assert_eq!(of_one.lines().filter(|line| line.starts_with("one ")).count(), 4, "it is gone, and its lines are not");
    assert!(!of_one.contains("two "), "{of_one}");
    let shown = lyra.cli(["session", "logs", "one", "--limit", "4"]).await?.ok()?;
    assert!(shown.lines().count() == 4 && shown.contains("error") && !shown.contains("inv_"), "{shown}");

    // The same by function, application and instance, each line with what it belongs to.
    for which in [&["talks"][..], &["--application", "chat"], &["--instance", instance]] {
        let all = lyra.cli([&["logs"], which].concat()).await?.ok()?;
        assert!(all.contains("program started"), "{which:?}: {all}");
        for line in ["one was asked for /tea", "two was asked for /tea"] {
            assert_eq!(all.lines().filter(|shown| shown.ends_with(line)).count(), 1, "{which:?} {line}: {all}");
        }
        let named = which[0] == "--instance" || all.contains("two two was asked for /tea");
        assert!(named && !all.contains("inv_"), "{all}");
    }
    assert_eq!(lyra.cli(["logs", "--session", "two", "-q"]).await?.ok()?, of_two);
    assert_eq!(lyra.cli(["logs", "talks", "--session", "two", "-q"]).await?.ok()?, of_two);
    let json = lyra.cli(["session", "logs", "two", "-o", "json"]).await?.ok()?;
    let first: Value = serde_json::from_str(json.lines().next().context("a line")?)?;
    let told = ["function", "application", "session", "session_uid", "instance"].map(|key| &first[key]);
    assert_eq!(told, [&json!("talks"), &json!("chat"), &json!("two"), &two["metadata"]["uid"], &json!(instance)]);
    let uid = two["metadata"]["uid"].as_str().context("an identity")?;
    assert_eq!(lyra.cli(["session", "logs", "two", "--uid", uid, "-q"]).await?.ok()?, of_two);
    assert_eq!(lyra.cli(["session", "logs", "two", "--uid", "another", "-q"]).await?.ok()?, "");
    let api = lyra.http()?.get(format!("{}/v1/logs?session=two", lyra.url())).send().await?.text().await?;
    assert_eq!(json, api);
    Ok(())
}

#[tokio::test]
async fn who_asks_for_what_is_not_there_is_told_so() -> Result<()> {
    let lyra = with_talks().await?;
    open(&lyra, "chat", "one").await?;
    visit(&lyra, "one", "tea").await?;
    lyra.commands().until_shown(&["session", "logs", "one", "-q"], "one has a complaint").await?;
    for command in [&["session", "logs", "other"][..], &["session", "logs", "other", "-f"]] {
        let refused = lyra.cli(command).await?.expect(3)?;
        assert!(refused.stderr.contains("there is no session other"), "{}", refused.stderr);
    }
    // Another tenant's are not there for this one.
    lyra.cli(["session", "logs", "one", "--tenant", "rival"]).await?.expect(3)?;
    for which in [["--session", "one"], ["--application", "chat"]] {
        let none = lyra.cli([&["logs", "--tenant", "rival"], &which[..]].concat()).await?.expect(0)?;
        assert!(none.stdout.is_empty() && none.stderr.contains("no lines"), "{none:?}");
    }
    lyra.cli(["logs"]).await?.expect(2)?;
    lyra.cli(["logs", "--session", "NOT A NAME"]).await?.expect(2)?;
    lyra.cli(["logs", "talks", "--instance", "inv_1"]).await?.expect(3)?;
    let bad = lyra.http()?.get(format!("{}/v1/logs", lyra.url())).send().await?;
    assert_eq!(bad.status(), 400);
    assert!(bad.text().await?.contains("must be named"));
    Ok(())
}

#[tokio::test]
async fn code_that_is_called_logs_into_its_session() -> Result<()> {
    let lyra = server().await?;
    let code =
        "console.log('loaded'); export default (event) => { console.warn('asked for', event.rawPath); return {}; }";
    fs::write(lyra.scratch().join("calls.js"), code)?;
    lyra.cli(["deploy", "calls.js"]).await?.ok()?;
    apply(&lyra, &application("calls", "calls")).await?;
    for name in ["one", "two"] {
        open(&lyra, "calls", name).await?;
        visit(&lyra, name, name).await?;
        lyra.cli(["session", "close", name]).await?.ok()?;
    }
    for name in ["one", "two"] {
        let shown = lyra.cli(["session", "logs", name, "-q"]).await?.ok()?;
        let asked: Vec<&str> = shown.lines().filter(|line| line.starts_with("asked")).collect();
        assert_eq!(asked, [format!("asked for /{name}")]);
    }
    Ok(())
}

#[tokio::test]
async fn following_waits_for_a_control_that_is_away_and_shows_each_line_once() -> Result<()> {
    let mut cluster = Cluster::start(1, &[]).await?;
    let commands = cluster.commands();
    let code = "export default (number) => { console.log(`number ${number}`); return number; }";
    fs::write(cluster.scratch().join("counts.js"), code)?;
    commands.run(["deploy", "counts.js", "--name", "counts"]).await?.ok()?;
    let count = async |number: u32| -> Result<()> {
        commands.run(["invoke", "counts", "-d", &number.to_string()]).await?.ok().map(drop)
    };
    for number in 0..3 {
        count(number).await?;
    }
    let (_child, mut followed) = follow(&commands, &["logs", "counts", "--follow", "-q"])?;
    for number in 0..3 {
        assert_eq!(next(&mut followed).await?, format!("number {number}"));
    }
    for (round, away) in [(1, 1), (2, 12)] {
        cluster.kill("c1").await?;
        tokio::time::sleep(Duration::from_secs(away)).await;
        cluster.restart("c1").await?;
        // Until the worker has found control again, lines may be on their way.
        commands.until_shown(&["logs", "counts", "-q"], "number 2").await?;
        for number in [round * 10, round * 10 + 1] {
            count(number).await?;
            assert_eq!(next(&mut followed).await?, format!("number {number}"));
        }
    }
    Ok(())
}
