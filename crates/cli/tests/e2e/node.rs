//! `lyra node`: roles as processes of their own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use lyra_testkit::engines::{Etcd, Nats};
use lyra_testkit::{Cli, Cluster, binary};
use serde_json::Value;
use tokio::process::Child;

const ECHO: &str = "export default (event) => { console.log('called'); return event }";

async fn with_echo(workers: usize) -> Result<Cluster> {
    let cluster = Cluster::start(workers, &[]).await?;
    deploy(&cluster, "echo", ECHO).await?;
    Ok(cluster)
}

async fn deploy(cluster: &Cluster, name: &str, source: &str) -> Result<()> {
    std::fs::write(cluster.scratch().join("code.js"), source)?;
    cluster.commands().run(["deploy", "code.js", "--name", name]).await?.ok()?;
    Ok(())
}

/// Eight clients that call without a pause, for so long.
fn load(cluster: &Cluster, duration: &str) -> Result<Child> {
    let arguments = ["load", "run", "echo", "--clients", "8", "--duration", duration, "-d", "7", "-o", "json"];
    let mut command = cluster.commands().command(arguments);
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true).spawn()?)
}

/// Calls that went well, and the others by code.
async fn seen(load: Child) -> Result<(u64, Value)> {
    let output = load.wait_with_output().await?;
    let seen: Value = serde_json::from_slice(&output.stdout)?;
    Ok((seen["ok"].as_u64().context("a count")?, seen["errors"].clone()))
}

/// Long enough that calls are under way.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(700)).await;
}

#[tokio::test]
async fn roles_apart_do_what_one_process_does() -> Result<()> {
    let cluster = with_echo(2).await?;
    let lyra = cluster.commands();
    assert_eq!(lyra.run(["invoke", "echo", "-d", "{\"a\":1}"]).await?.ok()?, "{\"a\":1}\n");
    let id = lyra.run(["invoke", "echo", "--async", "-d", "5"]).await?.ok()?.trim().to_owned();
    lyra.run(["job", "wait", &id]).await?.ok()?;
    assert_eq!(lyra.run(["job", "result", &id]).await?.ok()?, "5\n");
    cluster.until_shown(&["logs", "echo"], "called").await?;
    let names = lyra.run(["worker", "ls", "-q"]).await?.ok()?;
    assert_eq!(names, "w1\nw2\n");
    for worker in ["w1", "w2"] {
        assert_eq!(lyra.run(["worker", "invoke", worker, "echo", "-d", "1"]).await?.ok()?, "1\n");
        let shown = lyra.run(["worker", "get", worker, "-o", "json"]).await?.ok()?;
        assert!(shown.contains(cluster.address(worker)), "{shown}");
    }
    deploy(&cluster, "echo", "export default () => 2").await?;
    assert_eq!(lyra.run(["invoke", "echo"]).await?.ok()?, "2\n", "the next call sees a change");
    lyra.run(["fn", "rollback", "echo"]).await?.ok()?;
    assert_eq!(lyra.run(["invoke", "echo", "-d", "3"]).await?.ok()?, "3\n");
    std::fs::write(cluster.scratch().join("bad.js"), "export default (")?;
    let refused = lyra.run(["deploy", "bad.js"]).await?.expect(2)?;
    assert!(refused.stderr.contains("line 1"), "{}", refused.stderr);
    deploy(&cluster, "thrower", "export default () => { throw new TypeError('no') }").await?;
    let thrown = lyra.run(["invoke", "thrower"]).await?.expect(1)?;
    assert!(thrown.stderr.contains("TypeError: no"), "{}", thrown.stderr);
    lyra.run(["fn", "rm", "echo"]).await?.ok()?;
    lyra.run(["invoke", "echo"]).await?.expect(3)?;
    Ok(())
}

