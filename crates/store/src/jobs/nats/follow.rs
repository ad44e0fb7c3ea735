//! Follows the stream of records, so that the index shows what other processes write.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use futures::StreamExt;
use lyra_kit::tasks::blocking;
use lyra_types::Timestamp;
use tokio::time::Instant;

use super::bucket::{Bucket, is_deleted};
use super::index::{Index, News};
use super::record::{Key, Name, Record, decode};
use super::{MARKED, Shared};
use crate::StoreError;

/// Messages taken into the index at once.
const BATCH: usize = 500;
/// While the index is filled: longest wait for the next message before it is asked whether there is one.
const QUIET: Duration = Duration::from_secs(5);

/// One run of following: ends when the stream can't be read any more.
pub(super) struct Follower {
    messages: Ordered,
    /// The last sequence that was taken in.
    pub(super) seen: u64,
}

impl Follower {
    /// Follows from the message after `seen`; says how many are there already.
    async fn start(bucket: &Bucket, seen: u64) -> Result<(Follower, u64), StoreError> {
        const OPERATION: &str = "follow the jobs' records";
        let config = OrderedConfig {
            deliver_policy: match seen {
                0 => DeliverPolicy::All,
                seen => DeliverPolicy::ByStartSequence { start_sequence: seen + 1 },
            },
            replay_policy: ReplayPolicy::Instant,
            ..OrderedConfig::default()
        };
        let consumer = bucket.records.create_consumer(config).await.map_err(StoreError::remote(OPERATION))?;
        let pending = consumer.cached_info().num_pending;
        let messages = consumer.messages().await.map_err(StoreError::remote(OPERATION))?;
        Ok((Follower { messages, seen }, pending))
    }

    /// Follows from the beginning, and takes in all that is there.
    pub(super) async fn filled(bucket: &Bucket, index: &Arc<Index>) -> Result<Follower, StoreError> {
        const OPERATION: &str = "read the jobs' records";
        let (mut follower, mut pending) = Follower::start(bucket, 0).await?;
        while pending > 0 {
            match tokio::time::timeout(QUIET, follower.take(bucket, index)).await {
                Ok(left) => pending = left?,
                // What was still to come can have been deleted meanwhile.
                Err(_) => {
                    let info = bucket.records.get_info().await.map_err(StoreError::remote(OPERATION))?;
                    if info.state.messages == 0 || info.state.last_sequence <= follower.seen {
                        pending = 0;
                    }
                }
            }
        }
        Ok(follower)
    }

    /// Takes in the next messages, waiting for the first; says how many were left when the last of them was sent.
    async fn take(&mut self, bucket: &Bucket, index: &Arc<Index>) -> Result<u64, StoreError> {
        const OPERATION: &str = "follow the jobs' records";
        let first = self.messages.next().await.ok_or_else(|| StoreError::remote(OPERATION)("it has ended"))?;
        let (mut news, mut left) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(message) = next {
            let message = message.map_err(StoreError::remote(OPERATION))?;
            let info = message.info().map_err(StoreError::remote(OPERATION))?;
            (self.seen, left) = (info.stream_sequence, info.pending);
            news.extend(read(bucket, &message, self.seen, bucket.clock().now()));
            // Those that are here already.
            next = if news.len() < BATCH && left > 0 {
                futures::FutureExt::now_or_never(self.messages.next()).flatten()
            } else {
                None
            };
        }
        let index = Arc::clone(index);
        blocking(move || index.apply(news)).await.map_err(|_| StoreError::Closed)??;
        Ok(left)
    }
}

/// What a message says.
fn read(bucket: &Bucket, message: &Message, sequence: u64, now: Timestamp) -> Option<News> {
    let name = bucket.name_of(&message.subject)?;
    if message.headers.as_ref().is_some_and(is_deleted) {
        return Some(News::Gone { name, sequence, since: now });
    }
    let read = match &name {
        Name::Job(..) => decode::<Record>(&message.payload).map(|record| News::Job(Box::new(record), sequence)),
        Name::Key(name) => decode::<Key>(&message.payload).map(|key| News::Key {
            name: name.clone(),
            expires_at: key.expires_at,
            sequence,
        }),
    };
    match read {
        Ok(news) => Some(news),
        Err(error) => {
            tracing::error!(%error, %name, "a record can't be read and is left out");
            None
        }
    }
}

/// Follows for ever, from where `follower` stands.
pub(super) async fn follow(shared: Arc<Shared>, mut follower: Follower) {
    let clock = shared.bucket.clock().clone();
    let mut heard: Instant = clock.instant();
    let mut tries = 0;
    loop {
        let error = match follower.take(&shared.bucket, &shared.index).await {
            Ok(_) => {
                (heard, tries) = (clock.instant(), 0);
                continue;
            }
            Err(error) => error,
        };
        tracing::debug!(%error, "the jobs' records are followed anew");
        loop {
            tries += 1;
            shared.bucket.back_off(tries).await;
            if clock.instant() - heard > MARKED / 2 {
                // Marks of what was deleted meanwhile can be gone: what they were about must not stay.
                tracing::error!(
                    "the jobs' records could not be followed for too long; this process has to be restarted"
                );
            }
            match Follower::start(&shared.bucket, follower.seen).await {
                Ok((new, pending)) => {
                    follower = new;
                    if pending == 0 {
                        heard = clock.instant();
                    }
                    break;
                }
                Err(error) => tracing::debug!(%error, "the jobs' records can't be followed"),
            }
        }
    }
}
