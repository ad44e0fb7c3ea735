//! Sessions where roles are processes of their own: what stays when one of them is killed.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_testkit::Cluster;
use lyra_testkit::control::leader;
use lyra_testkit::engines::{Etcd, Nats};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Answers each byte with the next one.
const PROGRAM: &str = "#!/usr/bin/python3
import os, socket, threading
listener = socket.create_server(('0.0.0.0', int(os.environ['PORT'])))
def serve(client):
    while data := client.recv(1):
        client.sendall(bytes([data[0] + 1]))
while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
";
const APPLICATION: &str = "apiVersion: lyra.dev/v1
kind: Application
metadata: {name: next}
spec:
  scalingPolicy: {maximumInstance: 50, burst: 10, scalingPolicyType: idle_session_number, idleSessionNumThreshold: {low: 6, high: 8}}
  containers: [{name: main, function: next, ports: [{containerPort: 8080, name: main}], resources: {limits: {memory: 64Mi}}}]
";

async fn apply(cluster: &Cluster) -> Result<()> {
    let scratch = cluster.scratch();
    std::fs::create_dir(scratch.join("next"))?;
    let program = scratch.join("next/bootstrap");
    std::fs::write(&program, PROGRAM)?;
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::write(scratch.join("app.yaml"), APPLICATION)?;
    let lyra = cluster.commands();
    lyra.run(["deploy", "next", "--name", "next", "--runtime", "http"]).await?.ok()?;
    lyra.run(["app", "apply", "-f", "app.yaml"]).await?.ok()?;
    // Enough for all that a test opens: on a busy machine starts take long, and that is not what is tested.
    let stand = async {
        loop {
            let shown = lyra.run(["app", "get", "next", "-o", "json"]).await?.ok()?;
            let app: Value = serde_json::from_str(&shown)?;
            if app["status"]["idleInstances"].as_u64() >= Some(6) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), stand).await.context("no instances stand")?
}

async fn open(cluster: &Cluster, name: &str) -> Result<Value> {
    let command = ["session", "open", "next", "--name", name, "--wait", "30s", "-o", "json"];
    Ok(serde_json::from_str(&cluster.commands().run(command).await?.ok()?)?)
}

async fn get(cluster: &Cluster, name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.commands().run(["session", "get", name, "-o", "json"]).await?.ok()?)?)
}

async fn connect(session: &Value) -> Result<TcpStream> {
    let endpoint = &session["status"]["accessEndPoints"][0];
    let ip = endpoint["ipAddress"].as_str().context("no address")?;
    let port = u16::try_from(endpoint["port"].as_u64().context("no port")?)?;
    Ok(TcpStream::connect((ip, port)).await?)
}

