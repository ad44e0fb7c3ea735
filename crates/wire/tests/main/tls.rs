//! What mutual TLS between roles promises: who is taken for whom, who is refused, and what both ends are told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_kit::Clock;
use lyra_types::function::VersionKey;
use lyra_types::{Code, Error, FunctionName, InstanceId, Result, TenantName};
use lyra_wire::grpc::{self, RemoteRegistry, RemoteWorker, Security};
use lyra_wire::registry::{FromNode, InstanceReport, MemberEvent, NodeState, Registration, ToNode, Workload};
use lyra_wire::tls::{Authority, Dates, Directory, NodeSpec, YEAR};
use lyra_wire::worker::InstanceState;
use lyra_wire::{Operated, Registry, Worker};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::scripted::{Scripted, call};

/// An authority, and directories of nodes as they are asked for.
struct Site {
    dir: TempDir,
    authority: Authority,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path(), Dates::from_now(Clock::system().now(), YEAR)).unwrap();
        Site { dir, authority }
    }

    fn node(&self, node: &str) -> Security {
        let dir = self.dir.path().join(node.replace(['*', ':', ','], "-"));
        let dates = Dates::from_now(Clock::system().now(), YEAR);
        self.authority.issue(&dir, &NodeSpec::parse(node).unwrap(), dates).unwrap();
        Security::Mutual(Directory::open(dir, Clock::system()).unwrap())
    }

    /// A node whose certificate has expired, and which does not know: its clock is a year behind.
    fn expired(&self, node: &str) -> Security {
        let (dir, now) = (self.dir.path().join("expired"), Clock::system().now().millis());
        let then = lyra_types::Timestamp::from_millis(now - i64::try_from(YEAR.as_millis()).unwrap());
        let dates = Dates::from_now(then, Duration::from_secs(3_600));
        self.authority.issue(&dir, &NodeSpec::parse(node).unwrap(), dates).unwrap();
        Security::Mutual(Directory::open(dir, Clock::simulated(then)).unwrap())
    }
}

/// Remembers who has joined.
#[derive(Default)]
struct Joined(Mutex<Vec<String>>);

#[async_trait]
impl Registry for Joined {
    async fn join(
        &self,
        mut messages: BoxStream<'static, Result<FromNode>>,
    ) -> Result<BoxStream<'static, Result<ToNode>>> {
        match messages.next().await {
            Some(Ok(FromNode::Register(registration, _))) => self.0.lock().push(registration.name),
            Some(Err(error)) => return Ok(futures::stream::iter([Err(error)]).boxed()),
            _ => {}
        }
        let second = Duration::from_secs(1);
        let welcome = futures::stream::iter([Ok(ToNode::Welcome { heartbeat: second, lease: second })]);
        // A second name is as good as a first.
        Ok(welcome.chain(messages.filter_map(async |message| message.err().map(Err))).boxed())
    }

    async fn watch_workers(&self) -> Result<BoxStream<'static, Result<MemberEvent>>> {
        Ok(futures::stream::iter([Ok(MemberEvent::Synced)]).boxed())
    }
}

/// A process that serves a worker and a registry.
struct Server {
    address: String,
    joined: Arc<Joined>,
    script: Arc<Scripted>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    async fn start(security: Security) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (joined, script, stop) =
            (Arc::new(Joined::default()), Arc::new(Scripted::default()), CancellationToken::new());
        let mut routes = grpc::routes();
        grpc::add_worker(&mut routes, script.clone(), Duration::from_secs(60), stop.clone());
        grpc::add_registry(&mut routes, joined.clone());
        let end = stop.clone();
        lyra_kit::tasks::spawn("server", async move { grpc::serve(listener, routes, &security, end).await.unwrap() });
        Server { address, joined, script, stop }
    }

    fn worker(&self, name: &str, security: &Security) -> RemoteWorker {
        RemoteWorker::new(name, &self.address, security, Clock::system()).unwrap()
    }

    async fn ask(&self, name: &str, security: &Security) -> Result<bool> {
        self.worker(name, security).health().await.map(|health| health.healthy)
    }

    async fn join(&self, names: &[&str], security: &Security) -> Vec<Result<ToNode>> {
        let registry = RemoteRegistry::new(std::slice::from_ref(&self.address), security).unwrap();
        let messages: Vec<_> = names.iter().map(|name| Ok(register(name))).collect();
        match registry.join(futures::stream::iter(messages).boxed()).await {
            Ok(said) => said.collect().await,
            Err(error) => vec![Err(error)],
        }
    }
}

