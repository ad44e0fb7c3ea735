//! Accounts as they are stored. Passwords stand there as Argon2id hashes, tokens as SHA-256.

use bytes::Bytes;
use lyra_store::objects::{Change, Entry};
use lyra_types::{Error, Result, Role, Scopes, TenantName, Timestamp, TokenId, UserName};
use lyra_wire::accounts::{Tenant, TenantState, Token, TokenHash, User};
use serde::{Deserialize, Serialize};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TenantRecord {
    /// Drawn anew each time that a tenant of this name is made: what belonged to one before is not this one's.
    pub(super) uid: u64,
    pub(super) created_at: Timestamp,
    pub(super) state: TenantState,
}

impl TenantRecord {
    pub(super) fn show(&self, name: &TenantName) -> Tenant {
        Tenant { name: name.clone(), state: self.state, created_at: Some(self.created_at) }
    }
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserRecord {
    /// As for tenants.
    pub(super) uid: u64,
    /// Of the tenant.
    pub(super) tenant_uid: u64,
    pub(super) role: Role,
    /// Argon2id, in the form of the Password Hashing Competition (`$argon2id$v=19$…`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<String>,
    pub(super) created_at: Timestamp,
}

impl UserRecord {
    pub(super) fn show(&self, tenant: &TenantName, name: &UserName) -> User {
        User {
            tenant: tenant.clone(),
            name: name.clone(),
            role: self.role,
            has_password: self.password.is_some(),
            created_at: self.created_at,
        }
    }
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    #[serde(with = "as_hex")]
    pub(super) hash: TokenHash,
    pub(super) name: String,
    /// Name and [`TenantRecord::uid`]; `None`: an operator's.
    pub(super) tenant: Option<(TenantName, u64)>,
    /// Name and [`UserRecord::uid`]; `None`: the tenant's.
    pub(super) user: Option<(UserName, u64)>,
    pub(super) scopes: Scopes,
    pub(super) login: bool,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
}

impl TokenRecord {
    pub(super) fn show(&self, id: TokenId) -> Token {
        Token {
            id,
            name: self.name.clone(),
            tenant: self.tenant.as_ref().map(|(name, _)| name.clone()),
            user: self.user.as_ref().map(|(name, _)| name.clone()),
            scopes: self.scopes,
            login: self.login,
            created_at: self.created_at,
            expires_at: self.expires_at,
        }
    }

    /// Whether it is this user's.
    pub(super) fn is_of(&self, tenant: &TenantName, user: &UserName) -> bool {
        self.tenant.as_ref().is_some_and(|(name, _)| name == tenant)
            && self.user.as_ref().is_some_and(|(name, _)| name == user)
    }

    pub(super) fn has_ended(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// Reads a record; one that can't be read is none, and the log says so.
pub(super) fn read<T: serde::de::DeserializeOwned>(entry: &Entry) -> Option<T> {
    match serde_json::from_slice(&entry.value) {
        Ok(value) => Some(value),
        Err(error) => {
            // The error of the parser could quote the value.
            tracing::error!(key = entry.key, line = error.line(), column = error.column(), "an account can't be read");
            None
        }
    }
}

/// Writes a record.
pub(super) fn put(key: String, record: &impl Serialize) -> Result<Change> {
    let json = serde_json::to_vec(record).map_err(|error| {
        tracing::error!(key, %error, "an account can't be written");
        Error::internal("the account can't be stored")
    })?;
    Ok(Change::Put(key, Bytes::from(json)))
}

/// A hash as text.
mod as_hex {
    use lyra_wire::accounts::TokenHash;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &TokenHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TokenHash, D::Error> {
        let mut hash = TokenHash::default();
        let text = String::deserialize(deserializer)?;
        hex::decode_to_slice(text, &mut hash).map_err(|_| serde::de::Error::custom("not a hash"))?;
        Ok(hash)
    }
}
