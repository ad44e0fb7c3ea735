//! Schedules and destinations, through the real program, with `kill -9`.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::start::{deploy, server_with};

/// Asks until `found` gives something.
async fn eventually<T>(mut found: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let ask = async {
        loop {
            if let Some(found) = found().await? {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ask).await.context("it does not come to be")?
}

async fn get(http: &reqwest::Client, url: String) -> Result<Value> {
    Ok(http.get(url).send().await?.error_for_status()?.json().await?)
}

#[tokio::test]
async fn each_time_of_a_schedule_starts_one_job_over_kills_of_the_server() -> Result<()> {
    let mut server = server_with("tick", super::start::ECHO).await?;
    let create = ["schedule", "create", "beat", "--cron", "* * * * * *", "--function", "tick", "--overlap", "allow"];
    server.cli(create.into_iter().chain(["--missed", "all", "--max-missed", "100", "-d", "[1]"])).await?.ok()?;
    for jobs in [3, 6, 9] {
        let http = server.http()?;
        eventually(async || {
            let found = get(&http, format!("{}/v1/jobs?function=tick&limit=1000", server.url())).await?;
            Ok(found["items"].as_array().filter(|items| items.len() >= jobs).map(|_| ()))
        })
        .await?;
        server.kill().await?;
        server.restart().await?;
    }
    let never = ["schedule", "create", "never", "--cron", "0 0 30 2 *", "--function", "tick"];
    let refused = server.cli(never).await?.expect(2)?;
    assert!(refused.stderr.contains("no time at all"), "{}", refused.stderr);
    server.cli(["schedule", "pause", "beat"]).await?.ok()?;
    let http = server.http()?;
    let schedule = get(&http, format!("{}/v1/schedules/beat", server.url())).await?;
    let history = schedule["history"].as_array().context("a history")?;
    let mut jobs_of: HashMap<&str, Vec<&str>> = HashMap::new();
    for firing in history {
        let (tick, job) = (firing["scheduled_at"].as_str(), firing["job"].as_str());
        jobs_of.entry(tick.context("a time")?).or_default().push(job.context("a job")?);
    }
    assert!(jobs_of.values().all(|jobs| jobs.len() == 1), "{history:?}");
    // From the first firing on there is one job for each second: none was left out, none came twice.
    let list = get(&http, format!("{}/v1/jobs?function=tick&limit=1000", server.url())).await?;
    let count = list["items"].as_array().context("jobs")?.len();
    let last =
        lyra_types::Timestamp::parse(history[0]["scheduled_at"].as_str().context("a time")?).context("a time")?;
    let made = lyra_types::Timestamp::parse(schedule["created_at"].as_str().context("a time")?).context("a time")?;
    let seconds = usize::try_from(last.millis() / 1_000 - made.millis() / 1_000)?;
    assert_eq!(count, seconds, "{history:?}");
    let ran = server.cli(["schedule", "run", "beat", "-q"]).await?.ok()?;
    let result = server.cli(["job", "result", ran.trim(), "--wait", "30s"]).await?.ok()?;
    assert_eq!(result.trim(), "[1]");
    server.cli(["schedule", "rm", "beat"]).await?.ok()?;
    server.cli(["schedule", "get", "beat"]).await?.expect(3)?;
    Ok(())
}

#[tokio::test]
async fn a_function_hears_of_a_job_that_ended_before_a_kill() -> Result<()> {
    let mut server = server_with("g", "export default (event) => event.type").await?;
    deploy(&server, "f", "export default () => { throw new Error('no') }", &["--max-attempts", "1"]).await?;
    server.cli(["webhook", "set", "f", "--on-failure", "function:g"]).await?.ok()?;
    let id = server.cli(["invoke", "f", "--async", "-q"]).await?.ok()?.trim().to_owned();
    server.cli(["job", "wait", &id]).await?.expect(1)?;
    server.kill().await?;
    server.restart().await?;
    let http = server.http()?;
    let url = format!("{}/v1/deliveries?job={id}&status=delivered", server.url());
    let delivery = eventually(async || Ok(get(&http, url.clone()).await?["items"].get(0).cloned())).await?;
    assert_eq!((&delivery["type"], &delivery["to"]), (&json!("job.failed"), &json!({"function": "g"})));
    let started = delivery["started_job"].as_str().context("a job")?;
    let result = server.cli(["job", "result", started, "--wait", "30s"]).await?.ok()?;
    assert_eq!(result.trim(), "\"job.failed\"");
    // Nobody may send the platform to the host's own addresses.
    let refused = server.cli(["webhook", "set", "f", "--on-failure", "http://127.0.0.1/"]).await?.expect(2)?;
    assert!(refused.stderr.contains("not public"), "{}", refused.stderr);
    Ok(())
}