fn register(name: &str) -> FromNode {
    let registration = Registration {
        name: name.to_owned(),
        address: "127.0.0.1:1".to_owned(),
        incarnation: 1,
        backends: Vec::new(),
        state: NodeState::default(),
    };
    FromNode::Register(Box::new(registration), Workload::default())
}

/// What one end is told of a refusal: it is not the fault of who asked for what, and another may take it.
fn refused(outcome: Result<bool>) -> String {
    let error: Error = outcome.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "{error}");
    error.detail
}

#[tokio::test]
async fn roles_that_know_each_other_speak_as_ever() {
    let site = Site::new();
    let server = Server::start(site.node("w1:worker,control")).await;
    for asker in ["g1:gateway", "c1:control", "*:control,gateway"] {
        let asker = site.node(asker);
        assert_eq!(server.ask("w1", &asker).await, Ok(true));
        let event: Bytes = (0..300_000).map(|n| n as u8).collect();
        assert!(server.worker("w1", &asker).invoke(call("echo", event.clone())).await.outcome == Ok(event));
    }
    assert!(matches!(&server.join(&["w2"], &site.node("w2:worker")).await[..], [Ok(ToNode::Welcome { .. })]));
    assert_eq!(*server.joined.0.lock(), ["w2"]);
}

#[tokio::test]
async fn a_worker_is_who_its_certificate_says() {
    let site = Site::new();
    let server = Server::start(site.node("c1:control,worker")).await;
    let worker = site.node("w1:worker");
    let said = server.join(&["w2"], &worker).await;
    let error = said[0].as_ref().unwrap_err();
    assert!(error.detail.contains("may not be called \"w2\"") && error.detail.contains("w1 (worker)"), "{error}");
    assert!(server.joined.0.lock().is_empty(), "the registry does not hear of it");
    let said = server.join(&["w1", "w2"], &worker).await;
    assert!(said[0].is_ok() && said[1].is_err(), "{said:?}: not later either");
    let any = site.node("*:worker");
    assert!(server.join(&["w7"], &any).await[0].is_ok());
    // The other way round: nobody takes one worker for another.
    let said = refused(server.ask("w2", &site.node("g1:gateway")).await);
    assert!(said.contains("not for w2.worker.lyra.internal"), "{said}");
}

/// As many instances as tens of thousands of calls of small functions leave behind.
#[tokio::test]
async fn a_worker_joins_however_much_it_holds() {
    let site = Site::new();
    let server = Server::start(site.node("c1:control,worker")).await;
    let FromNode::Register(registration, _) = register("w1") else { unreachable!("it is one") };
    let version = VersionKey {
        tenant: TenantName::default_tenant(),
        function: FunctionName::new("f").unwrap(),
        generation: 1,
        version: 1,
    };
    let instance = |number| InstanceReport {
        id: InstanceId::from_parts(1, number),
        version: version.clone(),
        state: InstanceState::Standby,
        memory: 1 << 20,
    };
    let workload = Workload { instances: (0..50_000).map(instance).collect(), ..Workload::default() };
    let registry = RemoteRegistry::new(std::slice::from_ref(&server.address), &site.node("w1:worker")).unwrap();
    let register = futures::stream::iter([Ok(FromNode::Register(registration, workload))]);
    let said: Vec<_> = registry.join(register.boxed()).await.unwrap().collect().await;
    assert!(said[0].is_ok(), "{:?}", said[0]);
    assert_eq!(*server.joined.0.lock(), ["w1"]);
}

