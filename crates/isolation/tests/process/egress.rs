//! The way out of a sandbox, where a function asks for one.

use lyra_types::{Network, Runtime};

use super::{Fixture, Settings};

/// Asks the proxy, if there is one, for an address of the machine's own loopback.
const SOURCE: &str = r#"
import os, socket
def handler(event, context):
    proxy = os.environ.get("HTTPS_PROXY")
    if proxy is None:
        with socket.socket() as direct:
            direct.settimeout(5)
            return ["no proxy", direct.connect_ex(("192.0.2.1", 80)) != 0, direct.connect_ex(("127.0.0.1", 9002)) != 0]
    with socket.create_connection(("127.0.0.1", int(proxy.rsplit(":", 1)[1])), 5) as way:
        way.sendall(f"CONNECT {event} HTTP/1.1\r\n\r\n".encode())
        return way.recv(1000).split(b"\r\n")[0].decode()
"#;

#[tokio::test]
async fn a_function_that_asks_for_a_way_out_gets_a_proxy_that_refuses_what_is_not_public() {
    let fixture = Fixture::new().await;
    let settings = Settings { network: Network::Egress, ..Settings::of(Runtime::Python) };
    let function = fixture.deploy(SOURCE.as_bytes(), settings).await;
    let mut instance = function.start().await;
    for target in ["127.0.0.1:80", "169.254.169.254:80", "10.0.0.1:443", "[::1]:22", "localhost:80"] {
        let answer = function.call_on(&mut *instance, &format!("\"{target}\"")).await.expect("answers");
        assert_eq!(answer, "\"HTTP/1.1 403 Forbidden\"", "{target}");
    }
}

#[tokio::test]
async fn a_function_that_does_not_ask_reaches_nothing() {
    let fixture = Fixture::new().await;
    let function = fixture.python(SOURCE).await;
    assert_eq!(function.call("1").await.expect("answers"), r#"["no proxy",true,true]"#);
}
