//! Follows the stream of records, so that the index shows what other processes write.

use std::sync::Arc;

use async_nats::jetstream::Message;
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
use crate::nats::{Follower, From};

/// When what is heard was written.
#[derive(Debug, Clone, Copy)]
enum Age {
    /// Nobody knows.
    Old,
    /// A moment ago.
    New,
}

/// Follows from the beginning, and takes in all that is there.
pub(super) async fn fill(bucket: &Bucket, index: &Arc<Index>) -> Result<Follower, StoreError> {
    Follower::filled(&bucket.records, From::After(0), |heard| async {
        take(bucket, index, heard, Age::Old).await.map(drop)
    })
    .await
}

/// Takes messages in; says which jobs were changed by others.
async fn take(
    bucket: &Bucket,
    index: &Arc<Index>,
    heard: Vec<(Message, u64)>,
    age: Age,
) -> Result<Vec<Changed>, StoreError> {
    let now = bucket.clock().now();
    let news: Vec<News> =
        heard.iter().filter_map(|(message, sequence)| read(bucket, message, *sequence, now, age)).collect();
    let index = Arc::clone(index);
    blocking(move || index.apply(news)).await.map_err(|_| StoreError::Closed)?
}

/// What a message says.
fn read(bucket: &Bucket, message: &Message, sequence: u64, now: Timestamp, age: Age) -> Option<News> {
    let name = bucket.name_of(&message.subject)?;
    if message.headers.as_ref().is_some_and(is_deleted) {
        return Some(News::Gone { name, sequence, since: now });
    }
    let read = match &name {
        Name::Job(..) => {
            let by_clock = |record: Record| match age {
                Age::Old => record.read_at(now),
                Age::New => record.heard_at(now),
            };
            decode::<Record>(&message.payload).map(|record| News::Job(Box::new(by_clock(record)), sequence))
        }
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
            next = follower.next() => match next {
                Ok((messages, _)) => match take(&shared.bucket, &shared.index, messages, Age::New).await {
                    Ok(changed) => {
                        shared.tell(changed);
                        heard = clock.instant();
                        continue;
                    }
                    Err(error) => error,
                },
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
            Follower::start(&shared.bucket.records, From::After(seen)).await.map(|(follower, _)| follower)
        } else {
            match shared.ask(Index::clear).await {
                Ok(()) => Follower::start(&shared.bucket.records, From::After(0)).await.map(|(follower, _)| follower),
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
