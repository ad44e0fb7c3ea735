//! `lyra dead-letter`.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::start::{deploy, server};

/// Fails, always.
const FAILS: &str = "export default () => { throw new Error('always') }";

#[tokio::test]
async fn dead_jobs_are_listed_redriven_and_purged() -> Result<()> {
    let lyra = server().await?;
    deploy(&lyra, "fails", FAILS, &["--max-attempts", "2"]).await?;
    assert_eq!(lyra.cli(["dead-letter", "ls", "-q"]).await?.ok()?, "");
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(lyra.cli(["invoke", "fails", "--async"]).await?.ok()?.trim().to_owned());
    }
    for id in &ids {
        let output = lyra.cli(["job", "wait", id, "--timeout", "60s"]).await?.expect(1)?;
        assert!(output.stdout.contains("dead") && output.stdout.contains("2 of 2"), "{}", output.stdout);
    }
    let table = lyra.cli(["dead-letter", "ls"]).await?.ok()?;
    assert_eq!(table.lines().count(), 3);
    assert!(table.contains(&ids[0]) && table.contains("always") && table.contains("2/2"), "{table}");
    assert!(lyra.cli(["dead-letter", "get", &ids[0]]).await?.ok()?.contains("always"));

    let redriven = lyra.cli(["dead-letter", "redrive", &ids[0], "-o", "json"]).await?.json()?;
    assert_eq!(redriven["id"], json!(ids[0]));
    let dead = lyra.client()?.wait_job(ids[0].parse()?, Duration::from_secs(60)).await?;
    assert_eq!(dead.status.as_str(), "dead");
    assert_eq!(lyra.cli(["dead-letter", "redrive", "--all"]).await?.ok()?, "2 jobs put back in the queue\n");
    for id in &ids {
        lyra.client()?.wait_job(id.parse()?, Duration::from_secs(60)).await?;
    }
    assert_eq!(lyra.cli(["dead-letter", "purge", &ids[0]]).await?.ok()?, format!("{} deleted\n", ids[0]));
    lyra.cli(["dead-letter", "get", &ids[0]]).await?.expect(3)?;
    assert_eq!(lyra.cli(["dead-letter", "purge"]).await?.ok()?, "1 job deleted\n");
    assert_eq!(lyra.cli(["dead-letter", "ls", "-o", "json"]).await?.ok()?, "{\"items\":[],\"next\":null}\n");
    lyra.cli(["dead-letter", "redrive", &ids[1]]).await?.expect(3)?;
    assert_eq!(lyra.cli(["dead-letter", "purge", "-q"]).await?.ok()?, "0\n");
    Ok(())
}
