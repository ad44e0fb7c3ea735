//! Accepts connections and speaks HTTP/1.1 and HTTP/2 on them: by TLS, where there is a certificate, else in plain text (HTTP/2 with
//! prior knowledge).
//!
//! Slow and idle clients: TLS must be agreed within a time, headers must come within one, the first request too; the number of
//! connections is bounded, and one too many is told so.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use lyra_kit::{Clock, Tasks};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::auth::Guard;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::socket::Socket;
use crate::tls::{self, Certificates};

/// Wait after a failed accept: it fails for want of file descriptors, and trying at once won't find more.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Calls that one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 256;
/// Largest headers of a request, in bytes.
const MAX_HEADERS: usize = 64 << 10;
const MAX_HEADERS_H2: u32 = 64 << 10;
/// How often a silent HTTP/2 connection is asked whether it lives.
const PING: Duration = Duration::from_secs(20);

/// How long a connection without a request stays when the gateway is told to end. A request that comes meanwhile is
/// answered, and told that it was the last: closed at once, a connection may meet its client's next request on the way.
const LINGER: Duration = Duration::from_secs(1);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 146\r\n\r\n\
    {\"type\":\"https://lyra.dev/errors/overloaded\",\"title\":\"Overloaded\",\"status\":503,\
    \"detail\":\"the limit of connections is reached\",\"code\":\"overloaded\"}";

/// Stands in the extensions of a request that came by TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Secured;

/// What answers the requests of a listener.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Limits of connections.
    fn config(&self) -> &Config;
    /// Time.
    fn clock(&self) -> &Clock;
    /// Where connections are counted.
    fn metrics(&self) -> &Metrics;
    /// Answers a request from `peer`, which `guard` may refuse.
    fn answer(
        self: &Arc<Self>,
        guard: &Guard,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response> + Send;
}

/// Accepts until `shutdown` is cancelled. Connections end by themselves when `connections` are told to stop, and at once
/// when `cut` is cancelled.
pub(crate) async fn accept<A: Answers>(
    entry: &Arc<A>,
    guard: Guard,
    listener: TcpListener,
    certificates: Option<Certificates>,
    connections: &Tasks,
    shutdown: &CancellationToken,
    cut: &CancellationToken,
) {
    let places = Arc::new(Semaphore::new(entry.config().max_connections.min(Semaphore::MAX_PERMITS)));
    let builder = Arc::new(builder(entry.config()));
    let guard = Arc::new(guard);
    if let Some(certificates) = &certificates {
        certificates.follow(connections);
    }
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if is_of_the_connection(&error) {
                    continue;
                }
                tracing::warn!(%error, "a connection can't be accepted");
                entry.clock().sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            entry.metrics().refused.inc();
            // Best effort, without waiting: the answer fits into the socket's buffer. By TLS it would take a handshake.
            if certificates.is_none() {
                drop(stream.try_write(FULL));
            }
            continue;
        };
        let connection = Connection {
            entry: Arc::clone(entry),
            guard: Arc::clone(&guard),
            certificates: certificates.clone(),
            builder: Arc::clone(&builder),
            stopping: connections.stopping(),
            cut: cut.clone(),
            peer,
            _place: place,
        };
        connections.spawn("connection", connection.run(stream));
    }
}

/// Whether the error says something of the one connection, not of the listener.
fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

fn builder(config: &Config) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(config.header_timeout).max_buf_size(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS_H2)
        .adaptive_window(true);
    builder
}

struct Connection<A> {
    entry: Arc<A>,
    guard: Arc<Guard>,
    certificates: Option<Certificates>,
    builder: Arc<Builder<TokioExecutor>>,
    stopping: CancellationToken,
    cut: CancellationToken,
    peer: SocketAddr,
    _place: OwnedSemaphorePermit,
}

impl<A: Answers> Connection<A> {
    async fn run(self, stream: TcpStream) {
        let open = &self.entry.metrics().connections;
        open.inc();
        self.speak(stream).await;
        open.dec();
    }

    /// Agrees on TLS with the client. `None`: there is nobody to speak with.
    async fn secure(&self, stream: TcpStream, certificates: &Certificates) -> Option<Socket> {
        let limit = self.entry.config().tls_handshake_timeout;
        let leave = async {
            self.stopping.cancelled().await;
            self.entry.clock().sleep(LINGER).await;
        };
        let agreed = tokio::select! {
            agreed = tls::accept(stream, certificates.current(), limit) => agreed,
            () = leave => return None,
            () = self.cut.cancelled() => return None,
        };
        match agreed {
            Ok(stream) => Some(Socket::Tls(stream)),
            Err(why) => {
                self.entry.metrics().handshakes_failed.with_label_values(&[why.reason()]).inc();
                tracing::debug!(%why, peer = %self.peer, "TLS was not agreed");
                None
            }
        }
    }

    async fn speak(&self, stream: TcpStream) {
        // Answers are written whole; waiting for more to send with them only adds latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone before it was served");
            return;
        }
        let (is_secure, socket) = match &self.certificates {
            None => (false, Socket::Plain(stream)),
            Some(certificates) => match self.secure(stream, certificates).await {
                Some(socket) => (true, socket),
                None => return,
            },
        };
        let begun = Arc::new(AtomicBool::new(false));
        let service = service_fn(|mut request: Request<Incoming>| {
            begun.store(true, Ordering::Relaxed);
            let (entry, guard, peer) = (Arc::clone(&self.entry), Arc::clone(&self.guard), self.peer);
            if is_secure {
                request.extensions_mut().insert(Secured);
            }
            // HTTP/2 has a frame of its own for this.
            let stopping = (request.version() < Version::HTTP_2).then(|| self.stopping.clone());
            async move {
                let mut response = entry.answer(&guard, peer, request).await;
                let is_switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                if !is_switched && stopping.is_some_and(|stopping| stopping.is_cancelled()) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(self.builder.serve_connection_with_upgrades(TokioIo::new(socket), service));
        // Until the version of HTTP is known, no timer of hyper runs.
        let mut first_request = pin!(self.entry.clock().sleep(self.entry.config().header_timeout));
        let mut watch_first = true;
        let mut leave = pin!(async {
            self.stopping.cancelled().await;
            self.entry.clock().sleep(LINGER).await;
        });
        let mut draining = false;
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(error = %error, peer = %self.peer, "connection broke");
                    }
                    return;
                }
                () = &mut leave, if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = self.cut.cancelled() => return,
                () = &mut first_request, if watch_first => {
                    watch_first = false;
                    if !begun.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_answer_to_one_connection_too_many_is_well_formed() {
        let text = std::str::from_utf8(super::FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        let problem: lyra_types::api::Problem = serde_json::from_str(body.trim()).unwrap();
        assert_eq!(problem.code, "overloaded");
    }
}
