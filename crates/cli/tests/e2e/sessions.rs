//! `lyra app` and `lyra session`: from a manifest to requests that a session's own process answers. Needs python3.

use anyhow::{Context, Result};
use lyra_testkit::{Lyra, Output};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::start::{alone, repository, server};

fn example(file: &str) -> String {
    repository().join("examples/session-count").join(file).display().to_string()
}

/// A server with the application `count`, of four instances at most.
async fn with_count() -> Result<Lyra> {
    let lyra = server().await?;
    lyra.cli(["deploy", &example(""), "--name", "session-count", "--runtime", "http"]).await?.ok()?;
    let applied = lyra.cli(["app", "apply", "-f", &example("application.yaml")]).await?.ok()?;
    assert_eq!(applied, "application count created\n");
    Ok(lyra)
}

async fn open(lyra: &Lyra, name: &str) -> Result<Value> {
    lyra.cli(["session", "open", "count", "--name", name, "--wait", "60s", "-o", "json"]).await?.json()
}

/// Where a session is reached.
fn endpoint(session: &Value) -> Result<String> {
    let port = &session["status"]["accessEndPoints"][0];
    Ok(format!("{}:{}", port["ipAddress"].as_str().context("an address")?, port["port"]))
}

/// Has a session count a visit, over a connection that stays.
async fn visit(connection: &mut TcpStream) -> Result<String> {
    connection.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((_, body)) = text.split_once("\r\n\r\n").filter(|(_, body)| body.ends_with('\n')) {
            return Ok(body.to_owned());
        }
        anyhow::ensure!(connection.read_buf(&mut read).await? > 0, "the connection ended after {read:?}");
    }
}

