//! A server on a socket that does what a test says: answers, hangs, breaks off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// What a target does once it has read a request.
#[derive(Clone)]
pub(crate) enum Act {
    /// Sends these bytes and reads on.
    Answer(Vec<u8>),
    /// Sends these bytes and closes.
    Close(Vec<u8>),
    /// Sends these bytes and then nothing more.
    Hang(Vec<u8>),
}

impl Act {
    /// A whole answer with this status line and body.
    pub(crate) fn json(status: &str, body: &str) -> Act {
        let length = body.len();
        Act::Answer(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes())
    }

    pub(crate) fn close(bytes: &str) -> Act {
        Act::Close(bytes.as_bytes().to_vec())
    }

    pub(crate) fn hang(bytes: &str) -> Act {
        Act::Hang(bytes.as_bytes().to_vec())
    }
}

/// The server; it ends with the test's runtime.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Requests as they came: head and body.
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
    /// Connections that were accepted.
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Target {
    /// Does `act` on each request of each connection.
    pub(crate) async fn start(act: Act) -> Target {
        Target::with(move |_| act.clone(), None).await
    }

    /// Does what `act` says of each request.
    pub(crate) async fn with(
        act: impl Fn(&str) -> Act + Send + Sync + 'static,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (requests, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (seen, counted, act) = (Arc::clone(&requests), Arc::clone(&connections), Arc::new(act));
        lyra_kit::tasks::spawn("target", async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (seen, act, tls) = (Arc::clone(&seen), Arc::clone(&act), tls.clone());
                lyra_kit::tasks::spawn("target connection", async move {
                    match tls {
                        None => serve(stream, &*act, &seen).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &*act, &seen).await;
                            }
                        }
                    }
                });
            }
        });
        Target { address, requests, connections }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn serve<S>(mut stream: S, act: &(dyn Fn(&str) -> Act + Send + Sync), seen: &Mutex<Vec<String>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(request) = request(&mut stream).await {
        let act = act(&request);
        seen.lock().push(request);
        let (bytes, hang, close) = match act {
            Act::Answer(bytes) => (bytes, false, false),
            Act::Close(bytes) => (bytes, false, true),
            Act::Hang(bytes) => (bytes, true, false),
        };
        drop(stream.write_all(&bytes).await);
        drop(stream.flush().await);
        if hang {
            std::future::pending::<()>().await;
        }
        if close {
            drop(stream.shutdown().await);
            return;
        }
    }
}

/// One request with a `content-length`, or the beginning of TLS where nobody expects it; none when the connection has
/// ended.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if bytes.first() == Some(&0x16) {
            return Some(String::new());
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
