//! `sessions`: how long it takes from the request that opens a session to the first byte from its endpoint: with instances that
//! stand ready at 100 opens a second, with none, and with as many opens as there can be. Latency is taken at the endpoint,
//! by a client that learns of it from a watch, as clients do.
//!
//! The program is a compiled one that greets whoever connects: what is measured is the platform. Needs a C compiler (`cc`).
//! As many opens as there can be are also measured with instances that serve one session after the other, and with a handler
//! in JavaScript, which has no process: what is left then is what control, worker and gateway take.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use lyra_kit::Clock;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Bench;
use super::client::Client;
use super::lyra::Data;
use super::report::{Record, percentile};

const NAME: &str = "sessions";
const SESSIONS: &str = "/apis/lyra.dev/v1/namespaces/default/applicationsessions";
const APPLICATIONS: &str = "/apis/lyra.dev/v1/namespaces/default/applications";
/// Longest wait for a session.
const PATIENCE: Duration = Duration::from_secs(30);
/// Opens a second with instances that stand ready.
const RATE: u32 = 100;
/// Sessions that are opened one after the other without any.
const COLDS: usize = 100;
/// Clients that open and close as fast as they can.
const CLIENTS: usize = 32;

const PROGRAM: &str = r#"
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 16)) return 1;
    for (;;) {
        int client = accept(listener, 0, 0);
        if (client >= 0 && write(client, "hello\n", 6) == 6) close(client);
    }
}
"#;

const GREETER: &str = "export default () => 'hello';";

/// What an application is made of.
struct Application {
    name: &'static str,
    function: &'static str,
    /// Instances that are kept standing.
    standing: u32,
    /// Instances that may stand besides.
    spare: u32,
    /// Whether an instance ends with its session.
    ends: bool,
    /// What a client says before it hears anything.
    says: &'static [u8],
}

const WARM: Application =
    Application { name: "warm", function: "hello", standing: RATE, spare: 0, ends: true, says: b"" };
const COLD: Application = Application { name: "cold", standing: 0, ..WARM };
// Those that come back stand besides those that were started meanwhile.
const REUSED: Application = Application { name: "reused", spare: RATE, ends: false, ..WARM };
const CALLED: Application =
    Application { name: "called", function: "greeter", says: b"GET / HTTP/1.1\r\nhost: lyra\r\n\r\n", ..WARM };

pub async fn run(bench: &Bench) -> anyhow::Result<Vec<Record>> {
    let data = Data::new()?;
    let server = data.start(&bench.lyra)?;
    deploy(&bench.lyra, server.address)?;
    let seconds = bench.seconds.max(10);
    let local = tokio::task::LocalSet::new();
    let measured = local.run_until(async {
        let site = Rc::new(Site::new(server.address).await?);
        let mut records = Vec::new();
        site.apply(&COLD).await?;
        records.push(record("lyra-cold", site.one_by_one(&COLD, COLDS).await?));
        site.apply(&WARM).await?;
        Clock::system().sleep(Duration::from_secs(5)).await;
        let before = server.processor_time()?;
        let began = Clock::system().instant();
        let took = Rc::clone(&site).at_rate(&WARM, RATE, seconds).await?;
        let cpu = (server.processor_time()? - before).as_secs_f64() / began.elapsed().as_secs_f64();
        records.push(record("lyra-warm-100/s", took).with_number("cpu", cpu));
        for (system, application) in [("lyra-most", &WARM), ("lyra-most-reused", &REUSED), ("lyra-most-js", &CALLED)] {
            if application.name != WARM.name {
                site.apply(application).await?;
            }
            let before = server.processor_time()?;
            let took = Rc::clone(&site).most(application, seconds).await?;
            let cpu = (server.processor_time()? - before).as_secs_f64() * 1e3 / took.len() as f64;
            let rps = took.len() as f64 / Duration::from_secs(seconds).as_secs_f64();
            let mut most = record(system, took).with_number("cpu_ms_per_open", cpu);
            (most.rps, most.rss_mb) = (Some(rps), Some(server.own_memory()?.rss_mb));
            records.push(most);
        }
        anyhow::Ok(records)
    });
    measured.await
}

