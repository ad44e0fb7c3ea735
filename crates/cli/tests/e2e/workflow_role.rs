//! Workflows in processes of their own: runs are spread over them, and none is lost or done twice when one ends, dies or stands
//! still.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_testkit::Cluster;
use lyra_testkit::engines::{Etcd, Nats};
use serde_json::{Value, json};

/// Says what it was called with and by which key, and takes its time.
const WORK: &str = "export default async (event, context) => {
  console.log(`call ${event.run} ${event.step} ${context.invocationId}`);
  await new Promise((done) => setTimeout(done, 700));
  return { n: event.n + 1 };
}";

/// Three tasks, one after the other.
const STEPS: &str = r#"
name: steps
dataIns: [{ name: n, type: number, source: n }, { name: run, type: string, source: run }]
workflowBody:
  - function: { name: a, type: Work, dataIns: [{ name: n, type: number, source: steps/n }, { name: run, type: string, source: steps/run }, { name: step, type: string, source: "a" }], dataOuts: [{ name: n, type: number }] }
  - function: { name: b, type: Work, dataIns: [{ name: n, type: number, source: a/n }, { name: run, type: string, source: steps/run }, { name: step, type: string, source: "b" }], dataOuts: [{ name: n, type: number }] }
  - function: { name: c, type: Work, dataIns: [{ name: n, type: number, source: b/n }, { name: run, type: string, source: steps/run }, { name: step, type: string, source: "c" }], dataOuts: [{ name: n, type: number }] }
dataOuts: [{ name: n, type: number, source: c/n }]
"#;

const MAPPINGS: &str = r#"[{"functionType":"Work","resources":[{"type":"Function","properties":{"name":"work"}}]}]"#;

/// A task that waits for somebody.
const WAITS: &str = r#"
name: waits
workflowBody:
  - function: { name: approve, type: "lyra:callback", dataOuts: [{ name: ok, type: boolean }] }
dataOuts: [{ name: ok, type: boolean, source: approve/ok }]
"#;

struct Site {
    cluster: Cluster,
    stores: Vec<String>,
    lease: &'static str,
    _etcd: Etcd,
    _nats: Nats,
}

/// A control that runs no workflows, a worker, a gateway, and processes that do, whose runs are waited for so long.
async fn site(processes: &[&str], lease: &'static str) -> Result<Site> {
    let (etcd, nats) = tokio::try_join!(Etcd::start(), Nats::start())?;
    let (store, jobs) = (format!("etcd://{}", etcd.address()), format!("nats://{}", nats.address()));
    let stores = ["--store", &store, "--jobs", &jobs].map(str::to_owned).to_vec();
    let cluster = Cluster::start(1, &["--store", &store, "--jobs", &jobs, "--no-workflows"]).await?;
    let mut site = Site { cluster, stores, lease, _etcd: etcd, _nats: nats };
    for name in processes {
        site.add(name).await?;
    }
    Ok(site)
}

impl Site {
    async fn add(&mut self, name: &str) -> Result<()> {
        let flags: Vec<&str> = self.stores.iter().map(String::as_str).collect();
        self.cluster.add_workflow(name, &flags, &[("LYRA__WORKFLOW__LEASE", self.lease)]).await?;
        self.until_members(name, "ready").await
    }

