//! The body of a request that may have to be sent again, to another worker.
//!
//! What was read of it is kept, up to [`MOST`] bytes (the pieces themselves, not copies of them), until it is clear that no
//! other try will be made. One that is longer, has trailers, or breaks off can be sent once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use lyra_wire::{Body, BoxError};
use parking_lot::Mutex;

/// Most bytes that are kept.
const MOST: usize = 64 << 10;

/// A body that can be had several times, one after the other.
#[derive(Debug)]
pub(crate) struct Replay(Arc<Mutex<Source>>);

#[derive(Debug)]
struct Source {
    body: Body,
    /// What was read so far, while it is kept.
    kept: Vec<Bytes>,
    bytes: usize,
    /// Whether all that was read is kept.
    whole: bool,
    ended: bool,
    /// The try that may read.
    current: u64,
}

impl Replay {
    pub(crate) fn new(body: Body) -> Replay {
        let source = Source { body, kept: Vec::new(), bytes: 0, whole: true, ended: false, current: 0 };
        Replay(Arc::new(Mutex::new(source)))
    }

    /// The body from its beginning, for the next try; the try before reads no more. `None` where it can't be had again.
    pub(crate) fn body(&self) -> Option<Body> {
        let mut source = self.0.lock();
        if !source.whole {
            return None;
        }
        source.current += 1;
        Some(Body::new(Try { source: Arc::clone(&self.0), number: source.current, at: 0 }))
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        // There is no further try. What the last one has not read yet of what was kept stays until it has.
        self.0.lock().whole = false;
    }
}

/// The body as one try reads it.
struct Try {
    source: Arc<Mutex<Source>>,
    number: u64,
    /// Kept pieces that were read.
    at: usize,
}

impl http_body::Body for Try {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut source = this.source.lock();
        let source = &mut *source;
        if source.current != this.number {
            return Poll::Ready(Some(Err(BoxError::from("the request is sent to another worker"))));
        }
        if let Some(piece) = source.kept.get_mut(this.at) {
            this.at += 1;
            let piece = if source.whole { piece.clone() } else { std::mem::take(piece) };
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if source.ended {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut source.body).poll_frame(context));
        match &frame {
            None => source.ended = true,
            Some(Ok(frame)) => {
                match frame.data_ref().filter(|data| source.whole && source.bytes + data.len() <= MOST) {
                    Some(data) => {
                        source.bytes += data.remaining();
                        source.kept.push(data.clone());
                        this.at += 1;
                    }
                    None => source.give_up(),
                }
            }
            Some(Err(_)) => source.give_up(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.lock();
        self.at >= source.kept.len() && (source.ended || source.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.source.lock();
        let kept: usize = source.kept.iter().skip(self.at).map(Bytes::len).sum();
        let (kept, rest) = (kept as u64, source.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint
    }
}

impl Source {
    /// It is not kept any longer; whoever reads has read all that was.
    fn give_up(&mut self) {
        self.whole = false;
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body::Body as _;
    use http_body_util::{BodyExt, StreamBody};
    use proptest::prelude::*;

    use super::*;

    /// A body of pieces, then perhaps an error.
    fn body(pieces: Vec<Vec<u8>>, breaks: bool) -> Body {
        let frames = pieces.into_iter().map(|piece| Ok(Frame::data(Bytes::from(piece))));
        let error = breaks.then(|| Err(BoxError::from("broken")));
        Body::new(StreamBody::new(futures::stream::iter(frames.chain(error)).boxed()))
    }

    async fn read(body: &mut Body, frames: usize) -> Vec<u8> {
        let mut all = Vec::new();
        for _ in 0..frames {
            let Some(frame) = body.frame().await else { break };
            all.extend(frame.unwrap().into_data().unwrap());
        }
        all
    }

    proptest! {
        #[test]
        fn every_try_reads_the_same(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10),
            reads in proptest::collection::vec(0usize..12, 0..5),
        ) {
            futures::executor::block_on(async {
                let whole = pieces.concat();
                let replay = Replay::new(body(pieces, false));
                for frames in reads {
                    let read = read(&mut replay.body().unwrap(), frames).await;
                    assert_eq!(read, whole[..read.len()]);
                }
                let mut last = replay.body().unwrap();
                let size = last.size_hint().lower();
                assert!(size <= whole.len() as u64);
                // Nothing is lost of what the last try has not read yet.
                drop(replay);
                assert_eq!(read(&mut last, 100).await, whole);
                assert!(last.is_end_stream());
            });
        }
    }

    #[tokio::test]
    async fn a_body_that_is_long_or_broken_is_sent_once() {
        for (body, frames) in [
            (body(vec![vec![1; MOST], vec![2]], false), 2),
            (body(vec![vec![1]], true), 1),
            (body(vec![vec![0; MOST + 1]], false), 1),
        ] {
            let replay = Replay::new(body);
            let mut first = replay.body().unwrap();
            read(&mut first, frames).await;
            // What follows may be its end, or an error.
            let _ = first.frame().await;
            assert!(replay.body().is_none());
        }
    }

    #[tokio::test]
    async fn a_try_that_was_given_up_reads_no_more() {
        let replay = Replay::new(body(vec![vec![1], vec![2]], false));
        let mut first = replay.body().unwrap();
        assert_eq!(read(&mut first, 1).await, [1]);
        let mut second = replay.body().unwrap();
        assert!(first.frame().await.unwrap().is_err());
        assert_eq!(read(&mut second, 5).await, [1, 2]);
    }
}
