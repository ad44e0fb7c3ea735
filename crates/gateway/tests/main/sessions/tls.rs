//! A listener with a certificate: HTTP of both versions, upgraded connections, clients that do not speak TLS, new certificates.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lyra_gateway::Config;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{config, open, programs, start, until};
use crate::client::Gateway;

/// Bytes that no socket's buffer holds.
const MUCH: usize = 8 << 20;

/// A directory with a certificate, which is its own authority, and the way to it.
struct Site {
    dir: TempDir,
    trusts: CertificateDer<'static>,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let trusts = issue(dir.path());
        Site { dir, trusts }
    }

    fn config(&self) -> Config {
        let (tls_cert, tls_key) = (self.dir.path().join("cert.pem"), self.dir.path().join("key.pem"));
        Config { tls_cert, tls_key, ..config() }
    }

    async fn connect(&self, gateway: &Gateway, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
        connect(&self.trusts, gateway, alpn).await
    }
}

/// Makes a certificate and its key in place of those that are there.
fn issue(dir: &Path) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    for (name, text) in [("key", key.serialize_pem()), ("cert", certificate.pem())] {
        let fresh = dir.join(format!("{name}.new"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(fresh, dir.join(format!("{name}.pem"))).unwrap();
    }
    certificate.der().clone()
}

async fn connect(
    trusts: &CertificateDer<'static>,
    gateway: &Gateway,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusts.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(gateway.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Sends a request in HTTP/1.1, and gives status and body.
async fn get(stream: TlsStream<TcpStream>, path: &str) -> (u16, String) {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    lyra_kit::tasks::spawn("client", connection);
    let request = http::Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn metric(site: &Site, gateway: &Gateway, name: &str) -> i64 {
    let (_, text) = get(site.connect(gateway, &[]).await.unwrap(), "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

/// A gateway with a certificate and the session `room`.
async fn room(site: &Site) -> (Gateway, programs::Program) {
    let (gateway, program) = (start(site.config()).await, programs::http("room").await);
    open(&gateway, "room", program.address, None);
    until("the session is known", || async {
        get(site.connect(&gateway, &[]).await.unwrap(), "/s/default/room/").await.0 == 200
    })
    .await;
    program.seen.lock().clear();
    (gateway, program)
}

#[tokio::test]
async fn http_of_both_versions_is_spoken_by_tls() {
    let site = Site::new();
    let (gateway, program) = room(&site).await;
    type Offer = (&'static [&'static [u8]], Option<&'static [u8]>);
    let offers: [Offer; 3] = [(&[b"h2", b"http/1.1"], Some(b"h2")), (&[b"http/1.1"], Some(b"http/1.1")), (&[], None)];
    for (offered, agreed) in offers {
        let stream = site.connect(&gateway, offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        if agreed != Some(b"h2") {
            assert_eq!(get(stream, "/s/default/room/").await, (200, "room".to_owned()));
            continue;
        }
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        lyra_kit::tasks::spawn("client", connection);
        let request = http::Request::get("https://localhost/s/default/room/").body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    }
    let seen = program.seen.lock();
    assert_eq!(seen.len(), 3);
    for parts in &*seen {
        assert_eq!(parts.headers["x-forwarded-proto"], "https");
        assert!(parts.headers["forwarded"].to_str().unwrap().ends_with("proto=https"), "{parts:?}");
    }
}

#[tokio::test]
async fn a_connection_by_tls_is_upgraded_and_carried_both_ways() {
    let site = Site::new();
    let (gateway, _program) = room(&site).await;
    let mut stream = site.connect(&gateway, &[b"http/1.1"]).await.unwrap();
    let request =
        "GET /s/default/room/socket HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    // The client's first bytes may come with its request.
    stream.write_all(format!("{request}early;").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let mut greeting = [0; 14];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"welcome;early;");
    for text in ["one", "two"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut seen = [0; 3];
        stream.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, text.as_bytes());
    }
    // More than is held anywhere, so that each direction has to wait for the other.
    let (mut from, mut to) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..MUCH).map(|at| (at % 251) as u8).collect();
    let mut seen = vec![0; MUCH];
    let write = async {
        to.write_all(&sent).await.unwrap();
        to.flush().await.unwrap();
    };
    tokio::join!(write, async { from.read_exact(&mut seen).await.unwrap() });
    assert!(seen == sent, "every byte, in order");
    // The end of one direction leaves the other open.
    to.shutdown().await.unwrap();
    let mut rest = Vec::new();
    from.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b";bye", "in good order, with TLS's own end");
    until("its place is free", || async {
        metric(&site, &gateway, "lyra_ingress_connections{kind=\"upgraded\"}").await == 0
    })
    .await;
    // One that breaks off without TLS's end is no orderly end for the session's program either.
    let mut stream = site.connect(&gateway, &[]).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_u8().await.unwrap();
    drop(stream);
    until("its place is free", || async {
        metric(&site, &gateway, "lyra_ingress_connections{kind=\"upgraded\"}").await == 0
    })
    .await;
}

#[tokio::test]
async fn who_says_nothing_or_speaks_something_else_holds_up_nobody() {
    let site = Site::new();
    let config = Config { tls_handshake_timeout: Duration::from_secs(2), max_connections: 40, ..site.config() };
    let gateway = start(config).await;
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(TcpStream::connect(gateway.address).await.unwrap());
    }
    assert_eq!(get(site.connect(&gateway, &[]).await.unwrap(), "/healthz").await.0, 200);
    let answer = gateway.get("/healthz").await;
    assert_eq!(answer.fault(), (400, "bad_request".to_owned()));
    assert!(answer.problem().detail.contains("https://"), "{answer:?}");
    // A preface, a record of another kind, a beginning that is never finished.
    assert!(gateway.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    for bytes in [&b"\x00\x01\x02\x03\x04\x05"[..], &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0], &[0x16, 3, 1]] {
        let answer = gateway.raw(bytes).await;
        assert!(!answer.contains("HTTP"), "{bytes:?}: {answer:?}");
    }
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or_default(), 0, "it is closed after its time");
    }
    for (reason, least) in [("timeout", 30), ("plain_http", 2), ("broken", 1)] {
        let name = format!("lyra_http_tls_failed_total{{reason=\"{reason}\"}}");
        let count = metric(&site, &gateway, &name).await;
        assert!(count >= least, "{reason}: {count}");
    }
    assert!(metric(&site, &gateway, "lyra_http_tls_certificate_until_seconds").await > 1_700_000_000);
    gateway.shutdown.cancel();
}

#[tokio::test]
async fn a_new_certificate_is_shown_without_a_restart() {
    let site = Site::new();
    let gateway = start(site.config()).await;
    let stream = site.connect(&gateway, &[]).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    lyra_kit::tasks::spawn("client", connection);
    let trusts = issue(site.dir.path());
    until("the new one is shown", || async { connect(&trusts, &gateway, &[]).await.is_ok() }).await;
    assert!(site.connect(&gateway, &[]).await.is_err(), "the former one is not");
    let request = http::Request::get("/healthz").header("host", "localhost").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200, "what began before goes on");
    std::fs::write(site.dir.path().join("cert.pem"), "nonsense").unwrap();
    lyra_kit::Clock::system().sleep(Duration::from_secs(3)).await;
    assert!(connect(&trusts, &gateway, &[]).await.is_ok(), "a bad one is not taken");
}

#[tokio::test]
async fn a_gateway_without_its_certificate_does_not_start() {
    let site = Site::new();
    std::fs::remove_file(site.dir.path().join("key.pem")).unwrap();
    let mut gateway = start(site.config()).await;
    let error = gateway.served.take().unwrap().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("key.pem can't be read"), "{error}");
}
