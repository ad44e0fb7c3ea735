//! A `lyra up` of its own for each test.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use lyra_client::{Client, Config};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::{Cli, Output};

/// Longest from the start of the process to its ready line: a machine under load is slow.
pub(crate) const START: Duration = Duration::from_secs(60);

/// Longest from SIGTERM to the end: what is promised is 30 s.
pub(crate) const STOP: Duration = Duration::from_secs(40);

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The `lyra` binary; else [`binary`] looks for it.
    pub binary: Option<PathBuf>,
    /// Further flags of `lyra up`.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
}

/// A running server. Killed when it is dropped.
#[derive(Debug)]
pub struct Lyra {
    options: Options,
    binary: PathBuf,
    directory: TempDir,
    process: Option<Process>,
    url: String,
}

#[derive(Debug)]
struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

/// The `lyra` binary that this test run has built.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    let named = ["NEXTEST_BIN_EXE_lyra", "CARGO_BIN_EXE_lyra"].iter().find_map(std::env::var_os);
    if let Some(path) = named {
        return Ok(path.into());
    }
    // target/PROFILE/deps/the_test-0123 -> target/PROFILE/lyra
    let test = std::env::current_exe()?;
    let beside = test.ancestors().skip(1).take(2).map(|directory| directory.join("lyra")).find(|path| path.is_file());
    beside.ok_or_else(|| {
        anyhow!(
            "there is no `lyra` beside {}: run `cargo build` first, with `--release` for `cargo xtask`",
            test.display()
        )
    })
}

impl Lyra {
    /// Starts the server that this test run has built, with fresh data.
    ///
    /// # Errors
    /// With what it wrote to stderr, when it is not ready in time.
    pub async fn start() -> Result<Lyra> {
        Lyra::start_with(Options::default()).await
    }

    /// Starts a server with fresh data.
    ///
    /// # Errors
    /// As [`Lyra::start`].
    pub async fn start_with(options: Options) -> Result<Lyra> {
        let binary = match &options.binary {
            Some(path) => path.clone(),
            None => binary()?,
        };
        let directory = tempfile::Builder::new().prefix("lyra-test-").tempdir()?;
        let mut lyra = Lyra { options, binary, directory, process: None, url: String::new() };
        lyra.spawn("127.0.0.1:0").await?;
        Ok(lyra)
    }

    async fn spawn(&mut self, listen: &str) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(&self.binary);
        command.arg("up").arg("--data-dir").arg(self.data_dir()).args(["--listen", listen]).args(&self.options.args);
        command.envs(self.options.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{} can't start", self.binary.display()))?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut line = String::new();
        let read = tokio::time::timeout(START, stdout.read_line(&mut line)).await;
        let url = line.trim_end().strip_prefix("lyra: ready on ").map(str::to_owned);
        let (Ok(Ok(_)), Some(url)) = (read, url) else {
            bail!("the server is not ready; stdout {line:?}, stderr:\n{}", self.log());
        };
        self.url = url;
        self.process = Some(Process { child, stdout });
        Ok(())
    }

    /// `http://127.0.0.1:PORT`, or `https://` where it has a certificate.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address alone: `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.url.split_once("://").map_or(&self.url, |(_, address)| address)
    }

    /// Where the server keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A directory for the test's own files, gone with the server.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("lyra.log")
    }

    /// What the server has written to stderr so far, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(|process| process.child.id())
    }

    /// A typed client for the tenant `default`.
    ///
    /// # Errors
    /// When the URL is none, which does not happen.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::new(Config { url: self.url.clone(), ..Config::default() })?)
    }

    /// A plain HTTP client, for requests that the typed one does not make.
    ///
    /// # Errors
    /// When it can't be built.
    pub fn http(&self) -> Result<reqwest::Client> {
        // The typed client installs the TLS provider that reqwest asks for.
        drop(self.client()?);
        Ok(reqwest::Client::builder().no_proxy().build()?)
    }

    /// Commands against this server, run in [`Lyra::scratch`].
    pub fn commands(&self) -> Cli {
        Cli::new(&self.binary).env("LYRA_URL", &self.url).within(self.scratch())
    }

    /// Runs a command against this server.
    ///
    /// # Errors
    /// When it can't be started or takes too long.
    pub async fn cli<A: AsRef<OsStr> + Debug>(&self, args: impl IntoIterator<Item = A>) -> Result<Output> {
        self.commands().run(args).await
    }

    /// Kills the server as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the server does not run")?;
        process.child.kill().await?;
        Ok(())
    }

    /// Sends a signal by name: `TERM`, `INT`, `STOP`, `CONT`, …
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid().context("the server does not run")?;
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid.to_string()]).status().await?;
        anyhow::ensure!(sent.success(), "signal {name} can't be sent to process {pid}");
        Ok(())
    }

    /// Sends SIGTERM and waits for the end. Gives the exit status and what came on stdout after the ready line.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(&mut self) -> Result<(ExitStatus, String)> {
        self.signal("TERM").await?;
        self.ended().await
    }

    /// Waits for the process to end by itself. Gives the exit status and what came on stdout after the ready line.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn ended(&mut self) -> Result<(ExitStatus, String)> {
        let mut process = self.process.take().context("the server does not run")?;
        let mut rest = String::new();
        let finished = async {
            process.stdout.read_to_string(&mut rest).await?;
            process.child.wait().await
        };
        match tokio::time::timeout(STOP, finished).await {
            Ok(status) => Ok((status?, rest)),
            Err(_) => bail!("the server has not ended within {STOP:?}; stderr:\n{}", self.log()),
        }
    }

    /// Starts the server again, at the same address and on the same data.
    ///
    /// # Errors
    /// When it runs still, or is not ready in time.
    pub async fn restart(&mut self) -> Result<()> {
        anyhow::ensure!(self.process.is_none(), "the server runs still");
        let address = self.address().to_owned();
        self.spawn(&address).await
    }
}
