//! Questions to a role of which there may be several processes: asked of one, of the next when that one is away, at once
//! where nothing can be done twice by that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use lyra_types::{Code, Error, Result};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::failure;
use super::security::{Peer, Security, Target};

/// Longest wait for an answer that needs no work.
pub(super) const SHORT: Duration = Duration::from_secs(10);
/// Longest wait for code to be compiled or loaded, or instances to be started.
pub(super) const LONG: Duration = Duration::from_secs(300);

/// When a question that failed may be asked of another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Whenever the first one could not be reached or went away: the question changes nothing.
    Always,
    /// Only if it never got there.
    Unsent,
}

/// A question that was not answered.
struct Failed {
    error: Error,
    /// The process could not be reached, or went away.
    away: bool,
    /// The question never left.
    unsent: bool,
}

impl Failed {
    fn may_repeat(&self, repeat: Repeat) -> bool {
        self.error.code == Code::Unavailable && self.away && (self.unsent || repeat == Repeat::Always)
    }
}

/// The processes of a role.
#[derive(Debug)]
pub(super) struct Peers {
    /// What they are, for errors.
    what: String,
    channels: Vec<Channel>,
    current: AtomicUsize,
}

impl Peers {
    /// Those at `addresses` (`HOST:PORT` each), each of which has to be `peer`.
    pub(super) fn new(
        what: impl Into<String>,
        addresses: &[String],
        peer: Peer<'_>,
        security: &Security,
    ) -> Result<Peers> {
        let lazy = |address: &String| Ok(Target::new(address, peer, security)?.connect_lazy());
        let channels = addresses.iter().map(lazy).collect::<Result<Vec<_>>>()?;
        if channels.is_empty() {
            return Err(Error::new(Code::BadRequest, "an address is missing"));
        }
        Ok(Peers::over(what, channels))
    }

    /// Those that are reached over `channels`, of which there has to be one at least.
    pub(super) fn over(what: impl Into<String>, channels: Vec<Channel>) -> Peers {
        Peers { what: what.into(), channels, current: AtomicUsize::new(0) }
    }

    /// The one that is asked now.
    pub(super) fn channel(&self) -> Channel {
        self.channels[self.current.load(Ordering::Relaxed) % self.channels.len()].clone()
    }

    /// Which one is asked now, for [`Peers::avoid`].
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Every one.
    pub(super) fn all(&self) -> &[Channel] {
        &self.channels
    }

    /// What they are, for errors.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// The next question goes to another process than the last one: for questions that leave work where they are asked.
    pub(super) fn go_on(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// The next question goes to another process, unless somebody else has seen to that.
    pub(super) fn avoid(&self, asked: usize) {
        let _ = self.current.compare_exchange(asked, asked.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks within `limit`. Where a process can't be reached, another one is asked if `repeat` allows it (the same one over a new
    /// connection, where there is no other); the next question goes there in any case.
    pub(super) async fn ask<T, F>(&self, repeat: Repeat, limit: Duration, question: impl Fn(Channel) -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut left = self.channels.len().max(2);
        loop {
            left -= 1;
            match self.try_one(limit, &question).await {
                Ok(answer) => return Ok(answer),
                Err(failed) if left > 0 && failed.may_repeat(repeat) => {}
                Err(failed) => return Err(failed.error),
            }
        }
    }

    /// The same for a question that can't be asked twice.
    pub(super) async fn ask_once<T, F>(&self, limit: Duration, question: impl FnOnce(Channel) -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.try_one(limit, question).await.map_err(|failed| failed.error)
    }

    async fn try_one<T, F>(&self, limit: Duration, question: impl FnOnce(Channel) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let asked = self.current();
        let failed = match tokio::time::timeout(limit, question(self.channel())).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => Failed {
                away: status.details().is_empty(),
                unsent: failure::is_unsent(&status),
                error: failure::from_status(&status, &self.what),
            },
            Err(_) => {
                let error = Error::new(Code::Unavailable, format!("{} did not answer in time", self.what));
                Failed { away: false, unsent: false, error }
            }
        };
        if failed.error.code == Code::Unavailable {
            self.avoid(asked);
        }
        Err(failed)
    }

    /// The items of an answer that goes on.
    pub(super) fn items<T: Send + 'static>(&self, answers: Streaming<T>) -> BoxStream<'static, Result<T>> {
        let what = self.what.clone();
        answers.map(move |item| item.map_err(|status| failure::from_status(&status, &what))).boxed()
    }
}

/// What a trait gives, as gRPC gives it.
pub(super) fn answer<T>(outcome: Result<T>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|error| failure::to_status(&error))
}

/// Items that a trait gives, as gRPC gives them.
pub(super) type Items<T> = BoxStream<'static, Result<T, Status>>;

/// A stream that a trait gives, as gRPC gives it.
pub(super) fn answers<T: 'static>(
    outcome: Result<BoxStream<'static, Result<T>>>,
) -> Result<Response<Items<T>>, Status> {
    answer(outcome.map(|items| items.map(|item| item.map_err(|error| failure::to_status(&error))).boxed()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use tonic::transport::Endpoint;

    use super::*;

    #[tokio::test]
    async fn what_changes_nothing_is_asked_again_also_where_there_is_no_other_process() {
        let peers = Peers::over("it", vec![Endpoint::from_static("http://127.0.0.1:1").connect_lazy()]);
        let asked = AtomicU32::new(0);
        let broken_once = |_| {
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            async move { if first { Err(Status::unavailable("gone")) } else { Ok(Response::new(7)) } }
        };
        assert_eq!(peers.ask(Repeat::Always, SHORT, broken_once).await.map_err(|error| error.code), Ok(7));
        asked.store(0, Ordering::Relaxed);
        let refused = peers.ask(Repeat::Unsent, SHORT, broken_once).await;
        assert_eq!(refused.map_err(|error| error.code), Err(Code::Unavailable));
        assert_eq!(asked.load(Ordering::Relaxed), 1, "it may have been done");
    }
}