async fn exchange(connection: &mut TcpStream, byte: u8) -> Result<()> {
    connection.write_all(&[byte]).await?;
    let mut answer = [0];
    let read = tokio::time::timeout(Duration::from_secs(30), connection.read_exact(&mut answer)).await?;
    read?;
    ensure!(answer[0] == byte + 1, "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_killed_costs_no_session_and_opens_go_on() -> Result<()> {
    let (etcd, nats) = tokio::try_join!(Etcd::start(), Nats::start())?;
    let (store, jobs) = (format!("etcd://{}", etcd.address()), format!("nats://{}", nats.address()));
    let mut cluster = Cluster::start_many(2, 2, &["--store", &store, "--jobs", &jobs]).await?;
    apply(&cluster).await?;
    let mut connections = Vec::new();
    let mut before = Vec::new();
    for number in 0..4 {
        let session = open(&cluster, &format!("s{number}")).await?;
        connections.push(connect(&session).await?);
        before.push(session);
    }
    let (first, _) = leader(&cluster.client()?, "").await?;
    cluster.kill(&first).await?;
    let late = open(&cluster, "late").await?;
    exchange(&mut connect(&late).await?, 1).await?;
    for (number, (session, connection)) in before.iter().zip(&mut connections).enumerate() {
        exchange(connection, 7).await?;
        let now = get(&cluster, &format!("s{number}")).await?;
        assert_eq!(now["status"]["instance"], session["status"]["instance"]);
        assert_eq!(now["status"]["sessionStatus"], "Available");
        assert_ne!(now["status"]["instance"], late["status"]["instance"]);
    }
    cluster.restart(&first).await?;
    cluster.commands().run(["session", "close", "s0"]).await?.ok()?;
    ensure!(connect(&before[0]).await.is_err() || exchange(&mut connections[0], 1).await.is_err(), "it is closed");
    Ok(())
}

#[tokio::test]
async fn sessions_and_their_connections_outlive_the_process_of_their_worker() -> Result<()> {
    let mut cluster = Cluster::start(1, &[]).await?;
    apply(&cluster).await?;
    let session = open(&cluster, "one").await?;
    let mut connection = connect(&session).await?;
    exchange(&mut connection, 1).await?;
    cluster.kill("w1").await?;
    exchange(&mut connection, 2).await?;
    cluster.restart("w1").await?;
    exchange(&mut connection, 3).await?;
    let second = open(&cluster, "two").await?;
    exchange(&mut connect(&second).await?, 4).await?;
    let now = get(&cluster, "one").await?;
    assert_eq!(now["status"]["instance"], session["status"]["instance"]);
    assert_eq!(now["status"]["sessionStatus"], "Available");
    cluster.commands().run(["app", "rm", "next"]).await?.ok()?;
    ensure!(exchange(&mut connection, 5).await.is_err(), "its instance is gone");
    Ok(())
}

const GREETER: &str = "apiVersion: lyra.dev/v1
kind: Application
metadata: {name: greeter}
spec:
  scalingPolicy: {maximumInstance: 900, burst: 200, scalingPolicyType: idle_session_number, idleSessionNumThreshold: {low: 30, high: 40}}
  containers: [{name: main, function: greeter, ports: [{containerPort: 8080, name: main}], resources: {limits: {memory: 32Mi}}}]
";
/// Opens a second, and how many there are.
const RATE: u32 = 100;
const OPENS: usize = 600;
/// The leader is killed when so many have begun.
const KILLED_AT: usize = 200;

/// A client of the resource API that tries again, as long as an answer says that another try may help.
#[derive(Clone)]
struct Opener {
    http: reqwest::Client,
    sessions: String,
}

impl Opener {
    /// Asks until there is an answer that no other try changes; its status and body.
    async fn ask(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let asked = async {
            loop {
                let mut request = self.http.request(method.clone(), format!("{}{path}", self.sessions));
                if let Some(body) = body {
                    request = request.json(body);
                }
                if let Ok(answer) = request.send().await {
                    let status = answer.status().as_u16();
                    if status < 500 && status != 429 {
                        return (status, answer.json().await.unwrap_or_default());
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), asked)
            .await
            .with_context(|| format!("no answer to {method} {path}"))
    }

    /// Opens a session; the session once it is available.
    async fn open(&self, name: &str) -> Result<Value> {
        let body = json!({
            "apiVersion": "lyra.dev/v1", "kind": "ApplicationSession", "metadata": {"name": name},
            "spec": {"applicationName": "greeter", "closeGracePeriodSeconds": 0, "killInstanceWhenSessionClosed": true},
        });
        // One whose answer was lost is there already.
        let (status, made) = self.ask(reqwest::Method::POST, "", Some(&body)).await?;
        ensure!(matches!(status, 201 | 409), "{name}: {status} {made}");
        for _ in 0..600 {
            let (status, session) = self.ask(reqwest::Method::GET, &format!("/{name}"), None).await?;
            ensure!(status == 200, "{name} was accepted and is not there: {status} {session}");
            if session["status"]["sessionStatus"] == "Available" {
                return Ok(session);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("{name} is not available")
    }

    async fn greeted(&self, session: &Value) -> Result<()> {
        let endpoint = &session["status"]["accessEndPoints"][0];
        let url = format!("http://{}:{}/", endpoint["ipAddress"].as_str().context("no address")?, endpoint["port"]);
        let said = self.http.get(url).send().await?.text().await?;
        ensure!(said == "\"hello\"", "{said}");
        Ok(())
    }

    /// Opens a session, looks whether it serves, and closes it; its instance.
    async fn visit(self, name: String) -> Result<String> {
        let session = self.open(&name).await?;
        self.greeted(&session).await.with_context(|| format!("{name} does not serve: {session}"))?;
        let (status, closed) = self.ask(reqwest::Method::DELETE, &format!("/{name}"), None).await?;
        ensure!(matches!(status, 200 | 202 | 404), "{name}: {status} {closed}");
        Ok(session["status"]["instance"].to_string())
    }
}

#[tokio::test]
async fn a_hundred_opens_a_second_go_on_when_the_leader_is_killed_and_no_instance_serves_two() -> Result<()> {
    let (etcd, nats) = tokio::try_join!(Etcd::start(), Nats::start())?;
    let (store, jobs) = (format!("etcd://{}", etcd.address()), format!("nats://{}", nats.address()));
    let mut cluster = Cluster::start_many(2, 2, &["--store", &store, "--jobs", &jobs]).await?;
    let (scratch, lyra) = (cluster.scratch(), cluster.commands());
    std::fs::write(scratch.join("greeter.js"), "export default () => 'hello';")?;
    std::fs::write(scratch.join("greeter.yaml"), GREETER)?;
    lyra.run(["deploy", "greeter.js"]).await?.ok()?;
    lyra.run(["app", "apply", "-f", "greeter.yaml"]).await?.ok()?;
    let sessions = format!("{}/apis/lyra.dev/v1/namespaces/default/applicationsessions", cluster.address("g1"));
    let opener = Opener { http: reqwest::Client::new(), sessions };
    let mut kept = Vec::new();
    for number in 0..10 {
        kept.push(opener.open(&format!("kept-{number}")).await?);
    }

    let (first, _) = leader(&cluster.client()?, "").await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut visits = Vec::new();
    for number in 0..OPENS {
        ticks.tick().await;
        if number == KILLED_AT {
            cluster.kill(&first).await?;
        }
        visits.push(lyra_kit::tasks::spawn("visit", opener.clone().visit(format!("visit-{number}"))));
    }
    let mut instances = BTreeSet::new();
    for visit in visits {
        let instance = visit.await??;
        ensure!(instances.insert(instance.clone()), "instance {instance} has served two sessions");
    }
    for before in &kept {
        let name = before["metadata"]["name"].as_str().context("no name")?;
        let (_, now) = opener.ask(reqwest::Method::GET, &format!("/{name}"), None).await?;
        assert_eq!(now["status"]["instance"], before["status"]["instance"]);
        assert_eq!(now["status"]["sessionStatus"], "Available");
        ensure!(!instances.contains(&now["status"]["instance"].to_string()), "{name} shares its instance");
        opener.greeted(&now).await?;
    }
    Ok(())
}
