//! What stands in JetStream for a run: one message for each batch or change of owner, each with all that is known of the
//! run by then.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lyra_types::workflow::RunStatus;
use lyra_types::{RunId, TenantName, Timestamp, WorkflowName};
use serde::{Deserialize, Serialize};

use crate::StoreError;
use crate::nats::Payload;
use crate::runs::{NewRunRecord, RunRecord};

/// A run as it stands after a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) workflow: WorkflowName,
    pub(super) version: u64,
    pub(super) fingerprint: String,
    pub(super) status: RunStatus,
    pub(super) created_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) owner: u64,
    pub(super) fence: u64,
    /// How many batches there are.
    pub(super) batches: u64,
    /// In base64.
    pub(super) summary: String,
    pub(super) output: Payload,
    /// The sequence of the run's first message; 0 in that message itself, which can't know it.
    pub(super) order: u64,
    /// Where its payloads stand: a run of the same id that is made later has another place.
    pub(super) place: Place,
    /// What its owner wants to happen when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) notice: Option<String>,
    /// Whether it has ended, and that was not passed on yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) owed: bool,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) state: State,
    /// A random number, by which a writer whose answer was lost knows its own message.
    pub(super) token: u64,
    /// What the run was made with; in its first message alone.
    #[serde(default, skip_serializing_if = "is_none")]
    pub(super) head: Payload,
    /// The batch that came with this message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) batch: Option<Payload>,
}

fn is_none(payload: &Payload) -> bool {
    *payload == Payload::None
}

/// A message with its sequence.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) entry: Entry,
    pub(super) sequence: u64,
}

/// Name of the place where the payloads of one run, or of one kept result, stand: when it was made and a random number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Place(pub(super) String);

impl Place {
    pub(super) fn new(now: Timestamp, token: u64) -> Place {
        Place(format!("{:x}-{token:x}", now.millis().max(0)))
    }

    /// When it was made, in milliseconds since the epoch.
    pub(super) fn made(&self) -> Option<i64> {
        i64::from_str_radix(self.0.split_once('-')?.0, 16).ok()
    }
}

impl State {
    pub(super) fn new(run: &NewRunRecord, place: Place) -> State {
        State {
            workflow: run.workflow.clone(),
            version: run.version,
            fingerprint: hex::encode(run.fingerprint),
            status: RunStatus::Running,
            created_at: run.now,
            ended_at: None,
            owner: run.owner,
            fence: 1,
            batches: 1,
            summary: STANDARD.encode(&run.summary),
            output: Payload::None,
            order: 0,
            place,
            notice: run.notice.as_deref().map(str::to_owned),
            owed: false,
        }
    }

    pub(super) fn set_summary(&mut self, summary: &[u8]) {
        self.summary = STANDARD.encode(summary);
    }

    pub(super) fn summary(&self) -> Bytes {
        STANDARD.decode(&self.summary).map(Bytes::from).unwrap_or_default()
    }

    /// The run, for the caller.
    pub(super) fn record(&self, name: &Name) -> RunRecord {
        RunRecord {
            tenant: name.tenant.clone(),
            id: name.id.clone(),
            workflow: self.workflow.clone(),
            version: self.version,
            status: self.status,
            created_at: self.created_at,
            ended_at: self.ended_at,
            summary: self.summary(),
            order: self.order,
        }
    }
}

/// JSON, as it is stored.
pub(super) fn encode<T: Serialize>(entry: &T) -> Result<Bytes, StoreError> {
    serde_json::to_vec(entry)
        .map(Bytes::from)
        .map_err(|error| StoreError::Damaged { operation: "write a run's record", detail: error.to_string() })
}

pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Damaged { operation: "read a run's record", detail: error.to_string() })
}

impl Found {
    /// A message as it was stored.
    pub(super) fn read(bytes: &[u8], sequence: u64) -> Result<Found, StoreError> {
        let mut entry: Entry = decode(bytes)?;
        if entry.state.order == 0 {
            entry.state.order = sequence;
        }
        Ok(Found { entry, sequence })
    }
}

/// A run's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) tenant: TenantName,
    pub(super) id: RunId,
}

impl Name {
    /// From the two last words of a subject.
    pub(super) fn parse(text: &str) -> Option<Name> {
        let (tenant, id) = text.split_once('.')?;
        Some(Name { tenant: TenantName::new(tenant).ok()?, id: RunId::new(&id.replace('=', ".")).ok()? })
    }
}

impl std::fmt::Display for Name {
    /// As in subjects, where a dot parts words: `=` stands for it, which ids do not have.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.tenant, self.id.as_str().replace('.', "="))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_id_makes_one_word_of_a_subject_and_is_read_back(id in "[A-Za-z0-9_.-]{1,128}") {
            let name = Name { tenant: TenantName::default_tenant(), id: RunId::new(&id).unwrap() };
            let text = name.to_string();
            prop_assert_eq!(text.split('.').count(), 2);
            prop_assert!(text.split('.').all(|word| !word.is_empty()));
            prop_assert_eq!(Name::parse(&text), Some(name));
        }
    }

    #[test]
    fn a_place_says_when_it_was_made() {
        assert_eq!(Place::new(Timestamp::from_millis(1_234), 7).made(), Some(1_234));
        assert_eq!(Place("x".into()).made(), None);
    }
}
