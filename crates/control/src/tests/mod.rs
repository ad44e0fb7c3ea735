//! Tests of the whole control role, on real files, with a worker that does as it is told.

mod accounts;
mod churn;
mod clocks;
mod crashes;
mod deliveries;
mod functions;
mod jobs;
mod quotas;
mod scaler;
mod schedules;
mod secrets;
mod sessions;
mod triggers;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use lyra_kit::{Clock, Random, telemetry};
use lyra_store::objects::History;
use lyra_store::{DirectoryBlobs, Objects, SqliteJobs, SqliteObjects};
use lyra_types::api::{CodeInput, DeployRequest};
use lyra_types::function::Contract;
use lyra_types::invocation::{Report, Start};
use lyra_types::log::LogLine;
use lyra_types::{Code, Error, FunctionName, FunctionVersion, JobId, Result, TenantName, Timestamp};
use lyra_wire::control::{Precondition, Submit};
use lyra_wire::worker::{Call, HttpCall, HttpReply, Prepare, Prepared, Reply};
use lyra_wire::{Control, Logs, Worker};
use parking_lot::Mutex;

use crate::{Config, Deps, Service};

/// What the worker does with a call: told by the event.
///
/// `ok`, `throw`, `crash`, `busy`, `too-large`, or `sleep:MS`; several with a comma between: one for each try.
#[derive(Default)]
pub(crate) struct Scripted {
    /// Calls begun, by event.
    pub(crate) begun: Mutex<HashMap<Bytes, u32>>,
    /// Calls that were dropped before their end.
    pub(crate) dropped: Arc<AtomicUsize>,
    pub(crate) running: Arc<AtomicUsize>,
    pub(crate) forgotten: Mutex<Vec<(u64, Option<u64>)>>,
    /// Deploys that came to be prepared.
    pub(crate) preparing: AtomicUsize,
    /// Who holds it keeps deploys from being prepared.
    pub(crate) hold: tokio::sync::Mutex<()>,
    pub(crate) clock: Clock,
}

/// Counts a call that ends by being dropped.
struct Begun {
    running: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    ended: bool,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
        if !self.ended {
            self.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Scripted {
    async fn act(&self, event: &Bytes) -> Result<Bytes> {
        let tries = {
            let mut begun = self.begun.lock();
            let tries = begun.entry(event.clone()).or_default();
            *tries += 1;
            *tries
        };
        let script = String::from_utf8_lossy(event).into_owned();
        let script = script.trim_matches('"').split('#').next().unwrap_or_default();
        let steps: Vec<&str> = script.split(',').collect();
        let step = steps[(tries as usize - 1).min(steps.len() - 1)];
        match step.split_once(':') {
            Some(("sleep", ms)) => {
                self.clock.sleep(Duration::from_millis(ms.parse().unwrap())).await;
                Ok(Bytes::from_static(b"\"slept\""))
            }
            _ => match step {
                "ok" => Ok(Bytes::from_static(b"\"done\"")),
                "throw" => Err(Error::new(Code::FunctionError, "it threw")),
                "slow" => Err(Error::new(Code::Timeout, "too slow")),
                "crash" => Err(Error::new(Code::InstanceCrashed, "it died")),
                "busy" => Err(Error::new(Code::Overloaded, "no room").with_retry_after(Duration::from_secs(1))),
                "too-large" => Err(Error::new(Code::ResultTooLarge, "too large")),
                // The message of a delivery.
                _ if event.starts_with(b"{") => Err(Error::new(Code::FunctionError, "it hears of something")),
                other => panic!("no such step: {other}"),
            },
        }
    }
}

#[async_trait]
impl Worker for Scripted {
    async fn prepare(&self, prepare: Prepare) -> Result<Prepared, Error> {
        self.preparing.fetch_add(1, Ordering::SeqCst);
        drop(self.hold.lock().await);
        if prepare.code.starts_with(b"bad") {
            return Err(Error::field(Code::InvalidCode, "code", "a syntax error"));
        }
        Ok(Prepared { contract: Contract::Handler })
    }

    async fn prewarm(&self, _version: Arc<FunctionVersion>, _instances: u32) -> Result<(), Error> {
        Ok(())
    }

    async fn forget(&self, generation: u64, version: Option<u64>) -> Result<(), Error> {
        self.forgotten.lock().push((generation, version));
        Ok(())
    }

    async fn invoke(&self, call: Call) -> Reply {
        self.running.fetch_add(1, Ordering::SeqCst);
        let mut begun = Begun { running: Arc::clone(&self.running), dropped: Arc::clone(&self.dropped), ended: false };
        let outcome = self.act(&call.event).await;
        begun.ended = true;
        let report = Report { start: Some(Start::Warm), ..Report::new(call.id, call.version.version) };
        Reply { report, outcome }
    }

    async fn serve(&self, _call: HttpCall) -> HttpReply {
        unreachable!("control serves no HTTP")
    }
}

/// Remembers whose lines were forgotten.
#[derive(Default)]
pub(crate) struct Forgetful {
    pub(crate) forgotten: Mutex<Vec<FunctionName>>,
}

#[async_trait]
impl Logs for Forgetful {
    fn offer(&self, _line: LogLine) {}

    async fn query(&self, _query: lyra_wire::logs::Query) -> Result<Vec<LogLine>> {
        Ok(Vec::new())
    }

    async fn follow(&self, _query: lyra_wire::logs::Query) -> Result<BoxStream<'static, Result<LogLine>>> {
        Ok(Box::pin(futures::stream::empty()))
    }

    async fn forget(&self, _tenant: &TenantName, function: &FunctionName) -> Result<()> {
        self.forgotten.lock().push(function.clone());
        Ok(())
    }
}

/// The files of a site, which several control processes may share.
#[derive(Clone)]
pub(crate) struct Stores {
    objects: Arc<SqliteObjects>,
    jobs: Arc<SqliteJobs>,
    blobs: Arc<DirectoryBlobs>,
}

impl Stores {
    pub(crate) fn open(dir: &Path) -> Stores {
        Stores {
            objects: Arc::new(SqliteObjects::open(&dir.join("objects.db"), History::default(), None).unwrap()),
            jobs: Arc::new(SqliteJobs::open(&dir.join("jobs.db"), None).unwrap()),
            blobs: Arc::new(DirectoryBlobs::open(&dir.join("blobs")).unwrap()),
        }
    }
}

/// The control role on files in a directory.
pub(crate) struct Site {
    pub(crate) service: Arc<Service>,
    pub(crate) worker: Arc<Scripted>,
    pub(crate) logs: Arc<Forgetful>,
    pub(crate) jobs: Arc<SqliteJobs>,
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) blobs: Arc<DirectoryBlobs>,
    pub(crate) metrics: telemetry::Metrics,
    pub(crate) registry: crate::Registry,
    pub(crate) clock: Clock,
}

