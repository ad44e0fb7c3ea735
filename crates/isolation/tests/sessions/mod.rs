//! Instances that serve sessions, as processes: with the real kernel, as root, on a machine with Python.

mod adoption;
mod called;
mod carrying;
mod hosting;
mod simulated;
mod unprivileged;
mod walls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lyra_isolation::process::{Config, Processes, launch};
use lyra_isolation::{Exit, Exposed, Grant, Hosted, Hosting, Isolation, LogSink, Port, Protocol, Template};
use lyra_kit::Ids;
use lyra_types::{FunctionVersion, InstanceId, Runtime};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::lines::Lines;
use crate::process::{Settings, code};

/// Longer than anything takes that works, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

const PROGRAM: &str = include_str!("program.py");

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A worker's back end in a directory that may outlive it.
struct Worker {
    processes: Processes,
    template: Arc<dyn Template>,
    version: Arc<FunctionVersion>,
    ids: Ids,
}

impl Worker {
    async fn start(dir: &Path) -> Worker {
        Worker::with(dir, |_| {}).await
    }

    async fn with(dir: &Path, change: impl FnOnce(&mut Config)) -> Worker {
        Worker::of(dir, change, Settings::of(Runtime::Http), PROGRAM.as_bytes()).await
    }

    async fn of(dir: &Path, change: impl FnOnce(&mut Config), settings: Settings, package: &[u8]) -> Worker {
        // A copy, where the user may not get to the original.
        let copy = dir.join("lyra-sandbox");
        let helper = if copy.exists() { copy.into() } else { env!("CARGO_BIN_EXE_lyra-sandbox").into() };
        let helper = vec![helper];
        let launch = launch::Config { helper, patience: PATIENCE, ..launch::Config::new(dir.join("launch")) };
        let mut config = Config::new(dir.join("process"), launch);
        config.settings.cells = 0;
        change(&mut config);
        let processes = Processes::start(config, Ids::default()).await.expect("a back end: these tests need root");
        let code = code(package, &settings);
        let contract = processes.prepare(&code).await.expect("deploys");
        let template = processes.load(&code.key).await.expect("loads").expect("is there");
        let version = FunctionVersion {
            contract,
            memory_mb: settings.memory_mb,
            env: settings.env,
            network: settings.network,
            ..FunctionVersion::new("game".parse().expect("a name"), settings.runtime, code.key.digest)
        };
        Worker { processes, template, version: Arc::new(version), ids: Ids::default() }
    }

    fn id(&self) -> InstanceId {
        self.ids.instance()
    }

    async fn host(&self, hosting: Hosting) -> Box<dyn Hosted> {
        self.template.host(self.id(), &self.version, &Grant::default(), hosting).await.expect("starts")
    }

    /// One whose program is up.
    async fn up(&self, hosting: Hosting) -> (Box<dyn Hosted>, Arc<Lines>) {
        let hosted = self.host(hosting).await;
        let lines = logs_of(&*hosted);
        until(|| lines.has("up")).await;
        (hosted, lines)
    }

    /// Ends everything and shows that nothing is left.
    async fn finish(self, dir: &Path) {
        assert!(self.processes.launcher().stop(PATIENCE).await, "the launcher has cleared up");
        drop(self.processes);
        nothing_is_left(dir);
    }
}

/// Shows that no cgroup, mount, file or socket of an instance is left.
fn nothing_is_left(dir: &Path) {
    assert_eq!(crate::launch::groups_of(&dir.join("launch")), Vec::<std::path::PathBuf>::new());
    let sessions = std::fs::read_dir(dir.join("process/sessions")).map_or(0, Iterator::count);
    assert_eq!((sessions, in_memory(dir)), (0, 0), "files of sessions are left");
    assert!(!dir.join("launch/launcher.socket").exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("readable");
    assert!(!mounts.contains(dir.file_name().and_then(|name| name.to_str()).expect("text")));
}

/// Instances that have files in memory, of those whose worker's data is in `dir`.
fn in_memory(dir: &Path) -> usize {
    let places = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten().map(|place| place.path());
    let of = |place: &Path| std::fs::read_to_string(place.join("of")).unwrap_or_default();
    let ours = places.filter(|place| Path::new(&of(place)).starts_with(dir));
    let entries = ours.flat_map(|place| std::fs::read_dir(place).into_iter().flatten().flatten());
    entries.filter(|entry| entry.file_name() != "of").count()
}

fn directory() -> tempfile::TempDir {
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    tempfile::Builder::new().permissions(open).tempdir().expect("a directory")
}

fn port(port: u16, protocol: Protocol) -> Port {
    Port { name: format!("p{port}"), port, protocol }
}

/// With the three ports of the program.
fn hosting() -> Hosting {
    Hosting {
        ports: vec![port(7000, Protocol::Tcp), port(7001, Protocol::Tcp), port(7002, Protocol::Udp)],
        files: [("session.json".to_owned(), Bytes::from("{}"))].into(),
        ..Hosting::default()
    }
}

fn lasting() -> Hosting {
    Hosting { lasting: true, service: true, label: "a label".to_owned(), ..hosting() }
}

fn logs_of(hosted: &dyn Hosted) -> Arc<Lines> {
    let lines = Arc::new(Lines::default());
    hosted.logs(Arc::clone(&lines) as Arc<dyn LogSink>);
    lines
}

/// Exposes on any free port of this machine.
async fn expose(hosted: &dyn Hosted) -> Vec<SocketAddr> {
    let exposed: Vec<Exposed> = hosted.expose(LOCAL, 20_000..=29_999).await.expect("exposed");
    assert_eq!(exposed, hosted.exposed());
    exposed.iter().map(|one| one.address).collect()
}

/// Has the program do something; its answer, or the error that it met.
async fn order(hosted: &dyn Hosted, order: Value) -> Result<Value, String> {
    let stream = timeout(hosted.connect(7001)).await.expect("reached");
    order_over(stream, order).await
}

async fn order_over(stream: TcpStream, order: Value) -> Result<Value, String> {
    let mut stream = BufReader::new(stream);
    stream.write_all(format!("{order}\n").as_bytes()).await.expect("sent");
    let mut line = String::new();
    timeout(stream.read_line(&mut line)).await.expect("answered");
    let mut answer: Value = serde_json::from_str(&line).expect("JSON");
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer["ok"].take()),
    }
}

async fn timeout<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

async fn until(what: impl Fn() -> bool) {
    let happened = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(happened).await;
}

fn exited(code: i32) -> Exit {
    Exit { code: Some(code), signal: None, out_of_memory: false }
}
