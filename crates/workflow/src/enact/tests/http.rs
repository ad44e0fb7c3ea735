//! URLs that answer, refuse, hang, babble and break off: each ends in its own code.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use lyra_kit::Clock;
use serde_json::json;

use super::target::{Act, Target};
use super::{code, enactment, json};
use crate::enact::http::{Config, Http};
use crate::enact::{Enactment, Failure};

fn http(config: Config) -> Http {
    Http::new(config, Clock::system()).expect("a client")
}

async fn call(url: &str) -> Result<Bytes, Failure> {
    http(Config::default()).enact(&enactment("f", &json!({"a": 1})), url, None).await
}

async fn call_of(act: Act) -> Result<Bytes, Failure> {
    let target = Target::start(act).await;
    call(&target.url("/")).await
}

/// A call of something that hangs, given up soon.
async fn short_call_of(act: Act) -> Result<Bytes, Failure> {
    let target = Target::start(act).await;
    let limit = Some(Duration::from_millis(300));
    http(Config::default()).enact(&enactment("f", &json!({})), &target.url("/"), limit).await
}

#[tokio::test]
async fn the_input_is_posted_and_the_answer_is_the_output() {
    let target = Target::start(Act::json("200 OK", "{\"sum\": 3}")).await;
    let client = http(Config::default());
    for _ in 0..3 {
        let output = client.enact(&enactment("f", &json!({"a": 1})), &target.url("/p/q?r=1"), None).await;
        assert_eq!(json(&output.expect("an output")), json!({"sum": 3}));
    }
    let requests = target.requests.lock();
    let (head, body) = requests[0].split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("POST /p/q?r=1 HTTP/1.1\r\n"), "{head}");
    for header in [
        "content-type: application/json",
        "idempotency-key: run-1/resize[3]/1",
        "lyra-run-id: run-1",
        "lyra-task: resize[3]",
        "lyra-attempt: 1",
    ] {
        assert!(head.lines().any(|line| line == header), "{header} is missing in {head}");
    }
    assert_eq!(body, "{\"a\":1}");
    assert_eq!(target.connections.load(Ordering::SeqCst), 1, "the connection is used again");
}

#[tokio::test]
async fn a_status_that_is_no_success_is_a_failure_of_that_name() {
    for (status, retryable) in [
        ("500 Internal Server Error", true),
        ("503 Service Unavailable", true),
        ("408 Request Timeout", true),
        ("425 Too Early", true),
        ("429 Too Many Requests", true),
        ("400 Bad Request", false),
        ("404 Not Found", false),
        ("301 Moved Permanently", false),
        ("304 Not Modified", false),
    ] {
        let expected = (format!("http_{}", &status[..3]), retryable);
        assert_eq!(code(call_of(Act::json(status, "{\"fine\": true}")).await), expected, "{status}");
    }
}

#[tokio::test]
async fn a_refusal_shows_its_reason_and_its_wait() {
    let answer = "HTTP/1.1 503 No\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\nback soon";
    let failure = call_of(Act::close(answer)).await.expect_err("a refusal");
    assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
    assert!(failure.cause.message.contains("back soon"), "{}", failure.cause.message);
    let hangs = "HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\nb";
    assert_eq!(code(call_of(Act::hang(hangs)).await), ("http_500".to_owned(), true));
}

#[tokio::test]
async fn what_is_no_connection_is_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let refused = call(&format!("http://{address}/")).await;
    assert_eq!(code(refused), ("connection_failed".to_owned(), true));
    let unknown = call("http://no-such-host.invalid/").await;
    assert_eq!(code(unknown), ("dns_failed".to_owned(), true));
    let target = Target::start(Act::json("200 OK", "{}")).await;
    let plain = call(&format!("https://{}/", target.address)).await;
    assert_eq!(code(plain), ("tls_failed".to_owned(), true));
    for link in ["http://169.254.169.254/latest", "http://[::ffff:169.254.1.1]:80/", "http://[fe80::1]/"] {
        assert_eq!(code(call(link).await), ("forbidden_address".to_owned(), false), "{link}");
    }
}

#[tokio::test]
async fn where_tenants_are_told_apart_only_public_addresses_are_called_and_those_that_are_allowed() {
    let target = Target::start(Act::json("200 OK", "{}")).await;
    let named = format!("http://localhost:{}/", target.address.port());
    let strict = http(Config { public_only: true, trusted: true, ..Config::default() });
    for refused in [&named, &target.url("/"), "http://10.1.2.3/", "http://[::1]/", "http://169.254.169.254/latest"] {
        let outcome = strict.enact(&enactment("f", &json!({})), refused, None).await;
        assert_eq!(code(outcome), ("forbidden_address".to_owned(), false), "{refused}");
        let outcome = strict.fetch(refused, Duration::from_secs(5)).await;
        assert_eq!(code(outcome), ("forbidden_address".to_owned(), false), "{refused}");
    }
    assert_eq!(target.connections.load(Ordering::SeqCst), 0);
    let allow = vec!["127.0.0.0/8".parse().expect("a network")];
    let allowed = http(Config { public_only: true, allow, ..Config::default() });
    for url in [&named, &target.url("/")] {
        allowed.enact(&enactment("f", &json!({})), url, None).await.expect("it may be called");
    }
    // A token is for what the operator has named.
    let token = lyra_types::account::Secret::new("t");
    strict.enact_as(&enactment("f", &json!({})), &named, None, Some(&token)).await.expect("it may be called");
}

