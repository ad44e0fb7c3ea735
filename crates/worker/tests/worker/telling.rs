//! Files of instances that can't be written: an open session keeps what it has and goes on, and gets what is newest as soon
//! as that can be written.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lyra_isolation::simulated::Simulated;
use lyra_isolation::{
    Code, Exit, Exposed, Files, Grant, Hosted, Hosting, ImageKey, Isolation, LogSink, Sandbox, Template, Traffic, Usage,
};
use lyra_kit::Clock;
use lyra_types::function::Contract;
use lyra_types::{Code as ErrorCode, Error, FunctionVersion, InstanceId, Runtime};
use lyra_wire::sessions::{AppConfig, AppVersion, SessionCommand, SessionPhase, SessionReport};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::site::{Site, session};

/// Where files of all instances lie.
struct Disk {
    /// Writes that are refused before the next one is not.
    full: AtomicUsize,
    /// When each was tried.
    tries: Mutex<Vec<Instant>>,
    /// What was written last.
    files: watch::Sender<Files>,
}

impl Disk {
    async fn until(&self, name: &str, text: &str) {
        let mut files = self.files.subscribe();
        let has = |files: &Files| files.get(name).is_some_and(|of| of[..] == *text.as_bytes());
        let written = tokio::time::timeout(Duration::from_secs(3_600), files.wait_for(has)).await;
        drop(written.unwrap_or_else(|_| panic!("{name} never says {text:?}")).expect("the disk is there"));
    }
}

/// Instances that are simulated, but for their files.
struct Backend(Simulated, Arc<Disk>);
struct Loaded(Arc<dyn Template>, Arc<Disk>);
struct Instance(Box<dyn Hosted>, Arc<Disk>);

#[async_trait]
impl Isolation for Backend {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn runtimes(&self) -> &'static [Runtime] {
        self.0.runtimes()
    }
    async fn prepare(&self, code: &Code) -> Result<Contract, Error> {
        self.0.prepare(code).await
    }
    async fn load(&self, key: &ImageKey) -> Result<Option<Arc<dyn Template>>, Error> {
        let loaded = self.0.load(key).await?;
        Ok(loaded.map(|template| Arc::new(Loaded(template, self.1.clone())) as Arc<dyn Template>))
    }
}

#[async_trait]
impl Template for Loaded {
    fn contract(&self) -> Contract {
        self.0.contract()
    }
    fn weight(&self) -> usize {
        self.0.weight()
    }
    async fn start(&self, id: InstanceId, version: &Arc<FunctionVersion>) -> Result<Box<dyn Sandbox>, Error> {
        self.0.start(id, version).await
    }
    async fn host(
        &self,
        id: InstanceId,
        version: &Arc<FunctionVersion>,
        grant: &Grant,
        hosting: Hosting,
    ) -> Result<Box<dyn Hosted>, Error> {
        Ok(Box::new(Instance(self.0.host(id, version, grant, hosting).await?, self.1.clone())))
    }
}

#[async_trait]
impl Hosted for Instance {
    async fn write(&self, files: &Files) -> Result<(), Error> {
        let disk = &self.1;
        disk.tries.lock().push(Clock::system().instant());
        let refused = disk.full.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if refused.is_ok() {
            return Err(Error::new(ErrorCode::Internal, "no space left on the device"));
        }
        self.0.write(files).await?;
        drop(disk.files.send_replace(files.clone()));
        Ok(())
    }
    fn id(&self) -> InstanceId {
        self.0.id()
    }
    fn label(&self) -> &str {
        self.0.label()
    }
    async fn wait(&self) -> Exit {
        self.0.wait().await
    }
    fn exit(&self) -> Option<Exit> {
        self.0.exit()
    }
    async fn expose(&self, ip: IpAddr, range: RangeInclusive<u16>) -> Result<Vec<Exposed>, Error> {
        self.0.expose(ip, range).await
    }
    fn exposed(&self) -> Vec<Exposed> {
        self.0.exposed()
    }
    async fn hide(&self) -> Result<(), Error> {
        self.0.hide().await
    }
    async fn traffic(&self) -> Traffic {
        self.0.traffic().await
    }
    fn service(&self) -> Option<TcpListener> {
        self.0.service()
    }
    async fn connect(&self, port: u16) -> Result<TcpStream, Error> {
        self.0.connect(port).await
    }
    async fn listens(&self, port: u16) -> bool {
        self.0.listens(port).await
    }
    fn logs(&self, sink: Arc<dyn LogSink>) {
        self.0.logs(sink);
    }
    fn usage(&self) -> Usage {
        self.0.usage()
    }
    async fn hibernate(&self) -> bool {
        self.0.hibernate().await
    }
    async fn wake(&self) -> bool {
        self.0.wake().await
    }
    fn signal(&self, signal: i32) {
        self.0.signal(signal);
    }
    async fn stop(&self, grace: Duration) -> Exit {
        self.0.stop(grace).await
    }
    fn kill(&self) {
        self.0.kill();
    }
    fn leave(&self) {
        self.0.leave();
    }
}

