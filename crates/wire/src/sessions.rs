//! Sessions on workers: what the leader has a worker do for applications, what the worker says of them, and what gateways
//! are told of where sessions are.
//!
//! A worker holds *standing* instances of application versions: started, without a session. A session takes one, or has one
//! started, and owns it until it ends. What a worker has accepted it keeps over its own restart; a session ends where it
//! is told to, where its program ends, or where its worker is given up as lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lyra_types::resources::{Probe, Protocol};
use lyra_types::{FunctionVersion, InstanceId, SecretName, TenantName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::worker::InstanceState;

/// A version of an application.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AppKey {
    /// Owner.
    pub tenant: TenantName,
    /// The application's name.
    pub application: String,
    /// Identity of the application: another one of the same name has another.
    pub uid: String,
    /// Number of the version, from 1.
    pub version: u64,
}

impl std::fmt::Display for AppKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{}", self.tenant, self.application, self.version)
    }
}

/// A port that an application's program listens on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AppPort {
    /// Its name; may be empty.
    pub name: String,
    /// Its number in the instance.
    pub port: u16,
    /// What comes over it.
    pub protocol: Protocol,
}

/// What can be read by an application's instances, and may change while they run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AppConfig {
    /// Grows with each change.
    pub revision: u64,
    /// Content of files by name, under `config/`.
    pub files: BTreeMap<String, String>,
}

/// A version of an application as workers know it. Never changes, but for its configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppVersion {
    /// Which one it is.
    pub key: AppKey,
    /// Its code; with the environment, memory and processor time that its container asks for.
    pub function: Arc<FunctionVersion>,
    /// Processor time that is set aside for an instance, in thousandths of a core. Its limit is the function's.
    #[serde(default)]
    pub cpu_request: u32,
    /// Ports, each of which becomes an endpoint of the session.
    pub ports: Vec<AppPort>,
    /// Whether the program speaks with the session service, and says itself when a session is open. Else a session is open
    /// as soon as the instance is ready.
    pub service: bool,
    /// An instance that fails it is replaced; a session ends with it.
    pub liveness: Option<Probe>,
    /// Until it succeeds an instance stands for no session.
    pub readiness: Option<Probe>,
    /// What can be read in it, as of when this was sent.
    pub config: Arc<AppConfig>,
    /// Secrets that can be read in it, too, beside those that its function is given. Workers fetch their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretName>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionKey {
    /// Owner.
    pub tenant: TenantName,
    /// The session's name.
    pub name: String,
    /// Its identity: another one of the same name has another.
    pub uid: String,
}

/// A session to be opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Which one.
    pub key: SessionKey,
    /// What it runs.
    pub app: Arc<AppVersion>,
    /// What the program is given.
    pub data: String,
    /// Time in which it must have become available, from when this is received.
    pub timeout: Duration,
    /// Time that the program is given to end where the worker closes the session by itself.
    pub close_grace: Duration,
    /// Whether the instance may serve another session of the same version afterwards.
    pub reuse: bool,
    /// Standing instances of the version that the worker holds from now on; see [`SessionCommand::Stand`].
    pub standing: u32,
}

/// What the leader has a worker do. All of it may be said again, to the same effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SessionCommand {
    /// Have the version's code ready. Done when it is.
    Preload(Arc<AppVersion>),
    /// Hold so many standing instances of the version from now on: start what is missing, end what is too much. Done when
    /// that is stored.
    Stand(Arc<AppVersion>, u32),
    /// Hold none of this version any more, and forget it once its sessions have ended.
    Dismiss(AppKey),
    /// Open a session: in a standing instance, else in one that is started for it. Done when the worker has stored that the
    /// session is its own; what becomes of it is reported.
    Open(Box<OpenSession>),
    /// Close the session of this identity: the program is asked to end within this time, and killed then.
    Close(String, Duration),
    /// The configuration of an application has changed, in all its versions.
    Configure {
        /// Owner.
        tenant: TenantName,
        /// Identity of the application.
        uid: String,
        /// What it is now.
        config: Arc<AppConfig>,
    },
    /// That this session has ended is recorded: the worker need not report it any more.
    Forget(String),
}

/// Standing instances that a worker was told to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// Of what.
    pub app: AppKey,
    /// How many; none where it holds none any more.
    pub instances: u32,
}

