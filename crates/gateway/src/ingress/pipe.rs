//! Carries bytes both ways between two connections.
//!
//! A connection on which nothing moves holds no buffer: what comes is read into memory of the thread and written at once. Only
//! what the other side does not take yet is kept, and nothing more is read before it is gone, so that a slow reader slows the
//! writer and costs one buffer at most. The end of one direction is passed on and leaves the other open.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use lyra_kit::telemetry::prometheus::IntCounter;
use parking_lot::Mutex;
use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::activity::Activity;
use super::metrics::Carried;

/// Most that is read at once, and so the most that a direction ever holds. It also holds every datagram.
pub(super) const PIECE: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into());
}

/// Lends the thread's buffer.
pub(super) fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| work(scratch))
}

/// One end, and what was read from it before.
pub(super) struct End {
    stream: Stream,
    /// Comes before what the connection brings.
    before: Bytes,
}

enum Stream {
    Plain(TcpStream),
    /// Locked by whichever direction is polled, and never over a wait.
    Tls(Mutex<Box<TlsStream<TcpStream>>>),
}

impl From<TcpStream> for End {
    fn from(stream: TcpStream) -> End {
        End::plain(stream, Bytes::new())
    }
}

impl End {
    /// A connection as it is, of which `before` was read.
    pub(super) fn plain(stream: TcpStream, before: Bytes) -> End {
        End { stream: Stream::Plain(stream), before }
    }

    /// A secured connection, of which `before` was read.
    pub(super) fn tls(stream: Box<TlsStream<TcpStream>>, before: Bytes) -> End {
        End { stream: Stream::Tls(Mutex::new(stream)), before }
    }

    /// Does something with the connection itself.
    pub(super) fn with_tcp<T>(&self, work: impl FnOnce(&TcpStream) -> T) -> T {
        match &self.stream {
            Stream::Plain(stream) => work(stream),
            Stream::Tls(stream) => work(stream.lock().get_ref().0),
        }
    }

    /// Reads what is there; 0 is the end.
    fn poll_read(&self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match &self.stream {
            Stream::Plain(stream) => loop {
                ready!(stream.poll_read_ready(context))?;
                match stream.try_read(into) {
                    Err(error) if is_not_now(&error) => {}
                    read => return Poll::Ready(read),
                }
            },
            Stream::Tls(stream) => {
                let mut into = ReadBuf::new(into);
                ready!(Pin::new(&mut **stream.lock()).poll_read(context, &mut into))?;
                Poll::Ready(Ok(into.filled().len()))
            }
        }
    }

    /// Writes what is taken now; never 0 of something.
    fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &self.stream {
            Stream::Plain(stream) => loop {
                ready!(stream.poll_write_ready(context))?;
                match stream.try_write(bytes) {
                    Err(error) if is_not_now(&error) => {}
                    written => break written?,
                }
            },
            Stream::Tls(stream) => ready!(Pin::new(&mut **stream.lock()).poll_write(context, bytes))?,
        };
        Poll::Ready(if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) })
    }

    /// Sends what TLS holds back; a plain connection holds back nothing.
    async fn flush(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(stream) => poll_fn(|context| Pin::new(&mut **stream.lock()).poll_flush(context)).await,
        }
    }

    /// Says that no more is written.
    async fn finish(&self) -> io::Result<()> {
        let finished = match &self.stream {
            Stream::Plain(stream) => rustix::net::shutdown(stream, Shutdown::Write).map_err(io::Error::from),
            Stream::Tls(stream) => poll_fn(|context| Pin::new(&mut **stream.lock()).poll_shutdown(context)).await,
        };
        match finished {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            _ => Ok(()),
        }
    }
}

/// Carries until both directions have ended.
///
/// # Errors
/// Those of either connection; the caller drops both.
pub(super) async fn carry(client: &End, endpoint: &End, activity: &Activity, bytes: &Carried) -> io::Result<()> {
    let up = one_way(client, endpoint, activity, &bytes.up);
    let down = one_way(endpoint, client, activity, &bytes.down);
    // Both in one task: whichever wakes it, both look at what they wait for.
    tokio::try_join!(up, down)?;
    Ok(())
}

enum Moved {
    End,
    All,
    /// This much was not taken yet.
    Part(Vec<u8>),
}

async fn one_way(from: &End, to: &End, activity: &Activity, bytes: &IntCounter) -> io::Result<()> {
    write_all(to, &from.before, activity).await?;
    loop {
        match poll_fn(|context| move_piece(context, from, to, activity, bytes)).await? {
            Moved::All => to.flush().await?,
            Moved::Part(rest) => write_all(to, &rest, activity).await?,
            Moved::End => break,
        }
        tokio::task::coop::consume_budget().await;
    }
    to.finish().await
}

fn move_piece(
    context: &mut Context<'_>,
    from: &End,
    to: &End,
    activity: &Activity,
    bytes: &IntCounter,
) -> Poll<io::Result<Moved>> {
    with_scratch(|scratch| {
        let read = ready!(from.poll_read(context, scratch))?;
        if read == 0 {
            return Poll::Ready(Ok(Moved::End));
        }
        activity.stamp();
        bytes.inc_by(read as u64);
        let written = match to.poll_write(context, &scratch[..read]) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        Poll::Ready(Ok(if written == read { Moved::All } else { Moved::Part(scratch[written..read].to_vec()) }))
    })
}

async fn write_all(to: &End, mut rest: &[u8], activity: &Activity) -> io::Result<()> {
    while !rest.is_empty() {
        let written = poll_fn(|context| to.poll_write(context, rest)).await?;
        activity.stamp();
        rest = &rest[written..];
    }
    to.flush().await
}

/// Whether to try again when the socket is ready.
pub(super) fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
