//! Which worker holds which instances up, seen through the command line.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use lyra_testkit::Cluster;
use serde_json::Value;

const KEPT: &str = "export default (event) => event";

/// Kept instances by worker.
async fn held(cluster: &Cluster) -> Result<BTreeMap<String, u64>> {
    let mut held = BTreeMap::new();
    for name in cluster.commands().run(["worker", "ls", "-q"]).await?.ok()?.lines() {
        let shown = cluster.commands().run(["worker", "get", name, "-o", "json"]).await?.json()?;
        if shown["state"] == "lost" {
            continue;
        }
        let counts: Value = shown["instances"].clone();
        let count = |state: &str| counts[state].as_u64().unwrap_or_default();
        held.insert(name.to_owned(), count("standby") + count("hibernated") + count("active"));
    }
    Ok(held)
}

/// Waits until workers hold so many.
async fn until_held(cluster: &Cluster, wanted: &[(&str, u64)]) -> Result<()> {
    let wanted: BTreeMap<String, u64> = wanted.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    let mut last = BTreeMap::new();
    let reached = async {
        loop {
            if let Ok(now) = held(cluster).await {
                if now == wanted {
                    return;
                }
                last = now;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
    reached.with_context(|| format!("workers hold {last:?}, not {wanted:?}"))
}

async fn deploy(cluster: &Cluster, instances: &str) -> Result<()> {
    std::fs::write(cluster.scratch().join("kept.js"), KEPT)?;
    let arguments = ["deploy", "kept.js", "--name", "kept", "--reuse", "--min-instances", instances];
    cluster.commands().run(arguments).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn instances_are_spread_and_placed_anew_when_workers_go_and_come() -> Result<()> {
    let mut cluster = Cluster::start(3, &[]).await?;
    deploy(&cluster, "6").await?;
    until_held(&cluster, &[("w1", 2), ("w2", 2), ("w3", 2)]).await?;
    cluster.kill("w1").await?;
    until_held(&cluster, &[("w2", 3), ("w3", 3)]).await?;
    cluster.commands().run(["worker", "drain", "w2"]).await?.ok()?;
    until_held(&cluster, &[("w2", 0), ("w3", 6)]).await?;
    cluster.commands().run(["worker", "uncordon", "w2"]).await?.ok()?;
    cluster.restart("w1").await?;
    until_held(&cluster, &[("w1", 2), ("w2", 2), ("w3", 2)]).await?;
    // A version that takes its place takes over; a deleted one leaves nothing behind.
    deploy(&cluster, "3").await?;
    until_held(&cluster, &[("w1", 1), ("w2", 1), ("w3", 1)]).await?;
    cluster.commands().run(["fn", "rm", "kept"]).await?.ok()?;
    until_held(&cluster, &[("w1", 0), ("w2", 0), ("w3", 0)]).await
}

#[tokio::test]
async fn a_worker_holds_on_to_what_it_was_told_without_control() -> Result<()> {
    let mut cluster = Cluster::start(1, &[]).await?;
    deploy(&cluster, "2").await?;
    until_held(&cluster, &[("w1", 2)]).await?;
    cluster.kill("c1").await?;
    cluster.kill("w1").await?;
    cluster.restart("w1").await?;
    // It has the version itself, and its code; so it needs nobody.
    let log = async {
        while !cluster.log("w1").contains("holds up") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), log).await.context("it does not take up what it held")?;
    cluster.restart("c1").await?;
    cluster.until_ready(1).await?;
    until_held(&cluster, &[("w1", 2)]).await?;
    let answer = cluster.commands().run(["invoke", "kept", "-d", "1"]).await?.ok()?;
    assert_eq!(answer, "1\n");
    Ok(())
}

#[tokio::test]
async fn a_function_is_called_where_it_can_run_on_a_site_of_unlike_workers() -> Result<()> {
    let mut cluster = Cluster::start(1, &[]).await?;
    for name in ["w2", "w3"] {
        cluster.add_worker(name, &["--isolation", "wasm", "--memory-mb", "300"]).await?;
    }
    cluster.until_ready(3).await?;
    std::fs::write(cluster.scratch().join("sim.json"), r#"{"result": "here"}"#)?;
    std::fs::write(cluster.scratch().join("kept.js"), KEPT)?;
    // Versions belong to workers by chance: of so many some would belong to another one than the first.
    for number in 0..8 {
        let name = format!("sim-{number}");
        let deploy = ["deploy", "sim.json", "--runtime", "simulated", "--name", &name];
        cluster.commands().run(deploy).await?.ok()?;
        assert_eq!(cluster.commands().run(["invoke", &name]).await?.ok()?, "\"here\"\n");
        // The others have a back end for this one, but not the memory.
        let name = format!("large-{number}");
        let deploy = ["deploy", "kept.js", "--reuse", "--memory", "400", "--name", &name];
        cluster.commands().run(deploy).await?.ok()?;
        assert_eq!(cluster.commands().run(["invoke", &name, "-d", "1"]).await?.ok()?, "1\n");
    }
    Ok(())
}
