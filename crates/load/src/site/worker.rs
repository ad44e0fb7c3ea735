//! One simulated worker of a site, and whether control knows all of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use lyra_isolation::simulated::Simulated;
use lyra_kit::{Clock, Ids, Random, telemetry};
use lyra_store::StoreError;
use lyra_types::function::Digest;
use lyra_wire::Registry;
use lyra_wire::grpc::{self, RemoteRegistry, Security};
use lyra_wire::registry::MemberEvent;
use lyra_worker::{Agent, AgentDeps, Config, Deps, Identity, NodeStore, Service, resources};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::failed;
use super::starts::{Starts, Watched};
use crate::Error;
use crate::simulation::surroundings::Logs;

/// The code of every function. Its instances start at once, so that what is measured is control's part.
pub(super) const CODE: &str = "{}";
/// Longest wait for control to know all workers.
const KNOWN: Duration = Duration::from_secs(60);
/// More than a worker here lets a call wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Memory that a worker has for instances, in bytes.
const MEMORY: u64 = 32 << 30;

/// A worker that serves, and talks with control.
pub(super) struct SimulatedWorker {
    service: Service,
    agent: Agent,
    closing: CancellationToken,
}

impl SimulatedWorker {
    pub(super) async fn start(
        number: usize,
        control: &[String],
        directory: &Path,
        starts: &Arc<Starts>,
        clock: &Clock,
    ) -> Result<SimulatedWorker, Error> {
        let backend = Simulated::new(clock.clone(), Random::system());
        let deps = Deps {
            backends: vec![Arc::new(Watched { backend, starts: starts.clone() })],
            blobs: Arc::new(OneCode),
            logs: Arc::new(Logs),
            clock: clock.clone(),
            ids: Ids::new(clock.clone(), Random::system()),
            metrics: telemetry::Metrics::new(),
        };
        let config = Config {
            max_idle_instances: 10_000,
            resources: resources::Config { memory: Some(MEMORY), ..resources::Config::default() },
            ..Config::default()
        };
        let service = Service::new(config, deps);
        service.start();
        let broken = |error: std::io::Error| Error::Runtime(error.to_string());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(broken)?;
        let address = listener.local_addr().map_err(broken)?.to_string();
        let (mut routes, closing) = (grpc::routes(), CancellationToken::new());
        grpc::add_worker(&mut routes, Arc::new(service.clone()), LONGEST_WAIT, closing.clone());
        let ended = closing.clone();
        lyra_kit::tasks::spawn("simulated-worker", async move {
            // It ends with the measurement.
            let _ = grpc::serve(listener, routes, &Security::Plain, ended).await;
        });
        let identity = Identity { name: format!("simulated-{number}"), address };
        let (path, random) = (directory.join(format!("{number}.db")), Random::system());
        let fresh = random.u64();
        let store = lyra_kit::tasks::blocking(move || NodeStore::open(&path, fresh)).await;
        let store = store.map_err(|error| Error::Runtime(error.to_string()))?;
        let deps = AgentDeps {
            worker: service.clone(),
            store: store.map_err(|error| Error::Runtime(error.to_string()))?,
            own: None,
            seeds: control.to_vec(),
            reach: Box::new(|address| reach(&[address.to_owned()])),
            clock: clock.clone(),
            random,
        };
        let agent = Agent::start(identity, deps).await;
        Ok(SimulatedWorker { service, agent, closing })
    }

    /// Instances that stand.
    pub(super) fn instances(&self) -> usize {
        let counts = self.service.status().holdings.instances;
        counts.standby + counts.active + counts.hibernated
    }

    pub(super) async fn stop(&self) {
        self.agent.stop().await;
        self.closing.cancel();
    }
}

fn reach(control: &[String]) -> lyra_types::Result<Arc<dyn Registry>> {
    Ok(Arc::new(RemoteRegistry::new(control, &Security::Plain)?))
}

/// Waits until control knows so many workers, as a gateway sees it.
pub(super) async fn all_known(control: &[String], workers: usize) -> Result<(), Error> {
    let registry = reach(control).map_err(failed)?;
    let known = async {
        let mut events = registry.watch_workers().await?;
        let mut known = BTreeSet::new();
        while known.len() < workers {
            match events.next().await.transpose()? {
                Some(MemberEvent::Put(member)) => drop(known.insert(member.registration.name)),
                Some(_) => {}
                None => return Err(lyra_types::Error::internal("control hung up")),
            }
        }
        Ok(())
    };
    let late = |_| Error::Runtime(format!("control does not know all of {workers} workers after {KNOWN:?}"));
    tokio::time::timeout(KNOWN, known).await.map_err(late)?.map_err(failed)
}

/// Holds the code of every function, which is the same.
struct OneCode;

#[async_trait]
impl lyra_store::Blobs for OneCode {
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        Ok(lyra_store::blobs::digest(&bytes))
    }
    async fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let code = Bytes::from_static(CODE.as_bytes());
        Ok((lyra_store::blobs::digest(&code) == *digest).then_some(code))
    }
    async fn exists(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.get(digest).await?.is_some())
    }
    async fn delete(&self, _: &Digest) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn list(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(Vec::new())
    }
}
