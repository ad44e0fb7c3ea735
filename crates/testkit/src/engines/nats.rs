//! A NATS server with JetStream.

use anyhow::Result;

use super::program::{Listen, Place, Program, answers};

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// Further lines of its configuration file: users, certificates.
    pub config: String,
}

/// A running NATS server, alone or a member of a cluster. Killed when it is dropped.
#[derive(Debug)]
pub struct Nats {
    program: Program,
    client: Listen,
    monitor: Listen,
    _route: Option<Listen>,
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
        Nats::start_at(Place::Loopback, options).await
    }

    /// Starts a server with no data, at port 4222 where the place is a host.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn start_at(place: Place<'_>, options: &NatsOptions) -> Result<Nats> {
        let mut nats = Nats::prepared(place, None, &options.config).await?;
        nats.restart().await?;
        Ok(nats)
    }

    /// Starts a cluster of one member at each place, with no data, at port 4222 where the place is a host.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub async fn cluster_at(places: &[Place<'_>]) -> Result<Vec<Nats>> {
        let mut routes = Vec::with_capacity(places.len());
        for place in places {
            routes.push(place.listen(6222).await?);
        }
        let all: Vec<_> = routes.iter().map(|route| format!("\"nats://{}\"", route.address)).collect();
        let all = all.join(", ");
        let mut members = Vec::with_capacity(places.len());
        for (number, (place, route)) in (1..).zip(places.iter().zip(routes)) {
            let listen = route.address;
            let config =
                format!("server_name: n{number}\ncluster {{ name: lyra, listen: \"{listen}\", routes: [{all}] }}\n");
            members.push(Nats::prepared(*place, Some(route), &config).await?);
        }
        // None is ready before most are there.
        futures::future::try_join_all(members.iter_mut().map(Nats::restart)).await?;
        Ok(members)
    }

    /// Nothing runs yet.
    async fn prepared(place: Place<'_>, route: Option<Listen>, further: &str) -> Result<Nats> {
        let mut program = Program::new("nats-server", "apt-get install nats-server", place)?;
        let (client, monitor) = (place.listen(4222).await?, place.listen(8222).await?);
        let config = program.directory.path().join("nats.conf");
        let data = program.data();
        let text = format!(
            "listen: \"{}\"\nhttp: \"{}\"\njetstream {{ store_dir: {data:?} }}\n{further}\n",
            client.address, monitor.address
        );
        std::fs::write(&config, text)?;
        program.args(["-c".to_owned(), config.display().to_string()]);
        Ok(Nats { program, client, monitor, _route: route })
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
        let monitor = self.monitor.address;
        self.program.start(move || answers(monitor, "/healthz", |status| status == 200)).await
    }
}
