//! Connections of an instance: taken, bounded, and served by HTTP/1.1 or HTTP/2, whichever they speak.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use lyra_kit::tasks::Tasks;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::rate::Metered;
use crate::server::Shared;

/// Wait after a failed accept: it fails for want of file descriptors, and trying at once won't find more.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Largest head of a request, and what is buffered of a connection, in bytes.
const BUFFER: u32 = 16 << 10;
/// Exchanges of one HTTP/2 connection at a time.
const EXCHANGES: u32 = 8;
/// What a stream of HTTP/2 may send ahead, in bytes.
const WINDOW: u32 = 64 << 10;

/// Connections of a TCP listener.
pub fn tcp(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> + Send + 'static {
    stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        Some((accepted, listener))
    })
}

/// Connections of a Unix socket.
pub fn unix(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> + Send + 'static {
    stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    })
}

/// Serves connections until there are no more.
pub(crate) async fn accept<S, C>(connections: S, shared: Arc<Shared>)
where
    S: Stream<Item = io::Result<C>> + Send + 'static,
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(shared.settings.connections));
    tokio::pin!(connections);
    while let Some(accepted) = connections.next().await {
        // A program that only connects must not keep its worker busy either.
        shared.messages.one().await;
        match accepted {
            Ok(connection) => {
                // Without a place, it is closed.
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let served = serve(connection, Arc::clone(&shared));
                shared.tasks.spawn_cancellable("session-connection", async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection of an instance can't be accepted");
                shared.clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve<C>(connection: C, shared: Arc<Shared>)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = TokioIo::new(Metered::new(connection, Arc::clone(&shared.bytes)));
    let mut builder = Builder::new(Spawn(shared.tasks.clone()));
    let patience = shared.settings.patience;
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(BUFFER as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(EXCHANGES)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 2)
        .max_header_list_size(BUFFER)
        .max_send_buf_size(WINDOW as usize);
    let service = service_fn(move |request: Request<Incoming>| crate::http::answer(Arc::clone(&shared), request));
    if let Err(error) = builder.serve_connection(connection, service).await {
        tracing::debug!(error, "a connection of an instance ended");
    }
}

/// Has the tasks of HTTP/2 connections end with the server.
#[derive(Clone)]
struct Spawn(Tasks);

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn_cancellable("session-exchange", future);
    }
}
