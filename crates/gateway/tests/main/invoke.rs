//! Calls with an event.

use std::time::Duration;

use lyra_gateway::Config;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{OK, start, start_with};

#[tokio::test]
async fn a_call_answers_with_the_result_and_how_it_went() {
    let gateway = start().await;
    let answer = gateway.send("POST /v1/functions/echo/invoke", &[], r#"{"a": 1}"#).await;
    assert_eq!((answer.status, answer.text()), (OK, r#"{"a": 1}"#));
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(answer.header("lyra-invocation-id").starts_with("inv_"));
    assert_eq!(
        [answer.header("lyra-version"), answer.header("lyra-start"), answer.header("lyra-instance")],
        ["1", "cold", "fresh"]
    );
    assert_eq!(answer.header("server-timing"), "queue;dur=0.012, start;dur=0.345, exec;dur=6.789");
    let nothing = gateway.send("POST /v1/functions/echo/invoke", &[], "").await;
    assert_eq!(nothing.text(), "null");
}

#[tokio::test]
async fn a_failed_call_has_its_status_its_code_and_the_same_headers() {
    let gateway = start().await;
    for (name, status, code) in [
        ("throw", 500, "function_error"),
        ("timeout", 504, "timeout"),
        ("out-of-memory", 500, "out_of_memory"),
        ("limit-reached", 429, "limit_reached"),
    ] {
        let answer = gateway.send(&format!("POST /v1/functions/{name}/invoke"), &[], "1").await;
        assert_eq!(answer.fault(), (status, code.to_owned()));
        assert!(answer.header("lyra-invocation-id").starts_with("inv_") && answer.header("lyra-start") == "cold");
        assert_eq!(answer.headers.contains_key("retry-after"), status == 429);
    }
    let thrown = gateway.send("POST /v1/functions/throw/invoke", &[], "1").await.json();
    assert_eq!(
        thrown["error"],
        json!({"name": "TypeError", "message": "x is not a function", "stack": "at handler (index.js:1:2)"})
    );
    let busy = gateway.send("POST /v1/functions/busy/invoke", &[], "1").await;
    assert_eq!(busy.fault(), (503, "overloaded".into()));
    assert_eq!(busy.header("retry-after"), "3");
    assert!(!busy.headers.contains_key("lyra-start"), "it had no instance");
}

#[tokio::test]
async fn what_is_no_call_never_reaches_the_worker() {
    let gateway = start().await;
    let refused = [
        ("POST /v1/functions/none/invoke", "1", 404, "not_found"),
        ("POST /v1/functions/No/invoke", "1", 422, "invalid_name"),
        ("POST /v1/functions/echo/invoke", "{", 400, "bad_request"),
        ("POST /v1/functions/echo/invoke", "{}{}", 400, "bad_request"),
        ("POST /v1/functions/echo/invoke?version=9", "1", 404, "not_found"),
        ("POST /v1/functions/echo/invoke?alias=beta", "1", 404, "not_found"),
        ("POST /v1/functions/echo/invoke?version=0", "1", 400, "bad_request"),
        ("POST /v1/functions/echo/invoke?version=x", "1", 400, "bad_request"),
        ("POST /v1/functions/echo/invoke?version=1&alias=live", "1", 400, "bad_request"),
        ("POST /v1/functions/echo/invoke?async=perhaps", "1", 400, "bad_request"),
        ("POST /v1/functions/web/invoke", "{", 400, "bad_request"),
    ];
    for (target, body, status, code) in refused {
        assert_eq!(gateway.send(target, &[], body).await.fault(), (status, code.to_owned()), "{target}");
    }
    assert!(gateway.worker.calls.lock().is_empty());
}

#[tokio::test]
async fn versions_and_aliases_are_called_by_name() {
    let gateway = start().await;
    gateway.control.add("echo", lyra_types::function::Contract::Handler);
    let put = gateway.send("PUT /v1/functions/echo/aliases/beta", &[], r#"{"version":1}"#).await;
    assert_eq!(put.status, OK);
    for (query, version) in
        [("", "2"), ("?version=1", "1"), ("?version=2", "2"), ("?alias=beta", "1"), ("?alias=live", "2")]
    {
        let answer = gateway.send(&format!("POST /v1/functions/echo/invoke{query}"), &[], "1").await;
        assert_eq!(answer.header("lyra-version"), version, "{query}");
    }
}

#[tokio::test]
async fn a_weighted_alias_splits_calls() {
    let gateway = start().await;
    gateway.control.add("echo", lyra_types::function::Contract::Handler);
    let put = gateway.send("PUT /v1/functions/echo/aliases/live", &[], r#"{"weights":{"1":50,"2":50}}"#).await;
    assert_eq!(put.status, OK);
    for _ in 0..60 {
        gateway.send("POST /v1/functions/echo/invoke", &[], "1").await;
    }
    let calls = gateway.worker.calls.lock();
    let first = calls.iter().filter(|(version, _)| *version == 1).count();
    // 60 fair draws all on one side: one in 10^17.
    assert!(first > 0 && first < 60, "{first}");
}

#[tokio::test]
async fn programs_take_any_bytes_and_answer_with_what_they_wrote() {
    let gateway = start().await;
    for (body, media_type) in [
        (&b"{\"a\":1}"[..], "application/json"),
        (b"plain text", "text/plain; charset=utf-8"),
        (b"", "text/plain; charset=utf-8"),
        (b"\xff\x00", "application/octet-stream"),
    ] {
        let answer = gateway.send("POST /v1/functions/cat/invoke", &[], body).await;
        assert_eq!((&*answer.body, answer.header("content-type")), (body, media_type));
    }
}

#[tokio::test]
async fn an_event_may_have_the_limit_and_no_byte_more() {
    let gateway = start_with(Config { max_event_bytes: 100_000, ..Config::default() }).await;
    let event = |size: usize| format!("\"{}\"", "x".repeat(size - 2));
    let fits = gateway.send("POST /v1/functions/echo/invoke", &[], event(100_000)).await;
    assert_eq!((fits.status, fits.body.len()), (OK, 100_000));
    let answer = gateway.send("POST /v1/functions/echo/invoke", &[], event(100_001)).await;
    assert_eq!(answer.fault(), (413, "too_large".into()));
    assert!(answer.problem().detail.contains("100000 bytes"));

    // Told in advance: refused before a byte of it is sent.
    let head = format!(
        "POST /v1/functions/echo/invoke HTTP/1.1\r\nhost: {}\r\ncontent-length: 999999999\r\n",
        gateway.address
    );
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(format!("{head}expect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");

    // Not told: refused at the first byte too many.
    let chunks = "186A1\r\n".to_owned() + &"1".repeat(100_001) + "\r\n0\r\n\r\n";
    let head = format!(
        "POST /v1/functions/echo/invoke HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        gateway.address
    );
    assert!(gateway.raw((head + &chunks).as_bytes()).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn a_client_that_goes_on_sending_still_gets_the_refusal() {
    let gateway = start_with(Config { max_event_bytes: 1_000, ..Config::default() }).await;
    for _ in 0..5 {
        // Far more than the sockets' buffers hold.
        let answer = gateway.send("POST /v1/functions/echo/invoke", &[], vec![b'1'; 20 << 20]).await;
        assert_eq!(answer.fault(), (413, "too_large".into()));
        let answer = gateway.send("POST /v1/functions/none/invoke", &[], vec![b'1'; 20 << 20]).await;
        assert_eq!(answer.fault(), (404, "not_found".into()));
    }
}

#[tokio::test]
async fn bodies_share_a_bounded_memory() {
    let gateway = start_with(Config { body_memory_bytes: 1 << 20, ..Config::default() }).await;
    let answer = gateway.send("POST /v1/functions/cat/invoke", &[], vec![b'x'; 2 << 20]).await;
    assert_eq!(answer.fault(), (503, "overloaded".into()));
    for _ in 0..5 {
        let answer = gateway.send("POST /v1/functions/cat/invoke", &[], vec![b'x'; 900 << 10]).await;
        assert_eq!(answer.status, OK, "what a body took is given back");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_call() {
    let gateway = start().await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let request =
        format!("POST /v1/functions/hang/invoke HTTP/1.1\r\nhost: {}\r\ncontent-length: 1\r\n\r\n1", gateway.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    gateway.worker.hanging.notified().await;
    drop(stream);
    tokio::time::timeout(Duration::from_secs(20), gateway.worker.cancelled.notified()).await.expect("the call ends");
}

#[tokio::test]
async fn a_call_for_later_is_a_job() {
    let gateway = start().await;
    for (target, headers) in [
        ("POST /v1/functions/echo/invoke", &[("prefer", "respond-async"), ("idempotency-key", "k1")][..]),
        ("POST /v1/functions/echo/invoke?async=true", &[]),
    ] {
        let answer = gateway.send(target, headers, "[1]").await;
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("queued")));
        assert_eq!(answer.header("location"), format!("/v1/jobs/{id}"));
        assert_eq!(answer.headers.contains_key("preference-applied"), !headers.is_empty());
        assert_eq!(gateway.get(&format!("/v1/jobs/{id}")).await.json()["id"], *id);
    }
    {
        let submits = gateway.control.submits.lock();
        assert_eq!(submits[0].idempotency_key.as_deref(), Some("k1"));
        assert_eq!((&submits[1].idempotency_key, &submits[1].event[..]), (&None, &b"[1]"[..]));
    }
    let long = "k".repeat(256);
    let bad = gateway.send("POST /v1/functions/echo/invoke?async=1", &[("idempotency-key", &long)], "1").await;
    assert_eq!(bad.fault(), (400, "bad_request".into()));
    assert!(gateway.worker.calls.lock().is_empty());
}

#[tokio::test]
async fn a_panic_is_an_answer_and_the_gateway_goes_on() {
    let gateway = start().await;
    let answer = gateway.send("POST /v1/functions/panic/invoke", &[], "1").await;
    assert_eq!(answer.fault(), (500, "internal".into()));
    assert!(!answer.text().contains("fell over"), "the cause is for the log");
    assert_eq!(gateway.send("POST /v1/functions/echo/invoke", &[], "1").await.status, OK);
}
