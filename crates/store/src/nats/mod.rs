//! What jobs and runs on NATS JetStream share: how it is reached, asked again, and followed, and how what is large stands
//! apart from the record that names it.
//!
//! What must hold: a write that expects a sequence happens once or not at all, and its caller learns which; every request
//! has a deadline. What the records mean is for those who use this to say.

mod channel;
mod follow;
mod payload;

use std::path::PathBuf;
use std::time::Duration;

use async_nats::ConnectOptions;
use lyra_kit::Clock;
use tokio::sync::watch;

use crate::StoreError;

pub(crate) use channel::{ATTEMPT, Channel, Sent};
pub(crate) use follow::{Follower, From, Heard};
pub(crate) use payload::Payload;

/// Which NATS, and how it is asked.
#[derive(Clone)]
pub struct NatsSettings {
    /// `HOST:PORT` of each server.
    pub servers: Vec<String>,
    /// User and password, if there are any.
    pub user: Option<(String, String)>,
    /// A `.creds` file, as NATS' tools write it.
    pub credentials: Option<PathBuf>,
    /// Connect by TLS; trust the authorities of this directory's `ca.pem`, and show its `cert.pem`. Without a
    /// directory the system's authorities are trusted.
    pub tls: Option<Option<PathBuf>>,
    /// Name of the streams: letters, digits, `-`, `_`.
    pub bucket: String,
    /// Copies of each stream: 1, or 3 in a cluster. Only asked for when the streams are made.
    pub replicas: usize,
    /// Longest for a request with all its tries.
    pub deadline: Duration,
    /// This process' clock; those of others may show different times.
    pub clock: Clock,
}

impl std::fmt::Debug for NatsSettings {
    /// Credentials are never shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsSettings")
            .field("servers", &self.servers)
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

impl NatsSettings {
    /// The defaults: bucket `lyra-jobs` (what opens runs says `lyra-runs`), one copy, 30 s in all.
    pub fn new(servers: Vec<String>) -> NatsSettings {
        NatsSettings {
            servers,
            user: None,
            credentials: None,
            tls: None,
            bucket: "lyra-jobs".to_owned(),
            replicas: 1,
            deadline: Duration::from_secs(30),
            clock: Clock::system(),
        }
    }

    /// Connects; also tells of each connection that is made, the first included.
    pub(crate) async fn connect(&self) -> Result<(async_nats::Client, watch::Receiver<u64>), StoreError> {
        const OPERATION: &str = "connect to NATS";
        let mut options = ConnectOptions::new()
            .name("lyra")
            .connection_timeout(Duration::from_secs(5))
            .ping_interval(Duration::from_secs(10));
        let (made, connections) = watch::channel(0);
        options = options.event_callback(move |event| {
            if event == async_nats::Event::Connected {
                made.send_modify(|made| *made += 1);
            }
            std::future::ready(())
        });
        if let Some((user, password)) = &self.user {
            options = options.user_and_password(user.clone(), password.clone());
        }
        if let Some(file) = &self.credentials {
            options =
                options.credentials_file(file).await.map_err(StoreError::file("read the credentials for NATS"))?;
        }
        if let Some(dir) = &self.tls {
            options = options.require_tls(true);
            if let Some(dir) = dir {
                options = options.add_root_certificates(dir.join("ca.pem"));
                if dir.join("cert.pem").is_file() {
                    options = options.add_client_certificate(dir.join("cert.pem"), dir.join("key.pem"));
                }
            }
        }
        let servers: Vec<String> = self.servers.iter().map(|server| format!("nats://{server}")).collect();
        let connected = tokio::time::timeout(self.deadline, options.connect(servers)).await;
        match connected {
            Ok(client) => Ok((client.map_err(StoreError::remote(OPERATION))?, connections)),
            Err(_) => Err(StoreError::remote(OPERATION)("no answer in time")),
        }
    }
}
