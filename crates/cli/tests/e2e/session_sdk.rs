//! Programs with the session SDKs under `lyra up`: who is in a session, its configuration, and a new version beside open sessions.
//! Needs python3 and node.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lyra_testkit::Lyra;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::start::{repository, server};

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

/// Deploys an example of an SDK, with the SDK beside it.
async fn deploy(lyra: &Lyra, sdk: &str, folders: &[&str], start: &str) -> Result<()> {
    let (from, package) = (repository().join("sdk").join(sdk), lyra.scratch().join(sdk));
    for folder in folders {
        copy(&from.join(folder), &package.join(folder))?;
    }
    fs::write(package.join("bootstrap"), format!("#!/bin/sh\nexec {start}\n"))?;
    lyra.cli(["deploy", sdk, "--name", sdk, "--runtime", "http"]).await?.ok()?;
    Ok(())
}

async fn apply(lyra: &Lyra, function: &str, most: u32, env: &Value) -> Result<()> {
    let manifest = json!({
        "apiVersion": "lyra.dev/v1", "kind": "Application", "metadata": {"name": "app"},
        "spec": {
            "usingNodeSessionService": true,
            "configData": {"most": most.to_string()},
            "containers": [{"name": "main", "function": function, "env": env, "ports": [{"containerPort": 8080}]}],
            "scalingPolicy": {"maximumInstance": 4, "scalingPolicyType": "idle_session_number",
                "idleSessionNumThreshold": {"low": 1, "high": 1}},
        },
    });
    fs::write(lyra.scratch().join("app.json"), manifest.to_string())?;
    lyra.cli(["app", "apply", "-f", "app.json"]).await?.ok()?;
    Ok(())
}

async fn open(lyra: &Lyra, name: &str, data: &str) -> Result<Value> {
    let open = ["session", "open", "app", "--name", name, "--data", data, "--wait", "60s", "-o", "json"];
    lyra.cli(open).await?.json()
}

async fn get(lyra: &Lyra, name: &str) -> Result<Value> {
    lyra.cli(["session", "get", name, "-o", "json"]).await?.json()
}

/// A client of the counter.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn join(session: &Value) -> Result<Client> {
        let at = &session["status"]["accessEndPoints"][0];
        let address = format!("{}:{}", at["ipAddress"].as_str().context("an address")?, at["port"]);
        Ok(Client(BufReader::new(TcpStream::connect(address).await?)))
    }

    async fn read(&mut self) -> Result<i64> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line).await? > 0, "the connection ended");
        Ok(line.trim().parse()?)
    }

    async fn add(&mut self, step: i64) -> Result<i64> {
        self.0.write_all(format!("{step}\n").as_bytes()).await?;
        self.read().await
    }
}

#[tokio::test]
async fn a_program_with_the_sdk_for_python_says_who_is_there_and_follows_its_configuration() -> Result<()> {
    let lyra = server().await?;
    deploy(&lyra, "python", &["src", "examples"], "python3 \"$(dirname \"$0\")/examples/counter/server.py\"").await?;
    apply(&lyra, "python", 5, &json!([])).await?;
    let session = open(&lyra, "a", "10").await?;
    assert_eq!(session["status"]["sessionStatus"], "Available");
    let mut client = Client::join(&session).await?;
    assert_eq!(client.read().await?, 10, "its data");
    assert_eq!(client.add(100).await?, 15, "its configuration");
    lyra.commands().until_shown(&["session", "get", "a"], "InUse").await?;
    assert_eq!(get(&lyra, "a").await?["status"]["clientSessions"], json!([{"name": "client-1"}]));

    apply(&lyra, "python", 50, &json!([])).await?;
    let mut value = 15;
    loop {
        let next = client.add(100).await?;
        let step = next - value;
        value = next;
        if step == 50 {
            break;
        }
        assert_eq!(step, 5);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(get(&lyra, "a").await?["status"]["applicationVersion"], 1, "no new version for that");
    drop(client);
    lyra.commands().until_shown(&["session", "get", "a"], "Available").await?;

    // Another version for what runs: open sessions stay on theirs.
    apply(&lyra, "python", 50, &json!([{"name": "LEVEL", "value": "2"}])).await?;
    lyra.commands().until_shown(&["app", "get", "app", "-o", "json"], "\"version\":2,").await?;
    let other = open(&lyra, "b", "0").await?;
    assert_eq!(other["status"]["applicationVersion"], 2);
    assert_eq!(get(&lyra, "a").await?["status"]["applicationVersion"], 1);
    assert_eq!(Client::join(&session).await?.read().await?, value, "it goes on");
    lyra.cli(["session", "close", "a"]).await?.ok()?;
    assert_eq!(Client::join(&other).await?.read().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_program_with_the_sdk_for_node_serves_a_session_by_its_port_and_by_its_path() -> Result<()> {
    let lyra = server().await?;
    fs::create_dir_all(lyra.scratch().join("nodejs"))?;
    fs::copy(repository().join("sdk/nodejs/package.json"), lyra.scratch().join("nodejs/package.json"))?;
    deploy(&lyra, "nodejs", &["lib", "examples"], "node \"$(dirname \"$0\")/examples/chat/server.js\"").await?;
    apply(&lyra, "nodejs", 5, &json!([])).await?;
    open(&lyra, "a", "the room").await?;
    let page = lyra.http()?.get(format!("{}/s/default/a/", lyra.url())).send().await?.error_for_status()?;
    assert!(page.text().await?.contains("WebSocket"), "the page of the chat");
    lyra.cli(["session", "close", "a"]).await?.ok()?;
    Ok(())
}
