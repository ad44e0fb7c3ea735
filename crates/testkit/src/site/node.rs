//! One process of `lyra node` on a host: started, ended in every way, started again.

use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout};

use crate::hosts::Host;
use crate::server::{START, STOP};

#[derive(Debug)]
pub(super) struct Node {
    pub(super) role: &'static str,
    pub(super) host: Host,
    pub(super) binary: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) log: PathBuf,
    pub(super) child: Option<(Child, BufReader<ChildStdout>)>,
}

impl Node {
    /// Starts it and waits until it says that it is ready.
    pub(super) async fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs still", self.host.name());
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.host.command(&self.binary);
        command.args(&self.arguments).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("{command:?} can't start"))?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut line = String::new();
        let read = tokio::time::timeout(START, stdout.read_line(&mut line)).await;
        if !(matches!(read, Ok(Ok(_))) && line.contains(" ready on ")) {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            bail!("{} is not ready; stdout {line:?}, stderr:\n{log}", self.host.name());
        }
        self.child = Some((child, stdout));
        Ok(())
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(|(child, _)| child.id())
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        kill_process(pid.with_context(|| format!("{} does not run", self.host.name()))?, signal)?;
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    pub(super) async fn kill(&mut self) -> Result<()> {
        let (mut child, _) = self.child.take().with_context(|| format!("{} does not run", self.host.name()))?;
        child.kill().await?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub(super) async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let (mut child, _) = self.child.take().with_context(|| format!("{} does not run", self.host.name()))?;
        let ended = tokio::time::timeout(STOP, child.wait()).await;
        Ok(ended.with_context(|| format!("{} did not end within {STOP:?}", self.host.name()))??)
    }
}
