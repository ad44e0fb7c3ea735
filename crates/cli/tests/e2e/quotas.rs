//! Quotas through the user's door: by the command line, over two gateways, over kills, and a greedy tenant beside a meek one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use lyra_testkit::engines::{Etcd, Nats};
use lyra_testkit::{Cluster, Lyra, Options};
use serde_json::Value;

use super::start::{BINARY, ECHO, server_with};

#[tokio::test]
async fn a_quota_is_set_told_and_kept_over_a_kill() -> Result<()> {
    let mut lyra = server_with("echo", ECHO).await?;
    let shown = lyra.cli(["quota", "set", "--rate", "2/h", "--burst", "2", "--functions", "1", "-o", "json"]).await?;
    assert_eq!(shown.json()?["quota"]["burst"], 2);
    for _ in 0..2 {
        lyra.cli(["invoke", "echo", "-d", "1"]).await?.ok()?;
    }
    let refused = lyra.cli(["invoke", "echo", "-d", "1"]).await?.expect(5)?;
    assert!(refused.stderr.contains("the quota of tenant default"), "{}", refused.stderr);
    let answer = lyra.http()?.post(format!("{}/v1/functions/echo/invoke", lyra.url())).body("1").send().await?;
    assert_eq!(answer.status(), 429);
    let after: u64 = answer.headers()["retry-after"].to_str()?.parse()?;
    assert!((1_700..=1_801).contains(&after), "{after}");
    let problem: Value = answer.json().await?;
    assert_eq!((&problem["code"], &problem["errors"][0]["field"]), (&"limit_reached".into(), &"quota.rate".into()));
    std::fs::write(lyra.scratch().join("second.js"), ECHO)?;
    let full = lyra.cli(["deploy", "second.js"]).await?.expect(5)?;
    assert!(full.stderr.contains("1 functions; there are 1"), "{}", full.stderr);
    lyra.kill().await?;
    lyra.restart().await?;
    lyra.cli(["deploy", "second.js"]).await?.expect(5)?;
    let shown = lyra.cli(["quota", "get", "-o", "json"]).await?.json()?;
    assert_eq!((&shown["quota"]["functions"], &shown["used"]["functions"]), (&1.into(), &1.into()));
    assert!(lyra.cli(["quota", "get"]).await?.ok()?.contains("2 at once"));
    lyra.cli(["quota", "set", "--function", "echo", "--rate", "1/s"]).await?.expect(2)?;
    lyra.cli(["quota", "set", "--function", "echo", "--concurrency", "3"]).await?.ok()?;
    assert_eq!(lyra.cli(["quota", "ls", "-q"]).await?.ok()?, "default\ndefault/echo\n");
    lyra.cli(["quota", "rm"]).await?.ok()?;
    lyra.cli(["deploy", "second.js"]).await?.ok()?;
    lyra.cli(["invoke", "echo", "-d", "1"]).await?.ok()?;
    lyra.cli(["quota", "rm"]).await?.expect(3)?;
    lyra.cli(["quota", "set"]).await?.expect(2)?;
    let log = lyra.cli(["audit", "ls"]).await?.ok()?;
    assert!(log.contains("PUT /v1/tenants/default/quota"), "{log}");
    Ok(())
}

#[tokio::test]
async fn the_classic_routes_are_held_to_quotas_in_their_envelope() -> Result<()> {
    let lyra = super::start::server().await?;
    let (http, url) = (lyra.http()?, lyra.url().to_owned());
    http.post(format!("{url}/u/ada")).send().await?.error_for_status()?;
    http.post(format!("{url}/u/ada/fn/add")).body("(a, b) => a + b").send().await?.error_for_status()?;
    let tenant = lyra.cli(["fn", "ls", "--tenant", "ada", "-q"]).await?.ok()?;
    assert!(!tenant.is_empty(), "the user's functions are those of the tenant of that name");
    lyra.cli(["quota", "set", "--tenant", "ada", "--rate", "1/h"]).await?.ok()?;
    let run = || http.post(format!("{url}/u/ada/fn/add/run")).body("[1,2]").send();
    run().await?.error_for_status()?;
    let refused = run().await?;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    let body: Value = refused.json().await?;
    assert_eq!(body["error"], true);
    assert!(body["res"].as_str().context("a text")?.starts_with("[ERR] the quota of tenant ada"), "{body}");
    Ok(())
}

/// Calls without a pause from so many callers until told to stop; counts what was answered how.
struct Flood {
    ok: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    others: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<()>>,
}

