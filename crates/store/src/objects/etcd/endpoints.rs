//! The members of an etcd cluster: which one is asked, and what happens when it does not answer.
//!
//! One member is asked until it fails; then all requests and watches move to the next. A request that may be repeated
//! is, until its deadline; one that may not ([`Endpoints::once`]) is asked once, and its caller is told whether
//! it can have happened.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use lyra_kit::retry::Backoff;
use lyra_kit::{Clock, Random};
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status};

use super::EtcdSettings;
use crate::StoreError;

/// A dead connection that nobody writes to is found within the sum of both. etcd refuses clients that ask more often than
/// every 5 s.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
/// Between tries: short, since another member can be asked.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(20), max: Duration::from_millis(500) };

/// Why a request got no good answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The cluster refused it: it did not happen and would not if it were repeated.
    Refused(Status),
    /// It may have happened or may happen yet.
    Unknown(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::Unimplemented => Failure::Refused(status),
            _ => Failure::Unknown(status),
        }
    }
}

/// What a refusal means to the caller of the store.
pub(super) fn refused(operation: &'static str, status: &Status) -> StoreError {
    let detail = status.message();
    if detail.contains("too large") || detail.contains("too many operations") {
        return StoreError::TooLarge { operation, detail: detail.to_owned() };
    }
    if detail.contains("lease not found") {
        return StoreError::LeaseEnded;
    }
    StoreError::Remote { operation, detail: detail.to_owned() }
}

pub(super) struct Endpoints {
    channels: Vec<Channel>,
    /// The one that is asked.
    current: watch::Sender<usize>,
    attempt: Duration,
    deadline: Duration,
    clock: Clock,
    random: Random,
}

impl Endpoints {
    /// Connects to nothing yet.
    pub(super) fn new(settings: &EtcdSettings) -> Result<Endpoints, StoreError> {
        let at = |error: tonic::transport::Error| StoreError::Remote {
            operation: "read the addresses of etcd",
            detail: error.to_string(),
        };
        let mut channels = Vec::with_capacity(settings.endpoints.len());
        for address in &settings.endpoints {
            let scheme = if settings.tls.is_some() { "https" } else { "http" };
            let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
                .map_err(at)?
                .connect_timeout(settings.attempt)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(ALIVE_EVERY)
                .keep_alive_timeout(ALIVE_WITHIN)
                .keep_alive_while_idle(true);
            if let Some(files) = &settings.tls {
                let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&files.ca));
                if let Some((certificate, key)) = &files.identity {
                    tls = tls.identity(Identity::from_pem(certificate, key));
                }
                endpoint = endpoint.tls_config(tls).map_err(at)?;
            }
            channels.push(endpoint.connect_lazy());
        }
        if channels.is_empty() {
            return Err(StoreError::Remote { operation: "read the addresses of etcd", detail: "there is none".into() });
        }
        Ok(Endpoints {
            channels,
            current: watch::Sender::new(0),
            attempt: settings.attempt,
            deadline: settings.deadline,
            clock: Clock::system(),
            random: Random::system(),
        })
    }

    /// The member that is asked now, and its number for [`Endpoints::failed`].
    pub(super) fn channel(&self) -> (usize, Channel) {
        let number = *self.current.borrow();
        (number, self.channels[number].clone())
    }

    /// Moves on to the next member, unless somebody has done so already.
    pub(super) fn failed(&self, number: usize) {
        self.current.send_if_modified(|current| {
            let ours = *current == number && self.channels.len() > 1;
            if ours {
                *current = (number + 1) % self.channels.len();
            }
            ours
        });
    }

    /// Tells when another member is asked.
    pub(super) fn moves(&self) -> watch::Receiver<usize> {
        self.current.subscribe()
    }

    pub(super) fn random(&self) -> &Random {
        &self.random
    }

    pub(super) fn attempt(&self) -> Duration {
        self.attempt
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Waits before try number `tries` is repeated.
    pub(super) async fn back_off(&self, tries: u32) {
        self.clock.sleep(BACKOFF.delay(tries, &self.random)).await;
    }

    /// Asks once, in the time of one try.
    pub(super) async fn once<M, T, F, Fut>(&self, message: M, ask: F) -> Result<T, Failure>
    where
        F: FnOnce(Channel, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let (number, channel) = self.channel();
        let answer = tokio::time::timeout(self.attempt, ask(channel, request(message))).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        answer.map(Response::into_inner).map_err(|status| {
            let failure = Failure::from(status);
            if matches!(failure, Failure::Unknown(_)) {
                self.failed(number);
            }
            failure
        })
    }

    /// Asks until there is an answer or the deadline has passed. For what may be repeated.
    pub(super) async fn repeat<M, T, F, Fut>(
        &self,
        operation: &'static str,
        message: M,
        ask: F,
    ) -> Result<Result<T, Status>, StoreError>
    where
        M: Clone + Debug,
        F: Fn(Channel, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let end = self.clock.instant() + self.deadline;
        let mut tries = 0;
        loop {
            match self.once(message.clone(), &ask).await {
                Ok(answer) => return Ok(Ok(answer)),
                Err(Failure::Refused(status)) => return Ok(Err(status)),
                Err(Failure::Unknown(status)) => {
                    tries += 1;
                    if self.clock.instant() >= end {
                        return Err(StoreError::Remote { operation, detail: reason(&status) });
                    }
                    tracing::debug!(operation, detail = reason(&status), "etcd is asked again");
                    self.back_off(tries).await;
                }
            }
        }
    }
}

/// A request that a member without a leader refuses at once instead of keeping it waiting.
pub(super) fn request<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

/// The message, with what the connection says where there is no answer.
pub(super) fn reason(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let said = error.to_string();
        // Some say again what the cause before them said.
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
