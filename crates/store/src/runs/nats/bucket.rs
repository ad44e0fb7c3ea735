//! The two streams in JetStream: runs, where the messages of one run have a subject of their own, and data, which keeps
//! large payloads, kept results and who lives.
//!
//! A message of a run is written only after the last one that its writer has read. That is the fence: a new owner writes
//! a message, too, and with it all that an older owner may still send is refused.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::stream::{Config, StorageType, Stream};
use bytes::Bytes;
use futures::StreamExt;
use lyra_kit::Clock;

use super::entry::{Entry, Found, Name, Place, encode};
use crate::StoreError;
use crate::nats::{ATTEMPT, Channel, NatsSettings, Payload, Sent};

/// By this header all earlier messages of the subject go: a mark takes its run with it.
const ROLLUP: (&str, &str) = ("Nats-Rollup", "sub");
/// Until when a kept result or an owner counts, in milliseconds: read without the body.
pub(super) const UNTIL: &str = "Lyra-Until";
/// The place of a kept result's payload.
pub(super) const PLACE: &str = "Lyra-Place";
/// Messages asked for at once.
const BATCH: u64 = 256;
/// How long the server keeps a reader that went away.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// Outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It happened, with this sequence, and is the newest.
    Done(u64),
    /// Something else is the newest: what was to be written has to be decided again.
    Conflict,
}

/// Both streams.
#[derive(Clone)]
pub(super) struct Bucket {
    pub(super) channel: Channel,
    pub(super) runs: Stream,
    pub(super) data: Stream,
    /// What all subjects begin with.
    prefix: String,
}

impl Bucket {
    /// Makes the streams that are not there.
    pub(super) async fn open(client: async_nats::Client, settings: &NatsSettings) -> Result<Bucket, StoreError> {
        const OPERATION: &str = "open the runs' streams";
        let channel = Channel::new(client, settings);
        let (name, prefix) = (&settings.bucket, format!("lyra.runs.{}", settings.bucket));
        let config = Config {
            storage: StorageType::File,
            num_replicas: settings.replicas,
            allow_rollup: true,
            // Reads go to the stream's leader: a follower can be behind.
            allow_direct: false,
            ..Config::default()
        };
        let runs = Config {
            name: format!("RUNS_{name}"),
            subjects: vec![format!("{prefix}.r.>")],
            description: Some("Lyra: workflow runs and their journals".to_owned()),
            max_messages_per_subject: -1,
            ..config.clone()
        };
        let data = Config {
            name: format!("RUNS_{name}-data"),
            subjects: ["d", "m", "o"].map(|kind| format!("{prefix}.{kind}.>")).to_vec(),
            description: Some("Lyra: large payloads of runs, kept results, owners".to_owned()),
            max_messages_per_subject: 1,
            ..config
        };
        let runs = channel.stream(runs, OPERATION).await?;
        let data = channel.stream(data, OPERATION).await?;
        Ok(Bucket { channel, runs, data, prefix })
    }

    pub(super) fn clock(&self) -> &Clock {
        self.channel.clock()
    }

    fn run_subject(&self, name: &Name) -> String {
        format!("{}.r.{name}", self.prefix)
    }

    /// The name of the run that a subject belongs to.
    pub(super) fn name_of(&self, subject: &str) -> Option<Name> {
        Name::parse(subject.strip_prefix(&*self.prefix)?.strip_prefix(".r.")?)
    }

    /// A subject of the data stream; `kind` is `d`, `m` or `o`.
    pub(super) fn data_subject(&self, kind: &str, rest: &str) -> String {
        format!("{}.{kind}.{rest}", self.prefix)
    }

    fn payloads_of(&self, name: &Name, place: &Place) -> String {
        self.data_subject("d", &format!("r.{name}.{}", place.0))
    }

    /// The last message of a run; one without an entry is the mark of a deleted run.
    pub(super) async fn last(&self, name: &Name) -> Result<Option<(u64, Option<Found>)>, StoreError> {
        let subject = self.run_subject(name);
        let Some(message) = self.channel.last(&self.runs, &subject, "read a run").await? else { return Ok(None) };
        let sequence = message.sequence;
        if message.payload.is_empty() {
            return Ok(Some((sequence, None)));
        }
        Ok(Some((sequence, Some(Found::read(&message.payload, sequence)?))))
    }

    /// Writes the run's next message after the one of sequence `expected` (0: there is none).
    pub(super) async fn put(&self, name: &Name, expected: u64, entry: &Entry) -> Result<Put, StoreError> {
        let (subject, bytes) = (self.run_subject(name), encode(entry)?);
        match self.channel.send_after(&subject, expected, HeaderMap::new(), bytes).await? {
            Sent::Done(sequence) => Ok(Put::Done(sequence)),
            Sent::Refused => Ok(Put::Conflict),
            Sent::Unclear => Ok(match self.last(name).await? {
                Some((sequence, Some(found))) if found.entry.token == entry.token => Put::Done(sequence),
                _ => Put::Conflict,
            }),
        }
    }

