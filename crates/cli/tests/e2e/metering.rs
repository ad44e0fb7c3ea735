//! What calls used, counted exactly: over kills of the server, with the client's own count beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_testkit::Lyra;
use serde_json::Value;

use super::start::{ECHO, THROWS, deploy, server, server_with};

/// Calls of the large test.
const CALLS: u64 = 10_000;
/// Callers at once.
const CALLERS: u64 = 8;

async fn usage(lyra: &Lyra, query: &str) -> Result<Value> {
    let answer = lyra.http()?.get(format!("{}/v1/usage{query}", lyra.url())).send().await?;
    Ok(answer.error_for_status()?.json().await?)
}

async fn invocations(lyra: &Lyra) -> Result<u64> {
    usage(lyra, "").await?["total"]["invocations"].as_u64().context("a number")
}

/// Waits until as many calls are counted.
async fn counted(lyra: &Lyra, calls: u64) -> Result<()> {
    let all = async {
        while invocations(lyra).await? < calls {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .with_context(|| format!("{calls} calls are not counted"))?
}

#[tokio::test]
async fn ten_thousand_calls_are_counted_once_each_over_kills_of_the_server() -> Result<()> {
    let mut lyra = server_with("echo", ECHO).await?;
    let (left, answered, unknown) =
        (Arc::new(AtomicU64::new(CALLS)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut kills = 0;
    while left.load(Ordering::Relaxed) > 0 {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (http, url) = (lyra.http(), format!("{}/v1/functions/echo/invoke", lyra.url()));
                let (left, answered, unknown) = (Arc::clone(&left), Arc::clone(&answered), Arc::clone(&unknown));
                lyra_kit::tasks::spawn("caller", async move {
                    let http = http?;
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                        match http.post(&url).body("1").send().await {
                            Ok(answer) if answer.status().is_success() => answered.fetch_add(1, Ordering::Relaxed),
                            Ok(answer) => anyhow::bail!("{}", answer.status()),
                            // The server was killed: the call may have run, and is not made again.
                            Err(_) => {
                                unknown.fetch_add(1, Ordering::Relaxed);
                                return Ok(());
                            }
                        };
                    }
                    Ok(())
                })
            })
            .collect();
        let kill = kills < 3;
        if kill {
            let so_far = answered.load(Ordering::Relaxed);
            while answered.load(Ordering::Relaxed) < so_far + CALLS / 8 && left.load(Ordering::Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
            lyra.kill().await?;
            kills += 1;
        }
        for caller in callers {
            caller.await??;
        }
        if kill {
            lyra.restart().await?;
        }
    }
    let (answered, unknown) = (answered.load(Ordering::Relaxed), unknown.load(Ordering::Relaxed));
    ensure!(answered + unknown == CALLS && kills == 3, "{answered} {unknown} {kills}");
    counted(&lyra, answered).await?;
    // One more batch at least has come after it: nothing is counted late, and nothing twice.
    lyra.cli(["invoke", "echo", "-d", "1"]).await?.ok()?;
    counted(&lyra, answered + 1).await?;
    let found = invocations(&lyra).await?;
    ensure!(
        (answered + 1..=answered + 1 + unknown).contains(&found),
        "{found} counted, {answered} answered, {unknown} lost"
    );
    lyra.kill().await?;
    lyra.restart().await?;
    ensure!(invocations(&lyra).await? == found, "a kill changes nothing");
    Ok(())
}

#[tokio::test]
async fn every_try_of_a_job_is_counted_with_its_outcome() -> Result<()> {
    let lyra = server().await?;
    deploy(&lyra, "echo", ECHO, &[]).await?;
    deploy(&lyra, "throws", THROWS, &["--max-attempts", "2"]).await?;
    lyra.cli(["invoke", "echo", "-d", "[1,2]", "--async", "--wait", "60s"]).await?.ok()?;
    lyra.cli(["invoke", "throws", "-d", r#"{"say":"no"}"#, "--async", "--wait", "60s"]).await?.expect(1)?;
    // At once: with the outcome, not after it.
    let found = usage(&lyra, "?group=function,version").await?;
    let row =
        |name: &str| found["items"].as_array().and_then(|items| items.iter().find(|item| item["function"] == name));
    let (echo, throws) = (row("echo").context("echo")?, row("throws").context("throws")?);
    assert_eq!((&echo["invocations"], &echo["failures"], &echo["egress_bytes"]), (&1.into(), &0.into(), &5.into()));
    assert_eq!((&throws["invocations"], &throws["failures"], &throws["version"]), (&2.into(), &2.into(), &1.into()));
    assert_eq!(found["total"]["invocations"], 3);
    let csv = lyra.cli(["usage", "--group", "function", "--csv"]).await?.ok()?;
    assert!(csv.starts_with("tenant,user,function,") && csv.contains(",,echo,,,1,0,"), "{csv}");
    let table = lyra.cli(["usage", "--group", "function"]).await?.ok()?;
    assert!(table.starts_with("FUNCTION") && table.contains("total"), "{table}");
    lyra.cli(["usage", "--group", "colour"]).await?.expect(2)?;
    // A day of UTC is a time, too.
    let days = ["usage", "--group", "function", "--from", "2026-01-31", "--to", "9998-12-31"];
    assert_eq!(lyra.cli(days).await?.ok()?, table);
    let refused = lyra.cli(["usage", "--from", "2026-01-31", "--to", "2026-01-30"]).await?.expect(2)?;
    assert!(refused.stderr.contains("before"), "{}", refused.stderr);
    Ok(())
}
