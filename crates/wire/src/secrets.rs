//! Secrets: what gateways ask of the control role about them, and what workers fetch.
//!
//! Values go two ways only: in, with [`PutSecret`], and to workers that start instances, with [`SecretValue`]. Nothing else here has
//! room for one.

use lyra_types::{FunctionName, SecretBytes, SecretName, TenantName, Timestamp};
use serde::{Deserialize, Serialize};

/// A secret of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretKey {
    /// Owner.
    pub tenant: TenantName,
    /// Name.
    pub name: SecretName,
}

/// What is known of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretInfo {
    /// Which.
    pub key: SecretKey,
    /// How many values it has had.
    pub version: u64,
    /// Functions with a version that is given it.
    pub functions: Vec<FunctionName>,
    /// Applications that name it.
    #[serde(default)]
    pub applications: Vec<String>,
    /// When it was first set.
    pub created_at: Timestamp,
    /// When it was set last.
    pub updated_at: Timestamp,
}

/// A value to set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutSecret {
    /// Of which secret.
    pub key: SecretKey,
    /// The value.
    pub value: SecretBytes,
}

/// What setting a secret did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretPut {
    /// The secret as it is now.
    pub info: SecretInfo,
    /// There was none of that name before.
    pub created: bool,
}

/// A secret's value, for an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretValue {
    /// Differs between any two values that a secret of this name ever had.
    pub stamp: u64,
    /// The value.
    pub value: SecretBytes,
}

/// A key of the control role's key file, or one that something is sealed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingKey {
    /// What names it: the beginning of a hash of it.
    pub id: String,
    /// It seals what is set from now on.
    pub seals: bool,
    /// It is in the key file of the process that answers.
    pub known: bool,
    /// Secrets that it has sealed.
    pub secrets: u64,
}

/// What a change to the first key of the file did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resealed {
    /// The key that all secrets are sealed with now.
    pub key: String,
    /// Secrets that were sealed with another one before.
    pub resealed: u64,
}