#[tokio::test]
async fn what_is_for_other_roles_is_refused() {
    let site = Site::new();
    let server = Server::start(site.node("w1:worker,control")).await;
    let said = refused(server.ask("w1", &site.node("w2:worker")).await);
    assert!(said.contains("refuses this node") && said.contains("w2 (worker)"), "{said}");
    let outcome = server.worker("w1", &site.node("w2:worker")).invoke(call("echo", "1")).await;
    let error = outcome.outcome.unwrap_err();
    assert_eq!((error.code, outcome.report.start), (Code::Unavailable, None), "{error}");
    assert!(error.detail.contains("is for gateway or control"), "{error}");
    assert!(server.join(&["g1"], &site.node("g1:gateway")).await[0].is_err());
    assert!(server.script.calls.lock().is_empty() && server.joined.0.lock().is_empty());
}

#[tokio::test]
async fn strangers_are_refused_by_both_ends_and_told_why() {
    let (site, stranger) = (Site::new(), Site::new());
    let server = Server::start(site.node("w1:worker")).await;
    let said = refused(server.ask("w1", &stranger.node("g1:gateway")).await);
    assert!(said.contains("its certificate is not signed by an authority in ca.pem"), "{said}");
    // One that believes the server, and is not believed by it.
    let half = stranger.node("g1:gateway");
    let dir = stranger.dir.path().join("g1-gateway");
    append(&site.dir.path().join("ca.pem"), &dir.join("ca.pem"));
    let said = refused(server.ask("w1", &half).await);
    assert!(said.contains("refuses this node's certificate: it is not signed by an authority"), "{said}");
    let calls = server.worker("w1", &half).invoke(call("echo", "1")).await;
    assert_eq!((calls.outcome.unwrap_err().code, calls.report.start), (Code::Unavailable, None));
}

fn append(from: &Path, to: &Path) {
    let both = [std::fs::read(to).unwrap(), std::fs::read(from).unwrap()].concat();
    std::fs::write(to, both).unwrap();
}

#[tokio::test]
async fn certificates_that_have_expired_are_refused_by_both_ends() {
    let site = Site::new();
    let server = Server::start(site.node("w1:worker")).await;
    let said = refused(server.ask("w1", &site.expired("g1:gateway")).await);
    assert!(said.contains("refuses this node's certificate: it has expired"), "{said}");
    let server = Server::start(site.expired("w1:worker")).await;
    let said = refused(server.ask("w1", &site.node("g1:gateway")).await);
    assert!(said.contains("its certificate has expired"), "{said}");
}

#[tokio::test]
async fn plain_text_and_tls_tell_each_other_apart() {
    let site = Site::new();
    let server = Server::start(site.node("w1:worker")).await;
    let reply = server.worker("w1", &Security::Plain).invoke(call("echo", "1")).await;
    let error = reply.outcome.unwrap_err();
    assert!(error.detail.contains("start your node with --tls-dir"), "{error}");
    let said = refused(server.ask("w1", &Security::Plain).await);
    assert!(said.contains("start your node with --tls-dir"), "{said}");
    let plain = Server::start(Security::Plain).await;
    let said = refused(plain.ask("w1", &site.node("g1:gateway")).await);
    assert!(said.contains("it speaks plain text"), "{said}");
    // One that says nothing does not keep others out.
    let silent = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    assert_eq!(server.ask("w1", &site.node("g1:gateway")).await, Ok(true));
    drop(silent);
}

#[tokio::test]
async fn new_certificates_are_used_without_a_restart() {
    let (site, other) = (Site::new(), Site::new());
    let worker = site.node("w1:worker");
    let server = Server::start(worker).await;
    let gateway = other.node("g1:gateway");
    refused(server.ask("w1", &gateway).await);
    // The worker moves to the other site.
    let dir = site.dir.path().join("w1-worker");
    let year = Dates::from_now(Clock::system().now(), YEAR);
    other.authority.issue(&dir, &NodeSpec::parse("w1:worker").unwrap(), year).unwrap();
    assert_eq!(server.ask("w1", &gateway).await, Ok(true));
}
