//! One instance that serves a session, as the worker holds it.
//!
//! What must hold: dropping it kills its processes, frees its ports and removes its files, unless a lasting one was left;
//! of two changes at a time (exposing, hiding, sleeping, waking) one comes after the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lyra_types::{Code, Error, InstanceId};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::super::Shared;
use super::super::instance::{self, Instance};
use super::super::launch::{Bounds, LaunchError};
use super::Note;
use crate::session::files::SessionFiles;
use crate::session::{Exit, Exposed, Files, Hosted, Traffic};
use crate::{LogSink, Usage};

/// Longest wait for a program to take a connection.
const CONNECTING: Duration = Duration::from_secs(5);

/// An instance of the process back end.
pub(super) struct HostedProcess {
    shared: Arc<Shared>,
    note: Note,
    instance: Instance,
    service: Mutex<Option<TcpListener>>,
    exposed: Mutex<Vec<Exposed>>,
    files: Arc<SessionFiles>,
    lasting: bool,
    /// Held by whoever changes something that takes a while.
    changing: tokio::sync::Mutex<()>,
}

impl HostedProcess {
    /// `sockets` listen in its network, in the order in which they were asked for.
    pub(super) fn new(
        shared: &Arc<Shared>,
        note: Note,
        mut instance: Instance,
        sockets: Vec<std::net::TcpListener>,
        exposed: Vec<Exposed>,
        files: SessionFiles,
    ) -> Result<HostedProcess, Error> {
        let mut sockets = sockets.into_iter();
        let service = if note.service { Some(instance::listener(sockets.next())?) } else { None };
        if note.egress {
            instance.let_out(sockets.next(), &shared.egress)?;
        }
        Ok(HostedProcess {
            shared: Arc::clone(shared),
            note,
            instance,
            service: Mutex::new(service),
            exposed: Mutex::new(exposed),
            files: Arc::new(files),
            lasting: false,
            changing: tokio::sync::Mutex::new(()),
        })
    }

    /// The same, which goes on without its worker.
    pub(super) fn lasting(self) -> HostedProcess {
        HostedProcess { lasting: true, ..self }
    }

    fn bounds(&self) -> Bounds {
        let settings = &self.shared.config.settings;
        Bounds {
            connections: settings.session_connections,
            associations: settings.session_clients,
            idle: settings.session_client_idle,
        }
    }

    async fn connect_to(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = self.instance.process().socket(address.is_ipv6()).await.map_err(std::io::Error::other)?;
        let connect = TcpSocket::from_std_stream(socket.into()).connect(address);
        let stream = tokio::time::timeout(CONNECTING, connect).await.map_err(|_| std::io::ErrorKind::TimedOut)??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

#[async_trait]
impl Hosted for HostedProcess {
    fn id(&self) -> InstanceId {
        self.note.id
    }

    fn label(&self) -> &str {
        &self.note.label
    }

    async fn wait(&self) -> Exit {
        let exit = self.instance.process().wait().await;
        if self.instance.process().is_left() {
            // Its launcher was let go, which is no news of it.
            std::future::pending::<()>().await;
        }
        self.instance.output().drain();
        exit
    }

    fn exit(&self) -> Option<Exit> {
        self.instance.process().exit().filter(|_| !self.instance.process().is_left())
    }

    async fn expose(&self, ip: IpAddr, range: RangeInclusive<u16>) -> Result<Vec<Exposed>, Error> {
        let _one_at_a_time = self.changing.lock().await;
        let known = self.exposed();
        if !known.is_empty() || self.note.ports.is_empty() {
            return Ok(known);
        }
        let (exposed, sockets) = self.shared.ports.bind(ip, &range, &self.note.ports)?;
        // Should this be given up meanwhile, they are to be hidden all the same.
        self.exposed.lock().clone_from(&exposed);
        match self.instance.process().expose(exposed.clone(), &sockets, self.bounds()).await {
            Ok(()) => Ok(exposed),
            Err(error) => {
                self.exposed.lock().clear();
                Err(unavailable("its ports can't be exposed", &error))
            }
        }
    }

    fn exposed(&self) -> Vec<Exposed> {
        self.exposed.lock().clone()
    }

    async fn hide(&self) -> Result<(), Error> {
        let _one_at_a_time = self.changing.lock().await;
        if self.exposed().is_empty() {
            return Ok(());
        }
        match self.instance.process().hide().await {
            // With the launcher everything has gone.
            Ok(()) | Err(LaunchError::Gone) => {
                self.exposed.lock().clear();
                Ok(())
            }
            Err(error) => Err(unavailable("its ports can't be hidden", &error)),
        }
    }

    async fn traffic(&self) -> Traffic {
        if self.exposed().is_empty() {
            return Traffic::default();
        }
        self.instance.process().traffic().await.unwrap_or_default()
    }

    fn service(&self) -> Option<TcpListener> {
        self.service.lock().take()
    }

    async fn connect(&self, port: u16) -> Result<TcpStream, Error> {
        let connected = match self.connect_to((Ipv4Addr::LOCALHOST, port).into()).await {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                self.connect_to((Ipv6Addr::LOCALHOST, port).into()).await
            }
            other => other,
        };
        connected.map_err(|error| unavailable(&format!("it can't be reached at port {port}"), &error))
    }

    async fn write(&self, files: &Files) -> Result<(), Error> {
        let _one_at_a_time = self.changing.lock().await;
        let (place, files) = (Arc::clone(&self.files), files.clone());
        let written = lyra_kit::tasks::blocking(move || place.write(&files));
        written.await.map_err(|_| super::super::broken_off())?
    }

    fn logs(&self, sink: Arc<dyn LogSink>) {
        self.instance.output().turn(&sink);
    }

    fn usage(&self) -> Usage {
        self.instance.usage()
    }

    async fn hibernate(&self) -> bool {
        let _one_at_a_time = self.changing.lock().await;
        self.instance.hibernate().await
    }

    async fn wake(&self) -> bool {
        let _one_at_a_time = self.changing.lock().await;
        self.instance.wake().await
    }

    fn signal(&self, signal: i32) {
        self.instance.process().signal(signal);
    }

    async fn stop(&self, grace: Duration) -> Exit {
        let process = self.instance.process();
        let asked = async {
            if self.wake().await && process.signal_surely(libc::SIGTERM).await.is_ok() {
                process.wait().await;
            }
        };
        let _late = tokio::time::timeout(grace, asked).await;
        self.kill();
        self.wait().await
    }

    fn kill(&self) {
        self.instance.kill();
    }

    fn leave(&self) {
        if self.lasting {
            self.instance.process().leave();
            self.files.leave();
        }
    }
}

fn unavailable(what: &str, error: &dyn std::error::Error) -> Error {
    Error::new(Code::Unavailable, format!("{what}: {error}"))
}
