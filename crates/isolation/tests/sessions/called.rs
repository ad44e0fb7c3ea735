//! Sessions of code that is called: `js` handlers and HTTP components.

use super::*;
use crate::component::{Fixture, HELLO, HOSTILE, WORDS};
use crate::js::Js;

/// Counts its calls, and does as the path says.
const COUNTS: &str = r#"
let calls = 0;
export default async (event) => {
  calls += 1;
  switch (event.rawPath) {
    case "/throw": throw new Error("as asked");
    case "/spin": for (;;) {}
    case "/hoard": { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); }
    case "/wait": { const before = calls; await new Promise((done) => setTimeout(done, 50)); return before === calls; }
    case "/log": console.log("a line"); return null;
    case "/teapot": return { statusCode: 418, headers: { "x-kind": "pot" }, body: "short and stout" };
    default: return { calls, session: event.session?.name, map: event.files["config/map"], body: event.body };
  }
};
"#;

fn called() -> Hosting {
    let files = [("session.json", r#"{"name":"room"}"#), ("config/map", "forest")];
    let files = files.map(|(name, text)| (name.to_owned(), Bytes::from(text))).into();
    Hosting { ports: vec![port(8080, Protocol::Tcp)], files, ..Hosting::default() }
}

/// Sends a request over a connection of its own: status and body.
async fn ask(mut stream: TcpStream, path: &str, body: &str) -> (u16, String) {
    // Without chunks, and ended by the connection's end.
    let request = format!("POST {path} HTTP/1.0\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    timeout(tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer)).await.expect("read");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    (status.unwrap_or(0), body.to_owned())
}

async fn at(hosted: &dyn Hosted, path: &str) -> (u16, String) {
    ask(timeout(hosted.connect(8080)).await.expect("reached"), path, "").await
}

#[tokio::test]
async fn a_handlers_memory_is_its_sessions_state() {
    let js = Js::new();
    let function = js.deploy(COUNTS).await;
    let (one, two) = (function.host(called()).await.expect("starts"), function.host(called()).await.expect("starts"));
    let (first, second) = (expose(&*one).await[0], expose(&*two).await[0]);
    for calls in 1..=2 {
        let stream = TcpStream::connect(first).await.expect("listens");
        let (status, body) = ask(stream, "/", "hi").await;
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status, body), (200, json!({"calls": calls, "session": "room", "map": "forest", "body": "hi"})));
    }
    let other = ask(TcpStream::connect(second).await.expect("listens"), "/", "").await;
    assert!(other.1.contains("\"calls\":1"), "{}", other.1);
    assert_eq!(at(&*one, "/teapot").await, (418, "short and stout".to_owned()));
    let lines = logs_of(&*one);
    assert_eq!(at(&*one, "/log").await, (200, "null".to_owned()));
    assert!(lines.has("a line"));
    // What it throws is an answer, and its state is there still.
    assert_eq!(at(&*one, "/throw").await.0, 500);
    let files = [("config/map".to_owned(), Bytes::from("desert"))].into();
    one.write(&files).await.expect("written");
    let body = at(&*one, "/").await.1;
    assert!(body.contains("\"calls\":6") && body.contains("desert") && !body.contains("room"), "{body}");
    let traffic = one.traffic().await;
    assert_eq!((traffic.connections, traffic.refused), (0, 0));
    assert!(traffic.accepted >= 2 && traffic.received > 0 && traffic.sent > 0, "{traffic:?}");
    assert!(one.listens(8080).await && !one.listens(81).await && one.connect(81).await.is_err());
    assert!(one.usage().cpu > Duration::ZERO);
    one.hide().await.expect("hidden");
    assert!(TcpStream::connect(first).await.is_err() && one.exposed().is_empty());
    assert_eq!(one.stop(PATIENCE).await, Exit { code: None, signal: Some(15), out_of_memory: false });
    assert!(one.connect(8080).await.is_err());
    drop(two);
    let free = async {
        while TcpStream::connect(second).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(free).await;
}

#[tokio::test]
async fn one_request_is_handled_after_the_other_and_a_client_that_goes_away_breaks_nothing_off() {
    let js = Js::new();
    let hosted = js.deploy(COUNTS).await.host(called()).await.expect("starts");
    let all = (0..8).map(|_| at(&*hosted, "/wait"));
    for (status, body) in futures::future::join_all(all).await {
        assert_eq!((status, body.as_str()), (200, "true"), "nobody else was called meanwhile");
    }
    let mut gone = hosted.connect(8080).await.expect("reached");
    gone.write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(gone);
    let body = at(&*hosted, "/").await.1;
    assert!(hosted.exit().is_none(), "{body}");
    let mut nonsense = hosted.connect(8080).await.expect("reached");
    nonsense.write_all(b"\x16\x03\x01 what is this\r\n\r\n").await.expect("sent");
    assert_eq!(at(&*hosted, "/").await.0, 200);
}

#[tokio::test]
async fn what_leaves_an_instance_unfit_ends_it_as_a_process_ends() {
    let js = Js::new();
    // To fill its memory takes a busy machine a while.
    for (path, timeout_ms, status, memory) in [("/spin", 300, 504, false), ("/hoard", 60_000, 500, true)] {
        let settings = crate::js::Settings { timeout_ms, ..crate::js::Settings::default() };
        let function = js.deploy_with(COUNTS, settings).await.expect("deploys");
        let hosted = function.host(called()).await.expect("starts");
        let lines = logs_of(&*hosted);
        assert_eq!(at(&*hosted, path).await.0, status, "{path}");
        let exit = timeout(hosted.wait()).await;
        assert_eq!(exit, Exit { code: Some(1), signal: None, out_of_memory: memory }, "{path}");
        assert!(lines.has("the session's instance has ended"), "{path}: {:?}", lines.all());
    }
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, crate::component::Settings::default()).await;
    for path in ["/panic", "/exit", "/memory"] {
        let hosted = hostile.host(called()).await.expect("starts");
        let answered = at(&*hosted, path).await;
        assert!(answered.0 >= 500 && answered.1.contains("detail"), "{path}: {answered:?}");
        assert_eq!(timeout(hosted.wait()).await.code, Some(1), "{path}");
    }
    fixture.all_memory_returned().await;
}

#[tokio::test]
async fn a_component_keeps_its_state_and_is_told_where_its_files_are() {
    let fixture = Fixture::new();
    let hostile = fixture.deploy(HOSTILE, crate::component::Settings::default()).await;
    let hosted = hostile.host(called()).await.expect("starts");
    for calls in 1..=3 {
        assert_eq!(at(&*hosted, "/calls").await, (200, calls.to_string()));
    }
    let env = at(&*hosted, "/env").await.1;
    assert!(env.contains("PORT=8080") && env.contains("LYRA_SESSION_DIR=/run/lyra/session"), "{env}");
    hosted.kill();
    assert_eq!(timeout(hosted.wait()).await, Exit::killed());
    let hello = fixture.deploy(HELLO, crate::component::Settings::default()).await;
    let hosted = hello.host(called()).await.expect("starts");
    let echoed = ask(hosted.connect(8080).await.expect("reached"), "/", "back, please").await;
    assert_eq!(echoed, (200, "back, please".to_owned()));
    drop(hosted);
    fixture.all_memory_returned().await;
}

#[tokio::test]
async fn what_such_code_can_not_have_is_refused() {
    let js = Js::new();
    let function = js.deploy(COUNTS).await;
    let refused = async |hosting: Hosting| function.host(hosting).await.map(|_| ()).unwrap_err();
    let udp = Hosting { ports: vec![port(53, Protocol::Udp)], ..called() };
    for (hosting, field) in [
        (udp, "ports"),
        (Hosting { service: true, ..called() }, "service"),
        (Hosting { ports: vec![port(0, Protocol::Tcp)], ..called() }, "ports"),
        (Hosting { ports: vec![port(1, Protocol::Tcp), port(1, Protocol::Tcp)], ..called() }, "ports"),
    ] {
        let error = refused(hosting).await;
        assert_eq!(error.code, lyra_types::Code::InvalidField, "{field}: {error}");
    }
    let fixture = Fixture::new();
    let command = fixture.deploy(WORDS, crate::component::Settings::default()).await;
    assert!(command.host(called()).await.is_err(), "a command ends with its call");
    let hosted = function.host(called()).await.expect("starts");
    let none = hosted.expose(LOCAL, 9..=9).await.map(|_| ());
    assert!(none.is_err() || hosted.exposed().len() == 1);
}
