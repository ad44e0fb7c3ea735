//! Applications whose instances are processes, and sessions in them, reached at their endpoints.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lyra_types::resources::{HttpGetAction, PortRef, Probe};
use lyra_wire::sessions::{AppConfig, AppVersion, SessionCommand, SessionEnd, SessionPhase, SessionReport};
use lyra_wire::worker::InstanceState;
use lyra_worker::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::leader::Leader;
use crate::site::{Running, Site, session};

/// Answers over HTTP what it can read, says whether it is well, ends when it is told to.
const PROGRAM: &str = r#"#!/usr/bin/env python3
import http.server, os
well = True
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        global well
        if self.path == "/exit": os._exit(3)
        if self.path == "/sick": well = False
        status = 500 if self.path == "/healthz" and not well else 200
        content = b""
        for name in ("session.json", "config/mode"):
            path = os.path.join(os.environ["LYRA_SESSION_DIR"], name)
            if os.path.exists(path): content += open(path, "rb").read()
        self.send_response(status); self.end_headers(); self.wfile.write(content)
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// Takes part in the session protocol: one client joins each session at once.
const ATTACHED: &str = r#"#!/usr/bin/env python3
import http.client, json, os, threading, time
host, port = os.environ["LYRA_SESSION_ADDRESS"].rsplit(":", 1)
def say(message):
    connection = http.client.HTTPConnection(host, int(port))
    connection.request("POST", "/v1/session/state", json.dumps(message))
    connection.getresponse().read()
def stream():
    connection = http.client.HTTPConnection(host, int(port))
    connection.request("GET", "/v1/session/stream")
    for line in connection.getresponse():
        message = json.loads(line)
        if "open" in message:
            if "refuse" in str(message["open"]["data"]): say({"state": {"phase": "failed", "reason": "not today"}}); continue
            say({"state": {"phase": "open"}})
            say({"clients": {"joined": ["anna"]}})
        if "ping" in message: say({"pong": {"number": message["ping"]["number"]}})
        if "close" in message: say({"state": {"phase": "closed"}})
while True:
    try: stream()
    except OSError: time.sleep(0.05)
"#;

pub(crate) fn config() -> Config {
    let mut config = Config::default();
    // Beside whatever else runs on this machine.
    config.sessions.ports = "21000-28999".parse().expect("a range");
    config
}

fn is_open(session: &SessionReport) -> bool {
    session.phase == SessionPhase::Open
}

fn is_closed(session: &SessionReport) -> bool {
    session.phase == SessionPhase::Closed
}

