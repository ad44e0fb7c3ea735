//! A worker that simulates applications, with its leader, over a directory and a back end that outlive it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_isolation::process::{self, Processes, launch};
use lyra_isolation::simulated::Simulated;
use lyra_isolation::{Code, ImageKey, Isolation};
use lyra_kit::{Clock, Ids, Random, telemetry};
use lyra_store::DirectoryBlobs;
use lyra_types::resources::Protocol;
use lyra_types::{FunctionName, FunctionVersion, Runtime, TenantName, Timestamp};
use lyra_wire::Registry;
use lyra_wire::sessions::{AppConfig, AppKey, AppPort, AppVersion, OpenSession, SessionKey};
use lyra_worker::{Agent, AgentDeps, Config, Deps, Identity, NodeStore, Service};

use crate::leader::Leader;
use crate::scripted::Collected;

/// What outlives workers.
pub(crate) struct Site<B = Simulated> {
    pub(crate) backend: Arc<B>,
    pub(crate) logs: Arc<Collected>,
    dir: tempfile::TempDir,
    clock: Clock,
    random: Random,
}

/// A worker that runs.
pub(crate) struct Running {
    pub(crate) worker: Service,
    pub(crate) leader: Leader,
    agent: Agent,
}

impl Site {
    pub(crate) fn new() -> Site {
        Site::over(|simulated| simulated)
    }
}

impl Site<Processes> {
    /// Programs run as processes. A worker over it that has ended leaves nothing to find: the launcher ends with the test.
    pub(crate) async fn of_processes() -> Site<Processes> {
        let (clock, random) = (Clock::system(), Random::system());
        let dir = tempfile::tempdir().expect("a directory");
        let mut launcher = launch::Config::new(dir.path().join("launcher"));
        launcher.helper = vec![env!("CARGO_BIN_EXE_lyra-worker-sandbox").into()];
        let config = process::Config::new(dir.path().join("process"), launcher);
        let processes = Processes::start(config, Ids::new(clock.clone(), random.clone())).await;
        let backend = Arc::new(processes.expect("sandboxes can be started"));
        Site { backend, logs: Arc::default(), dir, clock, random }
    }

    /// A version of a program that listens on one TCP port.
    pub(crate) async fn program(&self, name: &str, code: &'static str) -> AppVersion {
        let ports = vec![AppPort { name: "web".into(), port: 8_080, protocol: Protocol::Tcp }];
        (*self.deploy(name, 1, Runtime::Http, code, ports).await).clone()
    }
}

impl<B: Isolation> Site<B> {
    /// Over a back end that has another one simulate.
    pub(crate) fn over(backend: impl FnOnce(Simulated) -> B) -> Site<B> {
        let (clock, random) = (Clock::simulated(Timestamp::from_millis(1_700_000_000_000)), Random::seeded(7));
        let backend = Arc::new(backend(Simulated::new(clock.clone(), random.clone())));
        Site { backend, logs: Arc::default(), dir: tempfile::tempdir().expect("a directory"), clock, random }
    }

    /// A version whose instances do what `parameters` say.
    pub(crate) async fn app(&self, name: &str, number: u64, parameters: &'static str) -> Arc<AppVersion> {
        let ports = vec![AppPort { name: "game".into(), port: 7_000, protocol: Protocol::Udp }];
        self.deploy(name, number, Runtime::Simulated, parameters, ports).await
    }

    pub(crate) async fn start(&self) -> Running {
        self.start_with(Config::default()).await
    }

    /// A worker whose leader has this epoch.
    pub(crate) async fn start_at(&self, epoch: u64) -> Running {
        self.run(Config::default(), epoch).await
    }

    pub(crate) async fn start_with(&self, config: Config) -> Running {
        self.run(config, 1).await
    }

    async fn run(&self, config: Config, epoch: u64) -> Running {
        let worker = Service::new(
            config,
            Deps {
                backends: vec![self.backend.clone()],
                blobs: Arc::new(DirectoryBlobs::open(&self.dir.path().join("blobs")).expect("a folder")),
                logs: self.logs.clone(),
                ids: Ids::new(self.clock.clone(), self.random.clone()),
                clock: self.clock.clone(),
                metrics: telemetry::Metrics::new(),
            },
        );
        let leader = Leader::default();
        leader.set_epoch(epoch);
        let own: Arc<dyn Registry> = Arc::new(leader.clone());
        let deps = AgentDeps {
            worker: worker.clone(),
            store: NodeStore::open(&self.dir.path().join("node.db"), self.random.u64()).expect("a store"),
            own: Some(own),
            seeds: Vec::new(),
            reach: Box::new(|_| Err(lyra_types::Error::internal("there is one control process"))),
            clock: self.clock.clone(),
            random: self.random.clone(),
        };
        let identity = Identity { name: "w1".into(), address: String::new() };
        let agent = Agent::start(identity, deps).await;
        leader.command(lyra_wire::registry::Command::Follow).await.expect("it follows");
        Running { worker, leader, agent }
    }

    /// Loses what the worker remembers.
    pub(crate) fn forget(&self) {
        for end in ["", "-wal", "-shm"] {
            drop(std::fs::remove_file(self.dir.path().join(format!("node.db{end}"))));
        }
    }

    async fn deploy(
        &self,
        name: &str,
        number: u64,
        runtime: Runtime,
        code: &'static str,
        ports: Vec<AppPort>,
    ) -> Arc<AppVersion> {
        let code = Bytes::from_static(code.as_bytes());
        let function = FunctionVersion {
            version: number,
            memory_mb: 128,
            cpu_millis: 100,
            max_instances: 0,
            max_attempts: 1,
            ..FunctionVersion::new(
                FunctionName::new(name).expect("a valid name"),
                runtime,
                lyra_store::blobs::digest(&code),
            )
        };
        let code = Code { key: ImageKey::of(&function), bytes: code, reuse: false };
        self.backend.prepare(&code).await.expect("code that can be loaded");
        let tenant = TenantName::new("default").expect("a valid name");
        Arc::new(AppVersion {
            key: AppKey { tenant, application: name.into(), uid: format!("{name}-uid"), version: number },
            cpu_request: function.cpu_millis,
            function: Arc::new(function),
            ports,
            service: false,
            liveness: None,
            readiness: None,
            config: Arc::new(AppConfig::default()),
            secrets: Vec::new(),
        })
    }
}

impl Running {
    /// The worker ends in good order; what serves sessions goes on.
    pub(crate) async fn stop(self) {
        self.agent.stop().await;
        self.worker.shut_down(Duration::from_secs(1)).await;
    }

    /// Bytes, thousandths of a core: what is charged.
    pub(crate) fn charged(&self) -> (u64, u64) {
        let holdings = self.worker.status().holdings;
        (holdings.memory.charged, holdings.cpu.charged)
    }
}

/// A session to be opened within 10 s, beside so many standing instances.
pub(crate) fn session(app: &Arc<AppVersion>, uid: &str, standing: u32) -> OpenSession {
    OpenSession {
        key: SessionKey { tenant: app.key.tenant.clone(), name: format!("s-{uid}"), uid: uid.to_owned() },
        app: app.clone(),
        data: "{}".into(),
        timeout: Duration::from_secs(10),
        close_grace: Duration::from_secs(5),
        reuse: false,
        standing,
    }
}
