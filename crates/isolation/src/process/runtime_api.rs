//! The AWS Lambda Runtime API, served to one instance on a socket inside of its own network.
//!
//! As Amazon documents it ("Using the Lambda runtime API", version 2018-06-01): the instance asks for the next
//! invocation, and posts its response or its error. What must hold: an event is handed out once; an answer is taken only
//! for the invocation that runs, once; nothing that an instance sends is larger than the result may be. Responses that
//! stream are collected.
//!
//! An instance need not keep a connection while it works on an invocation, and many bootstraps don't: that it has none
//! says nothing. One that hangs up while it waits for an invocation, or in the middle of a response, has broken
//! something off: unless it is soon back, its invocation has failed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lyra_types::error::Thrown;
use lyra_types::{Code, Error};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use super::instance::result_too_large;

/// Connections of one instance at a time; more wait.
const CONNECTIONS: usize = 16;

/// How long an instance that has broken a request off may take to make another.
const BACK: Duration = Duration::from_secs(1);

/// Largest error report, in bytes.
const MAX_REPORT: usize = 1 << 20;

/// What the path of every request starts with.
const ROOT: &str = "/2018-06-01/runtime/";

/// One invocation, as the instance gets it.
#[derive(Debug)]
pub(super) struct Invocation {
    pub(super) id: String,
    pub(super) deadline_ms: i64,
    pub(super) resource_name: String,
    pub(super) event: Bytes,
    pub(super) max_result: usize,
    /// The W3C trace context that it stands in.
    pub(super) trace: Option<Arc<str>>,
}

/// The trace in the form of AWS X-Ray, as runtimes of AWS Lambda expect it.
fn trace_id(invocation: &Invocation) -> String {
    let parts: Option<Vec<&str>> = invocation.trace.as_deref().map(|trace| trace.split('-').collect());
    match parts.as_deref() {
        Some([_, trace, span, flags]) if trace.len() == 32 && trace.is_ascii() => {
            let sampled = u8::from(flags.ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']));
            format!("Root=1-{}-{};Parent={span};Sampled={sampled}", &trace[..8], &trace[8..])
        }
        _ => format!("Root=1-00000000-000000000000000000000000;Lineage={}", invocation.id),
    }
}

/// How far an instance has come.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    /// It has not asked for an invocation yet.
    Loading,
    /// It waits for an invocation, or works on one.
    Serving,
    /// It said that it can't serve.
    Failed(Error),
}

/// The interface of one instance.
pub(super) struct Api {
    slot: Mutex<Slot>,
    handed: Notify,
    /// It has made a request, or broken one off.
    stirred: Notify,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct Slot {
    next: Option<Invocation>,
    running: Option<Running>,
    connections: usize,
    /// Requests for an invocation that wait.
    asking: usize,
    /// The last that was heard of the instance was a request that it broke off.
    hung_up: bool,
}

struct Running {
    id: String,
    max_result: usize,
    answer: oneshot::Sender<Result<Bytes, Error>>,
}

/// What an instance reports of an error.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Report {
    error_type: String,
    error_message: String,
    stack_trace: serde_json::Value,
}

impl Api {
    pub(super) fn new() -> Arc<Api> {
        let progress = watch::Sender::new(Progress::Loading);
        Arc::new(Api { slot: Mutex::default(), handed: Notify::new(), stirred: Notify::new(), progress })
    }

