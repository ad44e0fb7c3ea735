//! The two streams in JetStream: records, which keep the last message of each name, and data, which keeps large payloads.
//!
//! Both are laid out as NATS' key-value buckets are, so that `nats kv` can show them. A record is only ever
//! replaced at the sequence that its writer has read: so of two writers one wins. A write whose answer was lost
//! is repeated as it was: either it had not happened, or the repetition is refused and the record names its writer.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::{Config, LastRawMessageErrorKind, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use bytes::{Bytes, BytesMut};
use lyra_kit::retry::Backoff;
use lyra_kit::{Clock, Random};
use lyra_types::JobId;

use super::NatsSettings;
use super::record::{Name, PART, Payload, wrote};
use crate::StoreError;

/// The header by which key-value buckets mark what was deleted.
const OPERATION_HEADER: &str = "KV-Operation";
const DELETED: &str = "DEL";
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// Longest for one try.
const ATTEMPT: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(1) };

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
    context: Context,
    pub(super) records: Stream,
    data: Stream,
    name: String,
    deadline: Duration,
    clock: Clock,
    random: Random,
}

fn failed<E: std::fmt::Display>(operation: &'static str) -> impl Fn(E) -> StoreError {
    StoreError::remote(operation)
}

impl Bucket {
    /// Makes the streams that are not there.
    pub(super) async fn open(client: async_nats::Client, settings: &NatsSettings) -> Result<Bucket, StoreError> {
        const OPERATION: &str = "open the jobs' streams";
        let mut context = jetstream::new(client);
        context.set_timeout(ATTEMPT);
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
        let make = |config: Config| async {
            let config = config;
            let found = context.get_or_create_stream(config.clone()).await.map_err(failed(OPERATION))?;
            let replicas = found.cached_info().config.num_replicas;
            if replicas != config.num_replicas {
                tracing::warn!(
                    stream = config.name,
                    replicas,
                    asked = config.num_replicas,
                    "the stream keeps its number of replicas"
                );
            }
            Ok::<Stream, StoreError>(found)
        };
        let records = make(config(&name, "Lyra: jobs and idempotency keys")).await?;
        let data = make(config(&format!("{name}-data"), "Lyra: large events and results of jobs")).await?;
        let (clock, random) = (Clock::system(), Random::system());
        Ok(Bucket { context, records, data, name, deadline: settings.deadline, clock, random })
    }

    pub(super) fn subject(&self, name: &Name) -> String {
        format!("$KV.{}.{name}", self.name)
    }

    /// The name of what stands under a subject.
    pub(super) fn name_of(&self, subject: &str) -> Option<Name> {
        Name::parse(subject.strip_prefix("$KV.")?.strip_prefix(&*self.name)?.strip_prefix('.')?)
    }

    fn data_subject(&self, id: JobId, rest: &str) -> String {
        format!("$KV.{}-data.{id}.{rest}", self.name)
    }

    pub(super) fn token(&self) -> u64 {
        self.random.u64()
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) async fn back_off(&self, tries: u32) {
        self.clock.sleep(BACKOFF.delay(tries, &self.random)).await;
    }

    /// Repeats what may be repeated until it works or the deadline has passed.
    async fn persist<T, E, F, Fut>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        E: std::fmt::Display,
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let end = self.clock.instant() + self.deadline;
        let mut tries = 0;
        loop {
            let outcome = tokio::time::timeout(ATTEMPT, work()).await;
            let detail = match outcome {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            tries += 1;
            if self.clock.instant() >= end {
                return Err(StoreError::Remote { operation, detail });
            }
            tracing::debug!(operation, detail, "NATS is asked again");
            self.back_off(tries).await;
        }
    }

