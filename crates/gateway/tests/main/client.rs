//! A gateway on a real socket, and requests to it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use lyra_gateway::{Config, Deps, ResourceServer, Service};
use lyra_kit::telemetry::Metrics;
use lyra_kit::{Clock, Ids, Random};
use lyra_types::api::Problem;
use lyra_types::function::Contract;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::accounts::FakeAccounts;
use crate::doubles::{FakeControl, FakeLogs, FakeWorker};
use crate::quotas::FakeQuotas;
use crate::workflows::double::FakeWorkflows;

/// A gateway with its scripted neighbours.
pub struct Gateway {
    pub address: SocketAddr,
    pub control: Arc<FakeControl>,
    pub worker: Arc<FakeWorker>,
    pub logs: Arc<FakeLogs>,
    pub shutdown: CancellationToken,
    pub served: Option<JoinHandle<lyra_types::Result<()>>>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The problem document; checks that it is one and says the status that was sent.
    #[track_caller]
    pub fn problem(&self) -> Problem {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        problem
    }

    /// Status and code of a problem.
    #[track_caller]
    pub fn fault(&self) -> (u16, String) {
        (self.status, self.problem().code)
    }
}

pub fn deps() -> (Deps, Arc<FakeControl>, Arc<FakeWorker>, Arc<FakeLogs>) {
    let control = Arc::new(FakeControl::default());
    let worker = Arc::new(FakeWorker::default());
    let logs = Arc::new(FakeLogs::default());
    let deps = Deps {
        control: control.clone(),
        accounts: Arc::new(FakeAccounts::default()),
        quotas: Arc::new(FakeQuotas::default()),
        worker: worker.clone(),
        workers: Arc::new(lyra_wire::workers::Sole(worker.clone())),
        logs: logs.clone(),
        workflows: Some(Arc::<FakeWorkflows>::default()),
        clock: Clock::system(),
        ids: Ids::new(Clock::system(), Random::system()),
        random: Random::system(),
        metrics: Metrics::new(),
    };
    (deps, control, worker, logs)
}

/// A gateway that knows the functions whose names the doubles act on.
pub async fn start_with(config: Config) -> Gateway {
    start_serving(config, None).await
}

/// The same, with the Kubernetes-style API.
pub async fn start_serving(config: Config, resources: Option<Arc<dyn ResourceServer>>) -> Gateway {
    start_among(config, resources, Arc::default()).await
}

/// The same, with these accounts.
pub async fn start_among(
    config: Config,
    resources: Option<Arc<dyn ResourceServer>>,
    accounts: Arc<FakeAccounts>,
) -> Gateway {
    let (mut deps, control, worker, logs) = deps();
    for name in ["echo", "throw", "busy", "hang", "panic", "lambda", "timeout", "out-of-memory", "limit-reached"] {
        control.add(name, Contract::Handler);
    }
    control.add("web", Contract::Http);
    control.add("cat", Contract::Command);
    deps.accounts = accounts;
    let service = Service::new(config, deps);
    resources.into_iter().for_each(|server| service.mount_resources(server));
    run(service, control, worker, logs).await
}

/// A gateway over neighbours that are there.
pub async fn serve(
    config: Config,
    deps: Deps,
    control: Arc<FakeControl>,
    worker: Arc<FakeWorker>,
    logs: Arc<FakeLogs>,
) -> Gateway {
    run(Service::new(config, deps), control, worker, logs).await
}

async fn run(service: Service, control: Arc<FakeControl>, worker: Arc<FakeWorker>, logs: Arc<FakeLogs>) -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let served = Some(lyra_kit::tasks::spawn("gateway", async move { service.serve(listener, token).await }));
    Gateway { address, control, worker, logs, shutdown, served }
}

pub async fn start() -> Gateway {
    start_with(Config::default()).await
}

impl Gateway {
    /// Sends a request on a connection of its own. `target` is a method and a path.
    pub async fn send(&self, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let (method, path) = target.split_once(' ').unwrap();
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.answer(request.body(Full::new(body.into())).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), &[], "").await
    }

    pub async fn answer(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.open(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// Sends a request and returns once the headers of the answer are there.
    pub async fn open<B>(&self, request: Request<B>) -> http::Response<hyper::body::Incoming>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        lyra_kit::tasks::spawn("client", connection);
        sender.send_request(request).await.unwrap()
    }

    /// Sends bytes as they are and reads until the connection is closed.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is a close too.
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

pub const OK: u16 = StatusCode::OK.as_u16();
