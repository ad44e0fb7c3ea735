//! Calling a component of the world `wasi:http/proxy`.
//!
//! The guest runs inside of the caller's future until its response is there. Most guests have ended by then, and
//! the response is handed over whole; only a guest that goes on is moved into a task, which its response's body stops
//! when it is dropped early. After the body's end the guest may finish its work, until the deadline.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use lyra_types::error::Thrown;
use lyra_types::function::Contract;
use lyra_types::{Code, Error, FunctionVersion, InstanceId};
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Resource;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};

use super::body::{self, Complete, Progress};
use super::failure;
use super::host::{self, Host};
use super::stdio::Stdio;
use super::streaming::{Flow, StopOnDrop, Streaming};
use crate::session::Called;
use crate::wasm::engine::Engine;
use crate::wasm::governor::{Governed, Share};
use crate::wasm::hosting::{self, Hosts};
use crate::{Body, CallContext, End, Grant, Hosted, Hosting, Sandbox, Served, Template};

/// How much of an error response's body is in the error of a call, in bytes.
const ERROR_BODY: usize = 1 << 10;

/// A component in memory.
pub(super) struct HttpTemplate {
    engine: Engine,
    hosts: Arc<Hosts>,
    pre: ProxyPre<Host>,
    size: usize,
}

impl HttpTemplate {
    pub(super) fn new(engine: &Engine, hosts: &Arc<Hosts>, pre: ProxyPre<Host>, size: usize) -> HttpTemplate {
        HttpTemplate { engine: engine.clone(), hosts: Arc::clone(hosts), pre, size }
    }

    /// Starts an instance; `files`: what it can read.
    async fn begin(
        &self,
        version: &FunctionVersion,
        grant: &Grant,
        files: Option<&Path>,
    ) -> Result<HttpSandbox, Error> {
        let stdio = Stdio::logging();
        let mut store = host::store(&self.engine, Some(version), version.memory_bytes(), &stdio, grant, files)?;
        let share = store.data_mut().governor().share();
        let started = share.run(self.pre.instantiate_async(&mut store));
        let proxy = tokio::time::timeout(version.timeout(), started)
            .await
            .map_err(|_| failure::start_timeout(version))?
            .map_err(|error| failure::of_start(&error))?;
        let live = Live { store, proxy, share, stdio };
        Ok(HttpSandbox { live: Some(live), reusable: true })
    }
}

#[async_trait]
impl Template for HttpTemplate {
    fn contract(&self) -> Contract {
        Contract::Http
    }

    fn weight(&self) -> usize {
        self.size
    }

    async fn start(&self, id: InstanceId, version: &Arc<FunctionVersion>) -> Result<Box<dyn Sandbox>, Error> {
        self.start_with(id, version, &Grant::default()).await
    }

    async fn start_with(
        &self,
        _id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
    ) -> Result<Box<dyn Sandbox>, Error> {
        Ok(Box::new(self.begin(version, grant, None).await?))
    }

    async fn host(
        &self,
        id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
        hosting: Hosting,
    ) -> Result<Box<dyn Hosted>, Error> {
        let (calls, contract) = (&self.hosts.calls, self.contract());
        calls.check(version, contract, &hosting)?;
        let version = hosting::hosted(id, version, &hosting);
        let files = self.hosts.files(id, &hosting).await?;
        let sandbox = Box::new(self.begin(&version, grant, Some(&files.shown())).await?);
        Ok(Box::new(Called::new(id, &version, contract, sandbox, hosting, Some(files), calls)))
    }
}

/// An instance that can be called.
struct Live {
    store: Store<Host>,
    proxy: Proxy,
    share: Arc<Share>,
    stdio: Stdio,
}

/// An instance, or what is left of it.
struct HttpSandbox {
    /// `None` after a failure.
    live: Option<Live>,
    /// Whether its version keeps instances.
    reusable: bool,
}

