//! The two streams in JetStream: records, which keep the last message of each name, and data, which keeps large payloads.
//!
//! Both are laid out as NATS' key-value buckets are, so that `nats kv` can show them. A record is only ever
//! replaced at the sequence that its writer has read: so of two writers one wins. A write whose answer was lost
//! is repeated as it was: either it had not happened, or the repetition is refused and the record names its writer.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, StorageType, Stream};
use bytes::Bytes;
use lyra_kit::Clock;
use lyra_types::JobId;

use super::record::{Name, Payload, wrote};
use crate::StoreError;
use crate::nats::{Channel, NatsSettings, Sent};

/// The header by which key-value buckets mark what was deleted.
const OPERATION_HEADER: &str = "KV-Operation";
const DELETED: &str = "DEL";

/// Outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It happened, with this sequence.
    Done(u64),
    /// It happened, and was overtaken by another since.
    Overtaken,
    /// Somebody else was first: it did not happen.
    Conflict,
}

/// A record, or the mark of a deleted one.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) sequence: u64,
    /// `None` where it was deleted.
    pub(super) body: Option<Bytes>,
}

/// Both streams.
#[derive(Clone)]
pub(super) struct Bucket {
    channel: Channel,
    pub(super) records: Stream,
    data: Stream,
    name: String,
}

impl Bucket {
    /// Makes the streams that are not there.
    pub(super) async fn open(client: async_nats::Client, settings: &NatsSettings) -> Result<Bucket, StoreError> {
        const OPERATION: &str = "open the jobs' streams";
        let channel = Channel::new(client, settings);
        let name = settings.bucket.clone();
        let config = |name: &str, description: &str| Config {
            name: format!("KV_{name}"),
            subjects: vec![format!("$KV.{name}.>")],
            description: Some(description.to_owned()),
            max_messages_per_subject: 1,
            storage: StorageType::File,
            num_replicas: settings.replicas,
            allow_rollup: true,
            // Reads go to the stream's leader: a follower can be behind.
            allow_direct: false,
            ..Config::default()
        };
        let records = channel.stream(config(&name, "Lyra: jobs and idempotency keys"), OPERATION).await?;
        let data = config(&format!("{name}-data"), "Lyra: large events and results of jobs");
        let data = channel.stream(data, OPERATION).await?;
        Ok(Bucket { channel, records, data, name })
    }

    pub(super) fn subject(&self, name: &Name) -> String {
        format!("$KV.{}.{name}", self.name)
    }

    /// The name of what stands under a subject.
    pub(super) fn name_of(&self, subject: &str) -> Option<Name> {
        Name::parse(subject.strip_prefix("$KV.")?.strip_prefix(&*self.name)?.strip_prefix('.')?)
    }

    fn data_subject(&self, id: JobId) -> String {
        format!("$KV.{}-data.{id}", self.name)
    }

    pub(super) fn token(&self) -> u64 {
        self.channel.token()
    }

    pub(super) fn clock(&self) -> &Clock {
        self.channel.clock()
    }

    pub(super) async fn back_off(&self, tries: u32) {
        self.channel.back_off(tries).await;
    }

    /// The record of this name, as the stream's leader has it.
    pub(super) async fn get(&self, name: &Name) -> Result<Option<Found>, StoreError> {
        let found = self.channel.last(&self.records, &self.subject(name), "read a record").await?;
        Ok(found.map(|message| {
            let deleted = is_deleted(&message.headers);
            Found { sequence: message.sequence, body: (!deleted).then_some(message.payload) }
        }))
    }

    /// Replaces what was read with `expected` (0: nothing) by a record that names `token` among its writers, or marks it as
    /// deleted.
    pub(super) async fn put(&self, name: &Name, expected: u64, body: Option<(Bytes, u64)>) -> Result<Put, StoreError> {
        let mut headers = HeaderMap::new();
        if body.is_none() {
            headers.insert(OPERATION_HEADER, DELETED);
        }
        let bytes = body.as_ref().map_or_else(Bytes::new, |(bytes, _)| bytes.clone());
        match self.channel.send_after(&self.subject(name), expected, headers, bytes).await? {
            Sent::Done(sequence) => Ok(Put::Done(sequence)),
            Sent::Refused => Ok(Put::Conflict),
            Sent::Unclear => self.who_was_first(name, body).await,
        }
    }

    /// After a write whose answer was lost was refused the second time.
    async fn who_was_first(&self, name: &Name, body: Option<(Bytes, u64)>) -> Result<Put, StoreError> {
        let found = self.get(name).await?;
        Ok(match (found, body) {
            (Some(Found { sequence, body: None }), None) => Put::Done(sequence),
            (None, None) => Put::Overtaken,
            (Some(Found { sequence, body: Some(there) }), Some((ours, token))) if wrote(&there, token) => {
                if there == ours { Put::Done(sequence) } else { Put::Overtaken }
            }
            _ => Put::Conflict,
        })
    }

    /// Puts a large payload into the data stream, before the record that names it.
    pub(super) async fn put_payload(&self, id: JobId, payload: &Payload, bytes: Bytes) -> Result<(), StoreError> {
        self.channel.put_payload(&self.data_subject(id), payload, &bytes).await
    }

    /// Reads a payload.
    pub(super) async fn payload(&self, id: JobId, payload: &Payload) -> Result<Bytes, StoreError> {
        self.channel.payload(&self.data, &self.data_subject(id), payload).await
    }

    /// Deletes one payload of a job.
    pub(super) async fn drop_payload(&self, id: JobId, payload: &Payload) -> Result<(), StoreError> {
        match payload {
            Payload::Stored { name, .. } => {
                self.channel.purge(&self.data, &format!("{}.{name}.*", self.data_subject(id))).await
            }
            _ => Ok(()),
        }
    }

    /// Deletes all payloads of a job.
    pub(super) async fn drop_payloads(&self, id: JobId) -> Result<(), StoreError> {
        self.channel.purge(&self.data, &format!("{}.>", self.data_subject(id))).await
    }

    /// Deletes the mark of a deleted record, for good.
    pub(super) async fn forget(&self, sequence: u64) -> Result<(), StoreError> {
        self.channel.forget(&self.records, sequence).await
    }

    /// Ids of the jobs that have payloads in the data stream.
    pub(super) async fn with_payloads(&self) -> Result<Vec<JobId>, StoreError> {
        let prefix = format!("$KV.{}-data.", self.name);
        let subjects = self.channel.subjects(&self.data, &format!("{prefix}>")).await?;
        let mut ids: Vec<JobId> = subjects
            .iter()
            .filter_map(|subject| subject.strip_prefix(&prefix)?.split('.').next()?.parse().ok())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// Whether these are the headers of a deleted record's mark.
pub(super) fn is_deleted(headers: &HeaderMap) -> bool {
    headers.get(OPERATION_HEADER).is_some()
}