fn site() -> (Site<Backend>, Arc<Disk>) {
    let disk =
        Arc::new(Disk { full: AtomicUsize::new(0), tries: Mutex::default(), files: watch::Sender::new(Files::new()) });
    (Site::over(|simulated| Backend(simulated, disk.clone())), disk)
}

/// A configuration of one file.
fn configure(app: &AppVersion, revision: u64, mode: &str) -> SessionCommand {
    let config = AppConfig { revision, files: [("config/mode".to_owned(), mode.to_owned())].into() };
    SessionCommand::Configure { tenant: app.key.tenant.clone(), uid: app.key.uid.clone(), config: Arc::new(config) }
}

fn is_open(session: &SessionReport) -> bool {
    session.phase == SessionPhase::Open
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_can_not_be_written_reaches_an_open_session_by_a_later_try() {
    let (site, disk) = site();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("echo", 1, "{\"memory_mb\": 100}").await);
    leader.order(SessionCommand::Open(Box::new(session(&app, "a", 0)))).await.unwrap();
    leader.session("a", is_open).await;
    leader.order(configure(&app, 1, "easy")).await.unwrap();
    disk.until("config/mode", "easy").await;

    disk.tries.lock().clear();
    disk.full.store(4, Ordering::SeqCst);
    leader.order(configure(&app, 2, "hard")).await.unwrap();
    disk.until("config/mode", "hard").await;
    // Ever more seldom, and no more once it is written.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let tries = disk.tries.lock().clone();
    let waits: Vec<Duration> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits.len(), 4, "{waits:?}");
    for (wait, most) in waits.iter().zip([1, 2, 4, 8]) {
        let most = Duration::from_secs(most);
        assert!(*wait >= most / 2 && *wait <= most + Duration::from_millis(10), "{waits:?}");
    }
    let told = leader.session("a", |_| true).await;
    assert!(is_open(&told), "{told:?}");
    assert!(disk.files.borrow().contains_key("session.json"), "it is told of its session, too");

    // What is changed once more meanwhile is what it gets.
    disk.full.store(3, Ordering::SeqCst);
    leader.order(configure(&app, 3, "harder")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    leader.order(configure(&app, 4, "hardest")).await.unwrap();
    disk.until("config/mode", "hardest").await;
    assert_eq!(disk.full.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_stands_gets_what_could_not_be_written_before_a_session_opens_in_it() {
    let (site, disk) = site();
    let running = site.start().await;
    let (leader, app) = (&running.leader, site.app("echo", 1, "{\"memory_mb\": 100}").await);
    leader.order(SessionCommand::Stand(app.clone(), 1)).await.unwrap();
    leader.until("it stands", |told| told.instances(lyra_wire::worker::InstanceState::Standby) == 1).await;
    disk.full.store(2, Ordering::SeqCst);
    leader.order(configure(&app, 2, "hard")).await.unwrap();
    disk.until("config/mode", "hard").await;
    disk.full.store(1, Ordering::SeqCst);
    leader.order(configure(&app, 3, "harder")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(disk.full.load(Ordering::SeqCst), 0, "it was refused, and is to be tried again");
    leader.order(SessionCommand::Open(Box::new(session(&app, "a", 0)))).await.unwrap();
    leader.session("a", is_open).await;
    disk.until("config/mode", "harder").await;
    assert!(disk.files.borrow().contains_key("session.json"));
}