#[tokio::test]
async fn workers_of_one_host_need_neither_a_port_nor_blobs() -> Result<()> {
    let mut cluster = Cluster::bare()?;
    cluster.add_node("control", "c1", &["--listen-grpc", "127.0.0.1:0"], &[]).await?;
    let control = cluster.address("c1").to_owned();
    for worker in ["w1", "w2"] {
        cluster.add_node("worker", worker, &["--control", &control], &[]).await?;
    }
    assert_ne!(cluster.address("w1"), cluster.address("w2"));
    cluster.add_gateway("g1", &["c1"]).await?;
    cluster.until_ready(2).await?;
    deploy(&cluster, "echo", ECHO).await?;
    std::fs::create_dir(cluster.scratch().join("big"))?;
    // More than one piece of what control hands out, also when it is packed.
    let mut random = 1_u64;
    let noise = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random.to_be_bytes()[0]
    });
    std::fs::write(cluster.scratch().join("big/noise"), noise.take(3 << 20).collect::<Vec<u8>>())?;
    let code = "import os\ndef handler(event, context):\n    return os.path.getsize('noise')\n";
    std::fs::write(cluster.scratch().join("big/main.py"), code)?;
    let lyra = cluster.commands();
    lyra.run(["deploy", "big"]).await?.ok()?;
    // One of them prepared the code; the other one has it from control.
    for worker in ["w1", "w2"] {
        assert_eq!(lyra.run(["worker", "invoke", worker, "echo", "-d", "1"]).await?.ok()?, "1\n", "{worker}");
        assert_eq!(lyra.run(["worker", "invoke", worker, "big"]).await?.ok()?, "3145728\n", "{worker}");
    }
    let mut fetched = 0;
    for worker in ["w1", "w2"] {
        let here = cluster.log(worker).matches("code fetched from control").count();
        let folders = std::fs::read_dir(cluster.scratch().join(worker).join("blobs"))?.flatten();
        let folders = folders.filter(|entry| entry.file_name().len() == 2);
        let kept: usize = folders.map(|of| std::fs::read_dir(of.path()).map_or(0, |files| files.count())).sum();
        assert_eq!(kept, here, "{worker} keeps what it fetched");
        fetched += here;
    }
    assert_eq!(fetched, 2, "each was prepared by one of them");
    Ok(())
}

#[tokio::test]
async fn a_worker_whose_control_has_not_the_code_says_what_to_do() -> Result<()> {
    let mut cluster = Cluster::bare()?;
    cluster.add_node("control", "c1", &["--listen-grpc", "127.0.0.1:0"], &[]).await?;
    let control = cluster.address("c1").to_owned();
    cluster.add_node("worker", "w1", &["--control", &control], &[]).await?;
    cluster.add_gateway("g1", &["c1"]).await?;
    cluster.until_ready(1).await?;
    deploy(&cluster, "echo", ECHO).await?;
    std::fs::remove_dir_all(cluster.scratch().join("c1/blobs"))?;
    cluster.add_node("worker", "w2", &["--control", &control], &[]).await?;
    cluster.until_ready(2).await?;
    let failed = cluster.commands().run(["worker", "invoke", "w2", "echo"]).await?.expect(7)?;
    assert!(failed.stderr.contains("start both with the same --blobs"), "{}", failed.stderr);
    Ok(())
}

#[tokio::test]
async fn a_killed_worker_costs_no_call_but_those_that_it_had() -> Result<()> {
    let mut cluster = with_echo(2).await?;
    let load = load(&cluster, "6s")?;
    a_while().await;
    cluster.kill("w1").await?;
    cluster.until_shown(&["worker", "ls"], "lost").await?;
    let (ok, errors) = seen(load).await?;
    // Each client has one call under way at most.
    let lost = errors["worker_lost"].as_u64().unwrap_or_default();
    let others: Vec<_> = errors.as_object().context("by code")?.keys().filter(|code| *code != "worker_lost").collect();
    assert!(ok > 100 && lost <= 8 && others.is_empty(), "{ok} went well, others {errors}");
    cluster.restart("w1").await?;
    cluster.until_ready(2).await?;
    assert_eq!(cluster.commands().run(["worker", "invoke", "w1", "echo", "-d", "1"]).await?.ok()?, "1\n");
    Ok(())
}

#[tokio::test]
async fn workers_that_are_restarted_in_turn_cost_no_call() -> Result<()> {
    let mut cluster = with_echo(2).await?;
    let load = load(&cluster, "12s")?;
    a_while().await;
    for worker in ["w1", "w2"] {
        assert_eq!(cluster.terminate(worker).await?.code(), Some(0));
        cluster.restart(worker).await?;
        cluster.until_ready(2).await?;
    }
    let (ok, errors) = seen(load).await?;
    assert!(ok > 100 && errors == serde_json::json!({}), "{ok} went well, others {errors}");
    Ok(())
}

#[tokio::test]
async fn calls_go_on_without_control_and_changes_when_it_is_back() -> Result<()> {
    let mut cluster = with_echo(1).await?;
    cluster.kill("c1").await?;
    let lyra = cluster.commands();
    for _ in 0..20 {
        assert_eq!(lyra.run(["invoke", "echo", "-d", "1"]).await?.ok()?, "1\n");
    }
    let refused = lyra.run(["fn", "ls"]).await?.expect(7)?;
    assert!(refused.stderr.contains("control can't be reached"), "{}", refused.stderr);
    cluster.restart("c1").await?;
    cluster.until_shown(&["fn", "ls"], "echo").await?;
    cluster.until_ready(1).await?;
    deploy(&cluster, "second", "export default () => 2").await?;
    cluster.until_shown(&["invoke", "second"], "2").await?;
    Ok(())
}

