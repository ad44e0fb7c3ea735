//! Requests to sessions.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use lyra_gateway::{Config, IngressConfig, Tokens};
use lyra_types::resources::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{config, feed, metric, open, programs, rest, start, until};
use crate::client::{Gateway, OK};

/// A gateway with the session `room`, whose program is `room`.
async fn room(config: Config) -> (Gateway, programs::Program) {
    let (gateway, program) = (start(config).await, programs::http("room").await);
    open(&gateway, "room", program.address, None);
    until("the session is known", || async { gateway.get("/s/default/room/").await.status == OK }).await;
    program.seen.lock().clear();
    (gateway, program)
}

#[tokio::test]
async fn a_request_reaches_its_session_as_it_is() {
    let (gateway, program) = room(config()).await;
    let headers = [
        ("x-two", "a"),
        ("x-two", "b"),
        ("cookie", "c=1"),
        ("cookie", "d=2"),
        ("connection", "keep-alive, x-private"),
        ("x-private", "1"),
        ("te", "trailers"),
        ("authorization", "Bearer of-the-session"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    let answer = gateway.send("PROPFIND /s/default/room/private?q=%20&q", &headers, "payload").await;
    assert_eq!((answer.status, answer.text(), answer.header("x-mine")), (OK, "room", "kept"));
    assert!(!answer.headers.contains_key("x-hop"));
    let seen = program.seen.lock().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.uri.to_string().as_str()), ("PROPFIND", "/private?q=%20&q"));
    assert_eq!(seen.headers.get_all("x-two").iter().collect::<Vec<_>>(), ["a", "b"]);
    let header = |name: &str| seen.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let address = gateway.address.to_string();
    let forwarded = format!("for=127.0.0.1;host=\"{address}\";proto=http");
    for (name, value) in [
        ("host", Some(address.as_str())),
        ("cookie", Some("c=1; d=2")),
        ("authorization", Some("Bearer of-the-session")),
        ("content-length", Some("7")),
        ("x-forwarded-for", Some("192.0.2.7, 127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some(address.as_str())),
        ("x-forwarded-prefix", Some("/s/default/room")),
        ("forwarded", Some(forwarded.as_str())),
        ("connection", None),
        ("x-private", None),
        ("te", None),
    ] {
        assert_eq!(header(name).as_deref(), value, "{name}");
    }
}

#[tokio::test]
async fn a_session_is_reached_by_path_by_host_and_by_port() {
    let (gateway, program) = room(config()).await;
    let other = programs::http("other").await;
    let ports = [("main", Protocol::Tcp, program.address, None), ("admin", Protocol::Tcp, other.address, None)];
    gateway.control.sessions.open(&feed::route("two", "two", &ports));
    let host = format!("two.default.s.localhost:{}", gateway.address.port());
    let by_number = format!("GET /s/default/two:{}/x", other.address.port());
    until("the session is known", || async { gateway.get("/s/default/two/").await.status == OK }).await;
    for (target, headers, name, path) in [
        ("GET /s/default/two/x?y", &[][..], "room", "/x?y"),
        ("GET /s/default/two", &[], "room", "/"),
        ("GET /s/default/two:admin/x", &[], "other", "/x"),
        (by_number.as_str(), &[], "other", "/x"),
        ("GET /v1/functions?x", &[("host", host.as_str())], "room", "/v1/functions?x"),
        ("GET /s/default/none/", &[("host", host.as_str())], "room", "/s/default/none/"),
    ] {
        let answer = gateway.send(target, headers, "").await;
        assert_eq!((answer.status, answer.text()), (OK, name), "{target}");
        let program = if name == "room" { &program } else { &other };
        assert_eq!(program.seen.lock().pop().unwrap().uri.to_string(), path, "{target}");
    }
    for target in ["GET /s/default/none/", "GET /s/other/room/", "GET /s/default/two:debug/", "GET /s/default"] {
        assert_eq!(gateway.send(target, &[], "").await.fault(), (404, "not_found".to_owned()), "{target}");
    }
    let head = gateway.send("HEAD /s/default/room/", &[], "").await;
    assert_eq!((head.status, head.header("content-length"), head.text()), (OK, "4", ""));
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let (gateway, _program) = room(config()).await;
    for method in ["POST", "GET"] {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, std::io::Error>>();
        let body = StreamBody::new(tokio_stream::wrappers::UnboundedReceiverStream::new(receiver));
        let request = http::Request::builder().method(method).uri("/s/default/room/echo").header("host", "localhost");
        sender.send(Ok(Frame::data(Bytes::from_static(b"one")))).unwrap();
        let request = request.header("transfer-encoding", "chunked").body(body).unwrap();
        let mut answer = gateway.open(request).await.into_body();
        for piece in ["one", "two", "three"] {
            let frame = answer.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece, "{method}");
            let next = match piece {
                "one" => "two",
                "two" => "three",
                _ => break,
            };
            sender.send(Ok(Frame::data(Bytes::from_static(next.as_bytes())))).unwrap();
        }
        drop(sender);
        assert!(answer.frame().await.is_none(), "{method}");
    }
    let large = Bytes::from(vec![b'x'; 20 << 20]);
    let answer = gateway.send("POST /s/default/room/read", &[], large.clone()).await;
    assert_eq!((answer.status, answer.body.len()), (OK, large.len()), "no limit of functions holds here");
}

#[tokio::test]
async fn events_come_one_by_one_and_end_with_the_session() {
    let (gateway, _program) = room(config()).await;
    let request = http::Request::get("/s/default/room/ticks").header("host", "localhost");
    let answer = gateway.open(request.body(Empty::<Bytes>::new()).unwrap()).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut events = answer.into_body();
    for at in 0..3 {
        let frame = events.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), format!("data: {at}\n\n"));
    }
    gateway.control.sessions.close("room");
    while let Some(Ok(_)) = events.frame().await {}
    assert_eq!(gateway.get("/s/default/room/").await.fault(), (404, "not_found".to_owned()));
    until("nothing is carried", || async { metric(&gateway, "lyra_ingress_connections{kind=\"http\"}").await == 0 })
        .await;
}

