//! The wire between Lyra and its own bootstraps in an instance: frames over one connection.
//!
//! A frame is its payload's length (4 bytes, little endian), a kind (1 byte), and the payload. The instance speaks only
//! when it was spoken to, but for [`Kind::Ready`] after an assignment. What comes from an instance is not trusted: a
//! length above the limit, or a kind out of turn, ends the instance.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes before a payload.
const HEAD: usize = 5;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// To the instance: what it is from now on (JSON).
    Assign = 1,
    /// To the instance: run; the call's id, its deadline (8 bytes, little endian, ms since the epoch), then the event.
    Call = 2,
    /// To the instance: say that you are there.
    Ping = 3,
    /// To the instance: end.
    Stop = 4,
    /// From the instance: the code is loaded.
    Ready = 16,
    /// From the instance: the result (JSON).
    Result = 17,
    /// From the instance: what was thrown (JSON).
    Thrown = 18,
    /// From the instance: why the result is no JSON (text).
    NoJson = 19,
    /// From the instance: I am there.
    Pong = 20,
    /// From the instance: what was thrown, after which it ends (JSON).
    Fatal = 21,
}

impl Kind {
    fn from_instance(byte: u8) -> Option<Kind> {
        let kinds = [Kind::Ready, Kind::Result, Kind::Thrown, Kind::NoJson, Kind::Pong, Kind::Fatal];
        kinds.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why nothing came.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The connection is broken or closed.
    Closed,
    /// The payload is larger than the limit.
    TooLarge,
    /// It was no frame.
    Nonsense,
}

/// One connection to an instance.
pub(super) struct Frames {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Frames {
    pub(super) fn new(stream: TcpStream) -> io::Result<Frames> {
        stream.set_nodelay(true)?;
        Ok(Frames { stream, buffer: BytesMut::new() })
    }

    /// Sends a frame whose payload is several pieces.
    pub(super) async fn send(&mut self, kind: Kind, head: &[u8], payload: &[u8]) -> io::Result<()> {
        let size = u32::try_from(head.len() + payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // Small frames go out in one piece; large payloads are not copied.
        let small = payload.len() <= 16 << 10;
        let mut first = BytesMut::with_capacity(HEAD + head.len() + if small { payload.len() } else { 0 });
        first.extend_from_slice(&size.to_le_bytes());
        first.extend_from_slice(&[kind as u8]);
        first.extend_from_slice(head);
        if small {
            first.extend_from_slice(payload);
        }
        self.stream.write_all(&first).await?;
        if !small {
            self.stream.write_all(payload).await?;
        }
        Ok(())
    }

    /// Waits for a frame with a payload of at most `most` bytes.
    pub(super) async fn receive(&mut self, most: usize) -> Result<(Kind, Bytes), ReadError> {
        while self.buffer.len() < HEAD {
            self.more().await?;
        }
        let size = (&self.buffer[..4]).get_u32_le() as usize;
        let kind = Kind::from_instance(self.buffer[4]).ok_or(ReadError::Nonsense)?;
        if size > most {
            return Err(ReadError::TooLarge);
        }
        self.buffer.reserve((HEAD + size).saturating_sub(self.buffer.len()).min(1 << 20));
        while self.buffer.len() < HEAD + size {
            self.more().await?;
        }
        self.buffer.advance(HEAD);
        Ok((kind, self.buffer.split_to(size).freeze()))
    }

    async fn more(&mut self) -> Result<(), ReadError> {
        self.buffer.reserve(4 << 10);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => Err(ReadError::Closed),
            Ok(_) => Ok(()),
        }
    }

    /// Whether nothing was sent out of turn, and the connection is still open.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0; 1];
        let waiting = self.stream.try_read(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        waiting && self.buffer.is_empty()
    }
}
