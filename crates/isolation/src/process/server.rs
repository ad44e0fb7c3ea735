//! Programs that listen on `$PORT`: requests and responses pass through as they are, streaming both ways.
//!
//! What must hold: an instance takes one exchange at a time; an exchange ends by its deadline, with the instance killed;
//! a response that was cut never looks like a whole one. A client that goes away closes the exchange's connection, which
//! the program sees; the instance goes on.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use lyra_types::error::Thrown;
use lyra_types::function::Contract;
use lyra_types::{Code, Error, FunctionVersion, InstanceId};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use super::Shared;
use super::hosting::{self, Start};
use super::instance::{Instance, gone, never_ready, result_too_large};
use super::package::Package;
use super::plan::{Ground, TASK_ROOT, env_of, secret_files};
use crate::{Body, BoxError, CallContext, End, Grant, Hosted, Hosting, Sandbox, Served, Template, Usage};

/// Where programs are told to listen. Fixed: every instance has a network of its own.
const PORT: u16 = 8080;

/// First and longest pause between looks at whether a program listens.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// How much of an error response's body is in the error of a call, in bytes.
const ERROR_BODY: usize = 1 << 10;

/// A package with a server.
pub(super) struct ServerTemplate {
    pub(super) shared: Arc<Shared>,
    pub(super) package: Package,
    pub(super) program: String,
}

#[async_trait]
impl Template for ServerTemplate {
    fn contract(&self) -> Contract {
        Contract::Http
    }

    fn weight(&self) -> usize {
        1 << 10
    }

    async fn start(&self, id: InstanceId, version: &Arc<FunctionVersion>) -> Result<Box<dyn Sandbox>, Error> {
        self.start_with(id, version, &Grant::default()).await
    }

    async fn start_with(
        &self,
        id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
    ) -> Result<Box<dyn Sandbox>, Error> {
        let shared = &self.shared;
        let mut env = env_of(id, version, version.handler.as_deref().unwrap_or_default(), grant);
        env.retain(|(name, _)| name != "PORT");
        env.push(("PORT".to_owned(), PORT.to_string()));
        shared.driver().tell(&mut env, grant);
        let interpreters = shared.interpreters().await;
        let interpreters = interpreters.iter().collect();
        let ground = Ground { config: &shared.config, support: &shared.support, interpreters };
        let program = vec![format!("{TASK_ROOT}/{}", self.program)];
        let mut plan = ground.plan_for(id, &self.package, version, program, env);
        plan.secrets = secret_files(grant);
        shared.driver().add(&mut plan, grant);
        let (instance, _) = Instance::spawn_for(shared, version, plan).await?;
        let limit = shared.config.settings.init_timeout;
        let connected = tokio::select! {
            biased;
            connection = connect_first(&instance) => connection,
            _ = instance.process().wait() => Err(instance.failure(version.memory_mb).await),
            () = tokio::time::sleep(limit) => {
                instance.kill();
                Err(never_ready(limit, &format!("nothing listens on its port {PORT} ($PORT)")))
            }
        };
        let (connection, failed) = match connected {
            Ok(connection) => (Some(connection), None),
            Err(error) => (None, Some(error)),
        };
        Ok(Box::new(ServerSandbox { instance, connection, usable: failed.is_none(), failed }))
    }

    async fn host(
        &self,
        id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
        hosting: Hosting,
    ) -> Result<Box<dyn Hosted>, Error> {
        let program = vec![format!("{TASK_ROOT}/{}", self.program)];
        let (shared, package) = (&self.shared, &self.package);
        hosting::host(shared, Start { id, version, grant, hosting, package, program }).await
    }
}

