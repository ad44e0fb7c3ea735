//! Who is let in.

use lyra_gateway::{Config, Service, Tokens};
use lyra_types::Code;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::client::{OK, deps, start, start_with};

#[tokio::test]
async fn a_loopback_listener_takes_only_loopback_hosts() {
    let gateway = start().await;
    for host in ["localhost", "localhost:1", "127.0.0.1", "127.1.2.3:80", "[::1]:8080", "app.localhost"] {
        assert_eq!(gateway.send("GET /healthz", &[("host", host)], "").await.status, OK, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example:8080", "10.0.0.1", "0.0.0.0", "web.func.evil.example"] {
        for path in ["/healthz", "/v1/functions", "/fn/default/web/", "/nowhere"] {
            let answer = gateway.send(&format!("GET {path}"), &[("host", host)], "").await;
            assert_eq!(answer.fault(), (403, "permission_denied".into()), "{host} {path}");
        }
    }
    let none = gateway.raw(b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(none.starts_with("HTTP/1.1 400"), "{none}");
    let two = gateway.raw(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\nconnection: close\r\n\r\n").await;
    assert!(two.starts_with("HTTP/1.1 400"), "{two}");
    let absolute =
        gateway.raw(b"GET http://evil.example/healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(absolute.starts_with("HTTP/1.1 403"), "{absolute}");
}

#[tokio::test]
async fn a_foreign_page_may_not_call() {
    let gateway = start().await;
    let call = async |origin: &str| gateway.send("POST /v1/functions/echo/invoke", &[("origin", origin)], "1").await;
    for own in ["http://localhost:3000", "http://127.0.0.1", "https://app.localhost"] {
        assert_eq!(call(own).await.status, OK, "{own}");
    }
    for foreign in ["https://evil.example", "null", "", "http://localhost.evil.example", "file://", "é"] {
        assert_eq!(call(foreign).await.fault(), (403, "permission_denied".into()), "{foreign}");
    }
    assert_eq!(gateway.worker.calls.lock().len(), 3);
}

#[tokio::test]
async fn a_listener_for_others_does_not_start_without_tokens() {
    let (deps, ..) = deps();
    let service = Service::new(Config::default(), deps);
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    assert_eq!(service.check(listener.local_addr().unwrap()).unwrap_err().code, Code::InvalidField);
    let error = service.serve(listener, CancellationToken::new()).await.unwrap_err();
    assert!(error.detail.contains("127.0.0.1") && error.detail.contains("tokens"), "{error}");
}

#[tokio::test]
async fn with_tokens_only_their_holders_are_let_in() {
    let tokens = Tokens::parse("a-long-enough-token\nanother-long-token").unwrap();
    let gateway = start_with(Config { tokens, ..Config::default() }).await;
    let get = |headers| gateway.send("GET /v1/functions", headers, "");
    for good in ["Bearer a-long-enough-token", "bearer another-long-token"] {
        let answer =
            gateway.send("GET /v1/functions", &[("authorization", good), ("host", "lyra.example.org")], "").await;
        assert_eq!(answer.status, OK, "{good}");
    }
    for bad in ["Bearer a-long-enough-toke", "Bearer", "Bearer ", "Basic a-long-enough-token", "a-long-enough-token"] {
        let answer = gateway.send("GET /v1/functions", &[("authorization", bad)], "").await;
        assert_eq!(answer.fault(), (401, "unauthenticated".into()), "{bad}");
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    assert_eq!(get(&[]).await.fault(), (401, "unauthenticated".into()));
    assert_eq!(gateway.get("/fn/default/web/").await.status, 401);
    assert_eq!(gateway.get("/metrics").await.status, 401);
    assert_eq!(gateway.get("/healthz").await.status, OK);

    let own = [("authorization", "Bearer a-long-enough-token")];
    assert_eq!(gateway.send("GET /fn/default/web/", &own, "").await.status, 207);
    assert!(!gateway.worker.http_calls.lock()[0].headers.contains_key("authorization"), "the secret stays here");
    let event = gateway.send("GET /fn/default/echo/", &own, "").await.json();
    assert!(event["headers"].get("authorization").is_none());
}
