//! Requests to JetStream, repeated until they are answered or their deadline has passed.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use lyra_kit::retry::Backoff;
use lyra_kit::{Clock, Random};

use super::NatsSettings;
use super::payload::{PART, Payload};
use crate::StoreError;

const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// Longest for one try.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(1) };

/// Outcome of a write that expects a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It happened, with this sequence.
    Done(u64),
    /// Somebody else was first: it did not happen.
    Refused,
    /// An answer was lost, and the same again was refused: whoever reads what is there finds out who wrote it.
    Unclear,
}

/// A connection, and how long it is waited for.
#[derive(Clone)]
pub(crate) struct Channel {
    context: Context,
    deadline: Duration,
    clock: Clock,
    random: Random,
}

fn failed<E: std::fmt::Display>(operation: &'static str) -> impl Fn(E) -> StoreError {
    StoreError::remote(operation)
}

fn overlaps(error: &CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_SUBJECT_OVERLAP)
}

impl Channel {
    pub(crate) fn new(client: async_nats::Client, settings: &NatsSettings) -> Channel {
        let mut context = jetstream::new(client);
        context.set_timeout(ATTEMPT);
        Channel { context, deadline: settings.deadline, clock: settings.clock.clone(), random: Random::system() }
    }

    /// Longest for a request with all its tries.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A number to tell one write from another.
    pub(crate) fn token(&self) -> u64 {
        self.random.u64()
    }

    pub(crate) async fn back_off(&self, tries: u32) {
        self.clock.sleep(BACKOFF.delay(tries, &self.random)).await;
    }

    /// The stream of this name, made if it is not there.
    pub(crate) async fn stream(&self, config: Config, operation: &'static str) -> Result<Stream, StoreError> {
        /// Tries where the server says that the subjects belong to another stream: while somebody else makes this very one,
        /// it says so too (nats-server 2.9).
        const OVERLAPS: u32 = 5;
        let mut tries = 0;
        let found = loop {
            match self.context.get_or_create_stream(config.clone()).await {
                Ok(found) => break found,
                Err(error) if overlaps(&error) && tries < OVERLAPS => tries += 1,
                Err(error) => return Err(failed(operation)(error)),
            }
            self.back_off(tries).await;
        };
        let replicas = found.cached_info().config.num_replicas;
        if replicas != config.num_replicas {
            tracing::warn!(
                stream = config.name,
                replicas,
                asked = config.num_replicas,
                "the stream keeps its number of replicas"
            );
        }
        Ok(found)
    }

    /// Repeats what may be repeated until it works or the deadline has passed.
    pub(crate) async fn persist<T, E, F, Fut>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
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

    /// The last message under a subject, as the stream's leader has it.
    pub(crate) async fn last(
        &self,
        stream: &Stream,
        subject: &str,
        operation: &'static str,
    ) -> Result<Option<StreamMessage>, StoreError> {
        self.persist(operation, || async move {
            match stream.get_last_raw_message_by_subject(subject).await {
                Ok(message) => Ok(Some(message)),
                Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Writes a message if the last one under its subject is the one of sequence `expected` (0: there is none). While the
    /// answer is lost, the same is sent again.
    pub(crate) async fn send_after(
        &self,
        subject: &str,
        expected: u64,
        mut headers: HeaderMap,
        bytes: Bytes,
    ) -> Result<Sent, StoreError> {
        const OPERATION: &str = "write a record";
        headers.insert(EXPECTED, expected.to_string().as_str());
        let end = self.clock.instant() + self.deadline;
        let mut tries = 0;
        loop {
            let asked = async {
                self.context.publish_with_headers(subject.to_owned(), headers.clone(), bytes.clone()).await?.await
            };
            let detail = match tokio::time::timeout(ATTEMPT, asked).await {
                Ok(Ok(ack)) => return Ok(Sent::Done(ack.sequence)),
                Ok(Err(error)) => match error.kind() {
                    PublishErrorKind::WrongLastSequence if tries == 0 => return Ok(Sent::Refused),
                    PublishErrorKind::WrongLastSequence => return Ok(Sent::Unclear),
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

    /// Writes a message whatever is there; the same again where an answer is lost.
    pub(crate) async fn send(
        &self,
        subject: &str,
        headers: &HeaderMap,
        bytes: &Bytes,
        operation: &'static str,
    ) -> Result<(), StoreError> {
        self.persist(operation, || async move {
            self.context.publish_with_headers(subject.to_owned(), headers.clone(), bytes.clone()).await?.await
        })
        .await?;
        Ok(())
    }

    /// Puts a large payload below `subject`, before the record that names it.
    pub(crate) async fn put_payload(&self, subject: &str, payload: &Payload, bytes: &Bytes) -> Result<(), StoreError> {
        let Payload::Stored { name, .. } = payload else { return Ok(()) };
        let headers = HeaderMap::new();
        for (number, part) in bytes.chunks(PART).enumerate() {
            let (subject, part) = (format!("{subject}.{name}.{number}"), bytes.slice_ref(part));
            self.send(&subject, &headers, &part, "write a payload").await?;
        }
        Ok(())
    }

    /// Reads a payload that stands below `subject` of a stream.
    pub(crate) async fn payload(&self, stream: &Stream, subject: &str, payload: &Payload) -> Result<Bytes, StoreError> {
        const OPERATION: &str = "read a payload";
        let damaged = |what: String| StoreError::Damaged { operation: OPERATION, detail: format!("{subject}: {what}") };
        let (size, name) = match payload {
            Payload::None => return Ok(Bytes::new()),
            Payload::Inline(bytes) => return Ok(bytes.clone()),
            Payload::Stored { bytes, name } => (*bytes, name),
        };
        let mut whole = BytesMut::with_capacity(size);
        for number in 0..size.div_ceil(PART) {
            let part = self.last(stream, &format!("{subject}.{name}.{number}"), OPERATION).await?;
            let part = part.ok_or_else(|| damaged(format!("part {number} of {name} is missing")))?;
            whole.extend_from_slice(&part.payload);
        }
        if whole.len() != size {
            return Err(damaged(format!("{name} has another size than it should")));
        }
        Ok(whole.freeze())
    }

    /// Deletes all messages whose subjects match.
    pub(crate) async fn purge(&self, stream: &Stream, filter: &str) -> Result<(), StoreError> {
        self.persist("delete payloads", || async move { stream.purge().filter(filter).await }).await?;
        Ok(())
    }

    /// Deletes one message for good; one that is not there is as good.
    pub(crate) async fn forget(&self, stream: &Stream, sequence: u64) -> Result<(), StoreError> {
        const OPERATION: &str = "forget a record";
        let asked = tokio::time::timeout(ATTEMPT, stream.delete_message(sequence)).await;
        match asked {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.to_string().contains("no message found") => Ok(()),
            Ok(Err(error)) => Err(failed(OPERATION)(error)),
            Err(_) => Err(failed(OPERATION)("no answer in time")),
        }
    }

    /// The subjects of a stream that match.
    pub(crate) async fn subjects(&self, stream: &Stream, filter: &str) -> Result<Vec<String>, StoreError> {
        const OPERATION: &str = "list payloads";
        let listed = stream.info_with_subjects(filter.to_owned()).await.map_err(failed(OPERATION))?;
        let subjects: Vec<(String, usize)> = listed.try_collect().await.map_err(failed(OPERATION))?;
        Ok(subjects.into_iter().map(|(subject, _)| subject).collect())
    }
}