pub(crate) fn start_of_time() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

impl Site {
    /// Starts on what is in `dir`, under virtual time.
    pub(crate) async fn start(dir: &Path, config: Config) -> Site {
        Site::start_at(dir, config, start_of_time(), 1, |jobs| jobs).await
    }

    /// `wrap` may put something between the service and its jobs.
    pub(crate) async fn start_at(
        dir: &Path,
        config: Config,
        now: Timestamp,
        seed: u64,
        wrap: impl FnOnce(Arc<dyn lyra_store::Jobs>) -> Arc<dyn lyra_store::Jobs>,
    ) -> Site {
        // Nobody looks after leases of workers: most tests have none, and time stands still where nothing waits for it.
        Site::start_with(dir, config, now, seed, wrap, &lyra_kit::Tasks::new()).await
    }

    /// `tasks` look after the leases of workers.
    pub(crate) async fn start_with(
        dir: &Path,
        config: Config,
        now: Timestamp,
        seed: u64,
        wrap: impl FnOnce(Arc<dyn lyra_store::Jobs>) -> Arc<dyn lyra_store::Jobs>,
        tasks: &lyra_kit::Tasks,
    ) -> Site {
        let site = Site::start_on(Stores::open(dir), config, now, seed, wrap, tasks, ("c1", "")).await;
        while site.service.epoch().is_none() {
            tokio::task::yield_now().await;
        }
        site
    }

    /// One of several control processes where it has an address; it may stand by.
    pub(crate) async fn start_on(
        stores: Stores,
        config: Config,
        now: Timestamp,
        seed: u64,
        wrap: impl FnOnce(Arc<dyn lyra_store::Jobs>) -> Arc<dyn lyra_store::Jobs>,
        tasks: &lyra_kit::Tasks,
        (name, address): (&str, &str),
    ) -> Site {
        let Stores { objects, jobs, blobs } = stores;
        let (worker, logs) = (Arc::new(Scripted::default()), Arc::new(Forgetful::default()));
        let metrics = telemetry::Metrics::new();
        let registry = crate::Registry::new(config.registry, seed, Clock::simulated(now), tasks);
        let clock = Clock::simulated(now);
        let objects: Arc<dyn Objects> = objects;
        let deps = Deps {
            objects: Arc::clone(&objects),
            jobs: wrap(Arc::clone(&jobs) as Arc<dyn lyra_store::Jobs>),
            blobs: Arc::clone(&blobs) as Arc<dyn lyra_store::Blobs>,
            worker: Arc::clone(&worker) as Arc<dyn Worker>,
            logs: Arc::clone(&logs) as Arc<dyn Logs>,
            clock: clock.clone(),
            random: Random::seeded(seed),
            metrics: metrics.clone(),
            registry: registry.clone(),
            name: name.to_owned(),
            address: address.to_owned(),
        };
        let service = Arc::new(Service::new(config, deps));
        service.start().await.unwrap();
        Site { service, worker, logs, jobs, objects, blobs, metrics, registry, clock }
    }

    pub(crate) async fn deploy(&self, function: &str, change: impl FnOnce(&mut DeployRequest)) -> u64 {
        let mut request = js("export default 1");
        change(&mut request);
        let deployed = self.service.deploy(&tenant(), &name(function), request, Precondition::None).await.unwrap();
        deployed.value.version
    }

    pub(crate) async fn submit(&self, function: &str, event: &str) -> JobId {
        let route = self.service.function(&tenant(), &name(function)).await.unwrap();
        let version = Arc::clone(route.versions.values().next_back().unwrap());
        let submit = Submit {
            id: None,
            version,
            event: Bytes::copy_from_slice(event.as_bytes()),
            idempotency_key: None,
            user: None,
            destinations: None,
        };
        self.service.submit(submit).await.unwrap().id
    }
}

pub(crate) fn tenant() -> TenantName {
    TenantName::default_tenant()
}

pub(crate) fn name(text: &str) -> FunctionName {
    FunctionName::new(text).unwrap()
}

pub(crate) fn js(source: &str) -> DeployRequest {
    DeployRequest {
        runtime: "js".to_owned(),
        code: CodeInput { source: Some(source.to_owned()), ..CodeInput::default() },
        ..DeployRequest::default()
    }
}
