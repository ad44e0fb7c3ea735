//! The gateway itself: routes and their document, health, metrics, limits of connections, drain.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lyra_gateway::{Config, Service, listed_routes, openapi_document};
use lyra_types::function::Contract;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::client::{OK, deps, start, start_with};

fn documented() -> serde_json::Value {
    serde_json::to_value(openapi_document()).unwrap()
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let document = documented();
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            found.insert((method.to_uppercase(), path.clone()));
        }
    }
    let routes: BTreeSet<_> = listed_routes().iter().map(|(m, p)| ((*m).to_owned(), (*p).to_owned())).collect();
    assert_eq!(found, routes);
}

#[test]
fn the_document_is_whole() {
    let document = documented();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path}");
            if !path.starts_with("/fn/") && !path.starts_with("/s/") {
                assert!(ids.insert(operation["operationId"].to_string()), "{method} {path}: id used twice");
            }
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let named: BTreeSet<_> =
                parameters.iter().filter(|p| p["in"] == "path").map(|p| p["name"].as_str().unwrap()).collect();
            let wanted: BTreeSet<_> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            assert_eq!(named, wanted, "{method} {path}");
        }
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "schema {name} is missing");
    }
}

#[tokio::test]
async fn every_route_of_the_table_is_served() {
    let gateway = start().await;
    for (method, path) in listed_routes() {
        let path = path.replace("{tenant}/{function}/{path}", "default/web/x").replace("{name}", "echo");
        let path = path.replace("{tenant}/{session}/{path}", "default/none/x");
        let path = path.replace("{alias}", "live").replace("{version}", "1").replace("{id}", "job_x");
        let answer = gateway.send(&format!("{method} {path}"), &[], "").await;
        assert_ne!(answer.status, 405, "{method} {path}");
        if answer.status == 404 && method != "HEAD" {
            assert!(!answer.problem().detail.contains("no route"), "{method} {path}");
        }
        // The function itself was deleted on the way.
        if (method, path.as_str()) == ("DELETE", "/v1/functions/echo") {
            gateway.control.add("echo", Contract::Handler);
        }
    }
}

