//! etcd: one member, or several that form a cluster.

use anyhow::Result;

use super::program::{Program, answers, free_port};

/// One running member of etcd. Killed when it is dropped.
#[derive(Debug)]
pub struct Etcd {
    program: Program,
    port: u16,
}

impl Etcd {
    /// Starts a cluster of one member, with no data.
    ///
    /// # Errors
    /// When it is not installed, or does not become ready.
    pub async fn start() -> Result<Etcd> {
        let mut members = Etcd::cluster(1).await?;
        Ok(members.remove(0))
    }

    /// Starts a cluster of so many members, with no data.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub async fn cluster(members: usize) -> Result<Vec<Etcd>> {
        let mut ports = Vec::with_capacity(members);
        for _ in 0..members {
            ports.push((free_port().await?, free_port().await?));
        }
        let cluster: Vec<String> =
            ports.iter().enumerate().map(|(i, (_, peer))| format!("m{i}=http://127.0.0.1:{peer}")).collect();
        let cluster = cluster.join(",");
        let mut started = Vec::with_capacity(members);
        for (i, (port, peer)) in ports.into_iter().enumerate() {
            let mut program = Program::new("etcd", "apt-get install etcd-server")?;
            let data = program.data().display().to_string();
            program.args([
                format!("--name=m{i}"),
                format!("--data-dir={data}"),
                format!("--listen-client-urls=http://127.0.0.1:{port}"),
                format!("--advertise-client-urls=http://127.0.0.1:{port}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster={cluster}"),
                "--initial-cluster-state=new".to_owned(),
                "--log-level=warn".to_owned(),
            ]);
            started.push(Etcd { program, port });
        }
        // A member is ready once there is a leader, so none can be waited for before the others are started.
        futures::future::try_join_all(started.iter_mut().map(Etcd::restart)).await?;
        Ok(started)
    }

    /// `127.0.0.1:PORT`, for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.program.kill().await
    }

    /// Sends a signal by name: `STOP`, `CONT`, …
    ///
    /// # Errors
    /// When it does not run.
    pub async fn signal(&self, name: &str) -> Result<()> {
        self.program.signal(name).await
    }

    /// Starts it again, at the same address and on the same data.
    ///
    /// # Errors
    /// When it runs still, or does not become ready.
    pub async fn restart(&mut self) -> Result<()> {
        let port = self.port;
        self.program.start(move || answers(port, "/health", |status| status == 200)).await
    }
}
