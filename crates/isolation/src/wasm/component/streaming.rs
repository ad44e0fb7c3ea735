//! The response's body of a guest that goes on after it has answered.
//!
//! Its reader takes pieces as the guest writes them. Once the guest has returned, nobody will write any more, so what
//! is left is taken at once: the instance is free however slow the reader is, and a body that the guest has not
//! finished is found out, and ended, instead of being waited for.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use lyra_types::Error;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::body::{Complete, Progress, announced, broken};
use crate::BoxError;

/// A body between the task that runs its guest and its reader.
#[derive(Clone)]
pub(super) struct Flow(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    reader: AtomicWaker,
}

enum State {
    /// The guest may write.
    Open(HyperOutgoingBody),
    /// The guest has returned; this is what its reader has not had yet.
    Left { rest: Complete, broken: bool },
    /// It has ended.
    Over,
}

impl Flow {
    pub(super) fn new(body: HyperOutgoingBody) -> Flow {
        Flow(Arc::new(Shared { state: Mutex::new(State::Open(body)), reader: AtomicWaker::new() }))
    }

    /// Says that the guest has returned, and gives its instance back if the body was finished. If not, the body ends
    /// with the instance, which is dropped here.
    pub(super) fn returned<T>(&self, live: T) -> Option<T> {
        let mut live = Some(live);
        {
            let mut state = self.0.state.lock();
            if let State::Open(body) = &mut *state {
                let mut rest = Complete::default();
                let mut progress = rest.take(body);
                if matches!(progress, Progress::Open) {
                    live = None;
                    progress = rest.take(body);
                }
                *state = State::Left { rest, broken: matches!(progress, Progress::Broken) };
            }
        }
        self.0.reader.wake();
        live
    }

    /// The next piece; an error: the guest gave the body up.
    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        // Before the state is looked at, so that a change after the look is heard of.
        self.0.reader.register(context.waker());
        let mut state = self.0.state.lock();
        let next = match &mut *state {
            State::Open(body) => ready!(Pin::new(body).poll_frame(context)).map(|frame| frame.map_err(drop)),
            State::Left { rest, broken } => rest.next().map(Ok).or(broken.then_some(Err(()))),
            State::Over => None,
        };
        if !matches!(next, Some(Ok(_))) {
            *state = State::Over;
        }
        Poll::Ready(next)
    }

    /// Reads to the end and throws all away.
    pub(super) async fn drain(&self) {
        while let Some(Ok(_)) = std::future::poll_fn(|context| self.poll(context)).await {}
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

/// The reader's end. Dropping it before the body's end stops the guest.
pub(super) struct Streaming {
    flow: Flow,
    /// Set before the guest's end of the body is dropped when the guest failed.
    failed: Arc<OnceLock<Error>>,
    guest: StopOnDrop,
    /// Bytes to come, where the headers announce them.
    left: Option<u64>,
    ended: bool,
}

impl Streaming {
    pub(super) fn new(
        flow: Flow,
        headers: &HeaderMap,
        failed: Arc<OnceLock<Error>>,
        mut guest: StopOnDrop,
    ) -> Streaming {
        let left = announced(headers);
        if left == Some(0) {
            guest.disarm();
        }
        Streaming { flow, failed, guest, left, ended: false }
    }
}

impl HttpBody for Streaming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(self.flow.poll(context));
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
            Some(Err(())) => {
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