#[tokio::test]
async fn two_sessions_are_opened_reached_and_closed_each_with_a_state_of_its_own() -> Result<()> {
    let lyra = with_count().await?;
    let (one, two) = (open(&lyra, "one").await?, open(&lyra, "two").await?);
    assert_ne!(one["status"]["instance"], two["status"]["instance"], "an instance each");
    assert_eq!(one["status"]["sessionStatus"], "Available");
    let http = lyra.http()?;
    let get = async |url: String| -> Result<String> { Ok(http.get(url).send().await?.text().await?) };
    assert_eq!(get(format!("http://{}/", endpoint(&one)?)).await?, "one: visit 1\n");
    assert_eq!(get(format!("{}/s/default/one/", lyra.url())).await?, "one: visit 2\n");
    assert_eq!(get(format!("http://{}/", endpoint(&two)?)).await?, "two: visit 1\n");

    let shown = lyra.cli(["session", "get", "one"]).await?.ok()?;
    for part in ["name:         one", "count version 1", "Available", &endpoint(&one)?, "/s/default/one/"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let listed = lyra.cli(["session", "ls", "--application", "count"]).await?.ok()?;
    let mut lines = listed.lines();
    let header: Vec<&str> = lines.next().context("a header")?.split_whitespace().collect();
    assert_eq!(header, ["NAME", "APPLICATION", "STATUS", "ENDPOINT", "AGE"]);
    let first: Vec<&str> = lines.next().context("a row")?.split_whitespace().collect();
    assert_eq!(first[..4], ["one", "count", "Available", &endpoint(&one)?]);
    assert_eq!(lyra.cli(["session", "ls", "-q"]).await?.ok()?, "one\ntwo\n");
    assert_eq!(lyra.cli(["session", "ls", "-q", "--application", "other"]).await?.ok()?, "");
    assert_eq!(lyra.cli(["session", "ls", "-q", "--tenant", "other"]).await?.ok()?, "");

    let app = lyra.cli(["app", "ls"]).await?.ok()?;
    let header: Vec<&str> = app.lines().next().context("a header")?.split_whitespace().collect();
    assert_eq!(header, ["NAME", "VERSION", "DESIRED", "READY", "IDLE", "ALLOCATED", "AGE"]);
    lyra.commands().until_shown(&["app", "get", "count"], "2 with a session").await?;

    assert_eq!(lyra.cli(["session", "close", "one"]).await?.ok()?, "session one closed\n");
    lyra.cli(["session", "get", "one"]).await?.expect(3)?;
    lyra.cli(["session", "close", "one"]).await?.expect(3)?;
    assert!(TcpStream::connect(endpoint(&one)?).await.is_err(), "its port is closed");
    assert_eq!(get(format!("http://{}/", endpoint(&two)?)).await?, "two: visit 2\n");
    let shown = lyra.cli(["app", "rm", "count"]).await?.ok()?;
    assert_eq!(shown, "application count deleted\n");
    assert_eq!(lyra.cli(["session", "ls", "-q"]).await?.ok()?, "", "its sessions went with it");
    Ok(())
}

#[tokio::test]
async fn a_session_without_a_name_is_given_one() -> Result<()> {
    let lyra = with_count().await?;
    let name = lyra.cli(["session", "open", "count", "-q", "--wait", "60s"]).await?.ok()?;
    assert!(name.starts_with("count-") && name.len() > "count-\n".len(), "{name}");
    let data = ["session", "open", "count", "--data", "{\"a\": 1}", "--wait", "60s", "-o", "json"];
    let other = lyra.cli(data).await?.json()?;
    assert_eq!(other["spec"]["sessionData"], "{\"a\": 1}");
    assert_ne!(other["metadata"]["name"], name.trim());
    Ok(())
}

#[tokio::test]
async fn a_busy_application_is_exit_code_5_and_one_that_is_not_there_3() -> Result<()> {
    let lyra = with_count().await?;
    let one = std::fs::read_to_string(example("application.yaml"))?.replace("maximumInstance: 4", "maximumInstance: 1");
    let applied = lyra.commands().run_with_input(["app", "apply", "-f", "-"], one.as_bytes()).await?.ok()?;
    assert_eq!(applied, "application count configured\n");
    open(&lyra, "one").await?;
    let busy = lyra.cli(["session", "open", "count"]).await?.expect(5)?;
    assert!(busy.stderr.contains("is busy") && busy.stderr.contains("try again in 1 s"), "{}", busy.stderr);
    let problem: Value = serde_json::from_str(&lyra.cli(["session", "open", "count", "-o", "json"]).await?.stderr)?;
    assert_eq!(problem["code"], "limit_reached");
    lyra.cli(["session", "close", "one"]).await?.ok()?;
    open(&lyra, "two").await?;
    let taken = lyra.cli(["session", "open", "count", "--name", "two"]).await?;
    assert!([2, 5].contains(&taken.code), "{taken:?}");
    let unknown = lyra.cli(["session", "open", "other"]).await?.expect(3)?;
    assert!(unknown.stderr.contains("\"other\""), "{}", unknown.stderr);
    for command in [["app", "get", "other"], ["app", "rm", "other"], ["session", "get", "other"]] {
        lyra.cli(command).await?.expect(3)?;
    }
    Ok(())
}

#[tokio::test]
async fn code_that_is_called_serves_sessions_each_with_a_memory_of_its_own() -> Result<()> {
    let lyra = server().await?;
    let folder = repository().join("examples/session-votes");
    lyra.cli(["deploy", &folder.display().to_string(), "--name", "votes"]).await?.ok()?;
    let manifest = folder.join("application.yaml").display().to_string();
    lyra.cli(["app", "apply", "-f", &manifest]).await?.ok()?;
    let open = async |app: &str, name: &str| -> Result<Value> {
        lyra.cli(["session", "open", app, "--name", name, "--wait", "60s", "-o", "json"]).await?.json()
    };
    let (lunch, dinner) = (open("votes", "lunch").await?, open("votes", "dinner").await?);
    let http = lyra.http()?;
    let vote = async |url: String| -> Result<Value> { Ok(http.post(url).send().await?.json().await?) };
    assert_eq!(vote(format!("{}/s/default/lunch/pizza", lyra.url())).await?["votes"], json!({"pizza": 1}));
    let voted = vote(format!("http://{}/pizza", endpoint(&lunch)?)).await?;
    assert_eq!(voted, json!({"poll": "lunch", "votes": {"pizza": 2}}));
    let other = vote(format!("http://{}/soup", endpoint(&dinner)?)).await?;
    assert_eq!(other, json!({"poll": "dinner", "votes": {"soup": 1}}));
    let wrong = http.post(format!("{}/s/default/lunch/NOT%20A%20WORD", lyra.url())).send().await?;
    assert_eq!(wrong.status().as_u16(), 400);
    // What goes on for longer than it may ends its session.
    std::fs::write(
        lyra.scratch().join("spin.js"),
        "export default (event) => { if (event.rawPath === '/spin') for (;;); }",
    )?;
    lyra.cli(["deploy", "spin.js", "--timeout", "300ms"]).await?.ok()?;
    let text = std::fs::read_to_string(&manifest)?;
    let spin = text.replace("name: votes", "name: spin").replace("function: votes", "function: spin");
    lyra.commands().run_with_input(["app", "apply", "-f", "-"], spin.as_bytes()).await?.ok()?;
    open("spin", "spun").await?;
    assert_ne!(http.get(format!("{}/s/default/spun/spin", lyra.url())).send().await?.status().as_u16(), 200);
    lyra.commands().until_shown(&["session", "get", "spun"], "exited with status 1").await?;
    // A component streams, and what can't be is said.
    let wasm = repository().join("examples/wasm-http-hello").display().to_string();
    lyra.cli(["deploy", &wasm, "--name", "web"]).await?.ok()?;
    let web = text.replace("name: votes", "name: web").replace("function: votes", "function: web");
    lyra.commands().run_with_input(["app", "apply", "-f", "-"], web.as_bytes()).await?.ok()?;
    open("web", "hello").await?;
    let said = http.get(format!("{}/s/default/hello/hello/Ada", lyra.url())).send().await?.text().await?;
    assert_eq!(said, "Hello, Ada!\n");
    let served =
        web.replace("name: web", "name: served").replace("spec:\n", "spec:\n  usingNodeSessionService: true\n");
    lyra.commands().run_with_input(["app", "apply", "-f", "-"], served.as_bytes()).await?.ok()?;
    let shown = ["app", "get", "served", "-o", "json"];
    lyra.commands().until_shown(&shown, "RuntimeNotSupported").await?;
    assert_eq!(lyra.cli(["session", "close", "lunch"]).await?.ok()?, "session lunch closed\n");
    Ok(())
}

#[tokio::test]
async fn a_session_that_can_not_be_open_in_time_is_exit_code_6() -> Result<()> {
    let lyra = with_count().await?;
    let text = std::fs::read_to_string(example("application.yaml"))?;
    let lost = text.replace("name: count", "name: lost").replace("function: session-count", "function: not-there");
    lyra.commands().run_with_input(["app", "apply", "-f", "-"], lost.as_bytes()).await?.ok()?;
    let late = lyra.cli(["session", "open", "lost", "--name", "late", "--wait", "1s"]).await?.expect(6)?;
    assert!(late.stderr.contains("session late was not open in time") && late.stderr.contains("not-there"), "{late:?}");
    lyra.commands().until_shown(&["session", "get", "late"], "Timeout").await?;
    Ok(())
}

#[tokio::test]
async fn a_manifest_that_is_not_valid_names_the_field_and_changes_nothing() -> Result<()> {
    let lyra = server().await?;
    let good = std::fs::read_to_string(example("application.yaml"))?;
    let apply = async |text: &str| -> Result<Output> {
        lyra.commands().run_with_input(["app", "apply", "-f", "-"], text.as_bytes()).await
    };
    for (text, field) in [
        (good.replace("maximumInstance: 4", "maximumInstance: 0"), "spec.scalingPolicy.maximumInstance"),
        (good.replace("burst: 2", "brust: 2"), "brust"),
        (good.replace("kind: Application", "kind: Pod"), "kind: must be Application"),
        (good.replace("  name: count\n", "  namespace: default\n"), "metadata.name"),
        (good.replace("  name: count\n", "  name: count\n  namespace: other\n"), "metadata.namespace"),
        (format!("{good}---\n{}", good.replace("burst: 2", "burst: two").replace("name: count", "name: b")), "burst"),
    ] {
        let refused = apply(&text).await?.expect(2)?;
        assert!(refused.stderr.contains(field), "{field}: {}", refused.stderr);
        assert_eq!(lyra.cli(["app", "ls", "-q"]).await?.ok()?, "", "{field}");
    }
    let looked = lyra.cli(["app", "apply", "-f", &example("application.yaml"), "--dry-run"]).await?.ok()?;
    assert_eq!(looked, "application count created (only looked)\n");
    assert_eq!(lyra.cli(["app", "ls", "-q"]).await?.ok()?, "");
    let missing = lyra.cli(["app", "apply", "-f", "not-there.yaml"]).await?.expect(2)?;
    assert!(missing.stderr.contains("not-there.yaml can't be read"), "{}", missing.stderr);
    Ok(())
}

#[tokio::test]
async fn documents_of_both_kinds_are_applied_in_order() -> Result<()> {
    let lyra = server().await?;
    lyra.cli(["deploy", &example(""), "--name", "session-count", "--runtime", "http"]).await?.ok()?;
    let app = std::fs::read_to_string(example("application.yaml"))?;
    let session = json!({"apiVersion": "lyra.dev/v1", "kind": "ApplicationSession", "metadata": {"name": "room"},
        "spec": {"applicationName": "count", "openTimeoutSeconds": 60}});
    std::fs::write(lyra.scratch().join("both.yaml"), format!("{app}---\n{session}\n"))?;
    let applied = lyra.cli(["app", "apply", "-f", "both.yaml"]).await?.ok()?;
    assert_eq!(applied, "application count created\nsession room created\n");
    let again = lyra.cli(["app", "apply", "-f", "both.yaml", "-o", "json"]).await?.json()?;
    assert_eq!(again["items"][1]["metadata"]["name"], "room");
    lyra.commands().until_shown(&["session", "get", "room"], "Available").await?;
    lyra.cli(["session", "close", "room", "--wait", "0s"]).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn a_connection_to_a_session_goes_on_while_lyra_is_killed_and_started_again() -> Result<()> {
    let mut lyra = with_count().await?;
    let session = open(&lyra, "one").await?;
    let mut connection = TcpStream::connect(endpoint(&session)?).await?;
    assert_eq!(visit(&mut connection).await?, "one: visit 1\n");
    lyra.kill().await?;
    assert_eq!(visit(&mut connection).await?, "one: visit 2\n", "nothing of Lyra runs but the session");
    lyra.restart().await?;
    assert_eq!(visit(&mut connection).await?, "one: visit 3\n");
    lyra.commands().until_shown(&["session", "get", "one"], "Available").await?;
    let after = lyra.cli(["session", "get", "one", "-o", "json"]).await?.json()?;
    for field in ["instance", "accessEndPoints", "availableTimeMicro"] {
        assert_eq!(after["status"][field], session["status"][field], "{field}");
    }
    let url = format!("{}/s/default/one/", lyra.url());
    // A gateway that has just begun says that it does not know its sessions yet.
    let answer = loop {
        let answer = lyra.http()?.get(&url).send().await?;
        if answer.status() != 503 {
            break answer.text().await?;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(answer, "one: visit 4\n");
    lyra.cli(["session", "close", "one"]).await?.ok()?;
    assert_eq!(connection.read(&mut [0; 16]).await.unwrap_or(0), 0, "its connections ended with it");
    Ok(())
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_wrong_usage() -> Result<()> {
    let wrong: &[&[&str]] = &[
        &["session", "get", "../applications"],
        &["session", "open", "A"],
        &["session", "open", "a", "--wait", "10"],
        &["session", "ls", "--application", "a,b"],
        &["app", "get", ""],
        &["app", "apply"],
    ];
    for args in wrong {
        alone().run(*args).await?.expect(2)?;
    }
    Ok(())
}

/// An instance as `lyra worker instances` shows it, that `wanted` says is the one, once there is one.
async fn instance(lyra: &Lyra, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    for _ in 0..600 {
        let listed = lyra.cli(["worker", "instances", "-o", "json"]).await?.json()?;
        if let Some(found) = listed["items"].as_array().into_iter().flatten().find(|of| wanted(of)) {
            return Ok(found.clone());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    anyhow::bail!("no instance: {what}")
}

#[tokio::test]
async fn an_operator_hibernates_wakes_and_ends_a_standing_instance_but_none_with_a_session() -> Result<()> {
    let lyra = with_count().await?;
    let stands = |of: &Value| of["application"] == "count@1" && of["state"] == "standby";
    let id = instance(&lyra, "one that stands", stands).await?["id"].as_str().context("an id")?.to_owned();
    let state = async |wanted: &str| instance(&lyra, wanted, |of| of["id"] == *id && of["state"] == wanted).await;
    lyra.cli(["worker", "hibernate", "local", &id]).await?.ok()?;
    state("hibernated").await?;
    lyra.cli(["worker", "hibernate", "local", &id]).await?.ok()?;
    lyra.cli(["worker", "activate", "local", &id]).await?.ok()?;
    state("standby").await?;

    let session = open(&lyra, "one").await?;
    let busy = instance(&lyra, "one with a session", |of| of["session"] == "one").await?;
    assert_eq!(
        (&busy["state"], &busy["application"], &busy["id"]),
        (&json!("active"), &json!("count@1"), &session["status"]["instance"])
    );
    let busy = busy["id"].as_str().context("an id")?;
    for verb in ["terminate", "hibernate", "activate"] {
        let refused = lyra.cli(["worker", verb, "local", busy]).await?;
        assert!(refused.code == 2 && refused.stderr.contains("serves a session"), "{verb}: {refused:?}");
    }
    let shown = lyra.cli(["worker", "instances"]).await?.ok()?;
    assert!(shown.lines().next().is_some_and(|header| header.trim_end().ends_with("APPLICATION  SESSION")), "{shown}");

    // Another one takes the place of what is ended.
    let idle = instance(&lyra, "another that stands", stands).await?["id"].as_str().context("an id")?.to_owned();
    lyra.cli(["worker", "terminate", "local", &idle]).await?.ok()?;
    lyra.cli(["worker", "terminate", "local", &idle]).await?.expect(3)?;
    instance(&lyra, "one in its place", |of| stands(of) && of["id"] != *idle).await?;
    assert_eq!(
        lyra.http()?.get(format!("{}/s/default/one/", lyra.url())).send().await?.text().await?,
        "one: visit 1\n"
    );
    Ok(())
}
