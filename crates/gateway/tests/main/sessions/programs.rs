//! Programs of sessions: HTTP and TCP servers that do what a request says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

/// An HTTP server.
pub struct Program {
    pub address: SocketAddr,
    /// What it saw.
    pub seen: Arc<Mutex<Vec<http::request::Parts>>>,
    /// Connections that it took.
    pub connections: Arc<AtomicUsize>,
    /// Closes every connection when it is told to.
    pub close: Arc<Mutex<CancellationToken>>,
}

fn whole(text: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, hyper::Error> {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Does what the path says, and answers with `name` to any other.
pub async fn http(name: &'static str) -> Program {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let program = Program {
        address,
        seen: Arc::default(),
        connections: Arc::default(),
        close: Arc::new(Mutex::new(CancellationToken::new())),
    };
    let (seen, connections, close) =
        (Arc::clone(&program.seen), Arc::clone(&program.connections), Arc::clone(&program.close));
    lyra_kit::tasks::spawn("program", async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            let seen = Arc::clone(&seen);
            let closed = close.lock().clone();
            let service = service_fn(move |request| answer(name, Arc::clone(&seen), request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            lyra_kit::tasks::spawn("program's connection", async move {
                tokio::select! {
                    ended = connection.with_upgrades() => drop(ended),
                    () = closed.cancelled() => {}
                }
            });
        }
    });
    program
}

async fn answer(
    name: &'static str,
    seen: Arc<Mutex<Vec<http::request::Parts>>>,
    mut request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let upgrade = request.headers().contains_key("upgrade").then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    seen.lock().push(parts);
    Ok(match path.as_str() {
        "/echo" => Response::new(body.boxed_unsync()),
        "/read" => Response::new(whole(body.collect().await.map(|body| body.to_bytes()).unwrap_or_default())),
        "/ticks" => {
            let ticks = futures::stream::unfold(0u64, |at| async move {
                if at > 0 {
                    lyra_kit::Clock::system().sleep(Duration::from_millis(20)).await;
                }
                Some((Ok(Frame::data(Bytes::from(format!("data: {at}\n\n")))), at + 1))
            });
            let mut response =
                Response::new(StreamBody::new(ticks).map_err(|never: Infallible| match never {}).boxed_unsync());
            response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            response
        }
        "/hang" => std::future::pending().await,
        "/socket" => {
            let Some(upgrade) = upgrade else { return Ok(status(StatusCode::UPGRADE_REQUIRED)) };
            lyra_kit::tasks::spawn("socket", async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                io.write_all(b"welcome;").await.unwrap();
                let mut buffer = [0; 1024];
                while let Ok(length @ 1..) = io.read(&mut buffer).await {
                    io.write_all(&buffer[..length]).await.unwrap();
                }
                io.write_all(b";bye").await.unwrap();
            });
            let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "echo".parse().unwrap());
            response.headers_mut().insert("sec-websocket-accept", "yes".parse().unwrap());
            response
        }
        "/large-head" => {
            let mut response = Response::new(whole(name));
            response.headers_mut().insert("x-large", "x".repeat(1 << 20).parse().unwrap());
            response
        }
        "/private" => {
            let mut response = Response::new(whole(name));
            response.headers_mut().insert("connection", "x-hop".parse().unwrap());
            response.headers_mut().insert("x-hop", "1".parse().unwrap());
            response.headers_mut().insert("x-mine", "kept".parse().unwrap());
            response
        }
        _ => Response::new(whole(name)),
    })
}

fn status(status: StatusCode) -> Answer {
    let mut response = Response::new(whole(""));
    *response.status_mut() = status;
    response
}

/// A server that does `work` with each connection.
pub async fn tcp<F, Fut>(work: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    lyra_kit::tasks::spawn("program", async move {
        while let Ok((stream, _)) = listener.accept().await {
            lyra_kit::tasks::spawn("program's connection", work(stream));
        }
    });
    address
}

/// Says its name, then what it is told, then, when the client has ended, how much that was.
pub async fn echo(name: &'static str) -> SocketAddr {
    tcp(move |mut stream| async move {
        let mut all = 0;
        let mut buffer = [0; 4096];
        drop(stream.write_all(name.as_bytes()).await);
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            all += length;
            drop(stream.write_all(&buffer[..length]).await);
        }
        drop(stream.write_all(format!(";{all}").as_bytes()).await);
    })
    .await
}

/// Sends `pieces` pieces of 64 KiB to each client, and counts them.
pub async fn flood(pieces: u64) -> (SocketAddr, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let address = tcp(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            for _ in 0..pieces {
                if stream.write_all(&[7; 64 << 10]).await.is_err() {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (address.await, sent)
}

/// Answers each datagram with its name, the sender's port and the datagram.
pub async fn datagrams(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    lyra_kit::tasks::spawn("program", async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let mut answer = format!("{name} {} ", from.port()).into_bytes();
            answer.extend_from_slice(&buffer[..length]);
            drop(socket.send_to(&answer, from).await);
        }
    });
    address
}