/// Builds and deploys the programs.
fn deploy(lyra: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("lyra-bench-").tempdir()?;
    let (source, package) = (folder.path().join("hello.c"), folder.path().join("package"));
    std::fs::create_dir(&package)?;
    std::fs::write(&source, PROGRAM)?;
    let built = Command::new("cc").args(["-O2", "-o"]).arg(package.join("bootstrap")).arg(&source).status();
    anyhow::ensure!(built.context("a C compiler (cc) is needed")?.success(), "the program can't be compiled");
    let greeter = folder.path().join("greeter.js");
    std::fs::write(&greeter, GREETER)?;
    let url = format!("http://{address}");
    for (name, runtime, code) in [("hello", "http", &package), ("greeter", "js", &greeter)] {
        let mut command = Command::new(lyra);
        command.args(["deploy", "--quiet", "--name", name, "--runtime", runtime, "--url", &url]);
        let output = command.arg(code).output()?;
        anyhow::ensure!(output.status.success(), "lyra deploy: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// What a session took.
struct Took {
    /// Until the client knew that it is available.
    available: Duration,
    /// Until the first byte from its endpoint.
    first_byte: Duration,
}

/// Who waits for which session to be available.
type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<(Instant, SocketAddr)>>>>;

struct Site {
    address: SocketAddr,
    waiting: Waiting,
}

impl Site {
    async fn new(address: SocketAddr) -> anyhow::Result<Site> {
        let waiting = Waiting::default();
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        lyra_kit::tasks::spawn("watch connection", connection);
        let request = Request::get(format!("{SESSIONS}?watch=true")).header("host", address.to_string());
        let mut events = sender.send_request(request.body(Empty::<Bytes>::new())?).await?.into_body();
        let told = Arc::clone(&waiting);
        lyra_kit::tasks::spawn("watch", async move {
            let _open = sender;
            let mut rest = Vec::new();
            while let Some(Ok(frame)) = events.frame().await {
                rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    tell(&told, &line);
                }
            }
        });
        Ok(Site { address, waiting })
    }

    /// Makes an application of which so many instances stand.
    async fn apply(&self, application: &Application) -> anyhow::Result<()> {
        let Application { name, function, standing, spare, .. } = *application;
        let body = json!({
            "apiVersion": "lyra.dev/v1", "kind": "Application", "metadata": {"name": name},
            "spec": {
                "scalingPolicy": {"maximumInstance": 400, "burst": 200, "scalingPolicyType": "idle_session_number",
                    "idleSessionNumThreshold": {"low": standing, "high": standing + spare}},
                "containers": [{"name": "main", "function": function, "ports": [{"containerPort": 8080}],
                    "resources": {"limits": {"memory": "32Mi"}}}],
            },
        });
        let mut client = Client::connect(self.address).await?;
        client.send(Method::POST, APPLICATIONS, body.to_string()).await?.ok()?;
        let path = format!("{APPLICATIONS}/{name}");
        for _ in 0..600 {
            let object: Value = serde_json::from_slice(&client.send(Method::GET, &path, "").await?.ok()?.body)?;
            if object["status"]["version"] == 1 && object["status"]["idleInstances"].as_u64() >= Some(standing.into()) {
                return Ok(());
            }
            Clock::system().sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("application {name} did not get {standing} standing instances")
    }

    /// Opens a session, waits for its first byte, and closes it.
    async fn session(&self, client: &mut Client, application: &Application, name: &str) -> anyhow::Result<Took> {
        let body = json!({
            "apiVersion": "lyra.dev/v1", "kind": "ApplicationSession", "metadata": {"name": name},
            "spec": {"applicationName": application.name, "closeGracePeriodSeconds": 0, "killInstanceWhenSessionClosed": application.ends},
        });
        let (tell, told) = oneshot::channel();
        self.waiting.lock().insert(name.to_owned(), tell);
        let began = Clock::system().instant();
        client.send(Method::POST, SESSIONS, body.to_string()).await?.ok()?;
        let (known, endpoint) = tokio::time::timeout(PATIENCE, told).await.context("a session was not available")??;
        let mut stream = TcpStream::connect(endpoint).await?;
        stream.write_all(application.says).await?;
        anyhow::ensure!(stream.read(&mut [0; 6]).await? > 0, "the endpoint said nothing");
        let took = Took { available: known.saturating_duration_since(began), first_byte: began.elapsed() };
        client.send(Method::DELETE, &format!("{SESSIONS}/{name}"), "").await?.ok()?;
        Ok(took)
    }

    async fn one_by_one(&self, application: &Application, count: usize) -> anyhow::Result<Vec<Took>> {
        let mut client = Client::connect(self.address).await?;
        let mut took = Vec::new();
        for number in 0..count {
            took.push(self.session(&mut client, application, &format!("{}-{number}", application.name)).await?);
        }
        Ok(took)
    }

    /// Opens so many a second, however long each takes.
    async fn at_rate(
        self: Rc<Site>,
        application: &'static Application,
        rate: u32,
        seconds: u64,
    ) -> anyhow::Result<Vec<Took>> {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        let mut opens = Vec::new();
        for number in 0..u64::from(rate) * seconds {
            ticks.tick().await;
            let site = Rc::clone(&self);
            opens.push(tokio::task::spawn_local(async move {
                let mut client = Client::connect(site.address).await?;
                site.session(&mut client, application, &format!("rate-{number}")).await
            }));
        }
        let mut took = Vec::new();
        for open in opens {
            took.push(open.await??);
        }
        Ok(took)
    }

    /// Opens as many as there can be.
    async fn most(self: Rc<Site>, application: &'static Application, seconds: u64) -> anyhow::Result<Vec<Took>> {
        let until = Clock::system().instant() + Duration::from_secs(seconds);
        let clients = (0..CLIENTS).map(|client| {
            let site = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                let mut connection = Client::connect(site.address).await?;
                let mut took = Vec::new();
                while Clock::system().instant() < until {
                    let name = format!("{}-{client}-{}", application.name, took.len());
                    took.push(site.session(&mut connection, application, &name).await?);
                }
                anyhow::Ok(took)
            })
        });
        let mut all = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            all.extend(client.await??);
        }
        Ok(all)
    }
}