    async fn members(&self) -> Result<Vec<Value>> {
        let members: Value = self.cluster.commands().run(["workflow", "members", "-o", "json"]).await?.json()?;
        Ok(members["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until a process is shown in a state; `gone`: until it is not shown.
    async fn until_members(&self, name: &str, state: &str) -> Result<()> {
        let seen = async {
            loop {
                let found = self.members().await.unwrap_or_default().into_iter().find(|of| of["name"] == name);
                let is =
                    found.map_or_else(|| "gone".to_owned(), |of| of["state"].as_str().unwrap_or_default().to_owned());
                if is == state {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), seen).await.with_context(|| format!("{name} is not {state}"))
    }

    async fn owned(&self, name: &str) -> Result<u64> {
        let members = self.members().await?;
        Ok(members.iter().find(|of| of["name"] == name).and_then(|of| of["runs"].as_u64()).unwrap_or(0))
    }

    async fn deploy(&self) -> Result<()> {
        let dir = self.cluster.scratch();
        for (file, text) in
            [("work.js", WORK), ("steps.yaml", STEPS), ("mappings.json", MAPPINGS), ("waits.yaml", WAITS)]
        {
            std::fs::write(dir.join(file), text)?;
        }
        let lyra = self.cluster.commands();
        lyra.run(["deploy", "work.js", "--name", "work", "--memory", "32"]).await?.ok()?;
        lyra.run(["workflow", "deploy", "steps.yaml", "--mappings", "mappings.json"]).await?.ok()?;
        lyra.run(["workflow", "deploy", "waits.yaml"]).await?.ok()?;
        Ok(())
    }

    /// Starts runs `r0`, `r1`, …
    async fn start(&self, runs: usize) -> Result<()> {
        let http = reqwest::Client::new();
        let url = format!("{}/v1/workflows/steps/runs", self.cluster.address("g1"));
        for n in 0..runs {
            let body = json!({"id": format!("r{n}"), "input": {"n": n, "run": format!("r{n}")}});
            let answer = http.post(&url).json(&body).send().await?;
            let status = answer.status();
            ensure!(status == 202, "{status}: {}", answer.text().await?);
        }
        Ok(())
    }

    /// Waits for the runs' ends: each with its result, each task called by one key only.
    async fn check(&self, runs: usize) -> Result<()> {
        let http = reqwest::Client::new();
        for n in 0..runs {
            let url = format!("{}/v1/runs/r{n}?wait=60", self.cluster.address("g1"));
            let run: Value = http.get(&url).send().await?.json().await?;
            ensure!(run["status"] == "succeeded" && run["output"]["n"] == n + 3, "{run}");
        }
        // Lines are on their way for a moment.
        let all = async {
            loop {
                let keys = self.keys().await?;
                if keys.len() == runs * 3 {
                    return anyhow::Ok(keys);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let keys = tokio::time::timeout(Duration::from_secs(60), all).await.context("lines of tasks are missing")??;
        let twice: Vec<_> = keys.iter().filter(|(_, keys)| keys.len() != 1).collect();
        ensure!(twice.is_empty(), "these tasks were called by several keys: {twice:?}");
        Ok(())
    }

    /// The keys by which each task was called, as the function saw them.
    async fn keys(&self) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let logs = self.cluster.commands().run(["logs", "work", "--limit", "1000"]).await?.ok()?;
        let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in logs.lines() {
            let Some((_, call)) = line.split_once("call ") else { continue };
            if let Some((task, key)) = call.rsplit_once(' ') {
                keys.entry(task.to_owned()).or_default().insert(key.to_owned());
            }
        }
        Ok(keys)
    }
}

/// So many runs: their tasks take the worker some seconds.
const RUNS: usize = 50;

#[tokio::test]
async fn runs_of_a_process_that_is_killed_are_taken_over_and_end_once() -> Result<()> {
    let mut site = site(&["f1", "f2"], "2s").await?;
    site.deploy().await?;
    site.start(RUNS).await?;
    for name in ["f1", "f2"] {
        assert!(site.owned(name).await? > 0, "each process has its part: {:?}", site.members().await?);
    }
    site.cluster.kill("f1").await?;
    // Who is left takes new ones meanwhile, and knows the runs of both.
    let id = site.cluster.commands().run(["workflow", "run", "waits"]).await?.ok()?.trim().to_owned();
    assert!(site.cluster.commands().run(["workflow", "runs"]).await?.ok()?.contains("r0"));
    site.check(RUNS).await?;
    site.until_members("f1", "gone").await?;
    site.cluster.commands().run(["workflow", "cancel", &id]).await?.ok()?;
    site.cluster.restart("f1").await?;
    site.until_members("f1", "ready").await
}

#[tokio::test]
async fn a_process_that_ends_in_good_order_hands_its_runs_over_at_once() -> Result<()> {
    // Nobody waits for this lease to end.
    let mut site = site(&["f1", "f2"], "3600s").await?;
    site.deploy().await?;
    site.start(RUNS).await?;
    assert!(site.owned("f1").await? > 0);
    assert_eq!(site.cluster.terminate("f1").await?.code(), Some(0));
    site.until_members("f1", "gone").await?;
    site.check(RUNS).await?;
    // Also what only waits for somebody is found by its new owner, back and forth.
    let lyra = site.cluster.commands();
    let id = lyra.run(["workflow", "run", "waits"]).await?.ok()?.trim().to_owned();
    site.cluster.restart("f1").await?;
    site.until_members("f1", "ready").await?;
    assert_eq!(site.cluster.terminate("f2").await?.code(), Some(0));
    lyra.until_shown(&["workflow", "waiting", &id, "-o", "json"], "token").await?;
    let waiting: Value = lyra.run(["workflow", "waiting", &id, "-o", "json"]).await?.json()?;
    let token = waiting["items"][0]["token"].as_str().context("a token")?.to_owned();
    lyra.run(["workflow", "complete", &token, "-d", "{\"ok\":true}"]).await?.ok()?;
    lyra.until_shown(&["workflow", "get", &id], "succeeded").await
}

#[tokio::test]
async fn a_process_that_stood_still_beyond_its_lease_writes_nothing_more() -> Result<()> {
    let site = site(&["f1", "f2"], "2s").await?;
    site.deploy().await?;
    let lyra = site.cluster.commands();
    let waits = [lyra.run(["workflow", "run", "waits"]).await?, lyra.run(["workflow", "run", "waits"]).await?];
    site.start(RUNS).await?;
    site.cluster.freeze("f1").await?;
    site.until_members("f1", "gone").await?;
    // It comes back while the other one has its runs, and is to find out.
    site.cluster.thaw("f1").await?;
    site.until_members("f1", "ready").await?;
    site.check(RUNS).await?;
    site.cluster.until_logged("f1", "longer than its lease").await?;
    // Runs that only wait have one owner that counts, whom anybody who asks is led to.
    for id in waits {
        let id = id.ok()?.trim().to_owned();
        lyra.run(["workflow", "cancel", &id]).await?.ok()?;
        assert!(lyra.run(["workflow", "get", &id]).await?.ok()?.contains("cancelled"));
    }
    for name in ["f1", "f2"] {
        assert_eq!(site.owned(name).await?, 0, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn without_a_process_for_them_workflows_say_what_is_missing() -> Result<()> {
    let mut site = site(&[], "2s").await?;
    let refused = site.cluster.commands().run(["workflow", "ls"]).await?;
    assert!(refused.stderr.contains("lyra node --role workflow"), "{}", refused.stderr);
    let list = site.members().await?;
    assert!(list.is_empty(), "{list:?}");
    site.add("f1").await?;
    site.deploy().await?;
    site.start(1).await?;
    site.check(1).await?;
    // Control stands in nobody's way: runs go on without it, and with it again.
    site.cluster.kill("c1").await?;
    let body = json!({"id": "alone", "input": {"n": 1, "run": "alone"}});
    let url = format!("{}/v1/workflows/steps/runs?wait=60", site.cluster.address("g1"));
    let run: Value = reqwest::Client::new().post(&url).json(&body).send().await?.json().await?;
    assert_eq!((run["status"].as_str(), run["output"]["n"].as_u64()), (Some("succeeded"), Some(4)), "{run}");
    site.cluster.restart("c1").await?;
    site.until_members("f1", "ready").await
}