async fn open(leader: &Leader, app: &Arc<AppVersion>, uid: &str, data: &str) -> SessionReport {
    let mut open = session(app, uid, 0);
    (open.timeout, open.data) = (Duration::from_secs(60), data.to_owned());
    leader.order(SessionCommand::Open(Box::new(open))).await.expect("it is accepted");
    leader.session(uid, |session| is_open(session) || is_closed(session)).await
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn nothing_is_left(running: &Running) {
    running.leader.until("nothing is left", |told| told.hosted.is_empty()).await;
    assert_eq!(running.charged(), (0, 0));
}

/// Serves one session after the other, and says hello and goodbye in each, the goodbye at the last moment and without an end of line.
const TALKATIVE: &str = r#"#!/usr/bin/env python3
import http.client, json, os, sys, time
host, port = os.environ["LYRA_SESSION_ADDRESS"].rsplit(":", 1)
def say(message):
    connection = http.client.HTTPConnection(host, int(port))
    connection.request("POST", "/v1/session/state", json.dumps(message))
    connection.getresponse().read()
def write(text):
    sys.stdout.write(text); sys.stdout.flush()
write("ready for all\n")
def stream():
    connection = http.client.HTTPConnection(host, int(port))
    connection.request("GET", "/v1/session/stream")
    for line in connection.getresponse():
        message = json.loads(line)
        if "open" in message:
            name = message["open"]["session"]["name"]
            for i in range(200): write(f"{name} says {i}\n")
            say({"state": {"phase": "open"}})
        if "ping" in message: say({"pong": {"number": message["ping"]["number"]}})
        if "close" in message:
            write(f"{name} says goodbye")
            say({"state": {"phase": "closed"}})
while True:
    try: stream()
    except OSError: time.sleep(0.05)
"#;

#[tokio::test]
async fn a_second_session_in_an_instance_has_lines_of_its_own_to_the_last_one() {
    let site = Site::of_processes().await;
    let running = site.start_with(config()).await;
    let mut app = site.program("web", TALKATIVE).await;
    app.service = true;
    let (leader, app) = (&running.leader, Arc::new(app));
    leader.order(SessionCommand::Stand(app.clone(), 1)).await.expect("it is stored");
    leader.until("one stands", |told| told.instances(InstanceState::Standby) == 1).await;
    for uid in ["a", "b", "c"] {
        let mut open = session(&app, uid, 1);
        (open.timeout, open.reuse) = (Duration::from_secs(60), true);
        leader.order(SessionCommand::Open(Box::new(open))).await.expect("it is accepted");
        let opened = leader.session(uid, |session| is_open(session) || is_closed(session)).await;
        assert!(is_open(&opened), "{opened:?}");
        leader.order(SessionCommand::Close(uid.into(), Duration::from_secs(30))).await.expect("it is closed");
        leader.session(uid, is_closed).await;
        leader.until("it stands again", |told| told.instances(InstanceState::Standby) >= 1).await;
    }
    let told = leader.told();
    assert_eq!(told.sessions["a"].instance, told.sessions["b"].instance, "it served both");
    let lines = site.logs.lines();
    for (uid, name) in [("a", "s-a"), ("b", "s-b"), ("c", "s-c")] {
        let own: Vec<&str> = lines
            .iter()
            .filter(|line| line.session().is_some_and(|of| of.uid == uid && of.name == name))
            .map(|line| line.message.as_str())
            .collect();
        let said = (0..200).map(|i| format!("{name} says {i}")).chain([format!("{name} says goodbye")]);
        assert_eq!(own, said.collect::<Vec<_>>());
    }
    let none: Vec<&str> =
        lines.iter().filter(|line| line.session().is_none()).map(|line| line.message.as_str()).collect();
    assert!(none.iter().all(|line| *line == "ready for all") && !none.is_empty(), "{none:?}");
}

#[tokio::test]
async fn a_session_is_reached_at_its_endpoint_until_it_is_closed() {
    let site = Site::of_processes().await;
    let running = site.start_with(config()).await;
    let mut app = site.program("web", PROGRAM).await;
    let files = [("config/mode".to_owned(), "easy".to_owned())].into();
    app.config = Arc::new(AppConfig { revision: 1, files });
    let (leader, app) = (&running.leader, Arc::new(app));
    let opened = open(leader, &app, "a", "deck of cards").await;
    assert!(is_open(&opened), "{opened:?}");
    let address = opened.endpoints[0].address;
    let answer = get(address, "/").await.expect("an answer");
    assert!(answer.contains("deck of cards") && answer.contains("\"s-a\"") && answer.ends_with("easy"), "{answer}");
    let files = [("config/mode".to_owned(), "hard".to_owned())].into();
    let (tenant, uid) = (app.key.tenant.clone(), app.key.uid.clone());
    let config = Arc::new(AppConfig { revision: 2, files });
    leader.order(SessionCommand::Configure { tenant, uid, config }).await.expect("it is stored");
    while !get(address, "/").await.expect("an answer").ends_with("hard") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    leader.order(SessionCommand::Close("a".into(), Duration::from_secs(30))).await.expect("it is closed");
    let closed = leader.session("a", is_closed).await;
    assert_eq!(closed.end.expect("it has ended").0, SessionEnd::Closed);
    assert_eq!(TcpStream::connect(address).await.expect_err("nobody listens").kind(), ErrorKind::ConnectionRefused);
    nothing_is_left(&running).await;
    running.stop().await;
}

#[tokio::test]
async fn probes_decide_who_gets_a_session_and_who_is_replaced() {
    let site = Site::of_processes().await;
    let running = site.start_with(config()).await;
    let get_healthz =
        HttpGetAction { path: "/healthz".into(), port: PortRef::Name("web".into()), http_headers: vec![] };
    let probe = Probe { http_get: Some(get_healthz), period_seconds: 1, timeout_seconds: 10, ..Probe::default() };
    let mut app = site.program("web", PROGRAM).await;
    (app.readiness, app.liveness) = (Some(probe.clone()), Some(probe));
    let (leader, app) = (&running.leader, Arc::new(app));
    let first = open(leader, &app, "a", "").await;
    get(first.endpoints[0].address, "/sick").await.expect("an answer");
    let lost = leader.session("a", is_closed).await;
    assert_eq!(lost.end.expect("it has ended").0, SessionEnd::InstanceLost);
    let second = open(leader, &app, "b", "").await;
    assert!(is_open(&second) && second.instance != first.instance);
    drop(get(second.endpoints[0].address, "/exit").await);
    let ended = leader.session("b", is_closed).await;
    let (end, detail) = ended.end.expect("it has ended");
    assert!(end == SessionEnd::InstanceLost && detail.contains("status 3"), "{end:?}: {detail}");
    nothing_is_left(&running).await;
    running.stop().await;
}

#[tokio::test]
async fn a_program_of_the_session_service_says_itself_when_its_session_is_open() {
    let site = Site::of_processes().await;
    let running = site.start_with(config()).await;
    let mut app = site.program("attached", ATTACHED).await;
    (app.service, app.ports) = (true, Vec::new());
    let (leader, app) = (&running.leader, Arc::new(app));
    leader.order(SessionCommand::Stand(app.clone(), 1)).await.expect("it stands");
    leader.until("one stands", |told| told.instances(InstanceState::Standby) == 1).await;
    let mut again = session(&app, "a", 1);
    (again.reuse, again.timeout) = (true, Duration::from_secs(60));
    leader.order(SessionCommand::Open(Box::new(again))).await.expect("it is accepted");
    let used = leader.session("a", |session| is_closed(session) || session.clients == ["anna"]).await;
    assert!(is_open(&used), "{used:?}");
    leader.order(SessionCommand::Close("a".into(), Duration::from_secs(30))).await.expect("it is closed");
    assert_eq!(leader.session("a", is_closed).await.end.expect("it has ended").0, SessionEnd::Closed);
    let instance = used.instance.expect("it had an instance");
    leader
        .until("it stands again", |told| {
            told.hosted.get(&instance).is_some_and(|of| of.state == InstanceState::Standby && of.session.is_none())
        })
        .await;
    let refused = open(leader, &app, "b", "refuse").await;
    let (end, detail) = refused.end.expect("it has ended");
    assert!(end == SessionEnd::Refused && detail.contains("not today"), "{end:?}: {detail}");
    nothing_is_left(&running).await;
    running.stop().await;
}
