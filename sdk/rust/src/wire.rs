//! One stream of gRPC to the session server, over `h2`.
//!
//! gRPC is five bytes before each message, and a status in the trailers: no more of it is needed here, and a whole client
//! library would be most of a small program.

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Error;
use crate::protocol::{FromProgram, ToProgram};

const METHOD: &str = "http://session/lyra.session.v1.SessionService/Attach";
/// Longest wait for the server to take a connection, and to answer a hello.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest message of the server, in bytes.
const MAX_MESSAGE: usize = 8 << 20;
/// gRPC's status for "this can't ever work".
const FAILED_PRECONDITION: &str = "9";

/// Where a session server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// `unix:/path`.
    Unix(PathBuf),
}

impl std::str::FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        let bad = || Error::BadAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(bad()) } else { Ok(Address::Unix(path.into())) };
        }
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(bad());
        }
        Ok(Address::Tcp(address.to_owned()))
    }
}

/// Why there is no stream (any more).
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("can't connect: {0}")]
    Connect(#[from] io::Error),
    #[error("the connection broke: {0}")]
    Connection(#[from] h2::Error),
    #[error("the server did not answer in time")]
    Slow,
    #[error("the server said what is no message")]
    Malformed,
    #[error("the server refused: {0}")]
    Refused(String),
    /// For good.
    #[error("the server has given this instance up: {0}")]
    GivenUp(String),
}

/// An open stream.
pub(crate) struct Wire {
    up: SendStream<Bytes>,
    down: RecvStream,
    received: BytesMut,
    driver: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Wire {
    /// Connects and says `hello`, which the server must answer.
    pub(crate) async fn open(address: &Address, hello: &FromProgram) -> Result<Wire, Broken> {
        let opened = async {
            match address {
                Address::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Wire::over(stream, hello).await
                }
                Address::Unix(path) => Wire::over(UnixStream::connect(path).await?, hello).await,
            }
        };
        timeout(PATIENCE, opened).await.map_err(|_| Broken::Slow)?
    }

    async fn over<C>(connection: C, hello: &FromProgram) -> Result<Wire, Broken>
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) = h2::client::handshake(connection).await?;
        // Errors are seen on the stream.
        let driver = tokio::spawn(async move { drop(connection.await) });
        // Ends the connection also when this future is dropped on the way.
        let driver = AbortOnDrop(Some(driver));
        let (up, down) = start(requests, hello).await?;
        Ok(Wire { up, down, received: BytesMut::new(), driver: driver.into_inner() })
    }

    /// Sends a message, as fast as the server takes it.
    pub(crate) async fn send(&mut self, message: &FromProgram) -> Result<(), Broken> {
        send(&mut self.up, message).await
    }

    /// The next message. May be dropped and called again without losing any.
    pub(crate) async fn receive(&mut self) -> Result<ToProgram, Broken> {
        loop {
            if let Some(message) = self.decode()? {
                return Ok(message);
            }
            match self.down.data().await {
                Some(data) => {
                    let data = data?;
                    self.down.flow_control().release_capacity(data.len())?;
                    self.received.extend_from_slice(&data);
                }
                None => {
                    let trailers = self.down.trailers().await?.unwrap_or_default();
                    status(&trailers)?;
                    return Err(Broken::Refused("the stream has ended".to_owned()));
                }
            }
        }
    }

    fn decode(&mut self) -> Result<Option<ToProgram>, Broken> {
        let Some(head) = self.received.get(..5) else { return Ok(None) };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != 0 || length > MAX_MESSAGE {
            return Err(Broken::Malformed);
        }
        if self.received.len() < 5 + length {
            return Ok(None);
        }
        self.received.advance(5);
        let message = self.received.split_to(length).freeze();
        ToProgram::decode(message).map(Some).map_err(|_| Broken::Malformed)
    }
}

async fn start(requests: SendRequest<Bytes>, hello: &FromProgram) -> Result<(SendStream<Bytes>, RecvStream), Broken> {
    let request = Request::post(METHOD).header("content-type", "application/grpc").header("te", "trailers");
    let request = request.body(()).expect("these headers are valid");
    let (response, mut up) = requests.ready().await?.send_request(request, false)?;
    send(&mut up, hello).await?;
    let (head, down) = response.await?.into_parts();
    status(&head.headers)?;
    if !head.status.is_success() {
        return Err(Broken::Refused(format!("status {}", head.status)));
    }
    Ok((up, down))
}

async fn send(up: &mut SendStream<Bytes>, message: &FromProgram) -> Result<(), Broken> {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).map_err(|_| Broken::Malformed)?);
    message.encode(&mut frame).map_err(|_| Broken::Malformed)?;
    let mut rest = frame.freeze();
    while !rest.is_empty() {
        up.reserve_capacity(rest.len());
        let room = poll_fn(|context| up.poll_capacity(context)).await;
        let room = room.ok_or_else(|| Broken::Refused("the stream has ended".to_owned()))??;
        up.send_data(rest.split_to(room.min(rest.len())), false)?;
    }
    Ok(())
}

/// What gRPC's headers or trailers say, if they do.
fn status(headers: &HeaderMap) -> Result<(), Broken> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "" | "0" => Ok(()),
        FAILED_PRECONDITION => Err(Broken::GivenUp(text("grpc-message").to_owned())),
        code => Err(Broken::Refused(format!("{} (gRPC status {code})", text("grpc-message")))),
    }
}

struct AbortOnDrop(Option<JoinHandle<()>>);

impl AbortOnDrop {
    fn into_inner(mut self) -> JoinHandle<()> {
        self.0.take().expect("taken once")
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood() {
        let address = |text: &str| text.parse::<Address>().ok();
        assert_eq!(address("127.0.0.1:9003"), Some(Address::Tcp("127.0.0.1:9003".to_owned())));
        assert_eq!(address("http://[::1]:80/"), Some(Address::Tcp("[::1]:80".to_owned())));
        assert_eq!(address("unix:/run/s"), Some(Address::Unix("/run/s".into())));
        for bad in ["", "unix:", "localhost", ":80", "host:port"] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }
}
