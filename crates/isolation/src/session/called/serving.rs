//! Connections of an instance that is called, and its calls.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lyra_types::function::{Contract, limit};
use lyra_types::log::Level;
use lyra_types::{Code, Error, InvocationId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio_util::io::{InspectReader, InspectWriter};

use super::{Exit, Shared, event};
use crate::{Body, BoxError, CallContext, CpuMeter, LogSink, Sandbox};

/// Longest wait for a request's headers.
const HEADERS: Duration = Duration::from_secs(30);
/// How long a client may take none of an answer before the rest of it is thrown away: it holds up the others.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pieces of an answer that wait for the client.
const PIECES: usize = 8;
/// How long an instance that can't be called again stays, so that the answer that says so gets out.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Wait after the system had no more for a connection.
const AGAIN: Duration = Duration::from_millis(50);

type Slot = OwnedMutexGuard<Option<Box<dyn Sandbox>>>;
type Answer = Result<Response<Body>, Error>;

impl Shared {
    /// Takes connections until the instance ends.
    pub(super) async fn listen(self: &Arc<Self>, listener: TcpListener) {
        // With this, all of them end.
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = self.over.cancelled() => return,
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let shared = Arc::clone(self);
                    connections.spawn(async move { shared.serve(stream).await });
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection to a session can't be taken");
                    self.calls.clock.sleep(AGAIN).await;
                }
            }
        }
    }

    /// Serves one connection, until it or the instance ends.
    pub(super) async fn serve(self: &Arc<Self>, stream: TcpStream) {
        let counts = &self.counts;
        let Ok(_place) = self.connections.try_acquire() else {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        let _open = Open::new(&counts.open);
        let _cosmetic = stream.set_nodelay(true);
        let (read, write) = stream.into_split();
        let add = |count: &AtomicU64, bytes: &[u8]| {
            count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        };
        let read = InspectReader::new(read, |bytes| add(&counts.received, bytes));
        let write = InspectWriter::new(write, |bytes| add(&counts.sent, bytes));
        let service = service_fn(|request| async move { Ok::<_, Infallible>(self.answer(request).await) });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .serve_connection(TokioIo::new(tokio::io::join(read, write)), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            () = self.over.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let _cut = tokio::time::timeout(LAST_WORDS, connection).await;
            }
            served = connection.as_mut() => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection to a session broke");
                }
            }
        }
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        self.called(request).await.unwrap_or_else(|error| refusal(&error))
    }

    async fn called(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let (mut parts, body) = request.into_parts();
        // Before anything is called: a slow client holds up nobody.
        let body = Limited::new(body, limit::MAX_EVENT).collect();
        let slow = |_| Error::new(Code::BadRequest, "the request's body did not come in time");
        let body = tokio::time::timeout(self.version.timeout(), body).await.map_err(slow)?;
        let body = body.map_err(|error| unread(&error))?.to_bytes();
        if self.contract == Contract::Http {
            parts.headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
            let request = Request::from_parts(parts, event::whole(body));
            return self.call(|shared, slot, sandbox, call| shared.stream(slot, sandbox, call, request)).await;
        }
        let told = Arc::clone(&self.told.lock());
        let event = event::of(&parts, &body, &told)?;
        self.call(|shared, slot, sandbox, call| shared.invoke(slot, sandbox, call, event)).await
    }

    /// Waits for the instance and has it work, in a task of its own: a client that goes away breaks nothing off.
    async fn call<F, W>(self: &Arc<Self>, work: W) -> Answer
    where
        W: FnOnce(Arc<Shared>, Slot, Box<dyn Sandbox>, Call) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let busy = || {
            let waited = self.version.timeout();
            let detail = format!("the session's instance did not become free within {} s", waited.as_secs_f64());
            Error::new(Code::Overloaded, detail).with_retry_after(Duration::from_secs(1))
        };
        let slot = Arc::clone(&self.sandbox).lock_owned();
        let mut slot = tokio::time::timeout(self.version.timeout(), slot).await.map_err(|_| busy())?;
        let sandbox = slot.take().ok_or_else(ended)?;
        let (sender, answer) = oneshot::channel();
        let work = work(Arc::clone(self), slot, sandbox, Call { context: self.context(), answer: sender });
        let over = self.over.clone();
        drop(lyra_kit::tasks::spawn("session call", async move {
            // Whose end has come, is not waited for.
            over.run_until_cancelled(work).await;
        }));
        answer.await.map_err(|_| ended())?
    }

    fn context(&self) -> CallContext {
        let (clock, timeout) = (&self.calls.clock, self.version.timeout());
        let now = clock.now();
        CallContext {
            invocation: InvocationId::from_parts(now.millis().unsigned_abs(), self.calls.random.u128()),
            version: Arc::clone(&self.version),
            deadline: clock.instant() + timeout,
            deadline_ms: (now + timeout).millis(),
            logs: Arc::clone(&self.logs) as Arc<dyn LogSink>,
            max_result: limit::MAX_EVENT,
            cpu: CpuMeter::default(),
            trace: None,
        }
    }

    /// Calls a handler.
    async fn invoke(self: Arc<Self>, mut slot: Slot, mut sandbox: Box<dyn Sandbox>, call: Call, event: Bytes) {
        let cpu = call.context.cpu.clone();
        let result = sandbox.call(call.context, event).await;
        self.used(&cpu);
        let lost = result.as_ref().err().cloned();
        let _gone = call.answer.send(result.and_then(|result| event::answer(&result)));
        match sandbox.is_reusable() {
            true => *slot = Some(sandbox),
            false => self.lost(lost).await,
        }
    }

    /// Has a request served. The answer is read to its end, whether somebody takes it or not.
    async fn stream(self: Arc<Self>, mut slot: Slot, sandbox: Box<dyn Sandbox>, call: Call, request: Request<Body>) {
        let Call { context, answer } = call;
        let cpu = context.cpu.clone();
        let served = match sandbox.serve(context, request).await {
            Ok(served) => served,
            Err(error) => {
                self.used(&cpu);
                let _gone = answer.send(Err(error.clone()));
                return self.lost(Some(error)).await;
            }
        };
        let (parts, mut body) = served.response.into_parts();
        let (mut pieces, taken) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, BoxError>>(PIECES);
        let response = Response::from_parts(parts, StreamBody::new(taken).boxed_unsync());
        let mut wanted = answer.send(Ok(response)).is_ok();
        while let Some(piece) = body.frame().await {
            if wanted {
                wanted = matches!(tokio::time::timeout(PATIENCE, pieces.send(piece)).await, Ok(Ok(())));
            }
        }
        drop(body);
        let end = served.end.await;
        self.used(&cpu);
        match end.sandbox {
            Some(sandbox) => *slot = Some(sandbox),
            None => self.lost(end.outcome.err()).await,
        }
    }

    fn used(&self, cpu: &CpuMeter) {
        let time = u64::try_from(cpu.total().as_nanos()).unwrap_or(u64::MAX);
        self.counts.cpu.fetch_add(time, Ordering::Relaxed);
    }

    /// The instance can't be called again.
    async fn lost(&self, why: Option<Error>) {
        let detail = why.as_ref().map_or("it can't be called again", |error| &error.detail);
        self.logs.line(Level::Error, &format!("the session's instance has ended: {detail}"));
        let out_of_memory = why.is_some_and(|error| error.code == Code::OutOfMemory);
        self.calls.clock.sleep(LAST_WORDS).await;
        self.end(Exit { code: Some(1), signal: None, out_of_memory });
    }
}

/// A call to be made, and where its answer goes.
struct Call {
    context: CallContext,
    answer: oneshot::Sender<Answer>,
}

fn ended() -> Error {
    Error::new(Code::Unavailable, "the session's instance has ended")
}

fn unread(error: &BoxError) -> Error {
    match error.downcast_ref::<LengthLimitError>() {
        Some(_) => Error::new(Code::TooLarge, format!("a request's body has {} bytes at most", limit::MAX_EVENT)),
        None => Error::new(Code::BadRequest, "the request's body could not be read"),
    }
}

/// The answer where there is none of the instance's own.
fn refusal(error: &Error) -> Response<Body> {
    let body = serde_json::json!({"code": error.code.as_str(), "detail": error.detail}).to_string();
    let mut response = Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(error.code.row().http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// Counts while it lives.
struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    fn new(count: &'a AtomicU64) -> Open<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Open(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
