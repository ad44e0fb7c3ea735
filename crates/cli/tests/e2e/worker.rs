//! `lyra worker`: what a worker holds, and each operation on it.

use anyhow::{Context, Result};
use serde_json::Value;

use super::start::{deploy, server, server_with};

const COUNTER: &str = "let calls = 0; export default () => ++calls";

#[tokio::test]
async fn a_worker_shows_what_it_holds() -> Result<()> {
    let lyra = server_with("counter", COUNTER).await?;
    deploy(&lyra, "counter", COUNTER, &["--reuse"]).await?;
    let shown = lyra.cli(["worker", "prewarm", "local", "counter", "-n", "2", "-o", "json"]).await?.json()?;
    assert_eq!((&shown["version"], &shown["instances"]), (&2.into(), &2.into()));
    let output = lyra.cli(["invoke", "counter", "-v"]).await?;
    assert!(output.stderr.contains("prewarmed"), "{}", output.stderr);
    lyra.cli(["invoke", "counter"]).await?.ok()?;
    let all = lyra.cli(["worker", "instances", "-o", "json"]).await?.json()?;
    let items = all["items"].as_array().context("a list")?;
    assert_eq!(items.len(), 2, "{all}");
    assert!(
        items.iter().all(|of| of["state"] == "standby" && of["function"] == "counter" && of["version"] == 2),
        "{all}"
    );
    let worker = lyra.cli(["worker", "get", "local", "-o", "json"]).await?.json()?;
    assert_eq!((&worker["state"], &worker["instances"]["standby"]), (&"ready".into(), &2.into()));
    assert!(worker["backends"][0]["runtimes"].as_array().context("a list")?.contains(&"js".into()), "{worker}");
    let listed = lyra.cli(["worker", "ls", "-o", "json"]).await?.json()?;
    assert_eq!(listed["items"][0]["name"], "local");
    let known = lyra.cli(["worker", "characteristics", "local", "-o", "json"]).await?.json()?;
    let of_counter = |of: &&Value| of["function"] == "counter" && of["version"] == 2;
    let counter = known["items"].as_array().context("a list")?.iter().find(of_counter).context("is known")?.clone();
    assert_eq!((&counter["calls"], &counter["times"]["exec"]["samples"]), (&2.into(), &2.into()), "{counter}");
    for command in ["ls", "get local", "instances", "characteristics local", "health local", "ping local"] {
        let people = lyra.cli(["worker"].into_iter().chain(command.split(' '))).await?.ok()?;
        assert!(!people.trim().is_empty(), "{command}");
    }
    // What ends or hibernates one needs its worker's name.
    let people = lyra.cli(["worker", "instances"]).await?.ok()?;
    let columns: Vec<_> = people.lines().map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(columns, [Some("WORKER"), Some("local"), Some("local")], "{people}");
    Ok(())
}

#[tokio::test]
async fn a_cordoned_worker_takes_no_calls_until_it_is_uncordoned() -> Result<()> {
    let lyra = server_with("counter", COUNTER).await?;
    lyra.cli(["worker", "cordon", "local"]).await?.ok()?;
    let refused = lyra.cli(["invoke", "counter"]).await?.expect(7)?;
    assert!(refused.stderr.contains("cordoned"), "{}", refused.stderr);
    lyra.cli(["worker", "uncordon", "local"]).await?.ok()?;
    assert_eq!(lyra.cli(["worker", "invoke", "local", "counter"]).await?.ok()?, "1\n");
    assert_eq!(lyra.cli(["worker", "invoke", "local", "counter@1"]).await?.ok()?, "1\n");
    Ok(())
}

#[tokio::test]
async fn one_instance_is_hibernated_woken_and_ended() -> Result<()> {
    let lyra = server_with("js", COUNTER).await?;
    deploy(&lyra, "js", COUNTER, &["--reuse"]).await?;
    lyra.cli(["invoke", "js"]).await?.ok()?;
    let id = lyra.cli(["worker", "instances", "-q"]).await?.ok()?.trim().to_owned();
    let refused = lyra.cli(["worker", "hibernate", "local", &id]).await?.expect(2)?;
    assert!(refused.stderr.contains("a kind that can't be hibernated"), "{}", refused.stderr);
    lyra.cli(["worker", "terminate", "local", &id]).await?.ok()?;
    let source = "n = 0\ndef handler(event, context):\n    global n\n    n += 1\n    return n\n";
    std::fs::write(lyra.scratch().join("counter.py"), source)?;
    lyra.cli(["deploy", "counter.py"]).await?.ok()?;
    assert_eq!(lyra.cli(["invoke", "counter"]).await?.ok()?, "1\n");
    let id = lyra.cli(["worker", "instances", "-q"]).await?.ok()?.trim().to_owned();
    let state = async || lyra.cli(["worker", "instances"]).await?.ok();
    lyra.cli(["worker", "hibernate", "local", &id]).await?.ok()?;
    assert!(state().await?.contains("hibernated"), "{}", state().await?);
    lyra.cli(["worker", "activate", "local", &id]).await?.ok()?;
    assert!(state().await?.contains("standby"), "{}", state().await?);
    assert_eq!(lyra.cli(["invoke", "counter"]).await?.ok()?, "2\n", "it is the same instance");
    assert_eq!(lyra.cli(["worker", "terminate", "local", &id, "-q"]).await?.ok()?, format!("{id}\n"));
    lyra.cli(["worker", "terminate", "local", &id]).await?.expect(3)?;
    lyra.cli(["worker", "terminate", "local", "nothing"]).await?.expect(3)?;
    assert_eq!(lyra.cli(["invoke", "counter"]).await?.ok()?, "1\n", "the instance is a new one");
    Ok(())
}

#[tokio::test]
async fn a_drained_worker_holds_no_instances_and_clean_ends_idle_ones() -> Result<()> {
    let lyra = server_with("counter", COUNTER).await?;
    deploy(&lyra, "counter", COUNTER, &["--reuse"]).await?;
    assert_eq!(lyra.cli(["invoke", "counter"]).await?.ok()?, "1\n");
    assert_eq!(lyra.cli(["worker", "clean", "local", "-q"]).await?.ok()?, "1\n");
    assert_eq!(lyra.cli(["invoke", "counter"]).await?.ok()?, "1\n", "the instance is a new one");
    let drained = lyra.cli(["worker", "drain", "local", "-o", "json"]).await?.json()?;
    assert_eq!(drained, serde_json::json!({ "ended": true, "left": 0, "evacuated": 1 }));
    let worker = lyra.cli(["worker", "get", "local", "-o", "json"]).await?.json()?;
    assert_eq!((&worker["state"], &worker["idle_instances"]), (&"cordoned".into(), &0.into()));
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_or_not_possible_is_told() -> Result<()> {
    let lyra = server().await?;
    for (command, code) in [
        ("get other", 3),
        ("health other", 3),
        ("drain other", 3),
        ("prewarm local none", 3),
        ("invoke local none", 3),
        ("prewarm local none@", 2),
        ("drain local --wait soon", 2),
    ] {
        lyra.cli(["worker"].into_iter().chain(command.split(' '))).await?.expect(code).context(command)?;
    }
    deploy(&lyra, "counter", COUNTER, &[]).await?;
    lyra.cli(["worker", "prewarm", "local", "counter", "-n", "0"]).await?.expect(2)?;
    Ok(())
}
