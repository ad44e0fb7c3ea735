//! Simulated instances of sessions: they hold memory, end when they are told to or when their time is over, and have ports
//! that nobody can connect to.
//!
//! Those that a worker has left are kept by the back end, where the next worker over the same back end finds them.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lyra_kit::{Clock, Random};
use lyra_types::log::Level;
use lyra_types::{Code, Error, InstanceId};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ledger::Share;
use super::parameters::Parameters;
use crate::session::{Exit, Exposed, Files, Hosted, Hosting, Port, Traffic};
use crate::{LogSink, Usage};

/// What outlives workers.
#[derive(Default)]
pub(super) struct Left {
    instances: Mutex<Vec<Arc<Running>>>,
    /// Goes round over the ports that are given out.
    next_port: AtomicU32,
}

impl Left {
    pub(super) fn take(self: &Arc<Self>) -> Vec<Box<dyn Hosted>> {
        let left = std::mem::take(&mut *self.instances.lock());
        let hosted = left.into_iter().map(|running| {
            let hosted = HostedSimulation { running, left: Arc::clone(self), leaves: AtomicBool::new(false) };
            Box::new(hosted) as Box<dyn Hosted>
        });
        hosted.collect()
    }
}

/// A running instance.
struct Running {
    id: InstanceId,
    label: String,
    lasting: bool,
    ports: Vec<Port>,
    parameters: Arc<Parameters>,
    clock: Clock,
    random: Random,
    /// `None` once it has ended.
    share: Mutex<Option<Share>>,
    exit: watch::Sender<Option<Exit>>,
    exposed: Mutex<Vec<Exposed>>,
    /// When it ends of itself.
    until: Option<Instant>,
}

impl Running {
    fn end(&self, exit: Exit) {
        let ended = self.exit.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(exit);
            is_first
        });
        if ended {
            self.share.lock().take();
            self.exposed.lock().clear();
        }
    }

    /// Ends it, should its time be over.
    fn look(&self) {
        if self.until.is_some_and(|until| until <= self.clock.instant()) {
            self.end(Exit { code: Some(0), signal: None, out_of_memory: false });
        }
    }
}

/// One simulated instance, as the worker holds it.
pub(super) struct HostedSimulation {
    running: Arc<Running>,
    left: Arc<Left>,
    leaves: AtomicBool,
}

impl HostedSimulation {
    pub(super) fn new(
        id: InstanceId,
        hosting: Hosting,
        parameters: Arc<Parameters>,
        share: Share,
        (clock, random): (Clock, Random),
        left: Arc<Left>,
    ) -> HostedSimulation {
        let lives = parameters.lives_ms.duration(&random);
        let running = Running {
            id,
            label: hosting.label,
            lasting: hosting.lasting,
            ports: hosting.ports,
            until: (!lives.is_zero()).then(|| clock.instant() + lives),
            parameters,
            clock,
            random,
            share: Mutex::new(Some(share)),
            exit: watch::Sender::new(None),
            exposed: Mutex::default(),
        };
        HostedSimulation { running: Arc::new(running), left, leaves: AtomicBool::new(false) }
    }
}

impl Drop for HostedSimulation {
    fn drop(&mut self) {
        if self.running.lasting && self.leaves.load(Ordering::Relaxed) {
            self.left.instances.lock().push(Arc::clone(&self.running));
        } else {
            self.running.end(Exit::killed());
        }
    }
}

#[async_trait]
impl Hosted for HostedSimulation {
    fn id(&self) -> InstanceId {
        self.running.id
    }

    fn label(&self) -> &str {
        &self.running.label
    }

    async fn wait(&self) -> Exit {
        let mut exit = self.running.exit.subscribe();
        let ended = async { exit.wait_for(Option::is_some).await.map_or_else(|_| None, |exit| *exit) };
        let time = async {
            match self.running.until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            exit = ended => exit.unwrap_or_else(Exit::killed),
            () = time => {
                self.running.look();
                self.exit().unwrap_or_else(Exit::killed)
            }
        }
    }

    fn exit(&self) -> Option<Exit> {
        self.running.look();
        *self.running.exit.borrow()
    }

    async fn expose(&self, ip: IpAddr, range: RangeInclusive<u16>) -> Result<Vec<Exposed>, Error> {
        if self.exit().is_some() {
            return Err(Error::new(Code::Unavailable, "the instance has ended"));
        }
        let mut exposed = self.running.exposed.lock();
        if exposed.is_empty() {
            let (first, last) = (u32::from(*range.start()), u32::from(*range.end()));
            let count = (last + 1).saturating_sub(first);
            if count == 0 {
                return Err(Error::field(
                    Code::InvalidField,
                    "ports",
                    format!("{first} to {last} is no range of ports"),
                ));
            }
            *exposed = self
                .running
                .ports
                .iter()
                .map(|port| {
                    let number = first + self.left.next_port.fetch_add(1, Ordering::Relaxed) % count;
                    let address = SocketAddr::new(ip, u16::try_from(number).unwrap_or(u16::MAX));
                    Exposed { port: port.clone(), address }
                })
                .collect();
        }
        Ok(exposed.clone())
    }

    fn exposed(&self) -> Vec<Exposed> {
        self.running.exposed.lock().clone()
    }

    async fn hide(&self) -> Result<(), Error> {
        self.running.exposed.lock().clear();
        Ok(())
    }

    async fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn service(&self) -> Option<TcpListener> {
        None
    }

    async fn connect(&self, _port: u16) -> Result<TcpStream, Error> {
        Err(Error::new(Code::Unavailable, "a simulated instance takes no connections"))
    }

    async fn listens(&self, _port: u16) -> bool {
        self.exit().is_none()
    }

    async fn write(&self, _files: &Files) -> Result<(), Error> {
        Ok(())
    }

    fn logs(&self, sink: Arc<dyn LogSink>) {
        let lines = self.running.parameters.log_lines;
        for line in 1..=lines {
            sink.line(Level::Info, &format!("simulated line {line} of {lines}"));
        }
    }

    fn usage(&self) -> Usage {
        let memory_mb = self.running.share.lock().as_ref().map_or(0, Share::memory_mb);
        Usage { memory: u64::from(memory_mb) << 20, cpu: Duration::ZERO }
    }

    async fn hibernate(&self) -> bool {
        let mut share = self.running.share.lock();
        let Some(share) = share.as_mut() else { return false };
        share.resize(self.running.parameters.hibernated_mb);
        true
    }

    async fn wake(&self) -> bool {
        let takes = self.running.parameters.wake_ms.duration(&self.running.random);
        if !takes.is_zero() {
            self.running.clock.sleep(takes).await;
        }
        let mut share = self.running.share.lock();
        let Some(share) = share.as_mut() else { return false };
        share.resize(self.running.parameters.memory_mb);
        true
    }

    fn signal(&self, signal: i32) {
        // As a program does that has no handler.
        if matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGKILL | libc::SIGHUP) {
            self.running.end(Exit { code: None, signal: Some(signal), out_of_memory: false });
        }
    }

    async fn stop(&self, grace: Duration) -> Exit {
        let takes = self.running.parameters.stop_ms.duration(&self.running.random);
        if !takes.is_zero() {
            self.running.clock.sleep(takes.min(grace)).await;
        }
        self.signal(if takes <= grace { libc::SIGTERM } else { libc::SIGKILL });
        self.wait().await
    }

    fn kill(&self) {
        self.running.end(Exit::killed());
    }

    fn leave(&self) {
        self.leaves.store(true, Ordering::Relaxed);
    }
}
