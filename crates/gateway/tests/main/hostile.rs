//! Any bytes to any route: an answer of the 4xx kind at worst, never a fault of the platform.

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use lyra_gateway::listed_routes;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};
use tokio::net::TcpStream;

use crate::client::start;

#[derive(Debug, Clone)]
struct Hostile {
    method: &'static str,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("echo".to_owned()),
        Just("cat".to_owned()),
        Just("web".to_owned()),
        Just("default".to_owned()),
        Just("job_00000000000000000000000000".to_owned()),
        "[ -~]{0,20}",
        "(%[0-9a-fA-F]{2}){1,6}",
        "[a-z0-9@.%/-]{0,80}",
    ]
}

fn query() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "limit",
        "cursor",
        "wait",
        "since",
        "follow2",
        "invocation",
        "version",
        "alias",
        "async",
        "status",
        "function",
        "tenant",
    ]);
    prop::collection::vec((name, "[ -~]{0,12}"), 0..4)
        .prop_map(|pairs| pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"))
}

fn header() -> impl Strategy<Value = (String, Vec<u8>)> {
    let name = prop::sample::select(vec![
        "content-type",
        "if-match",
        "if-none-match",
        "prefer",
        "idempotency-key",
        "lyra-tenant",
        "x-trigger-id",
        "origin",
        "host",
        "authorization",
        "cookie",
        "x-forwarded-for",
        "connection",
        "te",
        "accept",
        "range",
        "expect2",
    ]);
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(b"application/json".to_vec()),
        Just(b"text/javascript".to_vec()),
        Just(b"*".to_vec()),
        Just(b"\"1\"".to_vec()),
        Just(b"echo".to_vec()),
    ];
    (name.prop_map(str::to_owned), value)
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        Just(br#"{"runtime":"js","code":{"source":"x"}}"#.to_vec()),
        Just(br#"{"weights":{"1":1}}"#.to_vec()),
        "[\\[\\]{}\",:0-9a-z\\\\]{0,100}".prop_map(String::into_bytes),
    ]
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let route = prop::sample::select(listed_routes());
    (route, prop::collection::vec(segment(), 4), query(), prop::collection::vec(header(), 0..5), body()).prop_map(
        |((method, route), segments, query, headers, body)| {
            let mut segments = segments.into_iter();
            let path: Vec<String> = route
                .split('/')
                .map(|part| if part.starts_with('{') { segments.next().unwrap_or_default() } else { part.to_owned() })
                .collect();
            Hostile { method, path: format!("{}?{query}", path.join("/")), headers, body }
        },
    )
}

/// Routes of what the doubles do not have.
const ABSENT: [&str; 14] = [
    "/v1/workflows",
    "/v1/workflow-members",
    "/v1/runs",
    "/v1/callbacks",
    "/v1/values",
    "/v1/cuts",
    "/v1/schedules",
    "/v1/triggers",
    "/v1/deliveries",
    "/v1/secrets",
    "/v1/secret-keys",
    "/v1/scaler",
    "/u/",
    "/j/",
];

#[test]
fn no_request_makes_the_gateway_fail() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gateway = runtime.block_on(start());
    let mut runner = TestRunner::new(Runs { cases: 1_500, failure_persistence: None, ..Runs::default() });
    runner
        .run(&hostile(), |case| {
            let Ok(uri) = case.path.parse::<http::Uri>() else { return Ok(()) };
            let mut request = http::Request::builder().method(case.method.parse::<Method>().unwrap()).uri(uri);
            let mut has_host = false;
            for (name, value) in &case.headers {
                if let Ok(value) = http::HeaderValue::from_bytes(value) {
                    has_host |= name == "host";
                    request = request.header(name, value);
                }
            }
            if !has_host {
                request = request.header("host", "localhost");
            }
            let request = request.body(Full::new(Bytes::from(case.body.clone()))).unwrap();
            let status = runtime.block_on(async {
                let stream = TcpStream::connect(gateway.address).await.unwrap();
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
                lyra_kit::tasks::spawn("client", connection);
                let response = sender.send_request(request).await.ok()?;
                let status = response.status().as_u16();
                drop(response.into_body().collect().await);
                Some(status)
            });
            // hyper's client refuses some of these by itself.
            let Some(status) = status else { return Ok(()) };
            // There is no workflow role here, and control's double has none of these: they say so.
            let of_absent = ABSENT.iter().any(|at| case.path.starts_with(at)) || case.path.contains("/destinations");
            prop_assert!(status < 500 || (status == 503 && of_absent), "{status} for {case:?}");
            Ok(())
        })
        .unwrap();
    let alive = runtime.block_on(gateway.get("/healthz"));
    assert_eq!(alive.status, 200);
}

#[tokio::test]
async fn no_bytes_on_a_connection_make_the_gateway_fail() {
    let gateway = start().await;
    for bytes in [
        &b"\0\0\0\0\0\0\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/functions/echo/invoke HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/functions/echo/invoke HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /fn/default/web/\xff\xfe HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\nx-trigger-id: web\r\nconnection: close\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all, really not one",
    ] {
        let answer = gateway.raw(bytes).await;
        assert!(!answer.starts_with("HTTP/1.1 5"), "{answer}");
    }
    assert_eq!(gateway.get("/healthz").await.status, 200);
}
