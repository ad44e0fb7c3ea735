//! Containers: what runs in an instance of an application. A part of Kubernetes' `core/v1` Container, and `function` beside
//! `image`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Probe, Quantity, is_default};

/// A program that runs in an instance. One of `image` and `function` is set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name, unique among the containers of the application.
    pub name: String,
    /// Container image. Needs a worker with a container engine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// When the image is pulled: Always, IfNotPresent or Never. Versions are pulled once, ahead of the first session.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image_pull_policy: String,
    /// A function of the same tenant as the code: NAME, NAME@VERSION or NAME@ALIAS. Needs no container engine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub function: String,
    /// Program and first arguments, in place of the image's entry point.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments, in place of the image's command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Directory that the program starts in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Environment variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Ports that sessions are reached at. Each becomes an endpoint of the session.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ContainerPort>,
    /// What an instance is given.
    #[serde(skip_serializing_if = "is_default")]
    pub resources: ResourceRequirements,
    /// When it fails, the instance is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,
    /// While it fails, the instance gets no session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
}

/// A port that a container listens on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name, unique in the application.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The number, 1 to 65535.
    pub container_port: u32,
    /// TCP or UDP. Default TCP.
    pub protocol: Protocol,
}

/// Protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// `TCP` or `UDP`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        }
    }
}

/// What an instance is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default)]
pub struct ResourceRequirements {
    /// Most that it may use: `memory`, `cpu`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
    /// What is set aside for it: `memory` (default: its limit), `cpu` (default: nothing; instances share what there is, each up to its limit).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
}
