//! The platform that the tour is taken on: all roles, in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lyra_node::embedded::{Config, Error, Node};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest that the node may take to drain.
const STOP: Duration = Duration::from_secs(30);

/// A running node with a temporary directory of its own, gone when this is dropped.
pub struct Running {
    directory: TempDir,
    address: SocketAddr,
    serving: Option<Serving>,
}

struct Serving {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Starts a node on a free port.
    pub async fn start() -> Result<Running> {
        let directory = tempfile::Builder::new().prefix("lyra-demo-").tempdir().context("no temporary directory")?;
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut running = Running { directory, address: anywhere, serving: None };
        running.serve().await?;
        Ok(running)
    }

    async fn serve(&mut self) -> Result<()> {
        let config = Config::new(self.data_dir(), self.address);
        let node = Box::pin(Node::start(config)).await?;
        self.address = node.addr();
        let shutdown = CancellationToken::new();
        let task = lyra_kit::tasks::spawn("demo node", node.run_until(shutdown.clone()));
        self.serving = Some(Serving { shutdown, task });
        Ok(())
    }

    async fn drain(&mut self) -> Result<()> {
        let Serving { shutdown, task } = self.serving.take().context("the node does not run")?;
        shutdown.cancel();
        let ended = tokio::time::timeout(STOP, task).await.context("the node did not stop in time")?;
        ended.context("the node crashed")??;
        Ok(())
    }

    /// Stops the node and starts it again, on the same data and at the same address.
    pub async fn restart(&mut self) -> Result<()> {
        self.drain().await?;
        self.serve().await
    }

    /// Stops the node for good.
    pub async fn stop(mut self) -> Result<()> {
        self.drain().await
    }

    /// Where the node keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.scratch().join("data")
    }

    fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
