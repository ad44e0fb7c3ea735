//! A back end, a log and a blob store whose every step the test decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::BoxStream;
use lyra_isolation::{CallContext, Code, End, ImageKey, Isolation, Sandbox, Served, Template, Usage};
use lyra_kit::{Clock, Ids, Random, telemetry};
use lyra_store::{Blobs, DirectoryBlobs};
use lyra_types::function::{Contract, Digest};
use lyra_types::log::{Level, LogLine};
use lyra_types::{
    Code as ErrorCode, Error, FunctionName, FunctionVersion, InstanceId, InvocationId, Runtime, TenantName, Timestamp,
};
use lyra_wire::Logs;
use lyra_wire::logs::Query;
use lyra_wire::worker::{Call, HttpCall};
use lyra_worker::resources::gpu::{NoGpus, Source};
use lyra_worker::{Config, Deps, Service};
use tokio::sync::Notify;

#[derive(Default)]
struct Counts {
    loads: AtomicUsize,
    starts: AtomicUsize,
    alive: AtomicUsize,
    most: AtomicUsize,
    lost: AtomicBool,
    stream_end: Notify,
    /// Every instance that is there fails its probe, or does not answer it.
    sick: AtomicBool,
    hung: AtomicBool,
    hibernated: AtomicUsize,
    /// What streams ends with the end of its instance.
    cut: AtomicBool,
    /// No instance starts.
    refuses: AtomicBool,
    refused: AtomicUsize,
}

#[derive(Clone, Default)]
pub(crate) struct Backend(Arc<Counts>);

impl Backend {
    pub(crate) fn new() -> Backend {
        Backend::default()
    }
    pub(crate) fn loads(&self) -> usize {
        self.0.loads.load(Ordering::SeqCst)
    }
    pub(crate) fn starts(&self) -> usize {
        self.0.starts.load(Ordering::SeqCst)
    }
    pub(crate) fn alive(&self) -> usize {
        self.0.alive.load(Ordering::SeqCst)
    }
    pub(crate) fn most_at_once(&self) -> usize {
        self.0.most.load(Ordering::SeqCst)
    }
    pub(crate) fn lose_images(&self) {
        self.0.lost.store(true, Ordering::SeqCst);
    }
    pub(crate) fn fall_sick(&self, sick: bool) {
        self.0.sick.store(sick, Ordering::SeqCst);
    }
    pub(crate) fn hang(&self, hung: bool) {
        self.0.hung.store(hung, Ordering::SeqCst);
    }
    pub(crate) fn cut(&self) {
        self.0.cut.store(true, Ordering::SeqCst);
    }
    pub(crate) fn refuse(&self, refuses: bool) {
        self.0.refuses.store(refuses, Ordering::SeqCst);
    }
    pub(crate) fn refused(&self) -> usize {
        self.0.refused.load(Ordering::SeqCst)
    }
    pub(crate) fn hibernated(&self) -> usize {
        self.0.hibernated.load(Ordering::SeqCst)
    }
    pub(crate) fn end_stream(&self) {
        self.0.stream_end.notify_one();
    }
}

#[async_trait]
impl Isolation for Backend {
    fn name(&self) -> &'static str {
        "scripted"
    }
    fn runtimes(&self) -> &'static [Runtime] {
        &[Runtime::Js, Runtime::Native]
    }
    async fn prepare(&self, _: &Code) -> Result<Contract, Error> {
        self.0.lost.store(false, Ordering::SeqCst);
        Ok(Contract::Handler)
    }
    async fn load(&self, _: &ImageKey) -> Result<Option<Arc<dyn Template>>, Error> {
        if self.0.lost.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(Some(Arc::new(self.clone())))
    }
}

#[async_trait]
impl Template for Backend {
    fn contract(&self) -> Contract {
        Contract::Handler
    }
    fn weight(&self) -> usize {
        1_000
    }
    async fn start(&self, _: InstanceId, _: &Arc<FunctionVersion>) -> Result<Box<dyn Sandbox>, Error> {
        if self.0.refuses.load(Ordering::SeqCst) {
            self.0.refused.fetch_add(1, Ordering::SeqCst);
            return Err(Error::internal("no instance starts, as the test wants it"));
        }
        self.0.starts.fetch_add(1, Ordering::SeqCst);
        let alive = self.0.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(alive, Ordering::SeqCst);
        Ok(Box::new(Instance { counts: self.0.clone(), calls: 0, broken: false }))
    }
}

