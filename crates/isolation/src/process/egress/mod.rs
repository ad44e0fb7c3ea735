//! The way out of a sandbox: a proxy for HTTP, HTTPS (`CONNECT`) and SOCKS 5 on the sandbox's own loopback.
//!
//! A sandbox has no other network, so what this refuses can't be reached by any other way. What must hold: a name is
//! resolved here, and the address that was checked is the one that is connected to; addresses of this machine, of private
//! networks and of links (where cloud machines keep their credentials) are refused unless the policy says otherwise.
//! A program that ignores proxies reaches nothing.

mod policy;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub use policy::{Host, InvalidRule, Policy, Rule};

/// Connections of one instance at a time; more wait.
const CONNECTIONS: usize = 64;

/// Longest request head.
const MAX_HEAD: usize = 16 << 10;

/// Longest wait for a request, and for a connection to its target.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why a target was not connected to.
enum Refusal {
    /// The policy says no.
    Forbidden,
    /// It is not there.
    Unreachable,
}

/// Serves an instance's requests until it is dropped.
pub(super) async fn serve(listener: TcpListener, policy: Arc<Policy>) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                match accepted {
                    Ok((stream, _)) => connections.push(pass(stream, &policy)),
                    // Too many open files, for one: what is open already may go on.
                    Err(_) => tokio::task::yield_now().await,
                }
            }
            // How a connection ends is known to its two ends.
            Some(_) = connections.next() => {}
        }
    }
}

async fn pass(mut client: TcpStream, policy: &Policy) -> io::Result<()> {
    client.set_nodelay(true)?;
    let begun = async {
        let mut first = [0; 1];
        client.read_exact(&mut first).await?;
        if first[0] == 5 { socks(&mut client, policy).await } else { http(&mut client, first[0], policy).await }
    };
    let begun = tokio::time::timeout(PATIENCE * 2, begun).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if let Some(mut target) = begun {
        tokio::io::copy_bidirectional(&mut client, &mut target).await?;
    }
    Ok(())
}

async fn connect(host: &str, port: u16, policy: &Policy) -> Result<TcpStream, Refusal> {
    if policy.denies(host, port) {
        return Err(Refusal::Forbidden);
    }
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, port))).await;
    let Ok(Ok(addresses)) = found else { return Err(Refusal::Unreachable) };
    let mut refusal = Refusal::Unreachable;
    for address in addresses {
        if !policy.allows(host, address) {
            refusal = Refusal::Forbidden;
            continue;
        }
        let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE / 3, TcpStream::connect(address)).await else { continue };
        // A connection to one of this machine's own addresses comes from the same address.
        if is_own(&stream) {
            return Err(Refusal::Forbidden);
        }
        let _ = stream.set_nodelay(true);
        return Ok(stream);
    }
    Err(refusal)
}

fn is_own(stream: &TcpStream) -> bool {
    let ip = |address: io::Result<SocketAddr>| address.map(|address| address.ip().to_canonical());
    match (ip(stream.local_addr()), ip(stream.peer_addr())) {
        (Ok(own), Ok(peer)) => own == peer,
        _ => true,
    }
}

/// SOCKS 5 without a password (RFC 1928): `CONNECT` only. The version was read already.
async fn socks(client: &mut TcpStream, policy: &Policy) -> io::Result<Option<TcpStream>> {
    let methods = client.read_u8().await?;
    let mut offered = vec![0; usize::from(methods)];
    client.read_exact(&mut offered).await?;
    if !offered.contains(&0) {
        client.write_all(&[5, 0xff]).await?;
        return Ok(None);
    }
    client.write_all(&[5, 0]).await?;
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let host = match head[3] {
        1 => {
            let mut octets = [0; 4];
            client.read_exact(&mut octets).await?;
            Ipv4Addr::from(octets).to_string()
        }
        3 => {
            let length = client.read_u8().await?;
            let mut name = vec![0; usize::from(length)];
            client.read_exact(&mut name).await?;
            String::from_utf8(name).unwrap_or_default()
        }
        4 => {
            let mut octets = [0; 16];
            client.read_exact(&mut octets).await?;
            Ipv6Addr::from(octets).to_string()
        }
        _ => return Ok(None),
    };
    let port = client.read_u16().await?;
    let (code, target) = match head[1] {
        1 => match connect(&host, port, policy).await {
            Ok(target) => (0, Some(target)),
            Err(Refusal::Forbidden) => (2, None),
            Err(Refusal::Unreachable) => (4, None),
        },
        _ => (7, None),
    };
    client.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    Ok(target)
}

