//! What sessions and applications are told that get less than they ask for; and that nobody else pays for it. Needs python3.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, ensure};
use lyra_testkit::{Lyra, Options};
use serde_json::{Value, json};

use super::start::{BINARY, deploy, repository, server};

fn example(file: &str) -> String {
    repository().join("examples/session-count").join(file).display().to_string()
}

async fn with_count(lyra: &Lyra) -> Result<()> {
    lyra.cli(["deploy", &example(""), "--name", "session-count", "--runtime", "http"]).await?.ok()?;
    lyra.cli(["app", "apply", "-f", &example("application.yaml")]).await?.ok()?;
    Ok(())
}

/// Two ports, one after the other, that nobody listens on.
fn two_ports() -> Result<u16> {
    for _ in 0..100 {
        let one = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let first = one.local_addr()?.port();
        if first < u16::MAX && TcpListener::bind((Ipv4Addr::LOCALHOST, first + 1)).is_ok() {
            return Ok(first);
        }
    }
    anyhow::bail!("no two ports are free")
}

async fn open(lyra: &Lyra, name: &str) -> Result<u64> {
    let opened = lyra.cli(["session", "open", "count", "--name", name, "--wait", "60s", "-o", "json"]).await?.json()?;
    let at = &opened["status"]["accessEndPoints"][0];
    ensure!(at["ipAddress"] == "127.0.0.1", "{opened}");
    at["port"].as_u64().context("a port")
}

async fn visit(lyra: &Lyra, port: u64) -> Result<String> {
    Ok(lyra.http()?.get(format!("http://127.0.0.1:{port}/")).send().await?.text().await?)
}

async fn condition(lyra: &Lyra, application: &str, kind: &str) -> Result<(String, String)> {
    let object: Value = lyra.cli(["app", "get", application, "-o", "json"]).await?.json()?;
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|of| of["type"] == kind).cloned().unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Ok((text("reason"), text("message")))
}

