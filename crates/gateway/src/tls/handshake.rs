//! Secures one connection, and tells who speaks plain HTTP that this is not the way.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lyra_types::api::Problem;
use lyra_types::{Code, Error};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Most of a plain request that is read before it is answered.
const PLAIN_READ: usize = 16 << 10;
/// Longest wait for its client to take the answer.
const PLAIN_WAIT: Duration = Duration::from_secs(1);

/// Why a connection was not secured.
pub(crate) enum Failed {
    /// It does not speak TLS but HTTP, and was told so.
    Plain,
    /// No agreement, or the client went away.
    Broken(io::Error),
    /// It took too long.
    Late,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failed::Plain => f.write_str("it speaks plain HTTP"),
            Failed::Broken(error) => error.fmt(f),
            Failed::Late => f.write_str("it took too long"),
        }
    }
}

impl Failed {
    /// In one word, for the metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Failed::Plain => "plain_http",
            Failed::Broken(_) => "broken",
            Failed::Late => "timeout",
        }
    }
}

/// Agrees on TLS with a client, within `limit`.
///
/// # Errors
/// [`Failed`]; the connection is closed.
pub(crate) async fn accept(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    limit: Duration,
) -> Result<Box<TlsStream<TcpStream>>, Failed> {
    let agreed = async {
        let mut first = [0];
        let length = stream.peek(&mut first).await.map_err(Failed::Broken)?;
        // Methods of HTTP are written in capitals; TLS begins with the number of a kind of record, which is none of them.
        if length == 1 && first[0].is_ascii_uppercase() {
            drop(tokio::time::timeout(PLAIN_WAIT, tell_plain(&mut stream)).await);
            return Err(Failed::Plain);
        }
        // Most of it is what rustls keeps of a connection.
        TlsAcceptor::from(config).accept(stream).await.map(Box::new).map_err(Failed::Broken)
    };
    match tokio::time::timeout(limit, Box::pin(agreed)).await {
        Ok(agreed) => agreed,
        Err(_) => Err(Failed::Late),
    }
}

async fn tell_plain(stream: &mut TcpStream) -> io::Result<()> {
    let mut seen = vec![0; PLAIN_READ];
    // What lies unread when the connection is closed would cost the client the answer.
    let _ = stream.read(&mut seen).await?;
    let problem =
        Problem::from(&Error::new(Code::BadRequest, "this port speaks TLS: the address begins with https://"));
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\nconnection: close";
    stream.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    stream.shutdown().await?;
    while stream.read(&mut seen).await? > 0 {}
    Ok(())
}
