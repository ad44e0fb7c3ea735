//! Bodies between the gateway and a guest.
//!
//! A response whose guest has ended is handed over whole, with its size ([`Complete`]); one whose guest goes on
//! streams ([`super::streaming`]) and ends with an error when the guest fails: a cut response must not look like a
//! whole one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use lyra_types::{Code, Error};
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

    /// The next piece.
    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        let frame = self.frames.pop_front()?;
        self.size -= frame.data_ref().map_or(0, |data| data.len() as u64);
        Some(frame)
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
        Poll::Ready(self.next().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size)
    }
}

/// The error for a body that its guest gave up.
pub(super) fn broken() -> Error {
    Error::new(Code::FunctionError, "the component dropped its response body before it was finished")
}