impl Flood {
    fn start(http: &reqwest::Client, url: &str, callers: usize) -> Flood {
        let count = || Arc::new(AtomicU64::new(0));
        let (ok, refused, others, stop) = (count(), count(), count(), Arc::new(AtomicBool::new(false)));
        let callers = (0..callers).map(|_| {
            let (http, url) = (http.clone(), url.to_owned());
            let (ok, refused, others, stop) =
                (Arc::clone(&ok), Arc::clone(&refused), Arc::clone(&others), Arc::clone(&stop));
            lyra_kit::tasks::spawn("caller", async move {
                while !stop.load(Ordering::Relaxed) {
                    let count = match http.post(&url).body("1").send().await.map(|answer| answer.status().as_u16()) {
                        Ok(200) => &ok,
                        Ok(429) => &refused,
                        _ => &others,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        });
        let callers = callers.collect();
        Flood { ok, refused, others, stop, callers }
    }

    fn ok(&self) -> u64 {
        self.ok.load(Ordering::Relaxed)
    }

    async fn end(self) -> Result<(u64, u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await?;
        }
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ok((of(&self.ok), of(&self.refused), of(&self.others)))
    }
}

#[tokio::test]
async fn two_gateways_keep_one_rate_together_also_without_control() -> Result<()> {
    let mut cluster = Cluster::start(1, &[]).await?;
    cluster.add_gateway("g2", &["c1"]).await?;
    std::fs::write(cluster.scratch().join("echo.js"), ECHO)?;
    cluster.commands().run(["deploy", "echo.js"]).await?.ok()?;
    for gateway in ["g1", "g2"] {
        cluster.commands_at(gateway).until_shown(&["invoke", "echo", "-d", "7"], "7").await?;
    }
    let begun = lyra_kit::Clock::system().instant();
    // Each answers once it holds to it.
    for gateway in ["g1", "g2"] {
        cluster.commands_at(gateway).run(["quota", "set", "--rate", "40/s", "--burst", "20"]).await?.ok()?;
    }
    let http = reqwest::Client::new();
    let url = |gateway: &str| format!("{}/v1/functions/echo/invoke", cluster.address(gateway));
    let (heavy, light) = (Flood::start(&http, &url("g1"), 6), Flood::start(&http, &url("g2"), 2));
    while heavy.ok() + light.ok() < 120 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let with = (heavy.ok(), light.ok());
    assert!(with.0 > 0 && with.1 > 0, "both gateways let some in: {with:?}");
    cluster.kill("c1").await?;
    while heavy.ok() + light.ok() < 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (one, other) = (heavy.end().await?, light.end().await?);
    let seconds = begun.elapsed().as_secs_f64();
    let ok = (one.0 + other.0) as f64;
    // The promise: limit times time, the burst, and one call for each gateway.
    assert!(ok <= 40.0 * seconds + 20.0 + 2.0, "{ok} in {seconds} s");
    assert!(one.1 + other.1 > 0 && one.2 + other.2 == 0, "{one:?} {other:?}");
    Ok(())
}

/// Takes 50 ms.
const SLOW: &str =
    "export default async (event) => { await new Promise((done) => setTimeout(done, 50)); return event }\n";

/// The same in Python, each call on a processor.
const SLOW_PROCESS: &str = "import time\ndef handler(event, context):\n    time.sleep(0.05)\n    return event\n";

#[tokio::test]
async fn a_greedy_tenant_does_not_keep_a_meek_one_waiting() -> Result<()> {
    greedy_and_meek(("LYRA__WORKER__MAX_RUNNING", "2"), ("slow.js", SLOW)).await
}

#[tokio::test]
async fn a_greedy_tenant_does_not_keep_a_meek_one_waiting_for_a_processor() -> Result<()> {
    greedy_and_meek(("LYRA__WORKER__RESOURCES__CPU_MILLIS", "2000"), ("slow.py", SLOW_PROCESS)).await
}

/// Two calls at a time by the setting, and the queue as it is by default.
async fn greedy_and_meek((setting, value): (&str, &str), (file, source): (&str, &str)) -> Result<()> {
    let env = vec![(setting.to_owned(), value.to_owned())];
    let lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), env, ..Options::default() }).await?;
    std::fs::write(lyra.scratch().join(file), source)?;
    for tenant in ["greedy", "meek"] {
        lyra.cli(["deploy", file, "--tenant", tenant]).await?.ok()?;
        lyra.cli(["invoke", "slow", "--tenant", tenant, "-d", "1"]).await?.ok()?;
    }
    const CALLS: u64 = 200;
    let (http, answered) = (lyra.http()?, Arc::new(AtomicU64::new(0)));
    let url = format!("{}/v1/functions/slow/invoke", lyra.url());
    let flood: Vec<_> = (0..CALLS)
        .map(|_| {
            let (http, url, answered) = (http.clone(), url.clone(), Arc::clone(&answered));
            lyra_kit::tasks::spawn("greedy", async move {
                let status = http.post(url).header("lyra-tenant", "greedy").body("1").send().await.map(|a| a.status());
                answered.fetch_add(1, Ordering::Relaxed);
                status
            })
        })
        .collect();
    while answered.load(Ordering::Relaxed) < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Those that are queued by now would all go before the first of these if who came first went first.
    for _ in 0..5 {
        let answer = http.post(&url).header("lyra-tenant", "meek").body("1").send().await?;
        assert_eq!(answer.status(), 200);
    }
    let before = answered.load(Ordering::Relaxed);
    for call in flood {
        assert_eq!(call.await??, 200);
    }
    assert!(
        before < CALLS * 3 / 4,
        "{before} of {CALLS} calls of the greedy one had ended before five of the meek one"
    );
    Ok(())
}