    /// Waits until the instance has asked for an invocation, or said that it never will.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(|progress| !matches!(progress, Progress::Loading)).await;
        match reached.as_deref() {
            Ok(Progress::Failed(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Waits until the instance waits for an invocation.
    pub(super) async fn asks(&self) {
        loop {
            let stirred = self.stirred.notified();
            if self.slot.lock().asking > 0 {
                return;
            }
            stirred.await;
        }
    }

    /// How many connections the instance has open.
    pub(super) fn connections(&self) -> usize {
        self.slot.lock().connections
    }

    /// Waits until the instance has hung up on its invocation and not come back.
    pub(super) async fn abandoned(&self) {
        let left = || {
            let slot = self.slot.lock();
            slot.hung_up && slot.asking == 0 && slot.running.is_some()
        };
        loop {
            let stirred = self.stirred.notified();
            if !left() {
                stirred.await;
            } else if timeout(BACK, stirred).await.is_err() && left() {
                return;
            }
        }
    }

    /// Hands an invocation out; the answer comes later. An answer that is never given ends with the receiver's error.
    pub(super) fn hand(&self, invocation: Invocation) -> oneshot::Receiver<Result<Bytes, Error>> {
        let (answer, receiver) = oneshot::channel();
        let running = Running { id: invocation.id.clone(), max_result: invocation.max_result, answer };
        let mut slot = self.slot.lock();
        slot.running = Some(running);
        slot.next = Some(invocation);
        drop(slot);
        self.handed.notify_one();
        self.stirred.notify_one();
        receiver
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(self: Arc<Api>, listener: tokio::net::TcpListener) {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                    let Ok((stream, _)) = accepted else {
                        // Too many open files, for one: what is served already may go on.
                        tokio::task::yield_now().await;
                        continue;
                    };
                    let _ = stream.set_nodelay(true);
                    let api = Arc::clone(&self);
                    let service = service_fn(move |request| Arc::clone(&api).answer(request));
                    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    self.slot.lock().connections += 1;
                    connections.push(served);
                }
                // A connection that breaks is the instance's own affair: it may open another.
                Some(_) = connections.next() => self.slot.lock().connections -= 1,
            }
        }
    }

    async fn answer(self: Arc<Api>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, mut body) = request.into_parts();
        let heard = Heard::new(&self);
        let path = parts.uri.path().strip_prefix(ROOT).unwrap_or_default();
        let response = match (parts.method, path) {
            (Method::GET, "invocation/next") => self.next().await,
            (Method::POST, "init/error") => self.init_error(&parts.headers, &mut body).await,
            (Method::POST, "restore/error") => self.init_error(&parts.headers, &mut body).await,
            (Method::POST, path) => match path.strip_prefix("invocation/").and_then(|rest| rest.split_once('/')) {
                Some((id, "response")) => self.response(id, &mut body).await,
                Some((id, "error")) => self.error(id, &parts.headers, &mut body).await,
                _ => refused(StatusCode::NOT_FOUND, "NotFound", "there is no such resource"),
            },
            _ => refused(StatusCode::NOT_FOUND, "NotFound", "there is no such resource"),
        };
        // What was refused is read all the same: a body that is left over would close the connection, which bootstraps
        // take for the end.
        while let Some(Ok(_)) = body.frame().await {}
        heard.out();
        Ok(response)
    }

    async fn next(&self) -> Response<Full<Bytes>> {
        let asking = Asking::new(self);
        let unanswered = {
            let mut slot = self.slot.lock();
            if slot.next.is_none() { slot.running.take() } else { None }
        };
        if let Some(running) = unanswered {
            let detail = "the runtime asked for the next invocation before it had answered this one";
            let _ = running.answer.send(Err(Error::new(Code::InvalidResult, detail)));
        }
        self.progress.send_if_modified(|progress| {
            let first = matches!(progress, Progress::Loading);
            if first {
                *progress = Progress::Serving;
            }
            first
        });
        let invocation = loop {
            let handed = self.handed.notified();
            {
                let mut slot = self.slot.lock();
                if let Some(invocation) = slot.next.take() {
                    break invocation;
                }
            }
            handed.await;
        };
        drop(asking);
        let trace = trace_id(&invocation);
        let mut response = Response::builder()
            .header("content-type", "application/json")
            .header("lambda-runtime-aws-request-id", &invocation.id)
            .header("lambda-runtime-deadline-ms", invocation.deadline_ms)
            .header("lambda-runtime-invoked-function-arn", &invocation.resource_name)
            .header("lambda-runtime-trace-id", trace);
        if let Some(trace) = invocation.trace.as_deref() {
            response = response.header("traceparent", trace);
        }
        let response = response.body(Full::new(invocation.event));
        response.unwrap_or_else(|_| refused(StatusCode::INTERNAL_SERVER_ERROR, "Internal", "no headers can be made"))
    }

    /// The most that the running invocation may answer, if it is `id`.
    fn limit_of(&self, id: &str) -> Option<usize> {
        self.slot.lock().running.as_ref().filter(|running| running.id == id).map(|running| running.max_result)
    }

    /// Ends the running invocation, if it is `id`.
    fn finish(&self, id: &str, outcome: Result<Bytes, Error>) -> Response<Full<Bytes>> {
        let running = {
            let mut slot = self.slot.lock();
            slot.running.take_if(|running| running.id == id)
        };
        match running {
            Some(running) => {
                // Whoever waited may have gone.
                let _ = running.answer.send(outcome);
                accepted()
            }
            None => unknown_id(),
        }
    }