/// A connection to an instance's program.
struct Connection {
    sender: SendRequest<Body>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connects as soon as the program listens.
async fn connect_first(instance: &Instance) -> Result<Connection, Error> {
    let mut pause = PAUSES.0;
    loop {
        match connect(instance).await {
            Ok(stream) => return handshake(stream).await,
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

async fn connect(instance: &Instance) -> std::io::Result<TcpStream> {
    let socket = instance.process().socket(false).await.map_err(std::io::Error::other)?;
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn handshake(stream: TcpStream) -> Result<Connection, Error> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Error::internal(format!("a connection to an instance can't be used: {error}")))?;
    let task = lyra_kit::tasks::spawn("instance-http", async move {
        // How it ends is seen by whoever uses it.
        let _ = connection.await;
    });
    Ok(Connection { sender, task })
}

/// An instance of such a program.
struct ServerSandbox {
    instance: Instance,
    /// Open and unused, if there is one.
    connection: Option<Connection>,
    /// Why it did not get ready; told to the first call, whose log has what was written until then.
    failed: Option<Error>,
    usable: bool,
}

impl ServerSandbox {
    /// Sends a request and waits for the response's head.
    async fn exchange(
        &mut self,
        context: &CallContext,
        request: Request<Body>,
    ) -> Result<(Connection, Response<Incoming>), Error> {
        self.instance.begin(&context.logs, &mut self.failed)?;
        if !std::mem::replace(&mut self.usable, false) {
            return Err(gone());
        }
        let request = outgoing(request);
        let kept = self.connection.take().filter(|connection| connection.sender.is_ready());
        let instance = &self.instance;
        let sent = async {
            let mut connection = match kept {
                Some(connection) => connection,
                None => handshake(connect(instance).await.map_err(|error| refused(&error))?).await?,
            };
            match connection.sender.try_send_request(request).await {
                Ok(response) => Ok((connection, response)),
                Err(mut failed) => match failed.take_message() {
                    // The program closed the idle connection in this very moment: nothing of the request was sent.
                    Some(request) => {
                        let mut connection =
                            handshake(connect(instance).await.map_err(|error| refused(&error))?).await?;
                        let sent = connection.sender.send_request(request).await;
                        sent.map(|response| (connection, response)).map_err(|error| broken(&error))
                    }
                    None => Err(broken(failed.error())),
                },
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = sent => outcome,
            _ = instance.process().wait() => Err(instance.failure(context.version.memory_mb).await),
            () = tokio::time::sleep_until(context.deadline) => return Err(instance.timed_out(context)),
        };
        match outcome {
            Ok(answer) => {
                self.usable = true;
                Ok(answer)
            }
            // A connection that breaks is most often the first sign of the program's end, which says more.
            Err(error) => {
                let ended = tokio::time::timeout(Duration::from_millis(100), instance.process().wait()).await;
                instance.output().drain();
                Err(ended.map_or(error, |exit| super::instance::of_exit(exit, context.version.memory_mb)))
            }
        }
    }
}

#[async_trait]
impl Sandbox for ServerSandbox {
    async fn call(&mut self, context: CallContext, event: Bytes) -> Result<Bytes, Error> {
        let request = Request::post("/")
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, event.len())
            .body(Full::new(event).map_err(|never| match never {}).boxed_unsync())
            .map_err(|_| Error::internal("the call could not be made a request"))?;
        self.instance.begin_metering();
        let (connection, response) = self.exchange(&context, request).await?;
        self.usable = false;
        let read = tokio::time::timeout_at(context.deadline, read(response, context.max_result));
        let Ok(outcome) = read.await else { return Err(self.instance.timed_out(&context)) };
        self.instance.meter(&context.cpu);
        self.instance.output().drain();
        self.usable = self.instance.is_alive();
        if outcome.as_ref().is_ok_and(|(_, whole)| *whole) {
            self.connection = Some(connection);
        }
        outcome.and_then(|(result, _)| result)
    }

    async fn serve(mut self: Box<Self>, context: CallContext, request: Request<Body>) -> Result<Served, Error> {
        self.instance.begin_metering();
        let (connection, response) = self.exchange(&context, request).await?;
        let (ended, end) = oneshot::channel();
        let sleep = Box::pin(tokio::time::sleep_until(context.deadline));
        let response = response.map(|body| {
            Passing { body, sleep, ended: Some(ended), limit_ms: context.version.timeout_ms }.boxed_unsync()
        });
        let end = async move {
            let how = end.await.unwrap_or(How::Dropped);
            self.instance.meter(&context.cpu);
            self.instance.output().drain();
            let outcome = match how {
                How::Whole => {
                    self.connection = Some(connection);
                    Ok(())
                }
                How::Dropped => Err(Error::new(Code::Cancelled, "the response was dropped before its end")),
                How::Late => Err(self.instance.timed_out(&context)),
                How::Broken => {
                    let exit = self.instance.process().exit();
                    Err(exit.map_or_else(cut, |exit| super::instance::of_exit(exit, context.version.memory_mb)))
                }
            };
            self.usable = self.instance.is_alive() && how != How::Late;
            let sandbox = self.usable.then(|| self as Box<dyn Sandbox>);
            End { outcome, sandbox }
        };
        Ok(Served { response, end: end.boxed() })
    }

    fn is_reusable(&self) -> bool {
        self.usable && self.instance.is_alive()
    }

    fn usage(&self) -> Usage {
        self.instance.usage()
    }

    async fn probe(&mut self) -> bool {
        if !self.is_reusable() {
            return false;
        }
        matches!(tokio::time::timeout(Duration::from_secs(1), connect(&self.instance)).await, Ok(Ok(_)))
    }

    async fn hibernate(&mut self) -> bool {
        // Its program would find it dead at best.
        self.connection = None;
        self.instance.hibernate().await
    }

    async fn wake(&mut self) -> bool {
        self.instance.wake().await
    }

    async fn stop(mut self: Box<Self>, limit: Duration) {
        self.connection = None;
        self.instance.stop(limit).await;
    }
}

/// A request in the form that goes to an origin server: the path, and the host as a header.
fn outgoing(mut request: Request<Body>) -> Request<Body> {
    if !request.headers().contains_key(HOST) {
        let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        request.headers_mut().insert(HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().remove(CONNECTION);
    request
}

/// How a response's body went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Whole,
    Dropped,
    Late,
    Broken,
}

/// A response's body on its way to the client.
struct Passing {
    body: Incoming,
    sleep: Pin<Box<Sleep>>,
    ended: Option<oneshot::Sender<How>>,
    limit_ms: u64,
}

impl Passing {
    fn end(&mut self, how: How) {
        if let Some(ended) = self.ended.take() {
            // Nobody may be interested.
            let _ = ended.send(how);
        }
    }
}

impl HttpBody for Passing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(Some(Err(error))) => {
                self.end(How::Broken);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.end(How::Whole);
                Poll::Ready(None)
            }
            Poll::Pending if self.ended.is_some() && self.sleep.as_mut().poll(context).is_ready() => {
                self.end(How::Late);
                let limit = self.limit_ms;
                let detail = format!("the response did not end before its deadline ({limit} ms after it began)");
                Poll::Ready(Some(Err(detail.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let how = if self.body.is_end_stream() { How::Whole } else { How::Dropped };
        self.end(how);
    }
}

/// Reads a response: the body of a good one, or the error that another one is; and whether it was read to its end.
async fn read(response: Response<Incoming>, limit: usize) -> Result<(Result<Bytes, Error>, bool), Error> {
    let status = response.status();
    let most = if status.is_success() { limit } else { ERROR_BODY };
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    let mut whole = true;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| cut())?.into_data() else { continue };
        let room = most - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            whole = false;
            break;
        }
    }
    if !status.is_success() {
        let message = format!("the program answered with status {status}: {}", String::from_utf8_lossy(&bytes));
        let thrown = Thrown { name: "HttpStatus".to_owned(), message, stack: String::new() };
        return Ok((Err(Error::thrown(thrown)), whole));
    }
    if !whole {
        return Ok((Err(result_too_large(limit)), false));
    }
    Ok((Ok(bytes.freeze()), true))
}

fn cut() -> Error {
    Error::new(Code::InstanceCrashed, "the program broke its response off")
}

fn refused(error: &std::io::Error) -> Error {
    Error::new(Code::InstanceCrashed, format!("the program does not listen on its port any more: {error}"))
}

fn broken(error: &hyper::Error) -> Error {
    Error::new(Code::InstanceCrashed, format!("the program did not answer the request as HTTP: {error}"))
}
