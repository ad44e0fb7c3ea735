//! etcd: one member, or several that form a cluster.

use std::path::Path;

use anyhow::Result;

use super::program::{Port, Program, answers};

/// One running member of etcd. Killed when it is dropped.
#[derive(Debug)]
pub struct Etcd {
    program: Program,
    client: Port,
    health: Port,
    _peer: Port,
}

impl Etcd {
    /// Starts a cluster of one member, with no data.
    ///
    /// # Errors
    /// When it is not installed, or does not become ready.
    pub async fn start() -> Result<Etcd> {
        Ok(Etcd::launch(1, None).await?.remove(0))
    }

    /// Starts a cluster of one member that takes only clients with a certificate: `tls` holds `ca.pem`, `cert.pem`
    /// and `key.pem`.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub async fn start_with_tls(tls: &Path) -> Result<Etcd> {
        Ok(Etcd::launch(1, Some(tls)).await?.remove(0))
    }

    /// Starts a cluster of so many members, with no data.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub async fn cluster(members: usize) -> Result<Vec<Etcd>> {
        Etcd::launch(members, None).await
    }

    async fn launch(members: usize, tls: Option<&Path>) -> Result<Vec<Etcd>> {
        let mut ports = Vec::with_capacity(members);
        for _ in 0..members {
            ports.push((Port::free().await?, Port::free().await?, Port::free().await?));
        }
        let cluster: Vec<String> =
            ports.iter().enumerate().map(|(i, ports)| format!("m{i}=http://127.0.0.1:{}", ports.1.number())).collect();
        let cluster = cluster.join(",");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut started = Vec::with_capacity(members);
        for (i, (client, peer, health)) in ports.into_iter().enumerate() {
            let mut program = Program::new("etcd", "apt-get install etcd-server")?;
            let data = program.data().display().to_string();
            let mut args = vec![
                format!("--name=m{i}"),
                format!("--data-dir={data}"),
                format!("--listen-client-urls={scheme}://127.0.0.1:{}", client.number()),
                format!("--advertise-client-urls={scheme}://127.0.0.1:{}", client.number()),
                format!("--listen-metrics-urls=http://127.0.0.1:{}", health.number()),
                format!("--listen-peer-urls=http://127.0.0.1:{}", peer.number()),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{}", peer.number()),
                format!("--initial-cluster={cluster}"),
                "--initial-cluster-state=new".to_owned(),
                "--log-level=warn".to_owned(),
            ];
            if let Some(tls) = tls {
                let file = |name: &str| tls.join(name).display().to_string();
                args.push("--client-cert-auth".to_owned());
                args.push(format!("--trusted-ca-file={}", file("ca.pem")));
                args.push(format!("--cert-file={}", file("cert.pem")));
                args.push(format!("--key-file={}", file("key.pem")));
            }
            program.args(args);
            started.push(Etcd { program, client, health, _peer: peer });
        }
        // A member is ready once there is a leader, so none can be waited for before the others are started.
        futures::future::try_join_all(started.iter_mut().map(Etcd::restart)).await?;
        Ok(started)
    }

    /// `127.0.0.1:PORT`, for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.client.number())
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
        let port = self.health.number();
        self.program.start(move || answers(port, "/health", |status| status == 200)).await
    }
}