    async fn response(&self, id: &str, body: &mut Incoming) -> Response<Full<Bytes>> {
        let Some(limit) = self.limit_of(id) else { return unknown_id() };
        match collect(body, limit).await {
            Collected::All(bytes, trailers) => {
                if let Some(error) = trailers.as_ref().and_then(streamed_error) {
                    return self.finish(id, Err(error));
                }
                self.finish(id, checked(bytes))
            }
            Collected::TooLarge => {
                let _ = self.finish(id, Err(result_too_large(limit)));
                refused(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", "the result is too large")
            }
            // The connection is broken, so that nobody hears the answer.
            Collected::Broken => self.broken_off(),
        }
    }

    async fn error(&self, id: &str, headers: &HeaderMap, body: &mut Incoming) -> Response<Full<Bytes>> {
        if self.limit_of(id).is_none() {
            return unknown_id();
        }
        match collect(body, MAX_REPORT).await {
            Collected::All(bytes, _) => self.finish(id, Err(reported(headers, &bytes))),
            Collected::TooLarge => self.finish(id, Err(reported(headers, b""))),
            Collected::Broken => self.broken_off(),
        }
    }

    fn stir(&self, hung_up: bool) {
        self.slot.lock().hung_up = hung_up;
        self.stirred.notify_one();
    }

    fn broken_off(&self) -> Response<Full<Bytes>> {
        self.stir(true);
        refused(StatusCode::BAD_REQUEST, "BadRequest", "the body is broken")
    }

    async fn init_error(&self, headers: &HeaderMap, body: &mut Incoming) -> Response<Full<Bytes>> {
        let error = match collect(body, MAX_REPORT).await {
            Collected::All(bytes, _) => reported(headers, &bytes),
            Collected::TooLarge | Collected::Broken => reported(headers, b""),
        };
        self.progress.send_if_modified(|progress| {
            let loading = matches!(progress, Progress::Loading);
            if loading {
                *progress = Progress::Failed(error);
            }
            loading
        });
        accepted()
    }
}

/// A request for an invocation, while it waits.
struct Asking<'a>(&'a Api);

impl Asking<'_> {
    fn new(api: &Api) -> Asking<'_> {
        api.slot.lock().asking += 1;
        api.stirred.notify_one();
        Asking(api)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.slot.lock().asking -= 1;
    }
}

/// A request. When its connection breaks it is dropped before it was heard out.
struct Heard<'a>(&'a Api);

impl Heard<'_> {
    fn new(api: &Api) -> Heard<'_> {
        api.stir(false);
        Heard(api)
    }

    fn out(self) {
        std::mem::forget(self);
    }
}

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        self.0.stir(true);
    }
}

enum Collected {
    All(Bytes, Option<HeaderMap>),
    TooLarge,
    Broken,
}

async fn collect(body: &mut Incoming, limit: usize) -> Collected {
    let (mut first, mut rest, mut trailers) = (Bytes::new(), BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Collected::Broken };
        match frame.into_data() {
            Ok(data) if first.len() + rest.len() + data.len() > limit => return Collected::TooLarge,
            // Most results come in one piece, which is not copied.
            Ok(data) if first.is_empty() => first = data,
            Ok(data) => rest.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    if rest.is_empty() {
        return Collected::All(first, trailers);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Collected::All(whole.freeze(), trailers)
}

/// A result, if it is JSON. Nothing at all stands for `null`.
fn checked(bytes: Bytes) -> Result<Bytes, Error> {
    if bytes.is_empty() {
        return Ok(Bytes::from_static(b"null"));
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Error::new(Code::InvalidResult, format!("the function's result is no JSON: {error}"))),
    }
}

/// What was thrown, from a report: a JSON document, and a header with the error's type.
fn reported(headers: &HeaderMap, body: &[u8]) -> Error {
    let header = headers.get("lambda-runtime-function-error-type").and_then(|value| value.to_str().ok());
    let report: Report = serde_json::from_slice(body).unwrap_or_else(|_| Report {
        error_message: String::from_utf8_lossy(&body[..body.len().min(4 << 10)]).into_owned(),
        ..Report::default()
    });
    let name = match (report.error_type.is_empty(), header) {
        (false, _) => report.error_type,
        (true, Some(header)) => header.to_owned(),
        (true, None) => "Error".to_owned(),
    };
    let stack = match report.stack_trace {
        serde_json::Value::Array(lines) => {
            let line = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            lines.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        serde_json::Value::String(text) => text,
        _ => String::new(),
    };
    Error::thrown(Thrown { name, message: report.error_message, stack })
}

/// The error that a response which streams may end with, in its trailers.
fn streamed_error(trailers: &HeaderMap) -> Option<Error> {
    use base64::Engine;
    let name = trailers.get("lambda-runtime-function-error-type")?;
    let body = trailers.get("lambda-runtime-function-error-body").map(http::HeaderValue::as_bytes).unwrap_or_default();
    let body = base64::engine::general_purpose::STANDARD.decode(body).unwrap_or_default();
    let mut headers = HeaderMap::new();
    headers.insert("lambda-runtime-function-error-type", name.clone());
    Some(reported(&headers, &body))
}

fn accepted() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"{\"status\":\"OK\"}")));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

