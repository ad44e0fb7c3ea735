//! The platform that the tour is taken on: all roles, in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use lyra_node::embedded::{Config, Error, Node};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest that the node may take to drain.
const STOP: Duration = Duration::from_secs(30);

/// A node with a temporary directory of its own, gone when this is dropped; stop the node before.
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
    /// A place for a node that is not started yet.
    pub fn prepare() -> std::io::Result<Running> {
        let directory = tempfile::Builder::new().prefix("lyra-demo-").tempdir()?;
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(Running { directory, address: anywhere, serving: None })
    }

    /// Starts the node: on a free port the first time, then at the same address.
    pub async fn start(&mut self) -> Result<()> {
        let mut config = Config::new(self.data_dir(), self.address);
        config.helper = Some(lyra_node::child::this_program());
        let node = Box::pin(Node::start(config)).await?;
        self.address = node.addr();
        let shutdown = CancellationToken::new();
        let task = lyra_kit::tasks::spawn("demo node", node.run_until(shutdown.clone()));
        self.serving = Some(Serving { shutdown, task });
        Ok(())
    }

    /// Stops the node, if it runs.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(Serving { shutdown, task }) = self.serving.take() else { return Ok(()) };
        shutdown.cancel();
        let ended = tokio::time::timeout(STOP, task).await.context("the node did not stop in time")?;
        ended.context("the node crashed")??;
        Ok(())
    }

    /// Where the node keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