/// Takes so long that what waits for its place is still there when somebody else's job has ended.
const SECONDS: &str =
    "export default async (event) => { await new Promise((done) => setTimeout(done, 3000)); return event }\n";

#[tokio::test]
async fn a_greedy_tenants_queued_jobs_keep_no_other_tenants_waiting() -> Result<()> {
    let lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), ..Options::default() }).await?;
    for name in ["one", "two"] {
        std::fs::write(lyra.scratch().join(format!("{name}.js")), SECONDS)?;
        lyra.cli(["deploy", &format!("{name}.js"), "--tenant", "greedy"]).await?.ok()?;
    }
    std::fs::write(lyra.scratch().join("echo.js"), ECHO)?;
    lyra.cli(["deploy", "echo.js", "--tenant", "meek"]).await?.ok()?;
    // Two functions take all places, and those that wait need them for a minute and a half.
    let http = lyra.http()?;
    let jobs = (0..2_000).map(|n| {
        let url = format!("{}/v1/functions/{}/invoke?async=true", lyra.url(), ["one", "two"][n % 2]);
        let submit = http.post(url).header("lyra-tenant", "greedy").body("1").send();
        async move { submit.await.map(|answer| answer.status()) }
    });
    let mut accepted = futures::stream::iter(jobs).buffer_unordered(64);
    while let Some(status) = accepted.next().await {
        assert_eq!(status?, 202);
    }
    for n in 0..2 {
        let event = n.to_string();
        let args = ["invoke", "echo", "--tenant", "meek", "--async", "--wait", "60s", "-d", &event];
        assert_eq!(lyra.cli(args).await?.ok()?, format!("{n}\n"));
    }
    let args = ["job", "ls", "--tenant", "greedy", "--status", "queued", "--limit", "200", "-q"];
    assert_eq!(lyra.cli(args).await?.ok()?.lines().count(), 200, "who came first did not go first");
    // The places that nobody else wants are its own.
    let running = ["job", "ls", "--tenant", "greedy", "--status", "running", "--limit", "200", "-q"];
    assert!(lyra.cli(running).await?.ok()?.lines().count() > 1);
    Ok(())
}

#[tokio::test]
async fn a_gateway_beside_a_control_that_stands_by_is_held_to_quotas_by_the_leader() -> Result<()> {
    let (etcd, nats) = tokio::try_join!(Etcd::start(), Nats::start())?;
    let (store, jobs) = (format!("etcd://{}", etcd.address()), format!("nats://{}", nats.address()));
    let mut cluster = Cluster::start_many(1, 1, &["--store", &store, "--jobs", &jobs]).await?;
    let blobs = cluster.scratch().join("blobs").display().to_string();
    let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let flags =
        ["--store", &store, "--jobs", &jobs, "--blobs", &blobs, "--listen-grpc", "127.0.0.1:0", "--listen", &listen];
    cluster.add_node("control,gateway", "c2", &flags, &[]).await?;
    std::fs::write(cluster.scratch().join("echo.js"), ECHO)?;
    let (first, second) = (cluster.commands(), cluster.commands().env("LYRA_URL", &format!("http://{listen}")));
    first.run(["deploy", "echo.js"]).await?.ok()?;
    second.until_shown(&["worker", "ls"], "w1").await?;
    second.run(["quota", "set", "--rate", "3/h", "--burst", "3"]).await?.ok()?;
    let mut refused = None;
    for _ in 0..100 {
        let answer = second.run(["invoke", "echo", "-d", "1"]).await?;
        if answer.code != 0 {
            refused = Some(answer.expect(5)?);
            break;
        }
    }
    let refused = refused.context("no call was refused")?;
    assert!(refused.stderr.contains("the quota of tenant default"), "{}", refused.stderr);
    Ok(())
}