#[tokio::test]
async fn what_is_no_route_is_a_problem_too() {
    let gateway = start().await;
    for path in ["/", "/v1", "/v1/functions/", "/v2/functions", "/v1/functions/a/b/c", "//", "/fn", "/%00"] {
        assert_eq!(gateway.get(path).await.fault(), (404, "not_found".into()), "{path}");
    }
    for (target, allow) in [
        ("POST /v1/functions", "GET,HEAD"),
        ("PATCH /v1/functions/echo", "GET,HEAD,PUT,DELETE"),
        ("GET /v1/functions/echo/invoke", "POST"),
        ("DELETE /healthz", "GET,HEAD"),
    ] {
        let answer = gateway.send(target, &[], "").await;
        assert_eq!(answer.fault(), (405, "method_not_allowed".into()), "{target}");
        let set = |text: &str| text.split(',').map(|m| m.trim().to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(set(answer.header("allow")), set(allow), "{target}");
    }
    assert_eq!(
        gateway
            .raw(b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .split(' ')
            .nth(1),
        Some("405")
    );
}

#[tokio::test]
async fn lyra_tells_of_itself() {
    let gateway = start().await;
    assert_eq!(gateway.get("/healthz").await.status, OK);
    assert_eq!(gateway.get("/version").await.json()["version"], env!("CARGO_PKG_VERSION"));
    let worker = gateway.get("/v1/workers/local").await.json();
    assert_eq!((&worker["running"], &worker["queued"], &worker["idle_instances"]), (&1.into(), &2.into(), &3.into()));
    assert_eq!(gateway.get("/v1/workers").await.json()["items"][0], worker);
    assert_eq!(gateway.get("/v1/workers/other").await.status, 404);
    assert_eq!(gateway.get("/openapi.json").await.json(), documented());
    gateway.send("POST /v1/functions/echo/invoke", &[], "1").await;
    gateway.send("POST /v1/functions/none/invoke", &[], "1").await;
    gateway.get("/fn/default/web/").await;
    let metrics = gateway.get("/metrics").await;
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "lyra_http_requests_total{method=\"POST\",route=\"/v1/functions/{name}/invoke\",status=\"2xx\"} 1",
        "lyra_http_requests_total{method=\"POST\",route=\"/v1/functions/{name}/invoke\",status=\"4xx\"} 1",
        "lyra_http_requests_total{method=\"ANY\",route=\"/fn/{tenant}/{function}/{path}\",status=\"2xx\"} 1",
        "lyra_http_request_seconds_count{route=\"/v1/functions/{name}/invoke\"} 2",
    ] {
        assert!(metrics.text().contains(line), "{line} is not in\n{}", metrics.text());
    }
}

#[tokio::test]
async fn a_gateway_without_its_routes_is_not_ready_and_says_so() {
    let (deps, control, ..) = deps();
    control.deaf.store(true, Ordering::SeqCst);
    control.add("echo", Contract::Handler);
    let config = Config { route_wait: Duration::from_millis(20), ..Config::default() };
    let service = Service::new(config, deps);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = crate::client::Gateway {
        address: listener.local_addr().unwrap(),
        control,
        worker: Default::default(),
        logs: Default::default(),
        shutdown: CancellationToken::new(),
        served: None,
    };
    let (served, shutdown) = (service.clone(), gateway.shutdown.clone());
    lyra_kit::tasks::spawn("gateway", async move { served.serve(listener, shutdown).await });
    for target in ["GET /readyz", "POST /v1/functions/echo/invoke", "GET /fn/default/echo/"] {
        let answer = gateway.send(target, &[], "").await;
        assert_eq!((answer.fault(), answer.header("retry-after")), ((503, "unavailable".into()), "1"), "{target}");
    }
    assert_eq!(gateway.get("/healthz").await.status, OK);
    gateway.control.deaf.store(false, Ordering::SeqCst);
    assert!(service.synced(Duration::from_secs(30)).await);
    assert_eq!(gateway.get("/readyz").await.status, OK);
    assert_eq!(gateway.send("POST /v1/functions/echo/invoke", &[], "1").await.status, OK);
}

#[tokio::test]
async fn a_broken_watch_is_made_again_and_what_was_missed_is_learned() {
    let gateway = start().await;
    assert_eq!(gateway.send("POST /v1/functions/echo/invoke", &[], "1").await.status, OK);
    gateway.control.remove_silently("throw");
    gateway.control.hold.store(true, Ordering::SeqCst);
    gateway.control.add("missed", Contract::Handler);
    let before = gateway.control.watches.load(Ordering::SeqCst);
    gateway.control.break_watches();
    let served = async {
        while gateway.send("POST /v1/functions/missed/invoke", &[], "1").await.status != OK
            || gateway.send("POST /v1/functions/throw/invoke", &[], "1").await.status != 404
        {
            assert_eq!(
                gateway.send("POST /v1/functions/echo/invoke", &[], "1").await.status,
                OK,
                "the old table serves"
            );
        }
    };
    tokio::time::timeout(Duration::from_secs(30), served).await.expect("the new watch tells all");
    assert!(gateway.control.watches.load(Ordering::SeqCst) > before);
}

#[tokio::test]
async fn a_drain_lets_open_requests_end_and_takes_no_new_ones() {
    let mut gateway = start_with(Config { drain: Duration::from_millis(300), ..Config::default() }).await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    lyra_kit::tasks::spawn("client", connection);
    let request = http::Request::post("/v1/functions/hang/invoke")
        .header("host", "localhost")
        .body(Full::new(Bytes::from("1")))
        .unwrap();
    let hanging = lyra_kit::tasks::spawn("request", async move { sender.send_request(request).await });
    gateway.worker.hanging.notified().await;
    gateway.shutdown.cancel();
    gateway.served.take().unwrap().await.unwrap().unwrap();
    assert!(TcpStream::connect(gateway.address).await.is_err(), "nobody listens any more");
    // It did not end within the drain: its call is cancelled with its connection.
    drop(hanging);
    gateway.shutdown.cancel();
}

#[tokio::test]
async fn clients_that_send_nothing_or_half_a_request_are_let_go() {
    let config = Config {
        header_timeout: Duration::from_millis(100),
        body_idle_timeout: Duration::from_millis(100),
        ..Config::default()
    };
    let gateway = start_with(config).await;
    for start in [&b""[..], b"P", b"GET / HTTP/1.1\r\nhost: loc"] {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(start).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{start:?} holds a connection for ever");
    }
    let half = b"POST /v1/functions/echo/invoke HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n1";
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(half).await.unwrap();
    let mut head = [0; 12];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(&head, b"HTTP/1.1 400");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let gateway = start_with(Config { max_connections: 2, ..Config::default() }).await;
    let open = async || {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        lyra_kit::tasks::spawn("client", connection);
        let request = http::Request::get("/healthz").header("host", "localhost").body(Full::new(Bytes::new())).unwrap();
        let status = sender.send_request(request).await.unwrap().status();
        (sender, status)
    };
    let (first, _second) = (open().await, open().await);
    assert_eq!((first.1.as_u16(), _second.1.as_u16()), (OK, OK));
    let refused = gateway.raw(b"").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 1"), "{refused}");
    drop(first);
    let again = async {
        while !gateway
            .raw(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .contains(" 200 ")
        {}
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("a place is free again");
}

#[tokio::test]
async fn http_2_with_prior_knowledge_works_and_its_streams_are_cancelled_one_by_one() {
    let gateway = start().await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    lyra_kit::tasks::spawn("client", connection);
    let request = |path: &str| {
        http::Request::post(format!("http://{}{path}", gateway.address)).body(Full::new(Bytes::from("1"))).unwrap()
    };
    let mut one = sender.clone();
    let hanging = lyra_kit::tasks::spawn("hang", {
        let request = request("/v1/functions/hang/invoke");
        async move { one.send_request(request).await.map(|response| response.status()) }
    });
    gateway.worker.hanging.notified().await;
    let mut two = sender.clone();
    let answer = two.send_request(request("/v1/functions/echo/invoke")).await.unwrap();
    assert_eq!(answer.status().as_u16(), OK);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "1");
    hanging.abort();
    tokio::time::timeout(Duration::from_secs(20), gateway.worker.cancelled.notified()).await.expect("the call ends");
    assert_eq!(two.send_request(request("/fn/default/web/x")).await.unwrap().status().as_u16(), 207);
}
