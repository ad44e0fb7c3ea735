//! A host that runs workflows is cut off from the stores, while clients and workers reach it still.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_testkit::hosts::Link;
use lyra_testkit::{Layout, Site};
use serde_json::Value;

const WORK: &str = "export default async ({ n }) => {
  await new Promise((done) => setTimeout(done, 700));
  return { n: n + 1 };
}";

const STEPS: &str = r#"
name: steps
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function: { name: a, type: Work, dataIns: [{ name: n, type: number, source: steps/n }], dataOuts: [{ name: n, type: number }] }
  - function: { name: b, type: Work, dataIns: [{ name: n, type: number, source: a/n }], dataOuts: [{ name: n, type: number }] }
  - function: { name: c, type: Work, dataIns: [{ name: n, type: number, source: b/n }], dataOuts: [{ name: n, type: number }] }
dataOuts: [{ name: n, type: number, source: c/n }]
"#;

const MAPPINGS: &str = r#"[{"functionType":"Work","resources":[{"type":"Function","properties":{"name":"work"}}]}]"#;

/// Runs that are started.
const RUNS: usize = 30;
/// Longest wait for what has to come about.
const PATIENCE: Duration = Duration::from_secs(60);

async fn members(site: &Site) -> Result<Vec<Value>> {
    let members: Value = site.commands().run(["workflow", "members", "-o", "json"]).await?.json()?;
    Ok(members["items"].as_array().cloned().unwrap_or_default())
}

/// Waits until so many processes are shown as ready.
async fn until_ready(site: &Site, count: usize) -> Result<()> {
    let ready = async {
        loop {
            let members = members(site).await.unwrap_or_default();
            if members.len() == count && members.iter().all(|of| of["state"] == "ready") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ready)
        .await
        .with_context(|| format!("there are not {count} processes that are ready"))
}

async fn begin(site: &Site) -> Result<()> {
    for (file, text) in [("work.js", WORK), ("steps.yaml", STEPS), ("mappings.json", MAPPINGS)] {
        std::fs::write(site.directory().join(file), text)?;
    }
    let lyra = site.commands();
    lyra.run(["deploy", "work.js", "--name", "work", "--memory", "32"]).await?.ok()?;
    lyra.run(["workflow", "deploy", "steps.yaml", "--mappings", "mappings.json"]).await?.ok()?;
    for n in 0..RUNS {
        let (id, input) = (format!("r{n}"), format!("{{\"n\":{n}}}"));
        lyra.run(["workflow", "run", "steps", "--id", &id, "-d", &input]).await?.ok()?;
    }
    Ok(())
}

/// Each run ends with its result, and has been decided once: its tokens are those of a run that nothing happened to.
async fn check(site: &Site) -> Result<()> {
    for n in 0..RUNS {
        let id = format!("r{n}");
        let ended = async {
            loop {
                let run: Value = site.commands().run(["workflow", "get", &id, "-o", "json"]).await?.json()?;
                if run["status"] != "running" {
                    return anyhow::Ok(run);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let run = tokio::time::timeout(PATIENCE, ended).await.with_context(|| format!("{id} does not end"))??;
        ensure!(run["status"] == "succeeded" && run["output"]["n"] == n + 3, "{run}");
        ensure!(run["tasks"]["succeeded"] == 3 && run["tasks"]["active"] == 0, "{run}");
    }
    Ok(())
}

#[tokio::test]
async fn a_workflow_host_that_is_cut_off_loses_its_runs_to_another_and_none_is_doubled() -> Result<()> {
    let site = Site::start(Layout { workflows: 2, ..Layout::default() }).await?;
    until_ready(&site, 2).await?;
    begin(&site).await?;
    let owned = members(&site).await?;
    ensure!(owned.iter().all(|of| of["runs"].as_u64() > Some(0)), "each process has its part: {owned:?}");
    for engine in ["e1", "e2", "e3", "nats", "s3"] {
        site.network().between("f1", engine, Link::cut())?;
    }
    until_ready(&site, 1).await?;
    // Whoever asks is led to the one that can write.
    site.commands().run(["workflow", "run", "steps", "--id", "later", "-d", "{\"n\":1}"]).await?.ok()?;
    check(&site).await?;
    site.network().heal();
    until_ready(&site, 2).await?;
    check(&site).await?;
    let left = members(&site).await?;
    ensure!(left.iter().all(|of| of["stuck"] == 0), "{left:?}");
    Ok(())
}
