//! Several control processes: one leads, the others stand by.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use lyra_testkit::Cluster;
use lyra_testkit::control::leader;
use lyra_testkit::engines::{Etcd, Nats};

const ECHO: &str = "export default (event) => { console.log('called'); return event }";

/// Longest wait for a job's end.
const LONG: Duration = Duration::from_secs(60);

struct Site {
    cluster: Cluster,
    _etcd: Etcd,
    _nats: Nats,
}

async fn site(controls: usize, workers: usize) -> Result<Site> {
    let (etcd, nats) = tokio::try_join!(Etcd::start(), Nats::start())?;
    let (store, jobs) = (format!("etcd://{}", etcd.address()), format!("nats://{}", nats.address()));
    let cluster = Cluster::start_many(controls, workers, &["--store", &store, "--jobs", &jobs]).await?;
    deploy(&cluster, "echo", ECHO).await?;
    Ok(Site { cluster, _etcd: etcd, _nats: nats })
}

async fn deploy(cluster: &Cluster, name: &str, source: &str) -> Result<()> {
    let file = format!("{name}.js");
    std::fs::write(cluster.scratch().join(&file), source)?;
    cluster.commands().run(["deploy", &file, "--name", name]).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn a_standby_takes_over_when_the_leader_is_killed() -> Result<()> {
    let mut site = site(3, 2).await?;
    let cluster = &mut site.cluster;
    let (first, epoch) = leader(&cluster.client()?, "").await?;
    let slow = "export default async (n) => { await new Promise((done) => setTimeout(done, 300)); return n }";
    deploy(cluster, "slow", slow).await?;
    let lyra = cluster.commands();
    let mut ids = Vec::new();
    for number in 0..20 {
        let number = number.to_string();
        ids.push(lyra.run(["invoke", "slow", "--async", "-d", &number]).await?.ok()?.trim().to_owned());
        if number == "10" {
            cluster.kill(&first).await?;
        }
    }
    let (second, later) = leader(&cluster.client()?, &first).await?;
    assert!(later > epoch, "{second} leads with epoch {later} after {epoch}");
    // Changes go on, too, and everybody is told of them.
    deploy(cluster, "second", "export default () => 2").await?;
    assert_eq!(lyra.run(["invoke", "second"]).await?.ok()?, "2\n");
    for (number, id) in ids.iter().enumerate() {
        lyra.run(["job", "wait", id, "--wait", "60s"]).await?.ok()?;
        assert_eq!(lyra.run(["job", "result", id]).await?.ok()?, format!("{number}\n"));
    }
    cluster.restart(&first).await?;
    cluster.until_shown(&["control", "ls", "-q"], &first).await?;
    let (still, _) = leader(&cluster.client()?, "").await?;
    assert_eq!(still, second, "who comes back stands by");
    Ok(())
}

#[tokio::test]
async fn a_leader_that_ends_in_good_order_hands_over_at_once() -> Result<()> {
    let mut site = site(2, 1).await?;
    let cluster = &mut site.cluster;
    for _ in 0..2 {
        let (first, _) = leader(&cluster.client()?, "").await?;
        let id = cluster.commands().run(["invoke", "echo", "--async", "-d", "1"]).await?.ok()?.trim().to_owned();
        assert_eq!(cluster.terminate(&first).await?.code(), Some(0));
        leader(&cluster.client()?, &first).await?;
        cluster.commands().run(["job", "wait", &id]).await?.ok()?;
        assert_eq!(cluster.commands().run(["invoke", "echo", "-d", "1"]).await?.ok()?, "1\n");
        cluster.restart(&first).await?;
        cluster.until_shown(&["control", "ls", "-q"], &first).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_job_ends_for_who_waits_at_another_control_than_its_leader() -> Result<()> {
    let mut site = site(2, 1).await?;
    let cluster = &mut site.cluster;
    let slow = "export default async (n) => { await new Promise((done) => setTimeout(done, n)); return n }";
    deploy(cluster, "slow", slow).await?;
    // One of the two gateways asks the standby.
    for seeds in ["c1", "c2"] {
        cluster.add_gateway(&format!("g-{seeds}"), &[seeds]).await?;
        let there = cluster.commands_at(&format!("g-{seeds}"));
        let id = there.run(["invoke", "slow", "--async", "-d", "500"]).await?.ok()?.trim().to_owned();
        there.run(["job", "wait", &id, "--wait", "20s"]).await?.ok()?;
        let id = there.run(["invoke", "slow", "--async", "-d", "50000"]).await?.ok()?.trim().to_owned();
        there.until_shown(&["job", "get", &id], "running").await?;
        there.run(["job", "cancel", &id]).await?.ok()?;
        there.until_shown(&["job", "get", &id], "cancelled").await?;
        assert!(there.run(["logs", "echo"]).await?.stdout.is_empty(), "nobody called it");
    }
    Ok(())
}

/// Hands in jobs from several clients until told to stop; gives their ids, or the first answer that was none.
async fn hand_in(cluster: &Cluster, stop: Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<Result<Vec<String>>>> {
    let url = format!("{}/v1/functions/echo/invoke", cluster.address("g1"));
    let client = |_| {
        let (url, stop, http) = (url.clone(), Arc::clone(&stop), reqwest::Client::new());
        lyra_kit::tasks::spawn("hand in jobs", async move {
            let mut ids = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let request = http.post(&url).header("prefer", "respond-async").body("1");
                let answer = request.send().await?;
                let (status, body) = (answer.status().as_u16(), answer.text().await?);
                anyhow::ensure!(status == 202, "{status}: {body}");
                let body: serde_json::Value = serde_json::from_str(&body)?;
                ids.push(body["id"].as_str().unwrap_or_default().to_owned());
                // So many that the rest of the test takes seconds.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(ids)
        })
    };
    (0..4).map(client).collect()
}

/// Kills each of `controls` while jobs are handed in, and has it come back; no client notices.
async fn kill_while_jobs_are_handed_in(cluster: &mut Cluster, controls: &[&str]) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let clients = hand_in(cluster, Arc::clone(&stop)).await;
    for control in controls {
        cluster.kill(control).await?;
        cluster.restart(control).await?;
        // Some more are handed in to those that are there now.
        let one = cluster.commands().run(["invoke", "echo", "--async", "-d", "1"]).await?.ok()?;
        cluster.commands().run(["job", "wait", one.trim()]).await?.ok()?;
    }
    stop.store(true, Ordering::Relaxed);
    let mut ids = BTreeSet::new();
    for client in clients {
        ids.extend(client.await??);
    }
    let client = cluster.client()?;
    for id in &ids {
        let ended = client.wait_job(id.parse()?, LONG).await?;
        assert_eq!(ended.status, lyra_types::job::JobStatus::Succeeded, "{id}");
    }
    // As many as were answered, and those of the commands above: none was made twice.
    let listed = cluster.commands().run(["job", "ls", "--limit", "100000", "-q"]).await?.ok()?;
    assert_eq!(listed.lines().count(), ids.len() + controls.len());
    Ok(())
}

#[tokio::test]
async fn jobs_are_handed_in_while_control_processes_are_killed() -> Result<()> {
    let mut site = site(2, 1).await?;
    kill_while_jobs_are_handed_in(&mut site.cluster, &["c1", "c2"]).await
}

#[tokio::test]
async fn jobs_are_handed_in_while_the_only_control_process_is_killed() -> Result<()> {
    let mut cluster = Cluster::start(1, &[]).await?;
    deploy(&cluster, "echo", ECHO).await?;
    kill_while_jobs_are_handed_in(&mut cluster, &["c1"]).await
}