/// Asks for an upgrade and reads the head of the answer.
async fn upgraded(gateway: &Gateway, path: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive, Upgrade\r\nupgrade: echo\r\n\
         sec-websocket-key: k\r\n\r\n"
    );
    // The client's first bytes may come with its request.
    stream.write_all(format!("{request}early;").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (String::from_utf8(head).unwrap().to_ascii_lowercase(), stream)
}

async fn expect(stream: &mut TcpStream, text: &str) {
    let mut seen = vec![0; text.len()];
    stream.read_exact(&mut seen).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&seen), text);
}

#[tokio::test]
async fn a_connection_is_upgraded_and_carried_both_ways() {
    let (gateway, program) = room(config()).await;
    let (head, mut stream) = upgraded(&gateway, "/s/default/room/socket").await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in ["connection: upgrade", "upgrade: echo", "sec-websocket-accept: yes"] {
        assert!(head.contains(line), "{head}");
    }
    let seen = program.seen.lock().pop().unwrap();
    assert_eq!(
        (seen.headers["upgrade"].as_bytes(), seen.headers["connection"].as_bytes()),
        (&b"echo"[..], &b"upgrade"[..])
    );
    assert_eq!(seen.headers["sec-websocket-key"], "k");
    expect(&mut stream, "welcome;early;").await;
    for text in ["one", "two"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        expect(&mut stream, text).await;
    }
    assert_eq!(metric(&gateway, "lyra_ingress_connections{kind=\"upgraded\"}").await, 1);
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, ";bye");
    until("its place is free", || async { metric(&gateway, "lyra_ingress_connections{kind=\"upgraded\"}").await == 0 })
        .await;

    let (_, mut stream) = upgraded(&gateway, "/s/default/room/socket").await;
    expect(&mut stream, "welcome;early;").await;
    gateway.control.sessions.close("room");
    assert_eq!(rest(stream).await, "", "an upgraded connection ends with its session");
}

