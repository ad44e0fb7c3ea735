//! Carries bytes both ways between two connections.
//!
//! A connection on which nothing moves holds no buffer: what comes is read into memory of the thread and written at once. Only
//! what the other side does not take yet is kept, and nothing more is read before it is gone, so that a slow reader slows the
//! writer and costs one buffer at most. The end of one direction is passed on and leaves the other open.

use std::cell::RefCell;
use std::io;

use bytes::Bytes;
use lyra_kit::telemetry::prometheus::IntCounter;
use rustix::net::Shutdown;
use tokio::net::TcpStream;

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
    /// The connection.
    pub stream: TcpStream,
    /// Comes before what the connection brings.
    pub before: Bytes,
}

impl From<TcpStream> for End {
    fn from(stream: TcpStream) -> End {
        End { stream, before: Bytes::new() }
    }
}

/// Carries until both directions have ended.
///
/// # Errors
/// Those of either connection; the caller drops both.
pub(super) async fn carry(client: &End, endpoint: &End, activity: &Activity, bytes: &Carried) -> io::Result<()> {
    let up = one_way(client, endpoint, activity, &bytes.up);
    let down = one_way(endpoint, client, activity, &bytes.down);
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
    write_all(&to.stream, &from.before, activity).await?;
    loop {
        from.stream.readable().await?;
        match move_piece(&from.stream, &to.stream, activity, bytes)? {
            Moved::All => {}
            Moved::Part(rest) => write_all(&to.stream, &rest, activity).await?,
            Moved::End => break,
        }
        tokio::task::coop::consume_budget().await;
    }
    match rustix::net::shutdown(&to.stream, Shutdown::Write) {
        Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn move_piece(from: &TcpStream, to: &TcpStream, activity: &Activity, bytes: &IntCounter) -> io::Result<Moved> {
    with_scratch(|scratch| {
        let read = match from.try_read(scratch) {
            Ok(0) => return Ok(Moved::End),
            Ok(read) => read,
            Err(error) if is_not_now(&error) => return Ok(Moved::All),
            Err(error) => return Err(error),
        };
        activity.stamp();
        bytes.inc_by(read as u64);
        let written = match to.try_write(&scratch[..read]) {
            Ok(written) => written,
            Err(error) if is_not_now(&error) => 0,
            Err(error) => return Err(error),
        };
        Ok(if written == read { Moved::All } else { Moved::Part(scratch[written..read].to_vec()) })
    })
}

async fn write_all(to: &TcpStream, mut rest: &[u8], activity: &Activity) -> io::Result<()> {
    while !rest.is_empty() {
        to.writable().await?;
        match to.try_write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                activity.stamp();
                rest = &rest[written..];
            }
            Err(error) if is_not_now(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether to try again when the socket is ready.
pub(super) fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
