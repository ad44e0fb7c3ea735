//! Sessions of code that is called and does not listen by itself: what comes over the instance's ports as HTTP is handed to it,
//! one request at a time, so that what it keeps in memory is the session's state.
//!
//! What must hold: the instance is never called by two at once, and a client that goes away does not end it; whatever leaves it
//! unfit to be called again (a trap, its memory used up, a deadline that has passed) ends it, and with that its session, as the end of a
//! process does. It does not outlast its worker.

mod event;
mod logs;
mod serving;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lyra_kit::{Clock, Random, Tasks};
use lyra_types::function::Contract;
use lyra_types::{Code, Error, FunctionVersion, InstanceId};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::logs::Relay;
use super::files::SessionFiles;
use super::ports::Cursor;
use super::{Exit, Exposed, Files, Hosted, Hosting, Port, Protocol, Traffic, check_hosting, unsupported};
use crate::{LogSink, Sandbox, Usage};

/// Most connections of an instance at a time.
const CONNECTIONS: usize = 1_024;
/// How long connections that are cut, and a call that is broken off, are waited for.
const CUTTING: Duration = Duration::from_secs(2);

/// What all such instances of a back end share.
pub(crate) struct Calls {
    ports: Cursor,
    clock: Clock,
    random: Random,
}

impl Calls {
    pub(crate) fn new(clock: Clock, random: Random) -> Calls {
        Calls { ports: Cursor::default(), clock, random }
    }

    /// Whether an instance can be hosted as asked.
    ///
    /// # Errors
    /// [`Code::InvalidField`] where it can't.
    pub(crate) fn check(&self, version: &FunctionVersion, contract: Contract, hosting: &Hosting) -> Result<(), Error> {
        let (runtime, refused) =
            (version.runtime, |field: &str, reason| Error::field(Code::InvalidField, field, reason));
        check_hosting(hosting)?;
        if !matches!(contract, Contract::Handler | Contract::Http) {
            return Err(unsupported(runtime));
        }
        if let Some(port) = hosting.ports.iter().find(|port| port.protocol != Protocol::Tcp) {
            let reason = format!("{} port {}: runtime {runtime} takes HTTP over TCP only", port.protocol, port.port);
            return Err(refused("ports", reason));
        }
        if hosting.service {
            return Err(refused("service", format!("runtime {runtime} can't reach the session service")));
        }
        Ok(())
    }
}

/// The instance, and who uses it.
struct Shared {
    id: InstanceId,
    label: String,
    ports: Vec<Port>,
    contract: Contract,
    version: Arc<FunctionVersion>,
    calls: Arc<Calls>,
    /// `None` once it can't be called again.
    sandbox: Arc<tokio::sync::Mutex<Option<Box<dyn Sandbox>>>>,
    connections: Arc<Semaphore>,
    logs: Arc<Relay>,
    /// What it is told of its session: in the events of handlers, as files for others.
    told: Mutex<Arc<event::Told>>,
    exit: watch::Sender<Option<Exit>>,
    /// Cancelled with its end.
    over: CancellationToken,
    counts: Counts,
}

/// See [`Traffic`].
#[derive(Default)]
struct Counts {
    open: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// Processor time of all calls, in nanoseconds.
    cpu: AtomicU64,
}

impl Shared {
    /// It has ended; only the first end counts.
    fn end(&self, exit: Exit) {
        self.exit.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(exit);
            is_first
        });
        self.over.cancel();
    }
}

/// An instance that is called, as the worker holds it.
pub(crate) struct Called {
    shared: Arc<Shared>,
    files: Option<Arc<SessionFiles>>,
    exposed: Mutex<Vec<Exposed>>,
    /// Those who listen on its exposed ports, and their connections.
    listening: tokio::sync::Mutex<Option<Tasks>>,
}

impl Called {
    /// `sandbox` has been started; `files`: where it sees its files, if it can.
    pub(crate) fn new(
        id: InstanceId,
        version: &Arc<FunctionVersion>,
        contract: Contract,
        sandbox: Box<dyn Sandbox>,
        hosting: Hosting,
        files: Option<SessionFiles>,
        calls: &Arc<Calls>,
    ) -> Called {
        let shared = Shared {
            id,
            label: hosting.label,
            ports: hosting.ports,
            contract,
            version: Arc::clone(version),
            calls: Arc::clone(calls),
            sandbox: Arc::new(tokio::sync::Mutex::new(Some(sandbox))),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            logs: Arc::default(),
            told: Mutex::new(Arc::new(event::Told::of(&hosting.files))),
            exit: watch::Sender::new(None),
            over: CancellationToken::new(),
            counts: Counts::default(),
        };
        let (shared, files) = (Arc::new(shared), files.map(Arc::new));
        Called { shared, files, exposed: Mutex::default(), listening: tokio::sync::Mutex::default() }
    }

    fn check(&self) -> Result<(), Error> {
        match self.exit() {
            Some(_) => Err(Error::new(Code::Unavailable, "the instance has ended")),
            None => Ok(()),
        }
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        self.kill();
    }
}

#[async_trait]
impl Hosted for Called {
    fn id(&self) -> InstanceId {
        self.shared.id
    }

    fn label(&self) -> &str {
        &self.shared.label
    }

