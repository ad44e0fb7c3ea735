//! Runs `lyra` commands and keeps what they print.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::server::START;

/// Longest that a command may take; a test that needs this long has failed.
const LIMIT: Duration = Duration::from_secs(120);

/// How to run commands: which binary, against which server, where.
#[derive(Debug, Clone)]
pub struct Cli {
    binary: PathBuf,
    directory: Option<PathBuf>,
    env: Vec<(String, String)>,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Its stdout, if it ended with exit code 0.
    ///
    /// # Errors
    /// With all it printed, if it did not.
    pub fn ok(self) -> Result<String> {
        self.expect(0).map(|output| output.stdout)
    }

    /// Itself, if it ended with that exit code.
    ///
    /// # Errors
    /// With all it printed, if it did not.
    pub fn expect(self, code: i32) -> Result<Output> {
        ensure!(self.code == code, "exit code {}, not {code}\n{}\n{}", self.code, self.stdout, self.stderr);
        Ok(self)
    }

    /// Its stdout as JSON, if it ended with exit code 0.
    ///
    /// # Errors
    /// When it did not, or when it is no JSON.
    pub fn json(self) -> Result<serde_json::Value> {
        let stdout = self.ok()?;
        serde_json::from_str(&stdout).with_context(|| format!("not JSON: {stdout}"))
    }
}

impl Cli {
    /// Commands of `binary`, with no server named and no `LYRA_*` variable of the caller's.
    pub fn new(binary: impl Into<PathBuf>) -> Cli {
        Cli { binary: binary.into(), directory: None, env: Vec::new() }
    }

    /// The same, but running another program.
    #[must_use]
    pub fn binary(mut self, binary: impl Into<PathBuf>) -> Cli {
        self.binary = binary.into();
        self
    }

    /// Runs commands in `directory`.
    #[must_use]
    pub fn within(mut self, directory: impl AsRef<Path>) -> Cli {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Cli {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command, ready to be started; it is killed when its handle is dropped.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        for name in ["URL", "TOKEN", "TENANT", "CA", "DATA_DIR", "LISTEN", "LOG"] {
            command.env_remove(format!("LYRA_{name}"));
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it can't be started or takes too long. Any exit code is a good answer here.
    pub async fn run<A: AsRef<OsStr> + Debug>(&self, args: impl IntoIterator<Item = A>) -> Result<Output> {
        self.run_with_input(args, b"").await
    }

    /// Runs a command again and again until its stdout has `text` in it.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn until_shown(&self, command: &[&str], text: &str) -> Result<()> {
        let shown = async {
            while !self.run(command).await.is_ok_and(|output| output.stdout.contains(text)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let shown = tokio::time::timeout(START, shown).await;
        shown.with_context(|| format!("{command:?} does not show {text:?}"))
    }

    /// Runs a command that reads `input` from stdin.
    ///
    /// # Errors
    /// As [`Cli::run`].
    pub async fn run_with_input<A: AsRef<OsStr> + Debug>(
        &self,
        args: impl IntoIterator<Item = A>,
        input: &[u8],
    ) -> Result<Output> {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).spawn().with_context(|| format!("{command:?} can't start"))?;
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        let finished = async {
            // A command that does not read its input closes it: nothing is wrong with that.
            drop(stdin.write_all(input).await);
            drop(stdin);
            child.wait_with_output().await
        };
        let Ok(output) = tokio::time::timeout(LIMIT, finished).await else {
            bail!("{command:?} has not ended within {LIMIT:?}");
        };
        let output = output?;
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
