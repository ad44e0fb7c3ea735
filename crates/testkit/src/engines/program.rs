//! A server's process: where it runs; started, asked until it is ready, killed, started again.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::hosts::Host;

/// Longest from the start to the first good answer: a machine under load is slow.
const START: Duration = Duration::from_secs(60);
/// Between two questions whether it is ready.
const ASK: Duration = Duration::from_millis(20);

/// Ports for servers: below those that the system gives to connections, so that none is taken while a server is away.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that belongs to this value, of all processes that ask here, until it is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// A port that nobody listens on.
    ///
    /// # Errors
    /// When there is none.
    pub async fn free() -> Result<Port> {
        let locks = std::env::temp_dir().join("lyra-test-ports");
        std::fs::create_dir_all(&locks)?;
        let count = PORTS.end - PORTS.start;
        // Tests are processes that start together: each looks elsewhere first.
        let first = u16::try_from(std::process::id().wrapping_mul(131) % u32::from(count))?;
        for offset in 0..count {
            let number = PORTS.start + (first + offset) % count;
            let lock = File::options().create(true).truncate(false).write(true).open(locks.join(number.to_string()))?;
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).await.is_ok() {
                return Ok(Port { number, _lock: lock });
            }
        }
        bail!("every port of {PORTS:?} is taken")
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Where a server runs.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// On the loopback of this process' host, on free ports.
    Loopback,
    /// On a host of its own network, on the usual ports.
    Host(&'a Host),
}

impl Place<'_> {
    /// An address there.
    pub(super) async fn listen(self, usual: u16) -> Result<Listen> {
        Ok(match self {
            Place::Loopback => {
                let port = Port::free().await?;
                let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.number());
                Listen { address, _port: Some(port) }
            }
            Place::Host(host) => Listen { address: SocketAddr::new(host.address(), usual), _port: None },
        })
    }
}

/// An address that a server listens on, and the port that is kept for it.
#[derive(Debug)]
pub(super) struct Listen {
    pub(super) address: SocketAddr,
    _port: Option<Port>,
}

#[derive(Debug)]
pub(super) struct Program {
    name: &'static str,
    install: &'static str,
    /// What `setpriv` gets before the program.
    prefix: Vec<String>,
    path: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    pub(super) directory: TempDir,
    child: Option<Child>,
}

impl Program {
    /// Nothing runs yet.
    ///
    /// # Errors
    /// With the command that installs it, when there is no such program.
    pub(super) fn new(name: &'static str, install: &'static str, place: Place<'_>) -> Result<Program> {
        let prefix = match place {
            Place::Loopback => ["--pdeathsig", "KILL", "--"].map(str::to_owned).to_vec(),
            Place::Host(host) => host.prefix(),
        };
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let everywhere =
            std::env::split_paths(&on_path).chain(["/usr/sbin".into()]).map(|directory| directory.join(name));
        let path = everywhere.into_iter().find(|path| path.is_file());
        let path = path.with_context(|| format!("there is no `{name}`: {install}"))?;
        let directory = tempfile::Builder::new().prefix("lyra-engine-").tempdir()?;
        Ok(Program { name, install, prefix, path, args: Vec::new(), env: Vec::new(), directory, child: None })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(super) fn args<A: Into<String>>(&mut self, args: impl IntoIterator<Item = A>) {
        self.args = args.into_iter().map(Into::into).collect();
    }

    pub(super) fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Starts it and asks until the answer is yes.
    ///
    /// # Errors
    /// With what it wrote, when it ends or is not ready in time.
    pub(super) async fn start<F, Fut>(&mut self, ready: F) -> Result<()>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = bool>,
    {
        anyhow::ensure!(self.child.is_none(), "{} runs still", self.name);
        let log = File::options().create(true).append(true).open(self.directory.path().join("log"))?;
        // util-linux' setpriv has the kernel kill the program when this process is gone.
        let mut command = Command::new("setpriv");
        command.args(&self.prefix).arg(&self.path).args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{} can't start; {}", self.name, self.install))?;
        let started = async {
            loop {
                if ready().await {
                    return Ok(());
                }
                if let Some(status) = child.try_wait()? {
                    bail!("it has ended: {status}");
                }
                tokio::time::sleep(ASK).await;
            }
        };
        let started = tokio::time::timeout(START, started).await.unwrap_or_else(|_| bail!("not ready in {START:?}"));
        self.child = Some(child);
        started.with_context(|| format!("{}\n{}", self.name, self.log()))
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub(super) async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} does not run", self.name))?;
        child.kill().await?;
        Ok(())
    }

    /// Sends a signal by name: `STOP`, `CONT`, …
    ///
    /// # Errors
    /// When it does not run.
    pub(super) async fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]).status().await?;
        anyhow::ensure!(sent.success(), "signal {name} can't be sent to process {pid}");
        Ok(())
    }
}

/// Whether `GET path` at an address is answered with a status that `good` takes.
pub(super) async fn answers(address: SocketAddr, path: &str, good: impl Fn(u16) -> bool) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let asked = async {
        let mut connection = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(5), asked).await else { return false };
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.is_some_and(good)
}
