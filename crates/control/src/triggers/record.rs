//! What is stored of triggers.

use bytes::Bytes;
use lyra_store::objects::{Change, Entry};
use lyra_types::trigger::{NatsSource, TriggerCounts, TriggerRequest, TriggerState, TriggerView};
use lyra_types::{Error, JobId, Result, TenantName, Timestamp, TriggerName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What the keys of all triggers begin with.
pub(super) const ALL: &str = "triggers/";
/// What the keys of all consumers begin with that are of no use any more.
pub(super) const LEFTOVERS: &str = "trigger-leftovers/";
const STANDINGS: &str = "trigger-standings/";
const BATCHES: &str = "trigger-batches/";

/// A trigger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Drawn when it was made, and anew when its source is changed: the batches and the consumer of another one are not this one's.
    pub(super) uid: u64,
    pub(super) trigger: TriggerRequest,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

/// How a trigger stands, as whoever leads has seen it last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// Of which trigger of this name.
    pub(super) uid: u64,
    pub(super) state: TriggerState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lag: Option<u64>,
    pub(super) counts: TriggerCounts,
}

/// A batch of messages that is under way: written before its job is handed in, and deleted once NATS has surely kept that all its
/// messages are acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flight {
    /// Its job, under an id that was made before.
    pub(super) job: JobId,
    /// Its messages, by their numbers in the stream.
    pub(super) sequences: Vec<u64>,
    /// Where each is acknowledged, in the same order.
    pub(super) acks: Vec<String>,
    /// Whether it was begun by this session, so that nobody else can have acknowledged its messages.
    #[serde(skip)]
    pub(super) own: bool,
    /// Whether its job has ended and its messages were acknowledged.
    #[serde(default)]
    pub(super) landed: bool,
}

/// A consumer at NATS that nobody needs any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leftover {
    pub(super) name: TriggerName,
    pub(super) source: NatsSource,
    pub(super) since: Timestamp,
}

/// What the keys of a tenant begin with.
pub(crate) fn of_tenant(tenant: &TenantName) -> [String; 4] {
    [ALL, STANDINGS, BATCHES, LEFTOVERS].map(|prefix| format!("{prefix}{tenant}/"))
}

pub(super) fn key(tenant: &TenantName, name: &TriggerName) -> String {
    format!("{ALL}{tenant}/{name}")
}

pub(super) fn standing_key(tenant: &TenantName, name: &TriggerName) -> String {
    format!("{STANDINGS}{tenant}/{name}")
}

/// What the keys of the batches of a trigger begin with.
pub(super) fn flights_of(tenant: &TenantName, name: &TriggerName) -> String {
    format!("{BATCHES}{tenant}/{name}/")
}

/// The key of a batch, by its trigger's identity and its job.
pub(super) fn flight_key(tenant: &TenantName, name: &TriggerName, uid: u64, job: JobId) -> String {
    format!("{}{uid:016x}/{job}", flights_of(tenant, name))
}

pub(super) fn leftover_key(tenant: &TenantName, uid: u64) -> String {
    format!("{LEFTOVERS}{tenant}/{uid:016x}")
}

/// Takes the key of a trigger apart.
pub(super) fn parse_key(key: &str) -> Option<(TenantName, TriggerName)> {
    let (tenant, name) = key.strip_prefix(ALL)?.split_once('/')?;
    Some((TenantName::new(tenant).ok()?, TriggerName::new(name).ok()?))
}

/// Takes the key of a leftover apart.
pub(super) fn parse_leftover(key: &str) -> Option<(TenantName, u64)> {
    let (tenant, uid) = key.strip_prefix(LEFTOVERS)?.split_once('/')?;
    Some((TenantName::new(tenant).ok()?, u64::from_str_radix(uid, 16).ok()?))
}

pub(super) fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T> {
    serde_json::from_slice(&entry.value).map_err(|error| {
        tracing::error!(key = %entry.key, %error, "a record of a trigger can't be read");
        Error::internal("a stored trigger can't be read")
    })
}

pub(super) fn put(key: String, value: &impl Serialize) -> Result<Change> {
    let json = serde_json::to_vec(value).map_err(|_| Error::internal("the trigger can't be stored"))?;
    Ok(Change::Put(key, Bytes::from(json)))
}

impl Record {
    pub(super) fn view(&self, name: TriggerName, standing: Option<Standing>) -> TriggerView {
        let standing = standing.filter(|standing| standing.uid == self.uid).unwrap_or_default();
        let state = match (self.trigger.paused, self.trigger.source.nats()) {
            (true, _) => TriggerState::Paused,
            (false, None) => TriggerState::Active,
            (false, Some(_)) => match standing.state {
                TriggerState::Paused => TriggerState::Starting,
                state => state,
            },
        };
        TriggerView {
            name,
            trigger: self.trigger.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            state,
            error: standing.error,
            lag: standing.lag,
            counts: standing.counts,
        }
    }
}
