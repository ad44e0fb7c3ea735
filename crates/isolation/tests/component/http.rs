//! Components of `wasi:http/proxy`: requests, responses, events, instances that are kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::Body as _;
use lyra_types::Code;
use lyra_types::log::Level;

use super::{Fixture, HELLO, HOSTILE, Settings, all, full, get, request, reused};

#[tokio::test]
async fn a_request_is_answered() {
    let fixture = Fixture::new();
    let hello = fixture.deploy(HELLO, Settings::default()).await;
    let served = hello.get("/hello/Ada?x=1").await.expect("answers");
    assert_eq!(served.response.status(), StatusCode::OK);
    assert_eq!(served.response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(served.response.body().size_hint().exact(), Some(12), "the size of a whole body is known");
    assert_eq!(all(served.response).await.unwrap(), "Hello, Ada!\n");
    let end = served.end.await;
    end.outcome.expect("ended well");
    assert!(end.sandbox.is_none(), "instances are fresh unless asked otherwise");
    fixture.all_memory_returned().await;
}

#[tokio::test]
async fn the_component_sees_path_query_and_headers() {
    let hello = Fixture::new().deploy(HELLO, Settings::default()).await;
    let mut request = get("/request?a=b%20c");
    request.headers_mut().insert("x-one", "1".parse().unwrap());
    request.headers_mut().append("x-one", "2".parse().unwrap());
    request.headers_mut().insert("connection", "keep-alive".parse().unwrap());
    let served = hello.serve(request).await.expect("answers");
    assert_eq!(all(served.response).await.unwrap(), "/request?a=b%20c\nx-one: 1\nx-one: 2\n");
    assert_eq!(hello.text("/nope").await, "try /, /hello/{name} or /request\n");
}

#[tokio::test]
async fn a_request_without_a_host_or_with_a_broken_one_is_taken() {
    let hello = Fixture::new().deploy(HELLO, Settings::default()).await;
    let bare = Request::builder().uri("/").body(full("")).unwrap();
    assert_eq!(all(hello.serve(bare).await.expect("answers").response).await.unwrap(), "Hello, world!\n");
    let mut broken = Request::builder().uri("/").body(full("")).unwrap();
    broken.headers_mut().insert("host", http::HeaderValue::from_bytes(b"\xff\xfe").unwrap());
    assert_eq!(all(hello.serve(broken).await.expect("answers").response).await.unwrap(), "Hello, world!\n");
}

#[tokio::test]
async fn a_head_request_has_no_body_and_does_not_stop_the_guest() {
    let fixture = Fixture::new();
    let hello = fixture.deploy(HELLO, Settings::default()).await;
    let served = hello.serve(request("HEAD", "/", full(""))).await.expect("answers");
    assert_eq!(served.response.headers()["content-length"], "14");
    assert_eq!(all(served.response).await.unwrap(), "");
    served.end.await.outcome.expect("ended well");

    let hostile = fixture.deploy(HOSTILE, Settings::default()).await;
    let served = hostile.serve(request("HEAD", "/slow/3", full(""))).await.expect("answers");
    drop(served.response);
    served.end.await.outcome.expect("nobody reads the body of HEAD, so nothing was cut");
    let served = hostile.get("/status/204").await.expect("answers");
    assert_eq!(all(served.response).await.unwrap(), "");
}

#[tokio::test]
async fn an_event_is_posted_and_the_body_is_the_result() {
    let fixture = Fixture::new();
    let hello = fixture.deploy(HELLO, Settings::default()).await;
    assert_eq!(&hello.call(r#"{"a":1}"#).await.expect("echoes")[..], br#"{"a":1}"#);
    let event = Bytes::from(vec![b'x'; 3 << 20]);
    let mut hello = hello;
    hello.max_result = event.len();
    let result = hello.start().await.call(hello.context(), event.clone()).await.expect("echoes");
    assert!(result == event);
    hello.max_result -= 1;
    let error = hello.start().await.call(hello.context(), event).await.expect_err("too large");
    assert_eq!(error.code, Code::ResultTooLarge);
    fixture.all_memory_returned().await;
}

#[tokio::test]
async fn an_event_that_is_answered_with_a_status_is_an_error() {
    // The event is posted to /, which this component does not have.
    let hostile = Fixture::new().deploy(HOSTILE, Settings::default()).await;
    let error = hostile.call("{}").await.expect_err("404");
    assert_eq!(error.code, Code::FunctionError);
    let thrown = error.thrown.expect("says what");
    assert_eq!(thrown.name, "HttpStatus");
    assert_eq!(thrown.message, "the component answered with status 404: no such misdeed");
}

#[tokio::test]
async fn environment_and_lines() {
    let env = BTreeMap::from([("GREETING".into(), "hi".into()), ("EMPTY".into(), String::new())]);
    let hostile = Fixture::new().deploy(HOSTILE, Settings { env, ..Settings::default() }).await;
    assert_eq!(hostile.text("/env").await, "EMPTY=\nGREETING=hi");
    assert_eq!(hostile.text("/lines").await, "ok");
    let expected = [(Level::Info, "one"), (Level::Error, "two"), (Level::Error, "three, without an end")];
    assert_eq!(hostile.lines.all(), expected.map(|(level, line)| (level, line.to_owned())));
}

#[tokio::test]
async fn nothing_is_left_for_the_next_call_unless_instances_are_kept() {
    let fixture = Fixture::new();
    let fresh = fixture.deploy(HOSTILE, Settings::default()).await;
    for _ in 0..3 {
        assert_eq!(fresh.text("/calls").await, "1");
    }

    let kept = fixture.deploy(HOSTILE, Settings::reuse()).await;
    let mut sandbox = kept.start().await;
    for call in 1..=20 {
        let served = sandbox.serve(kept.context(), get("/calls")).await.expect("answers");
        assert_eq!(all(served.response).await.unwrap(), call.to_string());
        sandbox = reused(served.end.await);
    }
    // Through the event's door it is the same instance, and an error of the function's own does not end it.
    let error = sandbox.call(kept.context(), Bytes::new()).await.expect_err("404");
    assert_eq!(error.code, Code::FunctionError);
    assert!(sandbox.is_reusable());
    let served = sandbox.serve(kept.context(), get("/calls")).await.expect("answers");
    assert_eq!(all(served.response).await.unwrap(), "21");
    drop(served.end);
    fixture.all_memory_returned().await;
}

#[tokio::test]
async fn an_instance_that_failed_is_never_kept() {
    let fixture = Fixture::new();
    let kept = fixture.deploy(HOSTILE, Settings::reuse()).await;
    for path in ["/panic", "/exit", "/recursion", "/nothing"] {
        let served = kept.get(path).await;
        assert!(served.is_err(), "{path}");
        fixture.all_memory_returned().await;
    }
    let served = kept.get("/stream/panic").await.expect("begins");
    assert!(all(served.response).await.is_err());
    let end = served.end.await;
    assert!(end.sandbox.is_none());
    assert_eq!(end.outcome.expect_err("failed").code, Code::InstanceCrashed);
}

#[tokio::test]
async fn work_after_the_response_is_finished_and_logged() {
    let hostile = Fixture::new().deploy(HOSTILE, Settings::reuse()).await;
    let served = hostile.get("/after").await.expect("answers");
    assert_eq!(all(served.response).await.unwrap(), "answer");
    reused(served.end.await);
    assert!(hostile.lines.has("done after the response"));
}