#[tokio::test]
async fn a_target_that_hangs_is_given_up_at_the_deadline() {
    assert_eq!(code(short_call_of(Act::hang("")).await), ("timeout".to_owned(), true));
    assert_eq!(code(short_call_of(Act::hang("HTTP/1.1 200 OK\r\ncontent-")).await), ("timeout".to_owned(), true));
    let in_body = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"a\":";
    assert_eq!(code(short_call_of(Act::hang(in_body)).await), ("body_timeout".to_owned(), true));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n";
    assert_eq!(code(short_call_of(Act::hang(chunked)).await), ("body_timeout".to_owned(), true));
}

#[tokio::test]
async fn a_connection_that_is_never_taken_up_ends_in_time() {
    // A listener whose backlog nobody empties takes the first connections and then none.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let config = Config { connect_timeout: Duration::from_millis(300), ..Config::default() };
    let client = Arc::new(http(config));
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let client = Arc::clone(&client);
            lyra_kit::tasks::spawn("call", async move {
                let limit = Some(Duration::from_secs(2));
                client.enact(&enactment("f", &json!({})), &format!("http://{address}/"), limit).await
            })
        })
        .collect();
    let mut codes = Vec::new();
    for call in calls {
        codes.push(code(call.await.expect("no panic")).0);
    }
    assert!(codes.iter().all(|code| ["timeout", "connect_timeout"].contains(&code.as_str())), "{codes:?}");
    assert!(codes.iter().any(|code| code == "connect_timeout"), "{codes:?}");
}

#[tokio::test]
async fn a_target_that_breaks_off_has_closed_early() {
    for bytes in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"a\":",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\"",
    ] {
        assert_eq!(code(call_of(Act::close(bytes)).await), ("closed_early".to_owned(), true), "{bytes:?}");
    }
}

#[tokio::test]
async fn babble_is_no_answer() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\u{0}\u{1}\u{2}\u{3}\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n{}\r\n",
    ] {
        assert_eq!(code(call_of(Act::close(bytes)).await), ("invalid_response".to_owned(), true), "{bytes:?}");
    }
    for (body, expected) in [
        ("<html>", ("invalid_json", true)),
        ("", ("invalid_json", true)),
        ("{\"a\": }", ("invalid_json", true)),
        ("[1, 2]", ("not_an_object", false)),
        ("42", ("not_an_object", false)),
    ] {
        let expected = (expected.0.to_owned(), expected.1);
        assert_eq!(code(call_of(Act::json("200 OK", body)).await), expected, "{body:?}");
    }
}

#[tokio::test]
async fn of_an_answer_no_more_is_read_than_may_be() {
    let config = || Config { max_result_bytes: 100, ..Config::default() };
    let too_large = ("result_too_large".to_owned(), false);
    for act in [
        Act::json("200 OK", &format!("{{\"a\":\"{}\"}}", "x".repeat(100))),
        Act::hang("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{"),
        Act::hang(&format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nc8\r\n{}\r\n", " ".repeat(200))),
        Act::hang(&format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(200))),
    ] {
        let target = Target::start(act).await;
        let outcome = http(config()).enact(&enactment("f", &json!({})), &target.url("/"), None).await;
        assert_eq!(code(outcome), too_large);
    }
    let target = Target::start(Act::json("200 OK", &format!("{{\"a\":\"{}\"}}", "x".repeat(92)))).await;
    let outcome = http(config()).enact(&enactment("f", &json!({})), &target.url("/"), None).await;
    assert_eq!(outcome.expect("100 bytes are few enough").len(), 100);
}

#[tokio::test]
async fn calls_of_one_host_are_bounded_and_those_that_wait_have_a_deadline() {
    let target = Target::start(Act::hang("")).await;
    let client = Arc::new(http(Config { calls_per_host: 2, ..Config::default() }));
    let holders: Vec<_> = (0..2)
        .map(|_| {
            let (client, url) = (Arc::clone(&client), target.url("/"));
            lyra_kit::tasks::spawn("holder", async move { client.enact(&enactment("f", &json!({})), &url, None).await })
        })
        .collect();
    while target.requests.lock().len() < 2 {
        tokio::task::yield_now().await;
    }
    let late = Enactment { timeout: Duration::from_millis(50), ..enactment("f", &json!({})) };
    assert_eq!(code(client.enact(&late, &target.url("/"), None).await), ("too_many_calls".to_owned(), true));
    let other = Target::start(Act::json("200 OK", "{}")).await;
    client.enact(&enactment("f", &json!({})), &other.url("/"), None).await.expect("another host is free");
    for holder in holders {
        holder.abort();
        drop(holder.await);
    }
    assert_eq!(
        code(client.enact(&late, &target.url("/"), None).await),
        ("timeout".to_owned(), true),
        "a place is free"
    );
}

#[tokio::test]
async fn a_certificate_must_come_from_an_authority_that_is_trusted() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a server");
    let target = Target::with(|_| Act::json("200 OK", "{\"secure\":true}"), Some(Arc::new(config).into())).await;
    let url = format!("https://localhost:{}/", target.address.port());
    assert_eq!(code(call(&url).await), ("tls_failed".to_owned(), true));
    let trusting = http(Config { ca: Some(made.cert.pem()), ..Config::default() });
    let output = trusting.enact(&enactment("f", &json!({})), &url, None).await;
    assert_eq!(json(&output.expect("an output")), json!({"secure": true}));
    let wrong_name = format!("https://{}/", target.address);
    assert_eq!(code(trusting.enact(&enactment("f", &json!({})), &wrong_name, None).await).0, "tls_failed");
}
