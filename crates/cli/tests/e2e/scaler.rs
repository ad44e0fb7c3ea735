//! The scaler: workers are made and ended by what there is to do, and no job is lost by it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_testkit::engines::{Etcd, Nats};
use lyra_testkit::{Cli, Cluster};
use serde_json::{Value, json};
use tokio::process::Command;

use super::classic::{SAID, SESSION};
use super::start::{BINARY, alone};

/// Settings of a scaler that is quick, and of its workers.
fn settings(dir: &Path, more: &str) -> Result<String> {
    let (path, blobs) = (dir.join("scaler.toml"), dir.join("blobs").display().to_string());
    let text = format!(
        "[scaler]\nevery = \"500ms\"\nup_cooldown = \"500ms\"\ndown_cooldown = \"1s\"\nmax = 4\n{more}\n\
         [scaler.local]\nargs = [\"--blobs\", \"{blobs}\", \"--isolation\", \"wasm\", \"--memory-mb\", \"256\"]\n"
    );
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

async fn until(what: &str, so: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let waited = tokio::time::timeout(Duration::from_secs(90), async {
        while !so().await.unwrap_or(false) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    waited.await.with_context(|| format!("{what}, in time"))
}

async fn status(lyra: &Cli) -> Result<Value> {
    lyra.run(["scaler", "status", "-o", "json"]).await?.json()
}

#[tokio::test]
async fn scaling_down_loses_no_running_job() -> Result<()> {
    let mut cluster = Cluster::start(0, &[]).await?;
    let config = settings(cluster.scratch(), "min = 3")?;
    cluster.add_scaler("s1", &["--config", &config]).await?;
    cluster.until_ready(3).await?;
    let lyra = cluster.commands();
    let slow = "export default async (n) => { console.log(`ran ${n}`); \
                await new Promise((done) => setTimeout(done, 6000)); return n }";
    std::fs::write(cluster.scratch().join("slow.js"), slow)?;
    lyra.run(["deploy", "slow.js", "--name", "slow", "--balancing", "round-robin"]).await?.ok()?;
    let mut ids = Vec::new();
    for number in 0..9 {
        ids.push(lyra.run(["invoke", "slow", "--async", "-d", &number.to_string()]).await?.ok()?.trim().to_owned());
    }
    until("several workers run jobs", async || {
        let all = cluster.client()?.workers(10).await?;
        Ok(all.items.iter().filter(|one| one.value.running > 0).count() >= 2)
    })
    .await?;
    lyra.run(["scaler", "set", "--min", "1", "--max", "1"]).await?.ok()?;
    until("one worker is left", async || {
        let now = status(&lyra).await?;
        Ok(now["look"]["workers"] == json!(1) && now["desired"] == json!(1))
    })
    .await?;
    for (number, id) in ids.iter().enumerate() {
        lyra.run(["job", "wait", id, "--wait", "60s"]).await?.ok()?;
        let job = lyra.run(["job", "get", id, "-o", "json"]).await?.json()?;
        assert_eq!((&job["status"], &job["attempts"]), (&json!("succeeded"), &json!(1)), "{job}");
        assert_eq!(lyra.run(["job", "result", id]).await?.ok()?, format!("{number}\n"));
    }
    let logs = lyra.run(["logs", "slow"]).await?.ok()?;
    assert_eq!(logs.matches("ran ").count(), 9, "each ran once: {logs}");
    cluster.until_ready(1).await?;
    let history = lyra.run(["scaler", "history", "-o", "json"]).await?.json()?;
    let last = &history["items"][0];
    assert_eq!((&last["from"], &last["to"], &last["reason"]), (&json!(3), &json!(1), &json!("maximum")), "{history}");
    Ok(())
}

#[tokio::test]
async fn a_backlog_makes_workers_and_operators_steer() -> Result<()> {
    let mut cluster = Cluster::start(0, &[]).await?;
    let lyra = cluster.commands();
    assert_eq!(status(&lyra).await?["state"], "absent");
    let config = settings(cluster.scratch(), "mode = \"queue\"\nqueue_per_worker = 2")?;
    cluster.add_scaler("s1", &["--config", &config]).await?;
    cluster.until_ready(1).await?;
    lyra.run(["scaler", "pause"]).await?.ok()?;
    until("it is paused", async || Ok(status(&lyra).await?["state"] == "paused")).await?;
    let slow = "export default async (n) => { await new Promise((done) => setTimeout(done, n)); return n }";
    std::fs::write(cluster.scratch().join("slow.js"), slow)?;
    lyra.run(["deploy", "slow.js", "--name", "slow"]).await?.ok()?;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(lyra.run(["invoke", "slow", "--async", "-d", "12000"]).await?.ok()?.trim().to_owned());
    }
    lyra.run(["scaler", "resume"]).await?.ok()?;
    cluster.until_ready(4).await?;
    // What dies without a word takes its workers with it, and the next one makes them again.
    cluster.kill("s1").await?;
    cluster.until_ready(0).await?;
    cluster.restart("s1").await?;
    for id in &ids {
        lyra.run(["job", "wait", id, "--wait", "90s"]).await?.ok()?;
    }
    let refused = lyra.run(["scaler", "set", "--min", "5", "--max", "2"]).await?.expect(2)?;
    assert!(refused.stderr.contains("min"), "{}", refused.stderr);
    until("all but one go when all is done", async || Ok(status(&lyra).await?["look"]["workers"] == json!(1))).await?;
    let shown = lyra.run(["scaler", "status"]).await?.ok()?;
    assert!(shown.contains("mode:") && shown.contains("queue") && shown.contains("local"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_trace_shows_what_would_be_decided() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let line =
        |second: u32, queued: u32| format!("{{\"time\":\"2026-01-01T00:00:{second:02}Z\",\"queued\":{queued}}}\n");
    let trace: String = [(0, 100), (5, 100), (10, 100), (15, 20)].map(|(second, queued)| line(second, queued)).concat();
    std::fs::write(dir.path().join("trace.jsonl"), trace)?;
    let lyra = alone().within(dir.path());
    assert_eq!(lyra.run(["scaler", "decide", "--trace", "trace.jsonl", "-q"]).await?.ok()?, "2\n4\n8\n8\n");
    let shown = lyra.run(["scaler", "decide", "--trace", "trace.jsonl"]).await?.ok()?;
    assert!(shown.contains("REASON") && shown.contains("steady"), "{shown}");
    std::fs::write(dir.path().join("bad.jsonl"), "{\"time\":\"now\"}\n")?;
    let refused = lyra.run(["scaler", "decide", "--trace", "bad.jsonl"]).await?.expect(2)?;
    assert!(refused.stderr.contains("line 1"), "{}", refused.stderr);
    Ok(())
}

#[tokio::test]
async fn the_classic_variables_are_settings_with_their_names_as_origin() -> Result<()> {
    let lyra = alone().env("DB_URL", "tcp://db:27444").env("JQ_URL", "tcp://jq:27445").env("PORT", "8123");
    let print = ["config", "print", "--role", "gateway", "-o", "json"];
    let all = lyra.run(print).await?.json()?;
    assert_eq!(all["cluster.control"], json!({ "value": ["db:27444", "jq:27445"], "source": "DB_URL, JQ_URL" }));
    assert_eq!(all["listen"], json!({ "value": "127.0.0.1:8123", "source": "PORT" }));
    let own = lyra.clone().env("LYRA__LISTEN", "127.0.0.1:9").run(print).await?.json()?;
    assert_eq!(own["listen"], json!({ "value": "127.0.0.1:9", "source": "LYRA__LISTEN" }));
    let none = lyra.run(["config", "print", "-o", "json"]).await?.json()?;
    assert_eq!(none["listen"]["source"], "default", "without a role they say nothing");
    let refused = alone().env("DB_URL", "mongodb://m:27017").run(["config", "print", "--role", "control"]).await?;
    assert!(refused.expect(2)?.stderr.contains("DB_URL"));
    Ok(())
}

#[tokio::test]
async fn the_classic_components_run_apart_and_serve_the_classic_session() -> Result<()> {
    let (etcd, nats) = tokio::try_join!(Etcd::start(), Nats::start())?;
    let (store, jobs) = (format!("etcd://{}", etcd.address()), format!("nats://{}", nats.address()));
    let mut cluster = Cluster::bare()?;
    let blobs = cluster.scratch().join("blobs").display().to_string();
    let stores = [("DB_URL", store.as_str()), ("JQ_URL", jobs.as_str()), ("PORT", "0")];
    for name in ["dbmanager", "jqmanager"] {
        cluster.add_node("control", name, &["--blobs", &blobs], &stores).await?;
    }
    let [db, jq] = ["dbmanager", "jqmanager"].map(|name| format!("tcp://{}", cluster.address(name)));
    let managers = [("DB_URL", db.as_str()), ("JQ_URL", jq.as_str()), ("PORT", "0")];
    let config = settings(cluster.scratch(), "")?;
    cluster.add_node("scaler", "scaler", &["--config", &config], &managers).await?;
    cluster.add_node("worker", "worker", &["--blobs", &blobs, "--isolation", "wasm"], &managers).await?;
    cluster.add_node("gateway", "g1", &[], &managers).await?;
    // The one that is there, and the one that the scaler makes.
    cluster.until_ready(2).await?;
    let output = Command::new("bash")
        .args(["-c", SESSION])
        .env("URL", cluster.address("g1"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("bash")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), SAID);
    let now = status(&Cli::new(BINARY).env("LYRA_URL", cluster.address("g1"))).await?;
    assert_eq!((&now["name"], &now["backend"]), (&json!("scaler"), &json!("local")), "{now}");
    Ok(())
}