type Answer = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// One exchange that has begun: the guest's work, and where its response comes out.
struct Exchange {
    guest: Pin<Box<dyn Future<Output = Result<Live, Error>> + Send>>,
    answer: oneshot::Receiver<Answer>,
    /// Why the guest failed; set before the guest's end of the response's body is dropped.
    failed: Arc<OnceLock<Error>>,
}

impl Exchange {
    fn begin(mut live: Live, context: CallContext, request: Request<Body>) -> Result<Exchange, Error> {
        let (scheme, request) = body::incoming(request);
        let (sender, answer) = oneshot::channel();
        live.stdio.begin(&context.logs);
        let mut view = live.store.data_mut().http();
        let handed = view.new_incoming_request(scheme, request).and_then(|request| {
            let outparam = view.new_response_outparam(sender)?;
            Ok((request, outparam))
        });
        let (request, outparam) = handed.map_err(|error| {
            tracing::warn!(error = format!("{error:#}"), "a request can't be handed to its instance");
            Error::new(Code::InstanceCrashed, "the instance holds too many resources to take one more request")
        })?;
        let failed = Arc::new(OnceLock::new());
        let guest = Box::pin(work(live, context, request, outparam, Arc::clone(&failed)));
        Ok(Exchange { guest, answer, failed })
    }
}

/// Runs the guest until it returns, fails, or its deadline passes.
async fn work(
    mut live: Live,
    context: CallContext,
    request: Resource<HostIncomingRequest>,
    outparam: Resource<HostResponseOutparam>,
    failed: Arc<OnceLock<Error>>,
) -> Result<Live, Error> {
    let Live { store, proxy, share, stdio } = &mut live;
    let call = proxy.wasi_http_incoming_handler().call_handle(&mut *store, request, outparam);
    let called = tokio::time::timeout_at(context.deadline, share.run_metered(&context.cpu, call)).await;
    let outcome = match called {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let oom = store.data_mut().governor().oom();
            Err(failure::of_call(&error, oom, &context, stdio))
        }
        Err(_) => Err(failure::timeout(&context)),
    };
    stdio.end();
    match outcome {
        Ok(()) => Ok(live),
        Err(error) => {
            // Before the store goes, and with it the writing end of the body: see `Streaming`.
            let _ = failed.set(error.clone());
            Err(error)
        }
    }
}

/// What comes first.
enum First {
    Ended(Result<Live, Error>),
    Answered(Result<Answer, oneshot::error::RecvError>),
}

async fn first(exchange: &mut Exchange) -> First {
    poll_fn(|context| {
        if let Poll::Ready(ended) = exchange.guest.as_mut().poll(context) {
            return Poll::Ready(First::Ended(ended));
        }
        Pin::new(&mut exchange.answer).poll(context).map(First::Answered)
    })
    .await
}

#[async_trait]
impl Sandbox for HttpSandbox {
    async fn call(&mut self, context: CallContext, event: Bytes) -> Result<Bytes, Error> {
        let live = self.live.take().ok_or_else(gone)?;
        let (limit, reuse) = (context.max_result, context.version.reuse);
        let request = Request::post("/")
            .header(http::header::HOST, "localhost")
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::CONTENT_LENGTH, event.len())
            .body(Full::new(event).map_err(|never| match never {}).boxed_unsync())
            .map_err(|_| Error::internal("the call could not be made a request"))?;
        let Exchange { guest, answer, .. } = Exchange::begin(live, context, request)?;
        let (live, response) = both(guest, read(answer, limit)).await?;
        self.live = live;
        self.reusable = reuse;
        response
    }

    async fn serve(mut self: Box<Self>, context: CallContext, request: Request<Body>) -> Result<Served, Error> {
        let live = self.live.take().ok_or_else(gone)?;
        let reuse = context.version.reuse;
        let is_head = request.method() == Method::HEAD;
        let mut exchange = Exchange::begin(live, context, request)?;
        match first(&mut exchange).await {
            First::Ended(ended) => {
                let live = ended?;
                let response = accept(exchange.answer.try_recv().ok())?;
                hand_over(live, reuse, is_head, response)
            }
            First::Answered(answer) => {
                let response = accept(answer.ok())?;
                Ok(stream(exchange, reuse, is_head, response))
            }
        }
    }

    fn is_reusable(&self) -> bool {
        self.live.is_some() && self.reusable
    }
}