#[tokio::test]
async fn a_wish_that_the_session_does_not_take_up_is_an_ordinary_request() {
    let (gateway, _program) = room(config()).await;
    let (head, mut stream) = upgraded(&gateway, "/s/default/room/other").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    expect(&mut stream, "room").await;
    let answer = gateway.get("/s/default/room/socket").await;
    assert_eq!(answer.status, 426);
}

#[tokio::test]
async fn a_session_that_does_not_answer_is_told_apart_by_what_may_have_happened() {
    let ingress = IngressConfig { http_idle_timeout: Duration::from_millis(300), ..config().ingress };
    let (gateway, program) = room(Config { ingress, ..config() }).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    open(&gateway, "nobody", nobody, None);
    let closes = programs::tcp(|mut stream| async move {
        let mut buffer = [0; 1024];
        drop(stream.read(&mut buffer).await);
    });
    open(&gateway, "closes", closes.await, None);
    let rude = programs::tcp(|mut stream| async move {
        drop(stream.write_all(b"220 smtp.example.org ESMTP\r\n").await);
        let mut buffer = [0; 1024];
        drop(stream.read(&mut buffer).await);
    });
    open(&gateway, "rude", rude.await, None);
    let udp = [("game", Protocol::Udp, program.address, None)];
    gateway.control.sessions.open(&feed::route("udp", "udp", &udp));
    until("all are known", || async { gateway.get("/s/default/udp/").await.text().contains("TCP") }).await;
    let unavailable = gateway.get("/s/default/nobody/").await;
    assert_eq!(unavailable.fault(), (503, "unavailable".to_owned()));
    assert_eq!(unavailable.header("retry-after"), "1");
    assert_eq!(gateway.get("/s/default/closes/").await.fault(), (502, "session_error".to_owned()));
    assert_eq!(gateway.get("/s/default/rude/").await.fault(), (502, "session_error".to_owned()));
    assert_eq!(gateway.get("/s/default/udp/").await.fault(), (404, "not_found".to_owned()));
    assert_eq!(gateway.get("/s/default/room/hang").await.fault(), (504, "timeout".to_owned()));
    assert_eq!(metric(&gateway, "lyra_ingress_idle_total").await, 1);
}

#[tokio::test]
async fn a_request_that_waits_is_told_when_its_session_closes() {
    let (gateway, program) = room(config()).await;
    let (answer, ()) = tokio::join!(gateway.get("/s/default/room/hang"), async {
        until("the program has it", || async { !program.seen.lock().is_empty() }).await;
        gateway.control.sessions.close("room");
    });
    assert_eq!(answer.fault(), (502, "session_error".to_owned()));
}

#[tokio::test]
async fn connections_are_used_again_and_one_that_was_closed_costs_no_request() {
    let (gateway, program) = room(config()).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/s/default/room/").await.text(), "room");
    }
    let before = program.connections.load(Ordering::SeqCst);
    assert!(before < 20, "{before}");
    let old = std::mem::take(&mut *program.close.lock());
    old.cancel();
    for _ in 0..5 {
        // hyper tells what was not written; a request that met the close on the way is not sent again.
        let answer = gateway.get("/s/default/room/").await;
        assert!(answer.status == OK || answer.fault().1 == "session_error", "{answer:?}");
    }
    assert_eq!(gateway.get("/s/default/room/").await.text(), "room");
}

#[tokio::test]
async fn a_client_that_goes_away_is_seen_by_the_session() {
    let (gateway, program) = room(config()).await;
    let request = http::Request::get("/s/default/room/ticks").header("host", "localhost");
    let mut answer = gateway.open(request.body(Empty::<Bytes>::new()).unwrap()).await;
    drop(answer.frame().await);
    drop(answer);
    until("its place is free", || async { metric(&gateway, "lyra_ingress_connections{kind=\"http\"}").await == 0 })
        .await;
    assert_eq!(program.seen.lock().len(), 1);
}

