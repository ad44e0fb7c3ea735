//! Functions whose calls are served by sessions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use lyra_wire::sessions::name_by_key;
use serde_json::json;
use tokio::sync::Notify;

use super::{config, programs, start, until};
use crate::client::{Gateway, OK};

/// A gateway with the function `chat`, whose sessions run a program that echoes at `/echo`.
async fn chat(key: &str) -> (Gateway, programs::Program) {
    let (gateway, program) = (start(config()).await, programs::http("chat").await);
    *gateway.control.sessions.program.lock() = Some(program.address);
    let body = json!({"runtime": "js", "code": {"source": "x"}, "sessions": {"application": "chat", "key": key}});
    assert_eq!(gateway.send("PUT /v1/functions/chat", &[], body.to_string()).await.status, 201);
    (gateway, program)
}

#[tokio::test]
async fn the_same_key_reaches_the_same_session_and_control_is_asked_once() {
    let (gateway, program) = chat("header:X-Room").await;
    let feed = &gateway.control.sessions;
    for (room, start, asked) in
        [("a", "cold", 1), ("a", "warm", 1), ("b", "cold", 2), ("b", "warm", 2), ("a", "warm", 2)]
    {
        let answer = gateway.send("POST /fn/default/chat/echo?x", &[("x-room", room)], "hello").await;
        assert_eq!((answer.status, answer.text()), (OK, "hello"));
        assert_eq!(answer.header("lyra-session"), name_by_key("chat", room));
        assert_eq!((answer.header("lyra-start"), answer.header("lyra-version")), (start, "1"));
        assert!(answer.header("lyra-invocation-id").starts_with("inv_"), "{answer:?}");
        assert_eq!(feed.reached.load(Ordering::SeqCst), asked);
        let seen = program.seen.lock().pop().unwrap();
        assert_eq!(seen.uri.to_string(), "/echo?x");
        assert_eq!(seen.headers["x-forwarded-prefix"], "/fn/default/chat");
    }
    feed.close(&format!("{}-0", name_by_key("chat", "a")));
    until("its end is known", || async {
        gateway.send("POST /fn/default/chat/echo", &[("x-room", "a")], "").await.header("lyra-start") == "cold"
    })
    .await;
    assert_eq!(feed.reached.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn calls_that_come_together_open_one_session() {
    let (gateway, _program) = chat("query:room").await;
    let feed = &gateway.control.sessions;
    let hold = Arc::new(Notify::new());
    *feed.hold.lock() = Some(Arc::clone(&hold));
    let calls = (0..20).map(|_| gateway.get("/fn/default/chat/?room=a"));
    let (answers, ()) = tokio::join!(futures::future::join_all(calls), async {
        until("control is asked", || async { feed.reached.load(Ordering::SeqCst) > 0 }).await;
        hold.notify_one();
    });
    assert!(answers.iter().all(|answer| answer.status == OK && answer.text() == "chat"), "{answers:?}");
    assert_eq!(feed.reached.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_event_is_served_by_a_session_and_is_no_job() {
    let (gateway, program) = chat("header:x-room").await;
    let invoke = "POST /v1/functions/chat/invoke";
    let answer = gateway.send(invoke, &[("x-room", "a")], r#"{"name":"Ada"}"#).await;
    assert_eq!((answer.status, answer.text(), answer.header("lyra-start")), (OK, "chat", "cold"));
    let seen = program.seen.lock().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.uri.path()), ("POST", "/"));
    assert_eq!(seen.headers["content-type"], "application/json");
    assert_eq!(seen.headers["lyra-invocation-id"], answer.header("lyra-invocation-id"));
    let later = gateway.send(invoke, &[("x-room", "a"), ("prefer", "respond-async")], "1").await;
    assert_eq!(later.fault(), (409, "conflict".to_owned()));
    assert!(gateway.worker.calls.lock().is_empty() && gateway.control.submits.lock().is_empty());
}

#[tokio::test]
async fn a_call_without_a_key_is_refused_and_one_without_a_session_is_told_why() {
    let (gateway, _program) = chat("path:1").await;
    assert_eq!(gateway.get("/fn/default/chat/rooms").await.fault(), (400, "bad_request".to_owned()));
    let event = gateway.send("POST /v1/functions/chat/invoke", &[], "1").await;
    assert_eq!(event.fault(), (400, "bad_request".to_owned()));
    *gateway.control.sessions.program.lock() = None;
    let full = gateway.get("/fn/default/chat/rooms/a").await;
    assert_eq!(full.fault(), (503, "overloaded".to_owned()));
    assert!(!full.header("retry-after").is_empty());
}

#[tokio::test]
async fn control_is_told_of_sessions_for_as_long_as_they_are_used() {
    let (gateway, _program) = chat("query:room").await;
    let feed = &gateway.control.sessions;
    let uid = format!("{}-0", name_by_key("chat", "a"));
    let request = http::Request::get("/fn/default/chat/ticks?room=a").header("host", "localhost");
    let mut events = gateway.open(request.body(Empty::<Bytes>::new()).unwrap()).await.into_body();
    events.frame().await.unwrap().unwrap();
    until("it was told more than once", || async { feed.touched.lock().len() > 1 }).await;
    assert!(feed.touched.lock().iter().all(|told| *told == uid));
}

#[tokio::test]
async fn a_bound_function_shows_its_binding() {
    let (gateway, _program) = chat("header:X-Room").await;
    let shown = gateway.get("/v1/functions/chat").await.json();
    assert_eq!(shown["sessions"], json!({"application": "chat", "key": "header:x-room"}));
}