struct Instance {
    counts: Arc<Counts>,
    calls: usize,
    broken: bool,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.counts.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Sandbox for Instance {
    async fn call(&mut self, context: CallContext, event: Bytes) -> Result<Bytes, Error> {
        self.calls += 1;
        if &event[..] == b"\"crash\"" {
            self.broken = true;
            return Err(Error::new(ErrorCode::InstanceCrashed, "crashed as asked"));
        }
        let event: serde_json::Value = serde_json::from_slice(&event).expect("the tests send JSON");
        for n in 0..event["lines"].as_u64().unwrap_or(0) {
            context.logs.line(Level::Info, &format!("line {n}"));
        }
        if let Some(millis) = event["sleep_ms"].as_u64() {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        Ok(self.calls.to_string().into())
    }

    async fn serve(self: Box<Self>, _: CallContext, _: http::Request<lyra_isolation::Body>) -> Result<Served, Error> {
        let counts = self.counts.clone();
        let end = async move {
            counts.stream_end.notified().await;
            if counts.cut.load(Ordering::SeqCst) {
                return End { outcome: Err(Error::new(ErrorCode::InstanceCrashed, "cut")), sandbox: None };
            }
            End { outcome: Ok(()), sandbox: Some(self as Box<dyn Sandbox>) }
        };
        Ok(Served { response: http::Response::new(lyra_wire::full_body("")), end: end.boxed() })
    }

    async fn probe(&mut self) -> bool {
        if self.counts.hung.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        !self.counts.sick.load(Ordering::SeqCst)
    }

    fn usage(&self) -> Usage {
        Usage { memory: 16 << 20, cpu: Duration::ZERO }
    }

    async fn hibernate(&mut self) -> bool {
        self.counts.hibernated.fetch_add(1, Ordering::SeqCst);
        true
    }

    async fn wake(&mut self) -> bool {
        self.counts.hibernated.fetch_sub(1, Ordering::SeqCst);
        true
    }

    fn is_reusable(&self) -> bool {
        !self.broken
    }
}

#[derive(Default)]
pub(crate) struct Collected(parking_lot::Mutex<Vec<LogLine>>);

impl Collected {
    pub(crate) fn lines(&self) -> Vec<LogLine> {
        self.0.lock().clone()
    }
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock()).into_iter().map(|line| line.message).collect()
    }
}

#[async_trait]
impl Logs for Collected {
    fn offer(&self, line: LogLine) {
        self.0.lock().push(line);
    }
    async fn query(&self, _: Query) -> Result<Vec<LogLine>, Error> {
        Ok(self.0.lock().clone())
    }
    async fn follow(&self, _: Query) -> Result<BoxStream<'static, Result<LogLine, Error>>, Error> {
        Ok(Box::pin(futures::stream::empty()))
    }
    async fn forget(&self, _: &TenantName, _: &FunctionName) -> Result<(), Error> {
        Ok(())
    }
}

pub(crate) fn worker(backend: &Backend) -> Service {
    worker_with(backend, Config::default())
}

pub(crate) fn worker_with(backend: &Backend, config: Config) -> Service {
    worker_of(backend, config, Arc::default())
}

pub(crate) fn worker_of(backend: &Backend, config: Config, logs: Arc<Collected>) -> Service {
    measured_worker(backend, config, logs, telemetry::Metrics::new())
}

pub(crate) fn measured_worker(
    backend: &Backend,
    config: Config,
    logs: Arc<Collected>,
    metrics: telemetry::Metrics,
) -> Service {
    build(backend, config, logs, metrics, Arc::new(NoGpus))
}

pub(crate) fn worker_on(backend: &Backend, config: Config, logs: Arc<Collected>, gpus: Arc<dyn Source>) -> Service {
    build(backend, config, logs, telemetry::Metrics::new(), gpus)
}

fn build(
    backend: &Backend,
    config: Config,
    logs: Arc<Collected>,
    metrics: telemetry::Metrics,
    gpus: Arc<dyn Source>,
) -> Service {
    let folder = tempfile::tempdir().expect("a temporary folder").keep();
    let blobs = DirectoryBlobs::open(&folder).expect("an empty folder");
    let put = futures::executor::block_on(blobs.put(Bytes::from_static(b"code")));
    put.expect("a blob is stored");
    let clock = Clock::simulated(Timestamp::from_millis(0));
    Service::with_gpus(
        config,
        Deps {
            backends: vec![Arc::new(backend.clone())],
            blobs: Arc::new(blobs),
            logs,
            ids: Ids::new(clock.clone(), Random::seeded(1)),
            clock,
            metrics,
        },
        gpus,
    )
}

pub(crate) fn version(name: &str, number: u64, change: impl FnOnce(&mut FunctionVersion)) -> Arc<FunctionVersion> {
    let mut version = FunctionVersion {
        version: number,
        generation: name.bytes().fold(7, |hash, byte| hash * 31 + u64::from(byte)),
        code_size: 4,
        max_instances: 0,
        max_attempts: 1,
        ..FunctionVersion::new(
            FunctionName::new(name).expect("a valid name"),
            Runtime::Js,
            // SHA-256 of "code".
            Digest("5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b".into()),
        )
    };
    change(&mut version);
    Arc::new(version)
}

pub(crate) fn call(version: &Arc<FunctionVersion>, event: &'static str) -> Call {
    Call {
        id: InvocationId::from_parts(1, 1),
        version: version.clone(),
        event: Bytes::from_static(event.as_bytes()),
        timeout: None,
        account: Default::default(),
        trace: None,
    }
}

pub(crate) fn http_call(version: &Arc<FunctionVersion>) -> HttpCall {
    let request = http::Request::new(lyra_wire::full_body(""));
    HttpCall { id: InvocationId::from_parts(1, 1), version: version.clone(), request, user: None }
}
