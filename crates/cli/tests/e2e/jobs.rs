//! `lyra invoke --async` and `lyra job`.

use anyhow::Result;
use serde_json::{Value, json};

use super::start::{ECHO, THROWS, deploy, server, server_with};

async fn submit(lyra: &lyra_testkit::Lyra, args: &[&str]) -> Result<String> {
    let id = lyra.cli([&["invoke"], args, &["--async"]].concat()).await?.ok()?;
    assert!(id.starts_with("job_") && id.ends_with('\n'), "{id}");
    Ok(id.trim_end().to_owned())
}

#[tokio::test]
async fn a_job_is_handed_in_waited_for_and_its_result_read() -> Result<()> {
    let lyra = server_with("echo", ECHO).await?;
    let id = submit(&lyra, &["echo", "-d", "[1]"]).await?;
    let waited = lyra.cli(["job", "wait", &id, "--timeout", "60s"]).await?.ok()?;
    assert!(waited.contains("succeeded"), "{waited}");
    assert_eq!(lyra.cli(["job", "result", &id]).await?.ok()?, "[1]\n");
    assert_eq!(lyra.cli(["job", "result", &id, "--wait", "5s"]).await?.ok()?, "[1]\n");
    let job = lyra.cli(["job", "get", &id, "-o", "json"]).await?.json()?;
    let api: Value = lyra.http()?.get(format!("{}/v1/jobs/{id}", lyra.url())).send().await?.json().await?;
    assert_eq!(job, api);
    assert_eq!((&job["status"], &job["attempts"]), (&json!("succeeded"), &json!(1)));
    let done = lyra.cli(["invoke", "echo", "-d", "\"x\"", "--async", "--wait", "60s"]).await?.expect(0)?;
    assert_eq!(done.stdout, "\"x\"\n");
    assert!(done.stderr.contains("job_"), "{}", done.stderr);
    Ok(())
}

#[tokio::test]
async fn a_failed_job_is_exit_code_1_and_a_timed_out_one_6() -> Result<()> {
    let lyra = server().await?;
    deploy(&lyra, "throws", THROWS, &["--max-attempts", "1"]).await?;
    let id = submit(&lyra, &["throws", "-d", r#"{"say":"never"}"#]).await?;
    let output = lyra.cli(["job", "wait", &id]).await?.expect(1)?;
    assert!(output.stdout.contains("failed") && output.stdout.contains("never"), "{}", output.stdout);
    let output = lyra.cli(["job", "result", &id]).await?.expect(1)?;
    assert!(output.stderr.contains("TypeError: never"), "{}", output.stderr);
    deploy(&lyra, "loop", "export default () => { for (;;); }", &["--timeout", "100ms", "--max-attempts", "1"]).await?;
    let id = submit(&lyra, &["loop"]).await?;
    lyra.cli(["job", "wait", &id]).await?.expect(6)?;
    lyra.cli(["job", "result", &id]).await?.expect(6)?;
    Ok(())
}

#[tokio::test]
async fn a_running_job_is_pending_then_cancelled() -> Result<()> {
    let lyra = server_with("slow", "export default () => new Promise((done) => setTimeout(done, 600_000))").await?;
    deploy(
        &lyra,
        "slow",
        "export default () => new Promise((done) => setTimeout(done, 600_000))",
        &["--timeout", "15m"],
    )
    .await?;
    let id = submit(&lyra, &["slow"]).await?;
    let output = lyra.cli(["job", "result", &id]).await?.expect(6)?;
    assert!(output.stderr.contains("not ended"), "{}", output.stderr);
    lyra.cli(["job", "wait", &id, "--timeout", "100ms"]).await?.expect(6)?;
    let output = lyra.cli(["invoke", "slow", "--async", "--wait", "100ms"]).await?.expect(6)?;
    assert!(output.stderr.contains("lyra job wait job_"), "{}", output.stderr);
    let cancelled = lyra.cli(["job", "cancel", &id, "-o", "json"]).await?.json()?;
    assert_eq!(cancelled["status"], "cancelled");
    lyra.cli(["job", "wait", &id]).await?.expect(1)?;
    let again = lyra.cli(["job", "cancel", &id, "-o", "json"]).await?.json()?;
    assert_eq!(again["status"], "cancelled");
    Ok(())
}

#[tokio::test]
async fn jobs_are_listed_by_function_and_status_over_pages() -> Result<()> {
    let lyra = server_with("echo", ECHO).await?;
    deploy(&lyra, "other", ECHO, &[]).await?;
    let client = lyra.client()?;
    let live = lyra_types::name::Qualifier::Live;
    let mut ids = Vec::new();
    for _ in 0..130 {
        ids.push(client.submit(&"echo".parse()?, &live, "1", None).await?.id.clone());
    }
    let other = submit(&lyra, &["other"]).await?;
    for id in &ids {
        lyra.client()?.wait_job(id.parse()?, std::time::Duration::from_secs(60)).await?;
    }
    let listed =
        lyra.cli(["job", "ls", "--function", "echo", "--status", "succeeded", "--limit", "1000", "-q"]).await?.ok()?;
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    ids.sort_unstable();
    assert_eq!(listed, ids);
    let output = lyra.cli(["job", "ls"]).await?.expect(0)?;
    assert_eq!(output.stdout.lines().count(), 101);
    assert!(output.stdout.starts_with("ID") && output.stderr.contains("--limit"), "{}", output.stderr);
    assert_eq!(lyra.cli(["job", "ls", "--function", "other", "-q"]).await?.ok()?, format!("{other}\n"));
    Ok(())
}

#[tokio::test]
async fn an_idempotency_key_gives_the_same_job_and_refuses_another_event() -> Result<()> {
    let lyra = server_with("echo", ECHO).await?;
    let first = submit(&lyra, &["echo", "-d", "1", "--idempotency-key", "k1"]).await?;
    assert_eq!(submit(&lyra, &["echo", "-d", "1", "--idempotency-key", "k1"]).await?, first);
    let output = lyra.cli(["invoke", "echo", "-d", "2", "--async", "--idempotency-key", "k1"]).await?.expect(2)?;
    assert!(output.stderr.contains("key"), "{}", output.stderr);
    Ok(())
}

#[tokio::test]
async fn a_job_that_does_not_exist_is_exit_code_3() -> Result<()> {
    let lyra = server().await?;
    for id in ["job_00000000000000000000000000", "nonsense", "inv_00000000000000000000000000"] {
        for verb in ["get", "result", "wait", "cancel"] {
            lyra.cli(["job", verb, id]).await?.expect(3)?;
        }
    }
    Ok(())
}
