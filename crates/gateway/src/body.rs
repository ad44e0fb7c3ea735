//! Reads request bodies within limits of size, time and memory, and lets clients finish what they send.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT};
use http::{HeaderMap, Version};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use lyra_types::{Code, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::service::App;

/// Memory is counted in pieces of this size; bodies up to one piece are not counted.
const PIECE: usize = 64 << 10;
/// What is read and thrown away after an answer was sent, at most.
const LINGER_BYTES: u64 = 128 << 20;
/// For how long, at most.
const LINGER_TIME: Duration = Duration::from_secs(10);

/// Memory for bodies that are held whole.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    pieces: Arc<Semaphore>,
    bytes: usize,
}

impl BodyMemory {
    pub(crate) fn new(bytes: usize) -> BodyMemory {
        BodyMemory { pieces: Arc::new(Semaphore::new((bytes / PIECE).min(Semaphore::MAX_PERMITS))), bytes }
    }

    /// Makes `held` cover `bytes`.
    fn cover(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<()> {
        let have = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let want = if bytes <= PIECE { 0 } else { bytes.div_ceil(PIECE) };
        let Some(more) = want.checked_sub(have).filter(|more| *more > 0) else { return Ok(()) };
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.pieces).try_acquire_many_owned(more).map_err(|_| {
            Error::new(
                Code::Overloaded,
                format!("request bodies take all of the {} MiB set aside for them", self.bytes >> 20),
            )
            .with_retry_after(Duration::from_secs(1))
        })?;
        match held {
            Some(held) => held.merge(permit),
            None => *held = Some(permit),
        }
        Ok(())
    }
}

/// A body that was read whole, with the memory it takes.
pub(crate) struct Whole {
    pub bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// [`Code::TooLarge`] (before anything is read where `Content-Length` says so), [`Code::Overloaded`] when
/// bodies take too much memory, [`Code::BadRequest`] when it does not come in time or breaks off.
pub(crate) async fn read<B>(app: &App, headers: &HeaderMap, body: B, limit: usize) -> Result<Whole>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let declared = declared_length(headers);
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let declared = declared.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut memory = None;
    let mut body = std::pin::pin!(body);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let begun = app.clock.instant();
    while !body.is_end_stream() {
        let frame = match tokio::time::timeout(app.config.body_idle_timeout, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(Error::new(Code::BadRequest, format!("the body can't be read: {error}")));
            }
            Err(_) => return Err(too_slow(app.config.body_idle_timeout)),
        };
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else { continue };
        let length = first.len() + rest.len() + data.len();
        if length > limit {
            return Err(too_large(limit));
        }
        app.body_memory.cover(&mut memory, length)?;
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(declared.max(length));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
        if app.clock.instant().duration_since(begun) > app.config.body_timeout {
            return Err(too_slow(app.config.body_timeout));
        }
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    Ok(Whole { bytes, _memory: memory })
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(limit: usize) -> Error {
    Error::new(Code::TooLarge, format!("the body is larger than {limit} bytes, the limit of this route"))
}

fn too_slow(limit: Duration) -> Error {
    Error::new(Code::BadRequest, format!("the body did not come in time ({} s)", limit.as_secs()))
}

/// A request's body. Dropped before its end, it goes on reading for a while: a client that is still
/// sending when the answer comes would otherwise see its connection reset instead of the answer.
pub(crate) struct Lingering {
    body: Option<Incoming>,
    lingers: bool,
}

impl Lingering {
    pub(crate) fn new(body: Incoming, version: Version, headers: &HeaderMap) -> Lingering {
        // HTTP/2 ends a stream without ending the connection, and a client that waits for "100 Continue" has
        // not begun to send: neither needs it. Reading would even tell the second one to go on.
        let lingers = version < Version::HTTP_2 && !headers.contains_key(EXPECT);
        Lingering { body: Some(body), lingers }
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| self.lingers && !http_body::Body::is_end_stream(body)) else {
            return;
        };
        // Outside of a runtime the connection is gone as well.
        if tokio::runtime::Handle::try_current().is_ok() {
            lyra_kit::tasks::spawn("linger", async move {
                drop(tokio::time::timeout(LINGER_TIME, discard(body)).await);
            });
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut seen = 0;
    while let Some(Ok(frame)) = body.frame().await
        && seen < LINGER_BYTES
    {
        seen += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
}

impl http_body::Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}
