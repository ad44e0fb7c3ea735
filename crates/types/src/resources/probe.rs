//! How the platform asks an instance whether it lives and whether it may get sessions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_default;

/// A question to a container, asked again and again. One of `httpGet` and `tcpSocket` is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    /// Succeeds when the answer's status is 200 to 399.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGetAction>,
    /// Succeeds when the port takes a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocketAction>,
    /// Seconds from the container's start to the first try. Default 0.
    pub initial_delay_seconds: u32,
    /// Seconds from one try to the next. Default 10.
    pub period_seconds: u32,
    /// Seconds after which a try has failed. Default 1.
    pub timeout_seconds: u32,
    /// Tries that must fail one after the other for the probe to fail. Default 3.
    pub failure_threshold: u32,
    /// Tries that must succeed one after the other for the probe to succeed again. Default 1.
    pub success_threshold: u32,
}

impl Default for Probe {
    fn default() -> Probe {
        Probe {
            http_get: None,
            tcp_socket: None,
            initial_delay_seconds: 0,
            period_seconds: 10,
            timeout_seconds: 1,
            failure_threshold: 3,
            success_threshold: 1,
        }
    }
}

/// An HTTP request as probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct HttpGetAction {
    /// Path of the request. Default `/`.
    #[serde(default = "root")]
    pub path: String,
    /// The port: its number, or its name in the container's ports.
    pub port: PortRef,
    /// Headers of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_headers: Vec<HttpHeader>,
}

fn root() -> String {
    "/".to_owned()
}

/// A header of a probe's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct HttpHeader {
    /// Name of the header.
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "is_default")]
    pub value: String,
}

/// A connection as probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct TcpSocketAction {
    /// The port: its number, or its name in the container's ports.
    pub port: PortRef,
}

/// A port by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    /// Its number.
    Number(u16),
    /// Its name in the container's ports.
    Name(String),
}

impl JsonSchema for PortRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PortRef".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})
    }

    fn inline_schema() -> bool {
        true
    }
}