/// An instance of an application, as a worker reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostedReport {
    /// Its id.
    pub id: InstanceId,
    /// The one version that it serves.
    pub app: AppKey,
    /// Where it is in its life: `Creating` until it is ready, `Standby` or `Hibernated` while it stands, `Active` while it
    /// has a session, `Terminated` when it is gone.
    pub state: InstanceState,
    /// Identity of its session.
    pub session: Option<String>,
    /// Bytes of memory that are charged for it.
    pub memory: u64,
    /// Why it failed, where it did.
    #[serde(default)]
    pub why: Option<String>,
}

/// Where a session on a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SessionPhase {
    /// Its instance is being started, or was told of it.
    Starting,
    /// It is open.
    Open,
    /// Its program was told to end it.
    Closing,
    /// It has ended; see [`SessionReport::reason`].
    Closed,
}

/// Why a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SessionEnd {
    /// It was told to.
    Closed,
    /// Its program ended it.
    ByProgram,
    /// It did not become available in time.
    OpenTimeout,
    /// Its program would not open it.
    Refused,
    /// Its instance ended, or no longer answered.
    InstanceLost,
}

impl SessionEnd {
    /// One word for conditions and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            SessionEnd::Closed => "Closed",
            SessionEnd::ByProgram => "ClosedByProgram",
            SessionEnd::OpenTimeout => "OpenTimeout",
            SessionEnd::Refused => "RefusedByProgram",
            SessionEnd::InstanceLost => "InstanceLost",
        }
    }
}

/// A port of a session's instance, as it is reached on its worker's node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeEndpoint {
    /// The port in the instance.
    pub port: AppPort,
    /// Where it is reached.
    pub address: SocketAddr,
}

/// A session on a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Which one.
    pub key: SessionKey,
    /// What it runs.
    pub app: AppKey,
    /// Its instance, once it has one.
    pub instance: Option<InstanceId>,
    /// Where it is in its life.
    pub phase: SessionPhase,
    /// Its ports, in the order of [`AppVersion::ports`]; while it is open.
    pub endpoints: Vec<NodeEndpoint>,
    /// Clients that the program says are in it.
    pub clients: Vec<String>,
    /// When it became available, in microseconds since 1970.
    pub available_micros: Option<i64>,
    /// Why it has ended, and the same for people.
    pub end: Option<(SessionEnd, String)>,
}

/// A session as gateways route to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRoute {
    /// Which one.
    pub key: SessionKey,
    /// Name of its application.
    pub application: String,
    /// Name of its worker.
    pub worker: String,
    /// Its ports on the node, and the port on gateways that leads to each, where there is one.
    pub endpoints: Vec<(NodeEndpoint, Option<u16>)>,
}

/// A change of sessions, for gateways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionEvent {
    /// A session is open, or reached elsewhere than before.
    Put(Arc<SessionRoute>),
    /// A session of this tenant and identity is not open any more.
    Remove(TenantName, String),
    /// All open sessions have been told.
    Synced,
}

/// Name of the session of an application that a key means. Gateways find it by themselves where it is open; control opens it
/// under this name.
///
/// It holds the beginning of the application's name, for people, and 128 bits of SHA-256 over name and key, and is never longer
/// than 63 characters, so that it is a label of a host name.
pub fn name_by_key(application: &str, key: &str) -> String {
    let digest = Sha256::new().chain_update(application).chain_update([0]).chain_update(key).finalize();
    let front = application.get(..30).unwrap_or(application).replace('.', "-");
    let front = front.trim_end_matches('-');
    let mut name = String::with_capacity(front.len() + 33);
    name.push_str(front);
    name.push('-');
    name.push_str(&hex::encode(&digest[..16]));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_means_one_session_of_one_application() {
        let name = name_by_key("chat", "ada");
        assert_eq!(name, name_by_key("chat", "ada"));
        assert!(name.starts_with("chat-") && name.len() == 37, "{name}");
        for other in [("chat", "bob"), ("chat", ""), ("cha", "tada"), ("chata", "da")] {
            assert_ne!(name, name_by_key(other.0, other.1));
        }
        let long = name_by_key(&format!("{}.-{}", "a".repeat(28), "b".repeat(200)), &"k".repeat(1_000));
        assert_eq!(long.len(), 28 + 33, "{long}");
        assert!(long.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{long}");
    }
}
