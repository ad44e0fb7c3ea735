//! Applications: code whose instances are held ready for sessions.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{API_VERSION, Condition, Container, ObjectMeta, Time, is_default};

/// An application: code whose instances are held ready, one for each session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Application {
    /// Always `lyra.dev/v1`.
    pub api_version: String,
    /// Always `Application`.
    pub kind: String,
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: ApplicationSpec,
    /// What is.
    #[serde(skip_serializing_if = "is_default")]
    pub status: ApplicationStatus,
}

impl Default for Application {
    fn default() -> Application {
        Application {
            api_version: API_VERSION.to_owned(),
            kind: "Application".to_owned(),
            metadata: ObjectMeta::default(),
            spec: ApplicationSpec::default(),
            status: ApplicationStatus::default(),
        }
    }
}

/// What is wanted of an application. A change of anything but `scalingPolicy` and `configData` makes a new version; open sessions stay on theirs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationSpec {
    /// What runs in an instance: one container or more.
    pub containers: Vec<Container>,
    /// Whether the program talks to the session server through an SDK, and says itself when a session is open. Where false, a session is open as soon as the instance is ready. Default false.
    pub using_node_session_service: bool,
    /// Configuration of the application: each entry is a read-only file in the instance, rewritten when it changes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub config_data: BTreeMap<String, String>,
    /// Names of secrets of the tenant: each is a read-only file in the instance.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// How many instances are held.
    pub scaling_policy: ScalingPolicy,
}

/// How many instances are held. May be changed without making a new version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingPolicy {
    /// Fewest instances that are held without a session. Default 0.
    pub minimum_instance: u32,
    /// Most instances, with and without a session. 1 or more; must be given.
    pub maximum_instance: u32,
    /// Most instances that are started or ended at once. Default 2 (also for 0).
    pub burst: u32,
    /// What the number of idle instances is measured by: idle_session_number or idle_session_percent. Must be given.
    pub scaling_policy_type: ScalingPolicyType,
    /// Idle instances: more are started below `low`, and ended above `high`. Both 0: instances are started on demand only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_session_num_threshold: Option<Threshold>,
    /// Idle instances, in percent of all: more are started below `low`, and ended above `high`. At most 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_session_percent_threshold: Option<Threshold>,
}

/// What the number of idle instances is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "snake_case")]
pub enum ScalingPolicyType {
    /// Not given; not valid.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// By their number.
    IdleSessionNumber,
    /// By their share of all.
    IdleSessionPercent,
}

/// A range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(default)]
pub struct Threshold {
    /// Upper end. Default 0.
    pub high: u32,
    /// Lower end. Default 0.
    pub low: u32,
}

/// What an application is at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationStatus {
    /// The version that new sessions get. Versions count from 1 and never change.
    pub version: u64,
    /// The `metadata.generation` that this status is about.
    #[serde(skip_serializing_if = "is_default")]
    pub observed_generation: i64,
    /// Instances that are wanted now.
    pub desired_instances: u32,
    /// Instances that are there, also those that start or end.
    pub total_instances: u32,
    /// Instances that start.
    pub pending_instances: u32,
    /// Instances that end.
    pub deleting_instances: u32,
    /// Instances that have a session.
    pub allocated_instances: u32,
    /// Instances that are ready and have no session.
    pub idle_instances: u32,
    /// Instances that are ready, with or without a session.
    pub ready_instances: u32,
    /// What was last done for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_history: Option<DeploymentHistory>,
    /// What was done for it, newest first; the last few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<DeploymentHistory>,
    /// Versions that still have instances or sessions, and the current one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<ApplicationVersion>,
    /// Aspects of its state: Ready, Progressing, Busy and others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// One version of an application.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplicationVersion {
    /// Its number.
    pub version: u64,
    /// Whether its code is on the workers.
    pub preloaded: bool,
    /// Its instances, also those that start or end.
    pub instances: u32,
    /// Its instances that are ready and have no session.
    pub idle_instances: u32,
    /// Its open sessions.
    pub sessions: u32,
}

/// Something that was done for an application.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentHistory {
    /// What was done.
    pub action: DeploymentAction,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_time: Option<Time>,
    /// Why, in a few words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Details for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// How it went.
    pub deployment_status: DeploymentStatus,
}

/// What was done for an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DeploymentAction {
    /// Instances were started.
    #[default]
    CreateInstance,
    /// Instances were ended.
    DeleteInstance,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DeploymentStatus {
    /// All of it was done.
    #[default]
    Success,
    /// Some of it was done.
    PartialSuccess,
    /// Nothing of it was done.
    Failure,
}