#[tokio::test]
async fn a_session_has_as_many_requests_as_it_may() {
    let ingress = IngressConfig { max_session_connections: 2, ..config().ingress };
    let (gateway, _program) = room(Config { ingress, ..config() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let request = http::Request::get("/s/default/room/ticks").header("host", "localhost");
        held.push(gateway.open(request.body(Empty::<Bytes>::new()).unwrap()).await);
    }
    let full = gateway.get("/s/default/room/").await;
    assert_eq!(full.fault(), (503, "overloaded".to_owned()));
    assert_eq!(full.header("retry-after"), "1");
    assert_eq!(metric(&gateway, "lyra_ingress_refused_total{reason=\"session_full\"}").await, 1);
    held.clear();
    until("there is place again", || async { gateway.get("/s/default/room/").await.status == OK }).await;
}

#[tokio::test]
async fn sessions_need_no_token_and_never_see_that_of_lyra() {
    let tokens = Tokens::parse("a-token-of-lyra-itself").unwrap();
    let (gateway, program) = room(Config { tokens, ..config() }).await;
    for (sent, seen) in [
        (None, None),
        (Some("Bearer of-the-session"), Some("Bearer of-the-session")),
        (Some("Basic eDp5"), Some("Basic eDp5")),
        (Some("Bearer a-token-of-lyra-itself"), None),
    ] {
        let headers: Vec<_> = sent.iter().map(|sent| ("authorization", *sent)).collect();
        assert_eq!(gateway.send("GET /s/default/room/", &headers, "").await.status, OK);
        let parts = program.seen.lock().pop().unwrap();
        assert_eq!(parts.headers.get("authorization").map(|value| value.to_str().unwrap()), seen, "{sent:?}");
    }
    assert_eq!(gateway.get("/v1/functions").await.fault().0, 401, "all else does");
    assert_eq!(gateway.send("GET /s/default/room/", &[("x-trigger-id", "web")], "").await.fault().0, 401);
}

#[tokio::test]
async fn a_foreign_page_does_not_reach_sessions_of_a_loopback_gateway() {
    let (gateway, program) = room(config()).await;
    let foreign = gateway.send("GET /s/default/room/", &[("origin", "https://evil.example")], "").await;
    assert_eq!(foreign.fault().0, 403);
    assert_eq!(gateway.send("GET /s/default/room/", &[("host", "evil.example")], "").await.fault().0, 403);
    assert!(program.seen.lock().is_empty());
}

#[tokio::test]
async fn http_2_clients_reach_sessions_too() {
    let (gateway, program) = room(config()).await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    lyra_kit::tasks::spawn("client", connection);
    let pieces =
        futures::stream::iter(["a", "b"]).map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::from(piece))));
    let uri = format!("http://{}/s/default/room/echo", gateway.address);
    let request = http::Request::post(uri).header("cookie", "a=1").header("cookie", "b=2");
    let answer = sender.send_request(request.body(StreamBody::new(pieces)).unwrap()).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ab");
    let seen = program.seen.lock().pop().unwrap();
    assert_eq!(seen.headers["cookie"], "a=1; b=2");
    assert_eq!(seen.headers["host"], gateway.address.to_string());
}

#[tokio::test]
async fn clients_and_programs_that_do_not_keep_to_bounds_cost_only_themselves() {
    let ingress = IngressConfig { http_idle_timeout: Duration::from_millis(300), ..config().ingress };
    let (gateway, program) = room(Config { ingress, ..config() }).await;
    let large =
        format!("GET /s/default/room/ HTTP/1.1\r\nhost: localhost\r\nx-large: {}\r\n\r\n", "x".repeat(100 << 10));
    let answer = gateway.raw(large.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.is_empty(), "{answer}");
    assert!(program.seen.lock().is_empty());
    assert_eq!(gateway.get("/s/default/room/large-head").await.fault(), (502, "session_error".to_owned()));
    let mut slow = TcpStream::connect(gateway.address).await.unwrap();
    let head =
        "POST /s/default/room/read HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 10\r\n\r\nab";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 13];
    slow.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 504 ");
    until("its place is free", || async { metric(&gateway, "lyra_ingress_connections{kind=\"http\"}").await == 0 })
        .await;
    assert_eq!(gateway.get("/s/default/room/").await.status, OK);
}
