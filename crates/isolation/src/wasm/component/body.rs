//! Bodies between the gateway and a guest.
//!
//! A response whose guest has ended is handed over whole, with its size ([`Complete`]); one whose guest goes on
//! streams ([`Streaming`]) and ends with an error when the guest fails: a cut response must not look like a whole one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use lyra_types::{Code, Error};
use tokio::task::AbortHandle;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::{HyperIncomingBody, HyperOutgoingBody};

use crate::{Body, BoxError};

/// A request in the form that the guest's host functions take.
pub(super) fn incoming(mut request: http::Request<Body>) -> (Scheme, http::Request<HyperIncomingBody>) {
    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let has_host = request.headers().get(HOST).is_some_and(|host| host.to_str().is_ok());
    if request.uri().authority().is_none() && !has_host {
        // The host functions need one; a request made by us or by HTTP/1.0 has none.
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    }
    let failed = |error: BoxError| wasmtime_wasi_http::Error::InternalError(Some(error.to_string()));
    (scheme, request.map(|body| body.map_err(failed).boxed_unsync()))
}

/// The body's size that headers announce.
pub(super) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body that is all there.
#[derive(Default)]
pub(super) struct Complete {
    frames: VecDeque<Frame<Bytes>>,
    size: u64,
}

/// How far a body has come.
pub(super) enum Progress {
    /// It has ended.
    Ended,
    /// The guest still has its writing end.
    Open,
    /// The guest dropped its writing end without finishing it.
    Broken,
}

impl Complete {
    /// Takes what is there without waiting.
    pub(super) fn take(&mut self, body: &mut HyperOutgoingBody) -> Progress {
        loop {
            // Not under tokio's budget for one task's poll, which would make what is there look as if it were not.
            match tokio::task::unconstrained(body.frame()).now_or_never() {
                Some(Some(Ok(frame))) => self.push(frame),
                Some(Some(Err(_))) => return Progress::Broken,
                Some(None) => return Progress::Ended,
                None => return Progress::Open,
            }
        }
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        self.size += frame.data_ref().map_or(0, |data| data.len() as u64);
        self.frames.push_back(frame);
    }

    /// Bytes of all pieces.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

impl HttpBody for Complete {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = self.frames.pop_front();
        if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
            self.size -= data.len() as u64;
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size)
    }
}

/// Stops a guest's task when it is dropped.
pub(super) struct StopOnDrop(Option<AbortHandle>);

impl StopOnDrop {
    pub(super) fn new(task: AbortHandle) -> StopOnDrop {
        StopOnDrop(Some(task))
    }

    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// A body whose guest still runs. Dropping it before its end stops the guest.
pub(super) struct Streaming {
    inner: HyperOutgoingBody,
    /// Set before the guest's end of the body is dropped when the guest failed.
    failed: Arc<OnceLock<Error>>,
    guest: StopOnDrop,
    /// Bytes to come, where the headers announce them.
    left: Option<u64>,
    ended: bool,
}

impl Streaming {
    pub(super) fn new(
        inner: HyperOutgoingBody,
        headers: &HeaderMap,
        failed: Arc<OnceLock<Error>>,
        mut guest: StopOnDrop,
    ) -> Streaming {
        let left = announced(headers);
        if left == Some(0) {
            guest.disarm();
        }
        Streaming { inner, failed, guest, left, ended: false }
    }
}

impl HttpBody for Streaming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.left = self.left.map(|left| left.saturating_sub(size));
                if self.left == Some(0) {
                    // The reader has all that was announced and need not ask for more.
                    self.guest.disarm();
                }
                Some(Ok(frame))
            }
            Some(Err(_)) => {
                self.ended = true;
                let error = self.failed.get().cloned().unwrap_or_else(broken);
                Some(Err(error.into()))
            }
            None => {
                self.ended = true;
                if let Some(error) = self.failed.get().cloned() {
                    return Poll::Ready(Some(Err(error.into())));
                }
                self.guest.disarm();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The error for a body that its guest gave up.
pub(super) fn broken() -> Error {
    Error::new(Code::FunctionError, "the component dropped its response body before it was finished")
}

/// Reads a body to its end and throws it away.
pub(super) async fn drain(mut body: HyperOutgoingBody) {
    while let Some(Ok(_)) = body.frame().await {}
}