    /// Deletes a run, with all its messages, if `expected` is the last one; a mark stays.
    pub(super) async fn mark(&self, name: &Name, expected: u64) -> Result<Put, StoreError> {
        let mut headers = HeaderMap::new();
        headers.insert(ROLLUP.0, ROLLUP.1);
        match self.channel.send_after(&self.run_subject(name), expected, headers, Bytes::new()).await? {
            Sent::Done(sequence) => Ok(Put::Done(sequence)),
            Sent::Refused => Ok(Put::Conflict),
            // Whoever wrote it.
            Sent::Unclear => Ok(match self.last(name).await? {
                Some((sequence, None)) => Put::Done(sequence),
                _ => Put::Conflict,
            }),
        }
    }

    /// Messages of a run from the first to the one of sequence `last`. `None`: some are not there any more.
    pub(super) async fn entries(&self, name: &Name, last: &Found) -> Result<Option<Vec<Found>>, StoreError> {
        let first = last.entry.state.order;
        if first == last.sequence {
            return Ok(Some(vec![last.clone()]));
        }
        let config = PullConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: first },
            filter_subject: self.run_subject(name),
            ..PullConfig::default()
        };
        let mut entries = Vec::new();
        self.read(&self.runs, config, |message, sequence| {
            if sequence <= last.sequence && !message.payload.is_empty() {
                entries.push(Found::read(&message.payload, sequence)?);
            }
            Ok(sequence < last.sequence)
        })
        .await?;
        let whole = entries.first().is_some_and(|found| found.sequence == first)
            && entries.last().is_some_and(|found| found.sequence == last.sequence);
        Ok(whole.then_some(entries))
    }

    /// Hands the messages that a reader of this configuration finds to `each`, in order, until that says `false` or there
    /// are no more.
    pub(super) async fn read(
        &self,
        stream: &Stream,
        config: PullConfig,
        mut each: impl FnMut(&Message, u64) -> Result<bool, StoreError> + Send,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "read messages";
        let config = &PullConfig {
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGOTTEN,
            memory_storage: true,
            num_replicas: 1,
            ..config
        };
        // Where the connection breaks in the middle, it is begun again after what was handed over.
        let (mut seen, mut tries) = (None, 0);
        let mut end = self.clock().instant() + self.channel.deadline();
        loop {
            let config = match seen {
                None => config.clone(),
                Some(seen) => PullConfig {
                    deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: seen + 1 },
                    ..config.clone()
                },
            };
            let consumer: Consumer<PullConfig> =
                self.channel.persist(OPERATION, || async { stream.create_consumer(config.clone()).await }).await?;
            let before = seen;
            let outcome = self.drain(&consumer, &mut seen, &mut each).await;
            // It goes by itself, too, but not at once.
            let deleted = stream.delete_consumer(&consumer.cached_info().name);
            if let Ok(Err(error)) = tokio::time::timeout(ATTEMPT, deleted).await {
                tracing::debug!(%error, "a reader stays for some seconds");
            }
            match outcome {
                Err(StoreError::Remote { detail, .. }) if seen != before || self.clock().instant() < end => {
                    tracing::debug!(detail, "messages are read on");
                    if seen != before {
                        (tries, end) = (0, self.clock().instant() + self.channel.deadline());
                    }
                    tries += 1;
                    self.channel.back_off(tries).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn drain(
        &self,
        consumer: &Consumer<PullConfig>,
        seen: &mut Option<u64>,
        each: &mut (impl FnMut(&Message, u64) -> Result<bool, StoreError> + Send),
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "read messages";
        let mut pending = consumer.cached_info().num_pending;
        while pending > 0 {
            let count = usize::try_from(pending.min(BATCH)).unwrap_or(1);
            let asked = consumer.batch().max_messages(count).expires(ATTEMPT).messages().await;
            let mut messages = asked.map_err(StoreError::remote(OPERATION))?;
            let mut some = false;
            loop {
                let next = tokio::time::timeout(2 * ATTEMPT, messages.next()).await;
                let next = next.map_err(|_| StoreError::remote(OPERATION)("no answer in time"))?;
                let Some(message) = next else { break };
                let message = message.map_err(StoreError::remote(OPERATION))?;
                let info = message.info().map_err(StoreError::remote(OPERATION))?;
                (some, pending) = (true, info.pending);
                *seen = Some(info.stream_sequence);
                if !each(&message, info.stream_sequence)? {
                    return Ok(());
                }
            }
            // What was counted was deleted before it was sent.
            if !some {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Puts a large payload of a run into the data stream, before the message that names it.
    pub(super) async fn put_payload(
        &self,
        name: &Name,
        place: &Place,
        payload: &Payload,
        bytes: &Bytes,
    ) -> Result<(), StoreError> {
        self.channel.put_payload(&self.payloads_of(name, place), payload, bytes).await
    }

    pub(super) async fn payload(&self, name: &Name, place: &Place, payload: &Payload) -> Result<Bytes, StoreError> {
        self.channel.payload(&self.data, &self.payloads_of(name, place), payload).await
    }

    /// Deletes one payload of a run, if it stands apart.
    pub(super) async fn drop_payload(&self, name: &Name, place: &Place, payload: &Payload) -> Result<(), StoreError> {
        let Payload::Stored { name: body, .. } = payload else { return Ok(()) };
        self.channel.purge(&self.data, &format!("{}.{body}.*", self.payloads_of(name, place))).await
    }

    /// Deletes all payloads of a run.
    pub(super) async fn drop_payloads(&self, name: &Name, place: &Place) -> Result<(), StoreError> {
        self.channel.purge(&self.data, &format!("{}.>", self.payloads_of(name, place))).await
    }
}
