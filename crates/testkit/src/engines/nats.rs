//! A NATS server with JetStream.

use anyhow::Result;

use super::program::{Program, answers, free_port};

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// Further lines of its configuration file: users, certificates.
    pub config: String,
}

/// A running NATS server. Killed when it is dropped.
#[derive(Debug)]
pub struct Nats {
    program: Program,
    port: u16,
    monitor: u16,
}

impl Nats {
    /// Starts a server with no data.
    ///
    /// # Errors
    /// When it is not installed, or does not become ready.
    pub async fn start() -> Result<Nats> {
        Nats::start_with(&NatsOptions::default()).await
    }

    /// Starts a server with no data.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn start_with(options: &NatsOptions) -> Result<Nats> {
        let mut program = Program::new("nats-server", "apt-get install nats-server")?;
        let (port, monitor) = (free_port().await?, free_port().await?);
        let config = program.directory.path().join("nats.conf");
        let data = program.data();
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\nmax_payload: 8MB\njetstream {{ store_dir: {data:?} }}\n{}\n",
            options.config
        );
        std::fs::write(&config, text)?;
        program.args(["-c".to_owned(), config.display().to_string()]);
        let mut nats = Nats { program, port, monitor };
        nats.restart().await?;
        Ok(nats)
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
        let monitor = self.monitor;
        self.program.start(move || answers(monitor, "/healthz", |status| status == 200)).await
    }
}