/// `CONNECT host:port`, or a request whose target is a whole `http:` address. Its first byte was read already.
async fn http(client: &mut TcpStream, first: u8, policy: &Policy) -> io::Result<Option<TcpStream>> {
    let mut head = vec![first];
    let end = loop {
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if head.len() > MAX_HEAD || client.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    };
    let Some(request) = Request::parse(&head[..end]) else {
        refuse(client, "400 Bad Request", "this is a proxy: it takes CONNECT, and requests with a whole http: address")
            .await?;
        return Ok(None);
    };
    let mut target = match connect(&request.host, request.port, policy).await {
        Ok(target) => target,
        Err(Refusal::Forbidden) => {
            refuse(client, "403 Forbidden", "the worker's egress policy does not allow this host or port").await?;
            return Ok(None);
        }
        Err(Refusal::Unreachable) => {
            refuse(client, "502 Bad Gateway", "the host can't be found or does not answer").await?;
            return Ok(None);
        }
    };
    match &request.forward {
        None => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?,
        Some(forward) => target.write_all(forward.as_bytes()).await?,
    }
    target.write_all(&head[end..]).await?;
    Ok(Some(target))
}

async fn refuse(client: &mut TcpStream, status: &str, why: &str) -> io::Result<()> {
    let length = why.len() + 1;
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{why}\n"
    );
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await
}

/// What a proxy is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    host: String,
    port: u16,
    /// The head to be sent on, for a request that is no `CONNECT`.
    forward: Option<String>,
}

impl Request {
    fn parse(head: &[u8]) -> Option<Request> {
        let text = std::str::from_utf8(head).ok()?;
        let (line, headers) = text.split_once("\r\n")?;
        let mut words = line.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if method == "CONNECT" {
            let (host, port) = target.rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            return Some(Request { host, port: port.parse().ok()?, forward: None });
        }
        let url = url::Url::parse(target).ok().filter(|url| url.scheme() == "http")?;
        let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut forward = format!("{method} {path} {version}\r\n");
        for header in headers.split("\r\n").filter(|header| !header.is_empty()) {
            let name = header.split(':').next().unwrap_or_default().to_ascii_lowercase();
            // The next request of this connection may be for another host: there is none.
            if !matches!(&*name, "connection" | "keep-alive") && !name.starts_with("proxy-") {
                forward.push_str(header);
                forward.push_str("\r\n");
            }
        }
        forward.push_str("connection: close\r\n\r\n");
        Some(Request { host, port: url.port_or_known_default()?, forward: Some(forward) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_sent_on_without_what_is_for_the_proxy() {
        let connect = Request::parse(b"CONNECT [::1]:443 HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(connect, Some(Request { host: "::1".to_owned(), port: 443, forward: None }));
        let get = Request::parse(b"GET http://a.test/b?c HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: x\r\nConnection: keep-alive\r\n\r\n");
        let forward = "GET /b?c HTTP/1.1\r\nHost: a.test\r\nconnection: close\r\n\r\n".to_owned();
        assert_eq!(get, Some(Request { host: "a.test".to_owned(), port: 80, forward: Some(forward) }));
        assert_eq!(Request::parse(b"GET / HTTP/1.1\r\n\r\n"), None);
        assert_eq!(Request::parse(b"\xff\r\n\r\n"), None);
    }
}
