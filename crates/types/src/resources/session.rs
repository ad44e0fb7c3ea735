//! Sessions: one instance of an application each, with an endpoint of its own, from open to close.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{API_VERSION, Condition, ObjectMeta, Protocol, Time, is_default};

/// A session: one instance of an application with an endpoint of its own. Creating the object opens it, deleting closes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSession {
    /// Always `lyra.dev/v1`.
    pub api_version: String,
    /// Always `ApplicationSession`.
    pub kind: String,
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: ApplicationSessionSpec,
    /// What is.
    #[serde(skip_serializing_if = "is_default")]
    pub status: ApplicationSessionStatus,
}

impl Default for ApplicationSession {
    fn default() -> ApplicationSession {
        ApplicationSession {
            api_version: API_VERSION.to_owned(),
            kind: "ApplicationSession".to_owned(),
            metadata: ObjectMeta::default(),
            spec: ApplicationSessionSpec::default(),
            status: ApplicationSessionStatus::default(),
        }
    }
}

/// What is wanted of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSessionSpec {
    /// Name of the application, in the same namespace. Never changes.
    pub application_name: String,
    /// What the program is given when the session opens; Lyra does not look into it. Never changes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session_data: String,
    /// Whether the instance is destroyed when the session has closed. Where false, it may serve another session of the same application. Default true.
    pub kill_instance_when_session_closed: bool,
    /// Seconds that the program is given to end by itself when the session closes. Default 60.
    pub close_grace_period_seconds: u32,
    /// Seconds in which the session must become available; else it ends as Timeout. Default 10 (also for 0).
    pub open_timeout_seconds: u32,
    /// Seconds after which a session that has ended is deleted. Default 300.
    pub ttl_seconds_after_finished: u32,
}

impl Default for ApplicationSessionSpec {
    fn default() -> ApplicationSessionSpec {
        ApplicationSessionSpec {
            application_name: String::new(),
            session_data: String::new(),
            kill_instance_when_session_closed: true,
            close_grace_period_seconds: 60,
            open_timeout_seconds: 10,
            ttl_seconds_after_finished: 300,
        }
    }
}

/// What a session is at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSessionStatus {
    /// Pending, Starting, Available, InUse, Closing, Closed or Timeout.
    pub session_status: SessionStatus,
    /// Where clients reach the session: one for each port of the application's containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_end_points: Vec<AccessEndPoint>,
    /// Clients that are in the session. While there is one, the session is InUse.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client_sessions: Vec<LocalObjectReference>,
    /// When the session became available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_time: Option<Time>,
    /// The same in microseconds since 1970, for measurements.
    #[serde(skip_serializing_if = "is_default")]
    pub available_time_micro: i64,
    /// When the session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_time: Option<Time>,
    /// The version of the application that the session has.
    #[serde(skip_serializing_if = "is_default")]
    pub application_version: u64,
    /// The instance that the session has.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// Why the session is at what it is at, in one CamelCase word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The same for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Aspects of its state: Scheduled, Available and others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// States of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum SessionStatus {
    /// Not seen by the platform yet.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// Waits for an instance.
    Pending,
    /// Has an instance, which was told to open it.
    Starting,
    /// Open, without clients.
    Available,
    /// Open, with clients.
    InUse,
    /// Was told to end.
    Closing,
    /// Has ended.
    Closed,
    /// Has ended, since it did not become available in time.
    Timeout,
}

impl SessionStatus {
    /// The name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            SessionStatus::Unset => "",
            SessionStatus::Pending => "Pending",
            SessionStatus::Starting => "Starting",
            SessionStatus::Available => "Available",
            SessionStatus::InUse => "InUse",
            SessionStatus::Closing => "Closing",
            SessionStatus::Closed => "Closed",
            SessionStatus::Timeout => "Timeout",
        }
    }

    /// Whether the session has ended; it stays so.
    pub const fn has_ended(self) -> bool {
        matches!(self, SessionStatus::Closed | SessionStatus::Timeout)
    }
}

/// Where clients reach a session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessEndPoint {
    /// Name of the container's port, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Address to connect to.
    pub ip_address: String,
    /// Port to connect to.
    pub port: u32,
    /// The same endpoint over HTTP and WebSocket, by path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A client of a session, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default)]
pub struct LocalObjectReference {
    /// The name.
    pub name: String,
}