#[tokio::test]
async fn every_job_ends_once_whoever_is_killed() -> Result<()> {
    let mut cluster = with_echo(2).await?;
    let source = "export default async (n) => { await new Promise((done) => setTimeout(done, 200)); return n }";
    deploy(&cluster, "slow", source).await?;
    let lyra = cluster.commands();
    let mut ids = Vec::new();
    for number in 0..30 {
        let number = number.to_string();
        ids.push(lyra.run(["invoke", "slow", "--async", "-d", &number]).await?.ok()?.trim().to_owned());
        match number.as_str() {
            "10" => cluster.kill("w1").await?,
            "15" => cluster.restart("w1").await?,
            "20" => cluster.kill("c1").await?,
            _ => {}
        }
        if number == "20" {
            cluster.restart("c1").await?;
            cluster.until_shown(&["fn", "ls"], "slow").await?;
        }
    }
    cluster.until_ready(2).await?;
    for (number, id) in ids.iter().enumerate() {
        lyra.run(["job", "wait", id, "--wait", "90s"]).await?.ok()?;
        assert_eq!(lyra.run(["job", "result", id]).await?.ok()?, format!("{number}\n"));
    }
    Ok(())
}

#[tokio::test]
async fn with_servers_behind_it_control_keeps_nothing_of_its_own() -> Result<()> {
    let (etcd, nats) = tokio::try_join!(Etcd::start(), Nats::start())?;
    let (store, jobs) = (format!("etcd://{}", etcd.address()), format!("nats://{}", nats.address()));
    let mut cluster = Cluster::start(1, &["--store", &store, "--jobs", &jobs]).await?;
    deploy(&cluster, "echo", ECHO).await?;
    let lyra = cluster.commands();
    let id = lyra.run(["invoke", "echo", "--async", "-d", "5"]).await?.ok()?.trim().to_owned();
    lyra.run(["job", "wait", &id]).await?.ok()?;
    cluster.kill("c1").await?;
    std::fs::remove_dir_all(cluster.scratch().join("c1"))?;
    cluster.restart("c1").await?;
    cluster.until_shown(&["fn", "ls", "-q"], "echo").await?;
    assert_eq!(lyra.run(["job", "result", &id]).await?.ok()?, "5\n");
    assert_eq!(lyra.run(["invoke", "echo", "-d", "6"]).await?.ok()?, "6\n");
    Ok(())
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_what_to_do() -> Result<()> {
    let lyra = Cli::new(&binary()?);
    for (arguments, says) in [
        (&["--role", "king"][..], "control, worker, gateway, scaler"),
        (&["--role", "logs"], "run with the role control"),
        (&["--role", "worker"], "control"),
        (&["--role", "control", "--listen-grpc", "0.0.0.0:0"], "loopback"),
        (&["--role", "control", "--name", "No Name"], "name"),
        (&["--role", "worker", "--control", "nowhere at all"], "HOST:PORT"),
        (&["--role", "worker", "--control", "127.0.0.1"], "HOST:PORT"),
        (&["--role", "gateway", "--control", "127.0.0.1:70701"], "HOST:PORT"),
        (&["--role", "control", "--store", "mysql://x"], "sqlite, etcd"),
        (&["--role", "worker", "--control", "127.0.0.1:1", "--isolation", "magic"], "magic"),
        (&["--role", "worker", "--control", "127.0.0.1:1", "--cpus", "0"], "--cpus"),
    ] {
        let directory = tempfile::tempdir()?;
        let lyra = lyra.clone().within(directory.path());
        let data = directory.path().join("data").display().to_string();
        let all = [&["node", "--data-dir", &data, "--listen-grpc", "127.0.0.1:0"], arguments].concat();
        // The same flag twice is wrong in itself.
        let all = if arguments.contains(&"--listen-grpc") {
            [&["node", "--data-dir", &data], arguments].concat()
        } else {
            all
        };
        let refused = lyra.run(&all).await?.expect(2)?;
        assert!(refused.stderr.contains(says), "{arguments:?}: {}", refused.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn a_second_node_is_kept_out_of_a_data_directory() -> Result<()> {
    let cluster = Cluster::start(1, &[]).await?;
    // What the worker in it has does not keep the directory locked by itself.
    let data = cluster.scratch().join("w1").display().to_string();
    let second = ["node", "--role", "worker", "--name", "w2", "--data-dir", &data, "--control", "127.0.0.1:1"];
    let refused = Cli::new(&binary()?).run([&second[..], &["--listen-grpc", "127.0.0.1:0"]].concat()).await?;
    assert!(refused.stderr.contains("in use by another process"), "{}", refused.stderr);
    Ok(())
}