fn gone() -> Error {
    Error::internal("an instance was called after it had failed")
}

fn thrown(name: &str, message: impl Into<String>) -> Error {
    Error::thrown(Thrown { name: name.into(), message: message.into(), stack: String::new() })
}

/// Checks what the guest answered; `None`: it gave up its right to answer.
fn accept(answer: Option<Answer>) -> Result<Response<HyperOutgoingBody>, Error> {
    let response = match answer {
        Some(Ok(response)) => response,
        Some(Err(code)) => return Err(thrown("ErrorCode", format!("the component answered with the error {code:?}"))),
        None => {
            return Err(thrown(
                "NoResponse",
                "the component returned, or dropped its response-outparam, without setting a response",
            ));
        }
    };
    if response.status().is_informational() {
        let status = response.status().as_u16();
        return Err(Error::new(Code::InvalidResult, format!("the response's status {status} is not a final one")));
    }
    Ok(response)
}

/// Whether a response has no body on the wire, whatever the guest writes.
fn is_bodyless(is_head: bool, status: StatusCode) -> bool {
    is_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// Refuses a body that is not as long as its headers say: its reader would wait for more, or take too little.
fn check_length(headers: &HeaderMap, size: u64) -> Result<(), Error> {
    match body::announced(headers) {
        Some(announced) if announced != size => {
            let detail = format!("the response has {size} bytes of body, but its content-length says {announced}");
            Err(Error::new(Code::InvalidResult, detail))
        }
        _ => Ok(()),
    }
}

/// The response of a guest that has ended.
fn hand_over(live: Live, reuse: bool, is_head: bool, response: Response<HyperOutgoingBody>) -> Result<Served, Error> {
    let (parts, mut body) = response.into_parts();
    let mut live = Some(live);
    let mut complete = Complete::default();
    let mut progress = complete.take(&mut body);
    if matches!(progress, Progress::Open) {
        // It returned without finishing the body, which nobody can write to any more: it ends with the instance.
        live = None;
        progress = complete.take(&mut body);
    }
    let bodyless = is_bodyless(is_head, parts.status);
    if !bodyless {
        check_length(&parts.headers, complete.size())?;
    }
    if matches!(progress, Progress::Broken) {
        return Err(body::broken());
    }
    if bodyless {
        complete = Complete::default();
    }
    let sandbox = live.filter(|_| reuse).map(kept);
    let end = async move { End { outcome: Ok(()), sandbox } };
    Ok(Served { response: Response::from_parts(parts, complete.boxed_unsync()), end: end.boxed() })
}

/// The response of a guest that goes on: from here, it runs in a task of its own.
fn stream(exchange: Exchange, reuse: bool, is_head: bool, response: Response<HyperOutgoingBody>) -> Served {
    let Exchange { guest, failed, .. } = exchange;
    let (parts, body) = response.into_parts();
    let (sender, ended) = oneshot::channel();
    let bodyless = is_bodyless(is_head, parts.status);
    let flow = Flow::new(body);
    let written = flow.clone();
    let task = lyra_kit::tasks::spawn("wasm-http", async move {
        // A body that is not on the wire has no reader; without one, the guest could not write it.
        let outcome = if bodyless { beside(guest, written.drain()).await } else { guest.await };
        let outcome = outcome.map(|live| written.returned(live).filter(|_| reuse));
        // Nobody may be interested in how it went.
        let _ = sender.send(outcome);
    });
    let stop = StopOnDrop::new(task.abort_handle());
    let (body, stop) = if bodyless {
        (Empty::new().map_err(|never| match never {}).boxed_unsync(), Some(stop))
    } else {
        (Streaming::new(flow, &parts.headers, failed, stop).boxed_unsync(), None)
    };
    let end = async move {
        let _stop = stop;
        match ended.await {
            Ok(Ok(live)) => End { outcome: Ok(()), sandbox: live.map(kept) },
            Ok(Err(error)) => End { outcome: Err(error), sandbox: None },
            Err(_) => End { outcome: Err(stopped()), sandbox: None },
        }
    };
    Served { response: Response::from_parts(parts, body), end: end.boxed() }
}

/// An instance that is called again.
fn kept(live: Live) -> Box<dyn Sandbox> {
    Box::new(HttpSandbox { live: Some(live), reusable: true })
}

/// Runs the guest, and beside it what can't outlast it.
async fn beside<T>(mut guest: Pin<Box<dyn Future<Output = T> + Send>>, other: impl Future<Output = ()>) -> T {
    let mut other = std::pin::pin!(other.fuse());
    poll_fn(|context| {
        if let Poll::Ready(ended) = guest.as_mut().poll(context) {
            return Poll::Ready(ended);
        }
        let _ = other.as_mut().poll(context);
        Poll::Pending
    })
    .await
}

fn stopped() -> Error {
    Error::new(Code::Cancelled, "the response was dropped before its end, so the function was stopped")
}

/// Runs the guest and reads its response at the same time. An error of the reader stops the guest. The instance comes
/// back if it finished the response.
async fn both<T>(
    mut guest: Pin<Box<dyn Future<Output = Result<Live, Error>> + Send>>,
    reader: impl Future<Output = Result<T, Error>>,
) -> Result<(Option<Live>, T), Error> {
    // Not under tokio's budget for one task's poll, which would make what is there look as if it were not.
    let mut reader = std::pin::pin!(tokio::task::unconstrained(reader));
    let mut answer = None;
    let live = poll_fn(|context| {
        let ended = guest.as_mut().poll(context);
        if matches!(ended, Poll::Ready(Err(_))) {
            // To the reader it looks as if there were no response; this is why there is none.
            return ended;
        }
        if answer.is_none()
            && let Poll::Ready(read) = reader.as_mut().poll(context)
        {
            answer = Some(read?);
        }
        ended
    })
    .await?;
    match answer {
        Some(answer) => Ok((Some(live), answer)),
        // It returned without finishing the body, which nobody can write to any more: it ends with the instance.
        None => {
            drop(live);
            Ok((None, reader.await?))
        }
    }
}

/// Reads a response: the body of a good one, or the error that another one is.
async fn read(answer: oneshot::Receiver<Answer>, limit: usize) -> Result<Result<Bytes, Error>, Error> {
    let (parts, mut body) = accept(answer.await.ok())?.into_parts();
    let good = parts.status.is_success();
    let mut pieces = Pieces::default();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| body::broken())?.into_data() else { continue };
        if !good {
            // The rest is read so that the guest can end, and thrown away.
            pieces.add(data.slice(..data.len().min(ERROR_BODY - pieces.size)));
        } else if data.len() > limit - pieces.size {
            return Err(failure::result_too_large(limit));
        } else {
            pieces.add(data);
        }
    }
    let bytes = pieces.join();
    if good {
        return Ok(Ok(bytes));
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(Err(thrown(
        "HttpStatus",
        format!("the component answered with status {}: {}", parts.status.as_u16(), text.trim_end()),
    )))
}

/// Pieces of a body; one alone is not copied.
#[derive(Default)]
struct Pieces {
    first: Bytes,
    all: BytesMut,
    size: usize,
}

impl Pieces {
    fn add(&mut self, piece: Bytes) {
        self.size += piece.len();
        if self.first.is_empty() && self.all.is_empty() {
            self.first = piece;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&piece);
    }

    fn join(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}
