//! What an instance may make its worker read: so many bytes, and so many messages, in a second.
//!
//! A connection that has used up its share is not read until it has some again; what the program writes meanwhile stays in
//! its own socket. That bounds every kind of flood, whatever the protocol makes of the bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lyra_kit::Clock;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// For how long a program that was silent may go faster, in seconds.
const BURST: f64 = 4.0;

/// A bucket of tokens that fills with time. It may be drawn below empty once; then there is a wait until it is not.
pub(crate) struct Rate {
    clock: Clock,
    per_second: f64,
    level: Mutex<(f64, Instant)>,
}

impl Rate {
    pub(crate) fn new(per_second: u32, clock: &Clock) -> Rate {
        let per_second = f64::from(per_second.max(1));
        let level = Mutex::new((per_second * BURST, clock.instant()));
        Rate { clock: clock.clone(), per_second, level }
    }

    /// How long to wait before something may be drawn.
    fn wait(&self) -> Duration {
        let now = self.clock.instant();
        let mut level = self.level.lock();
        let gained = now.saturating_duration_since(level.1).as_secs_f64() * self.per_second;
        *level = ((level.0 + gained).min(self.per_second * BURST), now);
        if level.0 > 0.0 { Duration::ZERO } else { Duration::from_secs_f64((1.0 - level.0) / self.per_second) }
    }

    fn draw(&self, tokens: usize) {
        self.level.lock().0 -= tokens as f64;
    }

    /// Draws one token, when there is one.
    pub(crate) async fn one(&self) {
        loop {
            let wait = self.wait();
            if wait.is_zero() {
                return self.draw(1);
            }
            self.clock.sleep(wait).await;
        }
    }
}

/// A connection that is read at a [`Rate`].
pub(crate) struct Metered<C> {
    inner: C,
    rate: Arc<Rate>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<C> Metered<C> {
    pub(crate) fn new(inner: C, rate: Arc<Rate>) -> Metered<C> {
        Metered { inner, rate, pause: None }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Metered<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let wait = self.rate.wait();
            if wait.is_zero() {
                break;
            }
            self.pause = Some(Box::pin(tokio::time::sleep(wait)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if polled.is_ready() {
            // The call itself costs, too.
            self.rate.draw(buffer.filled().len() - before + 64);
        }
        polled
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Metered<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test(start_paused = true)]
    async fn no_more_is_read_than_the_rate_allows() {
        let clock = Clock::system();
        let start = clock.instant();
        let mut stream = Metered::new(tokio::io::repeat(7), Arc::new(Rate::new(1_000_000, &clock)));
        let mut buffer = vec![0; 10_000];
        let mut read = 0;
        while clock.instant() - start < Duration::from_secs(10) {
            read += stream.read(&mut buffer).await.expect("endless");
        }
        assert!((13_000_000..14_100_000).contains(&read), "{read}");
    }

    #[tokio::test(start_paused = true)]
    async fn messages_wait_for_their_turn() {
        let clock = Clock::system();
        let (start, rate) = (clock.instant(), Rate::new(100, &clock));
        for _ in 0..1_000 {
            rate.one().await;
        }
        let took = clock.instant() - start;
        assert!((5_900..6_200).contains(&took.as_millis()), "{took:?}");
    }
}
