//! What every object has: name, identity, versions, labels, and who manages which of its fields. The names and meanings are
//! those of Kubernetes (`k8s.io/apimachinery/pkg/apis/meta/v1`).

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::is_default;
use crate::Timestamp;

/// A point in time, to the second, as Kubernetes writes it (RFC 3339 in UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(Timestamp);

impl Time {
    /// The time as Lyra's own type.
    pub fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Time {
        Time(Timestamp::from_millis(time.millis().div_euclid(1_000) * 1_000))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0.millis()) {
            Ok(time) => write!(f, "{time:.0}"),
            Err(_) => write!(f, "{}ms", self.0.millis()),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        Timestamp::deserialize(deserializer).map(Time::from)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// Metadata of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// Name, unique in its namespace among objects of its kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Start of a name that the server completes when none is given.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub generate_name: String,
    /// The tenant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Identity of this object over its life; another object of the same name has another.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The store's revision that last changed the object. Not stored in the object: it is set when the object is read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Counts changes of `spec`.
    #[serde(skip_serializing_if = "is_default")]
    pub generation: i64,
    /// When the object was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Time>,
    /// When the object is to be gone; set by a delete request, never by a client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Time>,
    /// Seconds of grace that the delete request gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_grace_period_seconds: Option<i64>,
    /// Labels, to select objects by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Notes of tools.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Objects that this one belongs to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
    /// Who must let go before a deleted object disappears.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
    /// Which manager set which fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub managed_fields: Vec<ManagedFieldsEntry>,
}

/// An object that another one belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// API group and version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Identity of the owner.
    pub uid: String,
    /// Whether it is the one that manages the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether the owner's deletion waits for the object, where it is asked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// The fields that one manager set by one kind of request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct ManagedFieldsEntry {
    /// Name of the manager.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// Version of the fields.
    pub api_version: String,
    /// When the entry was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Always `FieldsV1`.
    pub fields_type: String,
    /// The fields, as a tree.
    pub fields_v1: serde_json::Value,
    /// `status` where the fields were set by the status subresource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It is not known.
    #[default]
    Unknown,
}

/// One aspect of an object's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect.
    pub r#type: String,
    /// Whether it holds: True, False or Unknown.
    pub status: ConditionStatus,
    /// The `metadata.generation` that the condition is about.
    #[serde(default, skip_serializing_if = "is_default")]
    pub observed_generation: i64,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// Why, in one CamelCase word.
    #[serde(default)]
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
}

impl Condition {
    /// Puts a condition into a list in place of the one of its type. The time of the last transition stays where `status` does.
    pub fn set(conditions: &mut Vec<Condition>, mut condition: Condition) {
        match conditions.iter_mut().find(|known| known.r#type == condition.r#type) {
            Some(known) => {
                if known.status == condition.status {
                    condition.last_transition_time = known.last_transition_time;
                }
                *known = condition;
            }
            None => conditions.push(condition),
        }
    }
}
