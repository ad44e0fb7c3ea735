//! Bodies about secrets. None of those that are sent out has a value in it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Secret, Timestamp};

/// Body of `PUT /v1/secrets/{name}`: the value, in exactly one form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRequest {
    /// The value as text: 1 byte to 24 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Secret>,
    /// The value's bytes in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<Secret>,
}

/// What is known of a secret; never its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretView {
    /// Name, unique in the tenant.
    pub name: String,
    /// Owner.
    pub tenant: String,
    /// How many values it has had.
    pub version: u64,
    /// Functions with a version that is given it.
    pub functions: Vec<String>,
    /// Applications that name it.
    #[serde(default)]
    pub applications: Vec<String>,
    /// When it was first set.
    pub created_at: Timestamp,
    /// When it was set last.
    pub updated_at: Timestamp,
}

/// A key that seals secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretKeyView {
    /// What names it: the beginning of a hash of it.
    pub id: String,
    /// It seals what is set from now on.
    pub seals: bool,
    /// It is in the key file of the control process that was asked.
    pub known: bool,
    /// Secrets that it has sealed.
    pub secrets: u64,
}

/// The keys that are known or in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretKeysView {
    /// Those of the key file in their order, then those that are in use and not known.
    pub keys: Vec<SecretKeyView>,
}

/// What a change to the first key of the file did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResealedView {
    /// The key that all secrets are sealed with now.
    pub key: String,
    /// Secrets that were sealed with another one before.
    pub resealed: u64,
}
