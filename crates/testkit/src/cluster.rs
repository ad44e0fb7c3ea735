//! Roles as processes of their own, on this machine: a control, workers, a gateway.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lyra_client::{Client, Config};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::Cli;
use crate::server::{START, STOP, binary};

/// Processes of `lyra node`, by name. Killed when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    directory: TempDir,
    /// Where the authority of the nodes' certificates is, if they have any.
    tls: Option<PathBuf>,
    nodes: BTreeMap<String, Node>,
    /// Addresses of the controls.
    controls: Vec<String>,
}

#[derive(Debug)]
struct Node {
    arguments: Vec<String>,
    env: Vec<(String, String)>,
    /// What it printed as its address; the same again after a restart.
    address: String,
    child: Option<(Child, BufReader<ChildStdout>)>,
}

impl Cluster {
    /// A control named `c1`, so many workers named `w1`, `w2`, …, and a gateway named `g1`; further flags for control.
    ///
    /// # Errors
    /// With what a node wrote to stderr, when it is not ready in time.
    pub async fn start(workers: usize, control: &[&str]) -> Result<Cluster> {
        Cluster::start_many(1, workers, control).await
    }

    /// The same with so many controls, named `c1`, `c2`, …; they need stores that they can share.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_many(controls: usize, workers: usize, control: &[&str]) -> Result<Cluster> {
        Cluster::start_in(Cluster::empty()?, controls, workers, control).await
    }

    /// One control and workers, with a certificate for each node.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_with_tls(workers: usize, control: &[&str]) -> Result<Cluster> {
        let mut cluster = Cluster::empty()?;
        cluster.tls = Some(cluster.directory.path().join("tls"));
        Cluster::start_in(cluster, 1, workers, control).await
    }

    fn empty() -> Result<Cluster> {
        let directory = tempfile::Builder::new().prefix("lyra-cluster-").tempdir()?;
        Ok(Cluster { binary: binary()?, directory, tls: None, nodes: BTreeMap::new(), controls: Vec::new() })
    }

    async fn start_in(mut cluster: Cluster, controls: usize, workers: usize, control: &[&str]) -> Result<Cluster> {
        let blobs = cluster.directory.path().join("blobs").display().to_string();
        let grpc = ["--listen-grpc", "127.0.0.1:0", "--blobs", &blobs];
        for number in 1..=controls {
            let name = format!("c{number}");
            cluster.add("control", &name, &[&grpc, control].concat()).await?;
            cluster.controls.push(cluster.address(&name).to_owned());
        }
        for number in 1..=workers {
            cluster.add_worker(&format!("w{number}"), &[]).await?;
        }
        let control = cluster.controls.join(",");
        cluster.add("gateway", "g1", &["--control", &control, "--listen", "127.0.0.1:0"]).await?;
        cluster.until_ready(workers).await?;
        Ok(cluster)
    }

    /// Adds a worker with further flags.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn add_worker(&mut self, name: &str, flags: &[&str]) -> Result<()> {
        let blobs = self.directory.path().join("blobs").display().to_string();
        let control = self.controls.join(",");
        let own = ["--listen-grpc", "127.0.0.1:0", "--blobs", &blobs, "--control", &control];
        self.add("worker", name, &[&own, flags].concat()).await
    }

    /// Adds a worker that speaks plain text, whatever the others do.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn add_plain_worker(&mut self, name: &str) -> Result<()> {
        let tls = self.tls.take();
        let added = self.add_worker(name, &[]).await;
        self.tls = tls;
        added
    }

    /// No nodes yet; [`Cluster::add_node`] adds each.
    ///
    /// # Errors
    /// When there is no binary, or no temporary directory.
    pub fn bare() -> Result<Cluster> {
        Cluster::empty()
    }

    /// Adds a scaler with further flags.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn add_scaler(&mut self, name: &str, flags: &[&str]) -> Result<()> {
        let control = self.controls.join(",");
        self.add("scaler", name, &[&["--control", &control], flags].concat()).await
    }

    /// Adds a process that runs workflows, with further flags and these variables.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn add_workflow(&mut self, name: &str, flags: &[&str], env: &[(&str, &str)]) -> Result<()> {
        let blobs = self.directory.path().join("blobs").display().to_string();
        let control = self.controls.join(",");
        let own = ["--listen-grpc", "127.0.0.1:0", "--blobs", &blobs, "--control", &control];
        self.add_with("workflow", name, &[&own, flags].concat(), env).await
    }

    /// Adds a node of any role with these flags and variables and no others.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn add_node(&mut self, role: &str, name: &str, flags: &[&str], env: &[(&str, &str)]) -> Result<()> {
        self.add_with(role, name, flags, env).await
    }

    async fn add(&mut self, role: &str, name: &str, flags: &[&str]) -> Result<()> {
        self.add_with(role, name, flags, &[]).await
    }

    async fn add_with(&mut self, role: &str, name: &str, flags: &[&str], env: &[(&str, &str)]) -> Result<()> {
        let data = self.directory.path().join(name).display().to_string();
        let own = ["node", "--role", role, "--name", name, "--data-dir", &data];
        let mut arguments: Vec<String> = own.iter().chain(flags).map(|&flag| flag.to_owned()).collect();
        if self.tls.is_some() && !flags.contains(&"--tls-dir") {
            let dir = self.certify(name, role).await?;
            arguments.extend(["--tls-dir".to_owned(), dir.display().to_string()]);
        }
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.nodes.insert(name.to_owned(), Node { arguments, env, address: String::new(), child: None });
        self.spawn(name).await
    }

    /// Makes a certificate for a node, and returns its directory.
    ///
    /// # Errors
    /// When the cluster has no certificates, or none can be made.
    pub async fn certify(&self, name: &str, role: &str) -> Result<PathBuf> {
        let tls = self.tls.as_ref().context("the cluster has no certificates")?;
        let (dir, node) = (tls.display().to_string(), format!("{name}:{role}"));
        self.commands().run(["tls", "init", "--tls-dir", &dir, &node]).await?.ok()?;
        Ok(tls.join(name))
    }

    async fn spawn(&mut self, name: &str) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path(name))?;
        let node = self.nodes.get_mut(name).with_context(|| format!("there is no node {name}"))?;
        let mut command = Command::new(&self.binary);
        // Short leases, so that tests see workers lost.
        command.env("LYRA__CONTROL__REGISTRY__HEARTBEAT", "500ms").env("LYRA__CONTROL__REGISTRY__LEASE", "2s");
        for classic in ["DB_URL", "JQ_URL", "PORT"] {
            command.env_remove(classic);
        }
        command.envs(node.env.iter().map(|(name, value)| (name, value)));
        command.args(&node.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut line = String::new();
        let read = tokio::time::timeout(START, stdout.read_line(&mut line)).await;
        let Some((_, address)) = line.trim_end().split_once(" ready on ").filter(|_| matches!(read, Ok(Ok(_)))) else {
            bail!("{name} is not ready; stdout {line:?}, stderr:\n{}", self.log(name));
        };
        address.clone_into(&mut node.address);
        // The same port again after a restart.
        let plain = address.trim_start_matches("http://");
        for argument in node.arguments.iter_mut().filter(|argument| *argument == "127.0.0.1:0") {
            plain.clone_into(argument);
        }
        node.child = Some((child, stdout));
        Ok(())
    }

    /// Waits until the gateway knows so many workers that are ready.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn until_ready(&self, workers: usize) -> Result<()> {
        let client = self.client()?;
        let ready = async {
            loop {
                let all = client.workers(100).await;
                let ready = all.map_or(0, |all| all.items.iter().filter(|one| one.value.state == "ready").count());
                if ready == workers {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(START, ready).await.with_context(|| format!("{workers} workers are not ready"))
    }

    /// Asks again and again until a command's stdout has `text` in it.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn until_shown(&self, command: &[&str], text: &str) -> Result<()> {
        self.commands().until_shown(command, text).await
    }

    /// Adds a gateway that knows only these controls.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn add_gateway(&mut self, name: &str, controls: &[&str]) -> Result<()> {
        let control: Vec<&str> = controls.iter().map(|&control| self.address(control)).collect();
        let control = control.join(",");
        self.add("gateway", name, &["--control", &control, "--listen", "127.0.0.1:0"]).await
    }

    /// Commands against one of the gateways.
    pub fn commands_at(&self, gateway: &str) -> Cli {
        Cli::new(&self.binary).env("LYRA_URL", self.address(gateway)).within(self.scratch())
    }

    /// Waits until a node has written `text` to stderr.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn until_logged(&self, name: &str, text: &str) -> Result<()> {
        let logged = async {
            while !self.log(name).contains(text) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let logged = tokio::time::timeout(START, logged).await;
        logged.with_context(|| format!("{name} does not say {text:?}; it said:\n{}", self.log(name)))
    }

    /// Where a node serves: `HOST:PORT` of gRPC, the URL of a gateway.
    pub fn address(&self, name: &str) -> &str {
        self.nodes.get(name).map_or("", |node| &node.address)
    }

    /// A directory for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.log"))
    }

    /// What a node has written to stderr so far.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.log_path(name)).unwrap_or_default()
    }

    /// A typed client of the gateway.
    ///
    /// # Errors
    /// When the URL is none, which does not happen.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::new(Config { url: self.address("g1").to_owned(), ..Config::default() })?)
    }

    /// Commands against the gateway, run in [`Cluster::scratch`].
    pub fn commands(&self) -> Cli {
        self.commands_at("g1")
    }

    /// Kills a node: SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self, name: &str) -> Result<()> {
        self.child(name)?.kill().await?;
        Ok(())
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// When it takes longer than promised.
    pub async fn terminate(&mut self, name: &str) -> Result<ExitStatus> {
        let mut child = self.child(name)?;
        let pid = child.id().context("it runs")?.to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await?;
        anyhow::ensure!(sent.success(), "{name} can't be signalled");
        Ok(tokio::time::timeout(STOP, child.wait()).await.context("it did not end in time")??)
    }

    /// Stops a node where it stands: SIGSTOP. Its connections stay and say nothing.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn freeze(&self, name: &str) -> Result<()> {
        self.signal(name, "-STOP").await
    }

    /// Lets a node go on: SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn thaw(&self, name: &str) -> Result<()> {
        self.signal(name, "-CONT").await
    }

    async fn signal(&self, name: &str, signal: &str) -> Result<()> {
        let child = self.nodes.get(name).and_then(|node| node.child.as_ref());
        let pid = child.and_then(|(child, _)| child.id()).with_context(|| format!("{name} does not run"))?.to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().await?;
        anyhow::ensure!(sent.success(), "{name} can't be signalled");
        Ok(())
    }

    /// Starts a node again that was stopped, at its former address.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn restart(&mut self, name: &str) -> Result<()> {
        self.spawn(name).await
    }

    fn child(&mut self, name: &str) -> Result<Child> {
        let node = self.nodes.get_mut(name).with_context(|| format!("there is no node {name}"))?;
        Ok(node.child.take().with_context(|| format!("{name} does not run"))?.0)
    }
}
