//! HTTP triggers.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use lyra_gateway::Config;
use serde_json::json;

use crate::client::{Gateway, OK, start, start_with};

#[tokio::test]
async fn a_request_goes_through_as_it_is() {
    let gateway = start().await;
    let headers = [
        ("x-two", "a"),
        ("x-two", "b"),
        ("cookie", "c=1"),
        ("connection", "keep-alive, x-private"),
        ("x-private", "1"),
        ("te", "trailers"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    let answer = gateway.send("PROPFIND /fn/default/web/a%2Fb//c/?q=%20&q", &headers, "payload").await;
    assert_eq!((answer.status, answer.text(), answer.header("x-mine")), (207, "payload", "kept"));
    assert!(!answer.headers.contains_key("x-private"));
    assert_eq!((answer.header("lyra-version"), answer.header("lyra-start")), ("1", "warm"));
    assert!(answer.header("server-timing").contains("exec;dur="));
    let seen = gateway.worker.http_calls.lock().pop().unwrap();
    assert_eq!(seen.method.as_str(), "PROPFIND");
    assert_eq!(seen.uri.to_string(), format!("http://{}/a%2Fb//c/?q=%20&q", gateway.address));
    assert_eq!(seen.headers.get_all("x-two").iter().collect::<Vec<_>>(), ["a", "b"]);
    let header = |name: &str| seen.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let address = gateway.address.to_string();
    for (name, value) in [
        ("cookie", Some("c=1")),
        ("host", Some(address.as_str())),
        ("x-forwarded-for", Some("192.0.2.7, 127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some(address.as_str())),
        ("x-forwarded-prefix", Some("/fn/default/web")),
        ("connection", None),
        ("x-private", None),
        ("te", None),
    ] {
        assert_eq!(header(name).as_deref(), value, "{name}");
    }
}

#[tokio::test]
async fn a_function_is_reached_by_path_by_header_and_by_host() {
    let gateway = start().await;
    let port = gateway.address.port();
    let host = format!("web.func.localhost:{port}");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Headers<'_>, &str); 6] = [
        ("GET /fn/default/web", &[], "/"),
        ("GET /fn/default/web@1/x", &[], "/x"),
        ("GET /fn/default/web@live/x?y", &[], "/x?y"),
        ("GET /v1/functions?x", &[("x-trigger-id", "web")], "/v1/functions?x"),
        ("GET /healthz", &[("x-trigger-id", "default--web@1")], "/healthz"),
        ("GET /metrics?a=b", &[("host", &host)], "/metrics?a=b"),
    ];
    for (target, headers, path) in cases {
        assert_eq!(gateway.send(target, headers, "").await.status, 207, "{target}");
        let seen = gateway.worker.http_calls.lock().pop().unwrap();
        assert_eq!(seen.uri.path_and_query().unwrap().as_str(), path, "{target}");
    }
    for (target, status, code) in [
        ("GET /fn/default/none/", 404, "not_found"),
        ("GET /fn/other/web/", 404, "not_found"),
        ("GET /fn/default/web@9/", 404, "not_found"),
        ("GET /fn/default", 404, "not_found"),
        ("GET /fn/default/No/", 422, "invalid_name"),
    ] {
        assert_eq!(gateway.send(target, &[], "").await.fault(), (status, code.to_owned()), "{target}");
    }
    let bad = gateway.send("GET /", &[("x-trigger-id", "a b")], "").await;
    assert_eq!(bad.fault(), (422, "invalid_name".into()));
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let gateway = start().await;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let frames = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver)
        .map(|text: &'static str| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(text.as_bytes()))));
    let request = http::Request::post("/fn/default/web/echo")
        .header("host", gateway.address.to_string())
        .body(StreamBody::new(frames))
        .unwrap();
    sender.send("one").unwrap();
    let mut response = gateway.open(request).await;
    // Each piece comes back while the request is still being sent.
    for (text, next) in [("one", Some("two")), ("two", Some("three")), ("three", None)] {
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
        if let Some(next) = next {
            sender.send(next).unwrap();
        }
    }
    drop(sender);
    assert!(response.body_mut().frame().await.is_none());
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_cancels_the_call() {
    let gateway = start().await;
    let request = http::Request::get("/fn/default/web/hang")
        .header("host", gateway.address.to_string())
        .body(http_body_util::Empty::<Bytes>::new())
        .unwrap();
    let mut response = gateway.open(request).await;
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    drop(response);
    tokio::time::timeout(Duration::from_secs(20), gateway.worker.cancelled.notified()).await.expect("the call ends");
}

#[tokio::test]
async fn a_failed_request_is_a_problem_with_the_headers_of_the_call() {
    let gateway = start().await;
    let trap = gateway.get("/fn/default/web/fail").await;
    assert_eq!(trap.fault(), (500, "instance_crashed".into()));
    assert!(trap.header("lyra-invocation-id").starts_with("inv_"));
    assert_eq!(gateway.get("/fn/default/web/interim").await.fault(), (500, "invalid_result".into()));
    assert_eq!(gateway.get("/fn/default/throw/").await.fault(), (500, "function_error".into()));
    assert_eq!(gateway.get("/fn/default/busy/").await.header("retry-after"), "3");
}

#[tokio::test]
async fn an_answer_that_does_not_read_the_request_arrives() {
    let gateway = start().await;
    for _ in 0..5 {
        let answer = gateway.send("POST /fn/default/web/unread", &[], vec![0; 20 << 20]).await;
        assert_eq!((answer.status, answer.text()), (202, "done"));
    }
}

#[tokio::test]
async fn a_head_request_has_the_headers_and_no_body() {
    let gateway = start().await;
    let answer = gateway.send("HEAD /fn/default/web/unread", &[], "").await;
    assert_eq!((answer.status, answer.body.len()), (202, 0));
    assert_eq!(gateway.worker.http_calls.lock()[0].method, "HEAD");
}

#[tokio::test]
async fn a_program_gets_the_body_and_its_output_is_the_answer() {
    let gateway = start().await;
    let answer = gateway.send("POST /fn/default/cat/any/path", &[], "some text").await;
    assert_eq!(
        (answer.status, answer.text(), answer.header("content-type")),
        (OK, "some text", "text/plain; charset=utf-8")
    );
}

#[tokio::test]
async fn a_handler_gets_the_event_of_payload_format_2() {
    let gateway = start().await;
    let headers = [
        ("host", "localhost:8080"),
        ("User-Agent", "agent/1"),
        ("X-Two", "a"),
        ("x-two", "b"),
        ("cookie", "one=1; two=2"),
        ("content-type", "application/json"),
    ];
    let answer = gateway.send("POST /fn/default/echo@1/my/p%20th?a=1&a=2&b=x%20y&c", &headers, r#"{"k":"v"}"#).await;
    assert_eq!(answer.header("content-type"), "application/json");
    let mut event = answer.json();
    let context = &mut event["requestContext"];
    assert_eq!(context["requestId"], answer.header("lyra-invocation-id"));
    assert!(context["timeEpoch"].as_i64().unwrap() > 1_700_000_000_000);
    let time = context["time"].as_str().unwrap();
    assert!(time.ends_with(" +0000") && time.matches(['/', ':']).count() == 5, "{time}");
    for name in ["requestId", "timeEpoch", "time"] {
        context[name] = json!("…");
    }
    assert_eq!(
        event,
        json!({
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": "/my/p%20th",
            "rawQueryString": "a=1&a=2&b=x%20y&c",
            "cookies": ["one=1", "two=2"],
            "headers": {
                "host": "localhost:8080", "user-agent": "agent/1", "x-two": "a,b",
                "content-type": "application/json", "content-length": "9"
            },
            "queryStringParameters": {"a": "1,2", "b": "x y", "c": ""},
            "requestContext": {
                "accountId": "default", "apiId": "echo", "domainName": "localhost", "domainPrefix": "localhost",
                "http": {
                    "method": "POST", "path": "/my/p%20th", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1",
                    "userAgent": "agent/1"
                },
                "requestId": "…", "routeKey": "$default", "stage": "$default", "time": "…", "timeEpoch": "…"
            },
            "body": "{\"k\":\"v\"}",
            "isBase64Encoded": false
        })
    );
    let bare = gateway.get("/fn/default/echo").await.json();
    assert_eq!((&bare["rawPath"], &bare["rawQueryString"]), (&json!("/"), &json!("")));
    for absent in ["body", "cookies", "queryStringParameters"] {
        assert!(bare.get(absent).is_none(), "{absent}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_text_comes_in_base64() {
    let gateway = start().await;
    let event = async |media_type: &str, body: &'static [u8]| {
        let headers = [("content-type", media_type)];
        let event = gateway.send("POST /fn/default/echo/", &headers, body).await.json();
        (event["body"].as_str().unwrap().to_owned(), event["isBase64Encoded"].as_bool().unwrap())
    };
    assert_eq!(event("text/plain", b"text").await, ("text".into(), false));
    assert_eq!(event("application/vnd.api+json; charset=utf-8", b"{}").await, ("{}".into(), false));
    assert_eq!(event("image/png", b"text").await, ("dGV4dA==".into(), true));
    assert_eq!(event("text/plain", b"\xff").await, ("/w==".into(), true));
}

async fn lambda(gateway: &Gateway, result: &str) -> crate::client::Answer {
    gateway.send("POST /fn/default/lambda/", &[("content-type", "application/json")], result.to_owned()).await
}

#[tokio::test]
async fn a_handlers_result_becomes_an_answer_by_the_rules_of_payload_format_2() {
    let gateway = start().await;
    for result in [r#"{"message":"hi"}"#, r#""text""#, "[1]", "7", "null", r#"{"headers":1,"body":"x"}"#] {
        let answer = lambda(&gateway, result).await;
        assert_eq!((answer.status, answer.text(), answer.header("content-type")), (OK, result, "application/json"));
        assert_eq!(answer.header("lyra-version"), "1");
    }
    let full = lambda(
        &gateway,
        r#"{"statusCode":201,"headers":{"Content-Type":"text/html","X-N":5,"Content-Length":"999","Connection":"close"},
            "cookies":["a=1","b=2"],"body":"<p>"}"#,
    )
    .await;
    assert_eq!((full.status, full.text(), full.header("content-type")), (201, "<p>", "text/html"));
    assert_eq!(full.header("x-n"), "5");
    assert_eq!(full.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    let bytes = lambda(&gateway, r#"{"statusCode":200,"body":"/w==","isBase64Encoded":true}"#).await;
    assert_eq!(&bytes.body[..], b"\xff");
    let text = lambda(&gateway, r#"{"statusCode":"404","body":"no"}"#).await;
    assert_eq!((text.status, text.header("content-type")), (404, "text/plain; charset=utf-8"));
    let object = lambda(&gateway, r#"{"statusCode":200,"body":{"a":1}}"#).await;
    assert_eq!((object.text(), object.header("content-type")), ("{\"a\":1}", "application/json"));
    let many = lambda(&gateway, r#"{"statusCode":200,"multiValueHeaders":{"x-m":["1","2"]}}"#).await;
    assert_eq!(many.headers.get_all("x-m").iter().count(), 2);
    assert_eq!(lambda(&gateway, r#"{"statusCode":204}"#).await.body.len(), 0);
}

#[tokio::test]
async fn a_result_that_can_not_be_an_answer_is_said_to_be_invalid() {
    let gateway = start().await;
    for result in [
        r#"{"statusCode":99}"#,
        r#"{"statusCode":100}"#,
        r#"{"statusCode":1000}"#,
        r#"{"statusCode":"ok"}"#,
        r#"{"statusCode":200.5}"#,
        r#"{"statusCode":200,"headers":{"bad name":"x"}}"#,
        r#"{"statusCode":200,"headers":{"x":"a\nb"}}"#,
        r#"{"statusCode":200,"headers":{"x":{}}}"#,
        r#"{"statusCode":200,"headers":[]}"#,
        r#"{"statusCode":200,"cookies":"a"}"#,
        r#"{"statusCode":200,"body":"?","isBase64Encoded":true}"#,
        r#"{"statusCode":200,"body":"\ud800"}"#,
    ] {
        let answer = lambda(&gateway, result).await;
        assert_eq!(answer.fault(), (500, "invalid_result".into()), "{result}");
        assert!(answer.header("lyra-invocation-id").starts_with("inv_"), "{result}");
    }
}

#[tokio::test]
async fn an_event_made_of_a_request_is_within_the_limit() {
    let gateway = start_with(Config { max_event_bytes: 2_000, ..Config::default() }).await;
    let headers = [("content-type", "image/png")];
    let fits = gateway.send("POST /fn/default/echo/", &headers, vec![0; 300]).await;
    assert_eq!(fits.status, OK);
    let inflated = gateway.send("POST /fn/default/echo/", &headers, vec![0; 1_900]).await;
    assert_eq!(inflated.fault(), (413, "too_large".into()));
}
