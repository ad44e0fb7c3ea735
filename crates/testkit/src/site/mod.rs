//! A whole site: control processes, workers, processes for workflows and gateways over etcd (three members), NATS and an S3 server, each on a
//! host of its own, with mutual TLS between the roles; and whatever may happen to them.
//!
//! The client is on a host too: starting a site moves the calling thread there (see [`Host::enter`]), so what a test does
//! from then on is done from there.

mod check;
mod node;
mod rooms;
mod start;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lyra_client::{Client, Config};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::Cli;
use crate::engines::{Etcd, Nats, S3};
use crate::hosts::{Host, Network};
pub use check::Checked;
use node::Node;
pub use rooms::Rooms;
pub use start::Layout;

/// Longest wait for what has to come about; a machine under load is slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// A running site. All of it ends when this is dropped.
#[derive(Debug)]
pub struct Site {
    layout: Layout,
    binary: PathBuf,
    directory: PathBuf,
    token: String,
    nodes: BTreeMap<String, Node>,
    etcd: Vec<Etcd>,
    nats: Vec<Nats>,
    s3: S3,
    network: Network,
    _scratch: Option<TempDir>,
}

/// One of the processes of a site.
enum Process<'a> {
    Node(&'a mut Node),
    Etcd(&'a mut Etcd),
    Nats(&'a mut Nats),
    S3(&'a mut S3),
}

impl Site {
    /// The network, with whose links faults are made.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// A directory for the test's own files; the log of each node is there, as `NAME.log`, and in the end that of each
    /// engine.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What a node has written to stderr so far.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Names of the nodes with this role: `control`, `worker`, `workflow`, `gateway`.
    pub fn names(&self, role: &str) -> Vec<String> {
        let of_role = self.nodes.iter().filter(|(_, node)| node.role == role);
        of_role.map(|(name, _)| name.clone()).collect()
    }

    /// The host of a process.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.network.host(name)
    }

    /// The URL of a gateway.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn url(&self, gateway: &str) -> Result<String> {
        Ok(format!("http://{}:8080", self.host(gateway)?.address()))
    }

    /// A typed client of a gateway.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn client(&self, gateway: &str) -> Result<Client> {
        let url = self.url(gateway)?;
        let (connect_timeout, timeout) = (Duration::from_secs(2), Duration::from_secs(15));
        Ok(Client::new(Config { url, token: Some(self.token.clone()), connect_timeout, timeout, ..Config::default() })?)
    }

    /// Commands against the gateway `g1`, run in [`Site::directory`].
    pub fn commands(&self) -> Cli {
        let url = self.url("g1").unwrap_or_default();
        Cli::new(&self.binary).env("LYRA_URL", &url).env("LYRA_TOKEN", &self.token).within(&self.directory)
    }

    fn process(&mut self, name: &str) -> Result<Process<'_>> {
        if let Some(number) = name.strip_prefix('e').and_then(|number| number.parse::<usize>().ok()) {
            let member = self.etcd.get_mut(number.wrapping_sub(1));
            return member.map(Process::Etcd).with_context(|| format!("there is no {name}"));
        }
        let nats = start::nats_names(self.nats.len());
        if let Some(number) = nats.iter().position(|of| of == name) {
            return Ok(Process::Nats(&mut self.nats[number]));
        }
        match name {
            "s3" => Ok(Process::S3(&mut self.s3)),
            name => self.nodes.get_mut(name).map(Process::Node).with_context(|| format!("there is no {name}")),
        }
    }

    /// Kills a process, a node or an engine (`e1`, `nats`, `s3`): SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self, name: &str) -> Result<()> {
        match self.process(name)? {
            Process::Node(node) => node.kill().await,
            Process::Etcd(etcd) => etcd.kill().await,
            Process::Nats(nats) => nats.kill().await,
            Process::S3(s3) => s3.kill().await,
        }
    }

    /// Starts a process again that was stopped, on its data and at its address, and waits until it is ready.
    ///
    /// # Errors
    /// When it runs still, or is not ready in time.
    pub async fn restart(&mut self, name: &str) -> Result<()> {
        match self.process(name)? {
            Process::Node(node) => node.start().await,
            Process::Etcd(etcd) => etcd.restart().await,
            Process::Nats(nats) => nats.restart().await,
            Process::S3(s3) => s3.restart().await,
        }
    }

    /// Stops a process where it stands: SIGSTOP. Its connections stay and say nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn freeze(&mut self, name: &str) -> Result<()> {
        self.signal(name, Signal::STOP, "STOP").await
    }

    /// Lets a process go on: SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn thaw(&mut self, name: &str) -> Result<()> {
        self.signal(name, Signal::CONT, "CONT").await
    }

    async fn signal(&mut self, name: &str, signal: Signal, called: &str) -> Result<()> {
        match self.process(name)? {
            Process::Node(node) => node.signal(signal),
            Process::Etcd(etcd) => etcd.signal(called).await,
            Process::Nats(nats) => nats.signal(called).await,
            Process::S3(s3) => s3.signal(called).await,
        }
    }

    /// Sends a node SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it does not run, or takes longer than promised.
    pub async fn terminate(&mut self, name: &str) -> Result<ExitStatus> {
        let node = self.nodes.get_mut(name).with_context(|| format!("there is no node {name}"))?;
        node.terminate().await
    }

    /// Restarts a node in good order, with another binary where one is given, and asks that it exits with 0.
    ///
    /// # Errors
    /// When it does not end well or does not come back.
    pub async fn roll(&mut self, name: &str, binary: Option<&Path>) -> Result<()> {
        let status = self.terminate(name).await?;
        ensure!(status.code() == Some(0), "{name} ended with {status}:\n{}", self.log(name));
        let node = self.nodes.get_mut(name).with_context(|| format!("there is no node {name}"))?;
        if let Some(binary) = binary {
            binary.clone_into(&mut node.binary);
        }
        node.start().await
    }

    /// Restarts a worker that has no files any more: on a new disk.
    ///
    /// # Errors
    /// When it does not end well or does not come back.
    pub async fn roll_bare(&mut self, name: &str) -> Result<()> {
        self.terminate(name).await?;
        std::fs::remove_dir_all(self.directory.join(name))?;
        self.restart(name).await
    }

    /// Waits until a gateway shows a worker in a state: `ready`, `cordoned`, `lost`; `gone` is not shown.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn until_worker(&self, gateway: &str, worker: &str, state: &str) -> Result<()> {
        let client = self.client(gateway)?;
        let seen = async {
            loop {
                if let Ok(all) = client.workers(1_000).await {
                    let shown = all.items.iter().find(|one| one.value.name == worker);
                    if shown.map_or("gone", |one| one.value.state.as_str()) == state {
                        return;
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, seen).await;
        waited.with_context(|| format!("{gateway} does not show {worker} as {state}"))
    }

    /// Waits until every gateway shows every worker as ready.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn until_ready(&self) -> Result<()> {
        for gateway in self.names("gateway") {
            for worker in self.names("worker") {
                self.until_worker(&gateway, &worker, "ready").await?;
            }
        }
        Ok(())
    }

    /// Name and epoch of the control that leads; waits until one does, other than `not`.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn leader(&self, not: &str) -> Result<(String, u64)> {
        crate::control::leader(&self.client("g1")?, not).await
    }

    /// Waits until control answers through a gateway.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn until_answered(&self, gateway: &str) -> Result<()> {
        let client = self.client(gateway)?;
        let answered = async {
            while client.functions(1).await.is_err() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.with_context(|| format!("control does not answer {gateway}"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The engines' directories go with them.
        let members = (1..).zip(&self.etcd).map(|(number, member)| (format!("e{number}"), member.log()));
        let nats = start::nats_names(self.nats.len()).into_iter().zip(self.nats.iter().map(Nats::log));
        let logs = members.chain(nats).chain([("s3".to_owned(), self.s3.log())]);
        for (name, log) in logs {
            drop(std::fs::write(self.directory.join(format!("{name}.log")), log));
        }
    }
}