/// Tells who waits for the session that a watch event is about.
fn tell(waiting: &Waiting, line: &[u8]) {
    let now = Clock::system().instant();
    let Ok(event) = serde_json::from_slice::<Value>(line) else { return };
    let object = &event["object"];
    let endpoint = &object["status"]["accessEndPoints"][0];
    let (Some(ip), Some(port), Some(name)) =
        (endpoint["ipAddress"].as_str(), endpoint["port"].as_u64(), object["metadata"]["name"].as_str())
    else {
        return;
    };
    let Ok(address) = format!("{ip}:{port}").parse() else { return };
    if let Some(tell) = waiting.lock().remove(name) {
        // It may have given up.
        let _ = tell.send((now, address));
    }
}

fn record(system: &str, took: Vec<Took>) -> Record {
    let available = |share| percentile(took.iter().map(|took| took.available.as_secs_f64() * 1e6), share);
    let first_byte = |share| percentile(took.iter().map(|took| took.first_byte.as_secs_f64() * 1e6), share);
    let mut record = Record::new(NAME, system)
        .with("sessions", took.len())
        .with_number("available_p50_us", available(0.5))
        .with_number("available_p99_us", available(0.99));
    record.p50_us = Some(first_byte(0.5));
    record.p99_us = Some(first_byte(0.99));
    record
}