    async fn wait(&self) -> Exit {
        let mut exit = self.shared.exit.subscribe();
        // The sender lives as long as this.
        let exit = exit.wait_for(Option::is_some).await.map_or(None, |exit| *exit).unwrap_or_else(Exit::killed);
        // Its ports and its memory are free when this returns; a call that does not let go in time gives it back at its own end.
        let _gone = self.hide().await;
        if let Ok(mut sandbox) = tokio::time::timeout(CUTTING, self.shared.sandbox.lock()).await {
            sandbox.take();
        }
        exit
    }

    fn exit(&self) -> Option<Exit> {
        *self.shared.exit.borrow()
    }

    async fn expose(&self, ip: IpAddr, range: RangeInclusive<u16>) -> Result<Vec<Exposed>, Error> {
        let mut listening = self.listening.lock().await;
        self.check()?;
        if listening.is_some() {
            return Ok(self.exposed());
        }
        let (exposed, sockets) = self.shared.calls.ports.bind(ip, &range, &self.shared.ports)?;
        let unusable = |error: std::io::Error| Error::internal(format!("a port can't be listened on: {error}"));
        let listeners: Vec<TcpListener> = sockets
            .into_iter()
            .map(|socket| TcpListener::from_std(socket.into()))
            .collect::<std::io::Result<_>>()
            .map_err(unusable)?;
        let tasks = Tasks::new();
        for listener in listeners {
            let shared = Arc::clone(&self.shared);
            tasks.spawn_cancellable("session port", async move { shared.listen(listener).await });
        }
        *listening = Some(tasks);
        self.exposed.lock().clone_from(&exposed);
        Ok(exposed)
    }

    fn exposed(&self) -> Vec<Exposed> {
        self.exposed.lock().clone()
    }

    async fn hide(&self) -> Result<(), Error> {
        let mut listening = self.listening.lock().await;
        if let Some(tasks) = listening.take()
            && !tasks.stop(CUTTING).await
        {
            *listening = Some(tasks);
            return Err(Error::new(Code::Unavailable, "its ports are not free yet"));
        }
        self.exposed.lock().clear();
        Ok(())
    }

    async fn traffic(&self) -> Traffic {
        if self.exposed().is_empty() {
            return Traffic::default();
        }
        let (counts, of) = (&self.shared.counts, |count: &AtomicU64| count.load(Ordering::Relaxed));
        Traffic {
            connections: of(&counts.open),
            associations: 0,
            accepted: of(&counts.accepted),
            refused: of(&counts.refused),
            received: of(&counts.received),
            sent: of(&counts.sent),
        }
    }

    fn service(&self) -> Option<TcpListener> {
        None
    }

    async fn connect(&self, port: u16) -> Result<TcpStream, Error> {
        self.check()?;
        let unreachable =
            |why: String| Error::new(Code::Unavailable, format!("it can't be reached at port {port}: {why}"));
        if !self.shared.ports.iter().any(|known| known.port == port) {
            return Err(unreachable("it has no such port".to_owned()));
        }
        let (client, server) = pair().await.map_err(|error| unreachable(error.to_string()))?;
        let shared = Arc::clone(&self.shared);
        drop(lyra_kit::tasks::spawn("session connection", async move { shared.serve(server).await }));
        Ok(client)
    }

    async fn listens(&self, port: u16) -> bool {
        self.exit().is_none() && self.shared.ports.iter().any(|known| known.port == port)
    }

    async fn write(&self, files: &Files) -> Result<(), Error> {
        if let Some(place) = &self.files {
            let (place, files) = (Arc::clone(place), files.clone());
            let written = lyra_kit::tasks::blocking(move || place.write(&files)).await;
            written.map_err(|_| Error::internal("writing the session's files was broken off"))??;
        }
        *self.shared.told.lock() = Arc::new(event::Told::of(files));
        Ok(())
    }

    fn logs(&self, sink: Arc<dyn LogSink>) {
        self.shared.logs.lead_to(sink);
    }

    fn usage(&self) -> Usage {
        let memory = self.shared.sandbox.try_lock().ok().and_then(|sandbox| Some(sandbox.as_ref()?.usage().memory));
        let cpu = Duration::from_nanos(self.shared.counts.cpu.load(Ordering::Relaxed));
        Usage { memory: memory.unwrap_or(0), cpu }
    }

    async fn hibernate(&self) -> bool {
        false
    }

    async fn wake(&self) -> bool {
        true
    }

    fn signal(&self, signal: i32) {
        // As a program does that has no handler.
        if matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGKILL | libc::SIGHUP) {
            self.shared.end(Exit { code: None, signal: Some(signal), out_of_memory: false });
        }
    }

    async fn stop(&self, grace: Duration) -> Exit {
        // What is being answered may be answered to its end.
        let idle = tokio::time::timeout(grace, self.shared.sandbox.lock()).await.map(|mut sandbox| sandbox.take());
        self.signal(if idle.is_ok() { libc::SIGTERM } else { libc::SIGKILL });
        self.wait().await
    }

    fn kill(&self) {
        self.shared.end(Exit::killed());
    }

    fn leave(&self) {}
}

/// Two ends of a connection within this process. Nobody else can take the other end: whoever connects meanwhile is turned away.
async fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let own = client.local_addr()?;
    loop {
        let (server, peer) = listener.accept().await?;
        if peer == own {
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            return Ok((client, server));
        }
    }
}
