//! Questions to a role of which there may be several processes: asked of one, of the next when that one is away.

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
        Ok(Peers { what: what.into(), channels, current: AtomicUsize::new(0) })
    }

    /// The one that is asked now.
    pub(super) fn channel(&self) -> Channel {
        self.channels[self.current.load(Ordering::Relaxed) % self.channels.len()].clone()
    }

    /// Asks within `limit`. Where nobody answers, the next question goes to another process.
    pub(super) async fn ask<T, F>(&self, limit: Duration, question: impl FnOnce(Channel) -> F) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let asked = self.current.load(Ordering::Relaxed);
        let error = match tokio::time::timeout(limit, question(self.channel())).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => failure::from_status(&status, &self.what),
            Err(_) => Error::new(Code::Unavailable, format!("{} did not answer in time", self.what)),
        };
        if error.code == Code::Unavailable {
            let next = asked.wrapping_add(1);
            // Somebody else may have found out at the same time.
            let _ = self.current.compare_exchange(asked, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        Err(error)
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