    /// The record of this name, as the stream's leader has it.
    pub(super) async fn get(&self, name: &Name) -> Result<Option<Found>, StoreError> {
        let subject = &*self.subject(name);
        self.persist("read a record", || async move {
            match self.records.get_last_raw_message_by_subject(subject).await {
                Ok(message) => {
                    let deleted = is_deleted(&message.headers);
                    Ok(Some(Found { sequence: message.sequence, body: (!deleted).then_some(message.payload) }))
                }
                Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Replaces what was read with `expected` (0: nothing) by a record that names `token` among its writers, or marks it as
    /// deleted.
    pub(super) async fn put(&self, name: &Name, expected: u64, body: Option<(Bytes, u64)>) -> Result<Put, StoreError> {
        const OPERATION: &str = "write a record";
        let subject = self.subject(name);
        let end = self.clock.instant() + self.deadline;
        let mut tries = 0;
        loop {
            let mut headers = HeaderMap::new();
            headers.insert(EXPECTED, expected.to_string().as_str());
            if body.is_none() {
                headers.insert(OPERATION_HEADER, DELETED);
            }
            let bytes = body.as_ref().map_or_else(Bytes::new, |(bytes, _)| bytes.clone());
            let asked = async { self.context.publish_with_headers(subject.clone(), headers, bytes).await?.await };
            let detail = match tokio::time::timeout(ATTEMPT, asked).await {
                Ok(Ok(ack)) => return Ok(Put::Done(ack.sequence)),
                Ok(Err(error)) => match error.kind() {
                    PublishErrorKind::WrongLastSequence if tries == 0 => return Ok(Put::Conflict),
                    PublishErrorKind::WrongLastSequence => return self.who_was_first(name, body).await,
                    PublishErrorKind::MaxPayloadExceeded => {
                        return Err(StoreError::TooLarge { operation: OPERATION, detail: error.to_string() });
                    }
                    _ => error.to_string(),
                },
                Err(_) => "no answer in time".to_owned(),
            };
            tries += 1;
            if self.clock.instant() >= end {
                return Err(StoreError::Indeterminate { operation: OPERATION, detail });
            }
            tracing::warn!(detail, "the answer of NATS to a write was lost; it is repeated");
            self.back_off(tries).await;
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
        let Payload::Stored { name, .. } = payload else { return Ok(()) };
        for (number, part) in bytes.chunks(PART).enumerate() {
            let (subject, part) = (&self.data_subject(id, &format!("{name}.{number}")), &bytes.slice_ref(part));
            // The same again where an answer is lost.
            self.persist("write a payload", || async move {
                self.context.publish(subject.clone(), part.clone()).await?.await
            })
            .await?;
        }
        Ok(())
    }

    /// Reads a payload.
    pub(super) async fn payload(&self, id: JobId, payload: &Payload) -> Result<Bytes, StoreError> {
        const OPERATION: &str = "read a payload";
        let (size, name) = match payload {
            Payload::None => return Ok(Bytes::new()),
            Payload::Inline(bytes) => return Ok(bytes.clone()),
            Payload::Stored { bytes, name } => (*bytes, name),
        };
        let mut whole = BytesMut::with_capacity(size);
        for number in 0..size.div_ceil(PART) {
            let subject = &*self.data_subject(id, &format!("{name}.{number}"));
            let part = self
                .persist(OPERATION, || async move {
                    match self.data.get_last_raw_message_by_subject(subject).await {
                        Ok(message) => Ok(Some(message.payload)),
                        Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
                        Err(error) => Err(error),
                    }
                })
                .await?;
            let Some(part) = part else {
                return Err(StoreError::Damaged {
                    operation: OPERATION,
                    detail: format!("part {number} of {id} is missing"),
                });
            };
            whole.extend_from_slice(&part);
        }
        if whole.len() != size {
            return Err(StoreError::Damaged {
                operation: OPERATION,
                detail: format!("{id} has another size than it should"),
            });
        }
        Ok(whole.freeze())
    }

    /// Deletes one payload of a job.
    pub(super) async fn drop_payload(&self, id: JobId, payload: &Payload) -> Result<(), StoreError> {
        match payload {
            Payload::Stored { name, .. } => self.purge_data(&self.data_subject(id, &format!("{name}.*"))).await,
            _ => Ok(()),
        }
    }

    /// Deletes all payloads of a job.
    pub(super) async fn drop_payloads(&self, id: JobId) -> Result<(), StoreError> {
        self.purge_data(&self.data_subject(id, ">")).await
    }

    async fn purge_data(&self, filter: &str) -> Result<(), StoreError> {
        self.persist("delete payloads", || async move { self.data.purge().filter(filter).await }).await?;
        Ok(())
    }

    /// Deletes the mark of a deleted record, for good.
    pub(super) async fn forget(&self, sequence: u64) -> Result<(), StoreError> {
        let asked = tokio::time::timeout(ATTEMPT, self.records.delete_message(sequence)).await;
        match asked {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.to_string().contains("no message found") => Ok(()),
            Ok(Err(error)) => Err(failed("forget a deleted record")(error)),
            Err(_) => Err(failed("forget a deleted record")("no answer in time")),
        }
    }

    /// Ids of the jobs that have payloads in the data stream.
    pub(super) async fn with_payloads(&self) -> Result<Vec<JobId>, StoreError> {
        use futures::TryStreamExt;
        const OPERATION: &str = "list payloads";
        let listed = self.data.info_with_subjects(self.data_subject_filter()).await.map_err(failed(OPERATION))?;
        let subjects: Vec<(String, usize)> = listed.try_collect().await.map_err(failed(OPERATION))?;
        let prefix = format!("$KV.{}-data.", self.name);
        let mut ids: Vec<JobId> = subjects
            .iter()
            .filter_map(|(subject, _)| subject.strip_prefix(&prefix)?.split('.').next()?.parse().ok())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    fn data_subject_filter(&self) -> String {
        format!("$KV.{}-data.>", self.name)
    }
}

/// Whether these are the headers of a deleted record's mark.
pub(super) fn is_deleted(headers: &HeaderMap) -> bool {
    headers.get(OPERATION_HEADER).is_some()
}
