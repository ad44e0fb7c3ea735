//! Follows the stream of records, so that the index shows what other processes write.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use futures::StreamExt;
use lyra_kit::tasks::blocking;
use lyra_types::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::bucket::{Bucket, is_deleted};
use super::index::{Index, News};
use super::record::{Key, Name, Record, decode};
use super::usage::Entry;
use super::{MARKED, Shared};
use crate::StoreError;
use crate::jobs::Changed;

/// Messages taken into the index at once.
const BATCH: usize = 500;
/// While the index is filled: longest wait for the next message before it is asked whether there is one.
const QUIET: Duration = Duration::from_secs(2);

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
        let there = bucket.records.get_info().await.map_err(StoreError::remote(OPERATION))?;
        let last = there.state.last_sequence;
        let (mut follower, mut pending) = Follower::start(bucket, 0).await?;
        // Where records were replaced while they were counted, too many can be said to be left.
        while pending > 0 && follower.seen < last {
            match tokio::time::timeout(QUIET, follower.take(bucket, index)).await {
                Ok(taken) => pending = taken?.0,
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

    /// Takes in the next messages, waiting for the first; says how many were left when the last of them was sent, and which jobs
    /// were changed by others.
    async fn take(&mut self, bucket: &Bucket, index: &Arc<Index>) -> Result<(u64, Vec<Changed>), StoreError> {
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
        let changed = blocking(move || index.apply(news)).await.map_err(|_| StoreError::Closed)??;
        Ok((left, changed))
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
        Name::Usage(name) => decode::<Entry>(&message.payload).map(|entry| News::Usage {
            name: name.clone(),
            entry: Box::new(entry),
            sequence,
        }),
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

/// Follows for ever, from where `follower` stands. `connections` tells when a connection was made: a server that was
/// started again knows nothing of who followed.
pub(super) async fn follow(shared: Arc<Shared>, mut follower: Follower, mut connections: watch::Receiver<u64>) {
    let clock = shared.bucket.clock().clone();
    let mut heard = clock.instant();
    connections.mark_unchanged();
    loop {
        let error = tokio::select! {
            taken = follower.take(&shared.bucket, &shared.index) => match taken {
                Ok((_, changed)) => {
                    shared.tell(changed);
                    heard = clock.instant();
                    continue;
                }
                Err(error) => error,
            },
            Ok(()) = connections.changed() => StoreError::remote("follow the jobs' records")("connected anew"),
        };
        tracing::debug!(%error, "the jobs' records are followed anew");
        follower = again(&shared, follower.seen, heard).await;
        heard = clock.instant();
    }
}

/// Follows from where it was left off; or from the beginning, if that is so long ago that marks of what was deleted since
/// can be gone.
async fn again(shared: &Arc<Shared>, seen: u64, heard: Instant) -> Follower {
    let mut tries = 0;
    loop {
        let started = if shared.bucket.clock().instant() - heard < MARKED / 2 {
            Follower::start(&shared.bucket, seen).await.map(|(follower, _)| follower)
        } else {
            match shared.ask(Index::clear).await {
                Ok(()) => Follower::start(&shared.bucket, 0).await.map(|(follower, _)| follower),
                Err(error) => Err(error),
            }
        };
        match started {
            Ok(follower) => return follower,
            Err(error) => {
                tracing::debug!(%error, "the jobs' records can't be followed");
                tries += 1;
                shared.bucket.back_off(tries).await;
            }
        }
    }
}
