//! etcd: one member, or several that form a cluster.

use std::path::Path;

use anyhow::Result;

use super::program::{Listen, Place, Program, answers};

/// One running member of etcd. Killed when it is dropped.
#[derive(Debug)]
pub struct Etcd {
    program: Program,
    client: Listen,
    health: Listen,
    _peer: Listen,
}

impl Etcd {
    /// Starts a cluster of one member, with no data.
    ///
    /// # Errors
    /// When it is not installed, or does not become ready.
    pub async fn start() -> Result<Etcd> {
        Ok(Etcd::launch(&[Place::Loopback], None).await?.remove(0))
    }

    /// Starts a cluster of one member that takes only clients with a certificate: `tls` holds `ca.pem`, `cert.pem`
    /// and `key.pem`.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub async fn start_with_tls(tls: &Path) -> Result<Etcd> {
        Ok(Etcd::launch(&[Place::Loopback], Some(tls)).await?.remove(0))
    }

    /// Starts a cluster of so many members, with no data.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub async fn cluster(members: usize) -> Result<Vec<Etcd>> {
        Etcd::launch(&vec![Place::Loopback; members], None).await
    }

    /// Starts a cluster of one member at each place, with no data; clients reach them at port 2379 where the place is a
    /// host.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub async fn cluster_at(places: &[Place<'_>]) -> Result<Vec<Etcd>> {
        Etcd::launch(places, None).await
    }

    async fn launch(places: &[Place<'_>], tls: Option<&Path>) -> Result<Vec<Etcd>> {
        let mut ports = Vec::with_capacity(places.len());
        for place in places {
            ports.push((place.listen(2379).await?, place.listen(2380).await?, place.listen(2381).await?));
        }
        let cluster: Vec<String> =
            ports.iter().enumerate().map(|(i, ports)| format!("m{i}=http://{}", ports.1.address)).collect();
        let cluster = cluster.join(",");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut started = Vec::with_capacity(places.len());
        for (i, ((client, peer, health), place)) in ports.into_iter().zip(places).enumerate() {
            let mut program = Program::new("etcd", "apt-get install etcd-server", *place)?;
            let data = program.data().display().to_string();
            let mut args = vec![
                format!("--name=m{i}"),
                format!("--data-dir={data}"),
                format!("--listen-client-urls={scheme}://{}", client.address),
                format!("--advertise-client-urls={scheme}://{}", client.address),
                format!("--listen-metrics-urls=http://{}", health.address),
                format!("--listen-peer-urls=http://{}", peer.address),
                format!("--initial-advertise-peer-urls=http://{}", peer.address),
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

    /// `ADDRESS:PORT`, for clients.
    pub fn address(&self) -> String {
        self.client.address.to_string()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        self.program.log()
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
        let address = self.health.address;
        self.program.start(move || answers(address, "/health", |status| status == 200)).await
    }
}
