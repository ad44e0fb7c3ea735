//! Log lines, as JSON lines and as events.

use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::{BodyExt, Empty};
use lyra_types::log::{Hosted, Level, LogLine, SessionOf};
use lyra_types::{Code, Error, FunctionName, InstanceId, InvocationId, TenantName, Timestamp};
use lyra_wire::Logs;
use serde_json::json;

use crate::client::{Gateway, OK, start};

fn line(message: &str) -> LogLine {
    LogLine {
        time: Timestamp::from_millis(1_700_000_000_123),
        level: Level::Warn,
        message: message.into(),
        invocation: InvocationId::from_parts(1, 1),
        version: 3,
        instance: None,
        tenant: TenantName::default_tenant(),
        function: FunctionName::new("echo").unwrap(),
        hosted: None,
    }
}

#[tokio::test]
async fn lines_are_json_one_a_line() {
    let gateway = start().await;
    gateway.logs.offer(line("one\ntwo"));
    gateway.logs.offer(line("three"));
    let id = InvocationId::from_parts(1, 1);
    let path = format!("/v1/functions/echo/logs?invocation={id}&since=2023-11-14T22:13:20Z&limit=5");
    let answer = gateway.get(&path).await;
    assert_eq!((answer.status, answer.header("content-type")), (OK, "application/x-ndjson"));
    let lines: Vec<serde_json::Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines[0],
        json!({"time": "2023-11-14T22:13:20.123Z", "level": "warn", "message": "one\ntwo", "invocation": id.to_string(),
               "version": 3, "instance": null})
    );
    assert_eq!(lines.len(), 2);
    let query = gateway.logs.queries.lock()[0].clone();
    assert_eq!((query.invocation, query.limit), (Some(id), 5));
    assert_eq!(query.since, Some(Timestamp::from_millis(1_700_000_000_000)));
    assert_eq!(gateway.get("/v1/functions/none/logs").await.fault(), (404, "not_found".into()));
    for bad in ["invocation=x", "since=later", "limit=x", "follow=x"] {
        assert_eq!(
            gateway.get(&format!("/v1/functions/echo/logs?{bad}")).await.fault(),
            (400, "bad_request".into()),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn lines_of_sessions_say_whose_they_are_and_are_asked_for_by_that() {
    let gateway = start().await;
    let session = SessionOf { name: "room".into(), uid: "u-1".into() };
    let (instance, hosted) =
        (InstanceId::from_parts(1, 7), Hosted { application: "chat".into(), session: Some(session) });
    gateway.logs.offer(LogLine {
        instance: Some(instance),
        hosted: Some(hosted.clone().into()),
        ..line("in a session")
    });
    let standing = Hosted { session: None, ..hosted };
    gateway.logs.offer(LogLine { instance: Some(instance), hosted: Some(standing.into()), ..line("before") });
    let path = format!("/v1/logs?session=room&session_uid=u-1&application=chat&instance={instance}&limit=5");
    let answer = gateway.get(&path).await;
    assert_eq!((answer.status, answer.header("content-type")), (OK, "application/x-ndjson"));
    let lines: Vec<serde_json::Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |line: &serde_json::Value| {
        ["function", "application", "session", "session_uid", "instance"]
            .map(|key| line[key].as_str().map(str::to_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    let instance_text = some(&instance.to_string());
    assert_eq!(named(&lines[0]), [some("echo"), some("chat"), some("room"), some("u-1"), instance_text.clone()]);
    assert_eq!(named(&lines[1]), [some("echo"), some("chat"), None, None, instance_text]);
    let query = gateway.logs.queries.lock()[0].clone();
    let asked = (query.session.as_deref(), query.session_uid.as_deref(), query.application.as_deref());
    assert_eq!(asked, (Some("room"), Some("u-1"), Some("chat")));
    assert_eq!((query.function, query.instance, query.limit), (None, Some(instance), 5));
    assert_eq!(query.tenant, TenantName::default_tenant());
    gateway.get("/v1/logs?session=room&tenant=acme").await;
    gateway.get("/v1/functions/echo/logs?session=room").await;
    let queries = gateway.logs.queries.lock().clone();
    assert_eq!(queries[1].tenant, TenantName::new("acme").unwrap());
    assert_eq!(
        (queries[2].function.as_ref().map(FunctionName::as_str), queries[2].session.as_deref()),
        (Some("echo"), Some("room"))
    );
    for bad in [
        "",
        "limit=5",
        "session_uid=u-1",
        "session=",
        "session=ROOM",
        "session=a&session=b",
        "session=room&session_uid=%00",
        "application=a%20b",
        "instance=inv_00000000000000000000000000",
        "instance=7",
        "session=room&limit=0",
        "session=room&follow=x",
    ] {
        assert_eq!(gateway.get(&format!("/v1/logs?{bad}")).await.fault(), (400, "bad_request".into()), "{bad}");
    }
    assert_eq!(gateway.get("/v1/functions/echo/logs?session=%2F").await.fault(), (400, "bad_request".into()));
}

/// Events of a stream, each as its lines, without the comments.
async fn events(gateway: &Gateway) -> BoxStream<'static, String> {
    let request = http::Request::get("/v1/functions/echo/logs?follow=true")
        .header("host", gateway.address.to_string())
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = gateway.open(request).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let frames = response.into_body().into_data_stream();
    frames.map(|frame| String::from_utf8(frame.unwrap().to_vec()).unwrap()).boxed()
}

#[tokio::test]
async fn a_follower_gets_the_backlog_then_lines_as_they_come_then_the_reason_of_the_end() {
    let gateway = start().await;
    gateway.logs.offer(line("before"));
    let mut events = events(&gateway).await;
    let first = events.next().await.unwrap();
    let data = first.strip_prefix("data: ").unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(data).unwrap()["message"], "before");
    let live = gateway.logs.live.lock().take().unwrap();
    live.send(Ok(line("after"))).unwrap();
    assert!(events.next().await.unwrap().contains("\"after\""));
    live.send(Err(Error::new(Code::LimitReached, "the reader was too slow"))).unwrap();
    let error = events.next().await.unwrap();
    assert!(error.contains("event: error") && error.contains("limit_reached"), "{error}");
    drop(live);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_follower_does_not_keep_the_gateway_from_stopping() {
    let mut gateway = start().await;
    gateway.logs.offer(line("before"));
    let mut events = events(&gateway).await;
    assert!(events.next().await.is_some());
    gateway.shutdown.cancel();
    assert!(events.next().await.is_none());
    gateway.served.take().unwrap().await.unwrap().unwrap();
}
