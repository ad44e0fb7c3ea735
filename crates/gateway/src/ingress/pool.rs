//! Connections to a session's endpoint for requests: one request at a time on each, kept for the next one.
//!
//! What must hold: what waits is bounded, for an endpoint and in all, and ends by itself; a request goes out once, and is sent
//! anew only where the connection says that it was not written; a connection whose answer was not read to its end is closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use lyra_types::{Code, Error, Result};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::DropGuard;

use super::activity::Activity;
use super::metrics::Kind;
use super::table::Session;
use super::watched::Watched;
use super::{Ingress, Place, tcp};

/// Most connections to one endpoint that wait for their next request.
const MAX_WAITING: usize = 32;
/// Most that is held of an answer, and so the largest headers of one, in bytes.
const MAX_BUFFER: usize = 64 << 10;

/// Connections to one endpoint that wait for their next request.
#[derive(Default)]
pub(crate) struct Pool {
    waiting: Mutex<Vec<Waiting>>,
}

struct Waiting {
    wire: Wire,
    _place: OwnedSemaphorePermit,
}

/// A connection.
struct Wire {
    sender: SendRequest<lyra_wire::Body>,
    activity: Arc<Activity>,
    /// Closes it.
    _alive: DropGuard,
}

impl Pool {
    /// One that can take a request now.
    fn take(&self) -> Option<Wire> {
        let mut waiting = self.waiting.lock();
        let at = waiting.iter().rposition(|one| one.wire.sender.is_ready())?;
        Some(waiting.remove(at).wire)
    }

    /// Keeps one for the next request, if there is a place.
    fn put(&self, ingress: &Ingress, wire: Wire) {
        if wire.sender.is_closed() || ingress.closing.is_cancelled() {
            return;
        }
        let Ok(place) = Arc::clone(&ingress.waiting).try_acquire_owned() else { return };
        wire.activity.set_busy(false);
        let mut waiting = self.waiting.lock();
        if waiting.len() < MAX_WAITING {
            waiting.push(Waiting { wire, _place: place });
        }
    }

    fn forget_closed(&self) {
        self.waiting.lock().retain(|one| !one.wire.sender.is_closed());
    }

    /// Closes all that wait.
    pub(super) fn clear(&self) {
        self.waiting.lock().clear();
    }
}

/// A connection with a request on it.
pub(super) struct Lease {
    wire: Option<Wire>,
    ingress: Arc<Ingress>,
    session: Arc<Session>,
    index: usize,
    place: Place,
}

impl Lease {
    /// The answer was read: the connection is free for the next request.
    fn end(mut self) {
        if let Some(wire) = self.wire.take() {
            self.session.pools[self.index].put(&self.ingress, wire);
        }
    }

    /// The connection is no HTTP any more.
    pub(super) fn upgrade(&mut self) {
        self.place.become_kind(&self.ingress, Kind::Upgraded);
    }
}

/// Sends a request to an endpoint and returns when the headers of the answer are there.
///
/// # Errors
/// [`Code::Overloaded`] and [`Code::Unavailable`] where nothing was sent; [`Code::SessionError`] and [`Code::Timeout`] where it
/// may have been processed; [`Code::BadRequest`] where the client's body broke off.
pub(super) async fn send(
    ingress: &Arc<Ingress>,
    session: &Arc<Session>,
    index: usize,
    mut request: Request<lyra_wire::Body>,
) -> Result<(Response<Incoming>, Lease)> {
    let place = ingress.enter(session, Kind::Http)?;
    loop {
        let (mut wire, kept) = match session.pools[index].take() {
            Some(wire) => (wire, true),
            None => (open(ingress, session, index).await.map_err(|error| unreachable(&error))?, false),
        };
        wire.activity.set_busy(true);
        match wire.sender.try_send_request(request).await {
            Ok(response) => {
                let (ingress, session) = (Arc::clone(ingress), Arc::clone(session));
                return Ok((response, Lease { wire: Some(wire), ingress, session, index, place }));
            }
            Err(mut error) => match error.take_message() {
                // It was closed while it waited, and nothing was written: the next one may do.
                Some(unsent) if kept => request = unsent,
                Some(_) => return Err(unreachable(&io::ErrorKind::ConnectionReset.into())),
                None => return Err(broken(ingress, session, &wire.activity, error.error())),
            },
        }
    }
}

fn unreachable(error: &io::Error) -> Error {
    Error::new(Code::Unavailable, format!("the session's port does not take the request: {error}"))
        .with_retry_after(Duration::from_secs(1))
}

fn broken(ingress: &Ingress, session: &Session, activity: &Activity, error: &hyper::Error) -> Error {
    if activity.is_over() {
        ingress.metrics.idle.inc();
        let limit = ingress.config.http_idle_timeout.as_secs();
        return Error::new(Code::Timeout, format!("the session did not answer: nothing came or went for {limit} s"));
    }
    if session.life.is_cancelled() {
        return Error::new(
            Code::SessionError,
            "the session was closed before it answered; it may have seen the request",
        );
    }
    if error.is_user() {
        return Error::new(Code::BadRequest, "the request's body broke off");
    }
    Error::new(Code::SessionError, format!("the session gave no answer ({error}); it may have seen the request"))
}

/// A new connection.
async fn open(ingress: &Arc<Ingress>, session: &Arc<Session>, index: usize) -> io::Result<Wire> {
    let stream = tcp::connect(ingress, session, index).await?;
    let activity = Arc::new(Activity::new(&ingress.clock));
    let watched = Watched::new(stream, Arc::clone(&activity), ingress.metrics.carried(Kind::Http).clone());
    let handshake = Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(watched));
    let (sender, connection) = handshake.await.map_err(io::Error::other)?;
    let alive = session.life.child_token();
    let wire = Wire { sender, activity: Arc::clone(&activity), _alive: alive.clone().drop_guard() };
    let (busy, waiting) = (ingress.config.http_idle_timeout, ingress.config.pool_idle_timeout);
    let session = Arc::clone(session);
    ingress.tasks.spawn("session endpoint", async move {
        tokio::select! {
            biased;
            () = alive.cancelled() => {}
            ended = connection.with_upgrades() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to a session broke");
                }
            }
            () = activity.until_over(busy, waiting) => {}
        }
        session.pools[index].forget_closed();
    });
    Ok(wire)
}

/// An answer's body; its connection is free when it has been read.
pub(crate) struct Answer {
    body: Incoming,
    lease: Option<Lease>,
}

impl Answer {
    pub(super) fn new(body: Incoming, lease: Lease) -> Answer {
        let mut answer = Answer { body, lease: Some(lease) };
        answer.check();
        answer
    }

    fn check(&mut self) {
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.end();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            None => {
                if let Some(lease) = self.lease.take() {
                    lease.end();
                }
            }
            Some(Ok(_)) => self.check(),
            Some(Err(_)) => self.lease = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