async fn until_condition(lyra: &Lyra, application: &str, kind: &str, reason: &str) -> Result<String> {
    for _ in 0..600 {
        let (found, message) = condition(lyra, application, kind).await?;
        if found == reason {
            return Ok(message);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    anyhow::bail!("{kind} of {application} never came to be {reason}: {:?}", condition(lyra, application, kind).await?)
}

#[tokio::test]
async fn sessions_have_ports_of_the_gateway_that_none_can_take_from_another_and_wait_where_none_is_left() -> Result<()>
{
    let first = two_ports()?;
    let setting = |name: &str, value: String| (format!("LYRA__CONTROL__SESSIONS__INGRESS_{name}"), value);
    let env = vec![
        setting("ADDRESS", "127.0.0.1".to_owned()),
        setting("FIRST_PORT", first.to_string()),
        setting("LAST_PORT", (first + 1).to_string()),
    ];
    let lyra = Lyra::start_with(Options { binary: Some(BINARY.into()), env, ..Options::default() }).await?;
    with_count(&lyra).await?;
    let (one, two) = (open(&lyra, "one").await?, open(&lyra, "two").await?);
    let mut ports = [one, two];
    ports.sort_unstable();
    assert_eq!(ports, [u64::from(first), u64::from(first) + 1]);
    assert_eq!(
        (visit(&lyra, one).await?, visit(&lyra, two).await?),
        ("one: visit 1\n".into(), "two: visit 1\n".into())
    );
    // What a client says of its ports is nobody's address.
    let stolen = json!({"status": {"accessEndPoints": [{"protocol": "TCP", "ipAddress": "127.0.0.1", "port": one}]}});
    let path = "/apis/lyra.dev/v1/namespaces/default/applicationsessions/two/status";
    let patch = lyra.http()?.patch(format!("{}{path}", lyra.url()));
    let patch = patch.header("content-type", "application/merge-patch+json").body(stolen.to_string());
    let patched: Value = patch.send().await?.error_for_status()?.json().await?;
    assert_eq!(patched["status"]["accessEndPoints"][0]["port"], two);
    assert_eq!(
        (visit(&lyra, one).await?, visit(&lyra, two).await?),
        ("one: visit 2\n".into(), "two: visit 2\n".into())
    );
    let waits = async {
        lyra.commands().until_shown(&["session", "get", "three"], "all ports of the gateways").await?;
        lyra.cli(["session", "close", "one"]).await?.ok()
    };
    let manifest = json!({
        "apiVersion": "lyra.dev/v1", "kind": "ApplicationSession", "metadata": {"name": "three"},
        "spec": {"applicationName": "count", "openTimeoutSeconds": 60},
    });
    let file = lyra.scratch().join("three.json");
    std::fs::write(&file, manifest.to_string())?;
    lyra.cli(["app", "apply", "-f", "three.json"]).await?.ok()?;
    waits.await?;
    lyra.commands().until_shown(&["session", "get", "three"], "Available").await?;
    assert_eq!(visit(&lyra, one).await?, "three: visit 1\n");
    Ok(())
}

#[tokio::test]
async fn an_application_whose_program_ends_at_once_says_so_and_is_well_again_when_it_is_mended() -> Result<()> {
    let lyra = server().await?;
    let folder = lyra.scratch().join("broken");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("bootstrap"), "#!/bin/sh\necho no licence >&2\nexit 3\n")?;
    lyra.cli(["deploy", "broken", "--name", "session-count", "--runtime", "http"]).await?.ok()?;
    lyra.cli(["app", "apply", "-f", &example("application.yaml")]).await?.ok()?;
    let message = until_condition(&lyra, "count", "Progressing", "InstancesFailing").await?;
    assert!(message.contains("exit") && message.contains('3'), "{message}");
    assert_eq!(condition(&lyra, "count", "Ready").await?.0, "InstancesFailing");
    let events =
        lyra.http()?.get(format!("{}/api/v1/namespaces/default/events", lyra.url())).send().await?.text().await?;
    assert!(events.contains("InstanceFailed"), "{events}");
    lyra.cli(["deploy", &example(""), "--name", "session-count", "--runtime", "http"]).await?.ok()?;
    let mended = std::fs::read_to_string(example("application.yaml"))?.replace("session-count", "session-count@2");
    lyra.commands().run_with_input(["app", "apply", "-f", "-"], mended.as_bytes()).await?.ok()?;
    until_condition(&lyra, "count", "Ready", "VersionReady").await?;
    lyra.cli(["session", "open", "count", "--name", "one", "--wait", "60s"]).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn what_asks_for_more_than_there_is_says_so_and_keeps_no_call_from_running() -> Result<()> {
    let lyra = server().await?;
    deploy(&lyra, "echo", super::start::ECHO, &["--reuse"]).await?;
    lyra.cli(["invoke", "echo", "-d", "1"]).await?.ok()?;
    lyra.cli(["deploy", &example(""), "--name", "session-count", "--runtime", "http"]).await?.ok()?;
    let huge = std::fs::read_to_string(example("application.yaml"))?
        .replace("      ports:", "      resources: {limits: {memory: 10Ti}}\n      ports:");
    lyra.commands().run_with_input(["app", "apply", "-f", "-"], huge.as_bytes()).await?.ok()?;
    let message = until_condition(&lyra, "count", "Ready", "PreloadFailed").await?;
    assert!(message.contains("10485760 MiB of memory"), "{message}");
    let manifest = json!({
        "apiVersion": "lyra.dev/v1", "kind": "ApplicationSession", "metadata": {"name": "huge"},
        "spec": {"applicationName": "count", "openTimeoutSeconds": 600},
    });
    std::fs::write(lyra.scratch().join("huge.json"), manifest.to_string())?;
    lyra.cli(["app", "apply", "-f", "huge.json"]).await?.ok()?;
    lyra.commands().until_shown(&["session", "get", "huge"], "10485760 MiB").await?;
    assert_eq!(lyra.cli(["invoke", "echo", "-d", "2"]).await?.ok()?.trim(), "2");
    deploy(&lyra, "cold", super::start::ECHO, &[]).await?;
    assert_eq!(lyra.cli(["invoke", "cold", "-d", "3"]).await?.ok()?.trim(), "3");
    Ok(())
}

#[tokio::test]
async fn a_quota_of_sessions_is_kept() -> Result<()> {
    let lyra = server().await?;
    with_count(&lyra).await?;
    lyra.cli(["quota", "set", "--sessions", "1"]).await?.ok()?;
    lyra.cli(["session", "open", "count", "--name", "one", "--wait", "60s"]).await?.ok()?;
    let refused = lyra.cli(["session", "open", "count", "--name", "two"]).await?.expect(5)?;
    assert!(refused.stderr.contains("1 sessions") && refused.stderr.contains("quota"), "{}", refused.stderr);
    let shown: Value = lyra.cli(["quota", "get", "-o", "json"]).await?.json()?;
    assert_eq!((&shown["quota"]["sessions"], &shown["used"]["sessions"]), (&json!(1), &json!(1)));
    lyra.cli(["session", "close", "one"]).await?.ok()?;
    lyra.cli(["session", "open", "count", "--name", "two", "--wait", "60s"]).await?.ok()?;
    let faulty = lyra.cli(["quota", "set", "--function", "session-count", "--sessions", "1"]).await?.expect(2)?;
    assert!(faulty.stderr.contains("--sessions"), "{}", faulty.stderr);
    Ok(())
}