fn unknown_id() -> Response<Full<Bytes>> {
    refused(StatusCode::BAD_REQUEST, "InvalidRequestID", "no such invocation runs on this instance")
}

fn refused(status: StatusCode, name: &str, message: &str) -> Response<Full<Bytes>> {
    let body = format!("{{\"errorType\":\"{name}\",\"errorMessage\":\"{message}\"}}");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_in_every_form() {
        let mut headers = HeaderMap::new();
        let of = |headers: &HeaderMap, body: &[u8]| reported(headers, body).thrown.expect("thrown");
        let whole = of(&headers, br#"{"errorType":"T","errorMessage":"m","stackTrace":["a",["b",1]]}"#);
        assert_eq!((&*whole.name, &*whole.message, &*whole.stack), ("T", "m", "a\n[\"b\",1]"));
        headers.insert("lambda-runtime-function-error-type", "Runtime.Bad".parse().expect("a value"));
        let bare = of(&headers, b"no json");
        assert_eq!((&*bare.name, &*bare.message), ("Runtime.Bad", "no json"));
    }

    /// The interface with one connection that has asked for an invocation.
    async fn asked() -> (Arc<Api>, tokio::net::TcpStream, std::net::SocketAddr) {
        use tokio::io::AsyncWriteExt;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let api = Api::new();
        lyra_kit::tasks::spawn("runtime-api", Arc::clone(&api).serve(listener));
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        let request = format!("GET {ROOT}invocation/next HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        timeout(PATIENCE, api.asks()).await.expect("is heard");
        (api, stream, address)
    }

    /// Longer than anything takes that works.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn invocation() -> Invocation {
        let (id, resource_name) = ("1".to_owned(), String::new());
        Invocation {
            id,
            deadline_ms: 0,
            resource_name,
            event: Bytes::from_static(b"1"),
            max_result: 1 << 10,
            trace: None,
        }
    }

    #[tokio::test]
    async fn who_hangs_up_while_it_waits_and_does_not_come_back_has_left_its_next_invocation() {
        let (api, stream, _) = asked().await;
        drop(stream);
        while api.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _answer = api.hand(invocation());
        timeout(PATIENCE, api.abandoned()).await.expect("nobody will take it");
    }

    #[tokio::test]
    async fn who_hangs_up_and_comes_back_gets_its_invocation() {
        use tokio::io::AsyncReadExt;
        let (api, stream, address) = asked().await;
        drop(stream);
        while api.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _answer = api.hand(invocation());
        let again = async {
            use tokio::io::AsyncWriteExt;
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
            let request = format!("GET {ROOT}invocation/next HTTP/1.1\r\nhost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("written");
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.expect("an answer");
            // Without a connection, and with its event, it may take all the time that it has.
            drop(stream);
            assert_eq!(&head, b"HTTP/1.1 200");
        };
        timeout(PATIENCE, again).await.expect("gets it");
        timeout(BACK * 2, api.abandoned()).await.expect_err("it works");
    }

    #[test]
    fn results_are_json_or_nothing() {
        assert_eq!(checked(Bytes::new()).as_deref(), Ok(&b"null"[..]));
        assert_eq!(checked(Bytes::from_static(b" {\"a\":1}")).as_deref(), Ok(&b" {\"a\":1}"[..]));
        assert_eq!(checked(Bytes::from_static(b"{")).expect_err("no JSON").code, Code::InvalidResult);
    }
}
