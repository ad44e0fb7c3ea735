//! Follows the stream of runs, so that the index shows what other processes write.

use std::sync::Arc;

use async_nats::jetstream::Message;
use lyra_kit::tasks::blocking;
use lyra_types::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::bucket::Bucket;
use super::entry::Found;
use super::index::{Index, News};
use super::{MARKED, Shared};
use crate::StoreError;
use crate::nats::{Follower, From, Heard};

/// Begins with the newest message of each run, and takes in all that is there.
pub(super) async fn fill(bucket: &Bucket, index: &Arc<Index>) -> Result<Follower, StoreError> {
    Follower::filled(&bucket.runs, From::Newest, |heard| take(bucket, index, heard)).await
}

async fn take(bucket: &Bucket, index: &Arc<Index>, heard: Heard) -> Result<(), StoreError> {
    let now = bucket.clock().now();
    let news: Vec<News> =
        heard.iter().filter_map(|(message, sequence)| read(bucket, message, *sequence, now)).collect();
    let index = Arc::clone(index);
    blocking(move || index.apply(news)).await.map_err(|_| StoreError::Closed)?
}

/// What a message says.
fn read(bucket: &Bucket, message: &Message, sequence: u64, now: Timestamp) -> Option<News> {
    let name = bucket.name_of(&message.subject)?;
    if message.payload.is_empty() {
        return Some(News::Gone { name, sequence, since: now });
    }
    match Found::read(&message.payload, sequence) {
        Ok(found) => Some(News::Run { name, state: Box::new(found.entry.state), sequence }),
        Err(error) => {
            tracing::error!(%error, %name, "a run's record can't be read and is left out");
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
                Ok((messages, _)) => match take(&shared.bucket, &shared.index, messages).await {
                    Ok(()) => {
                        heard = clock.instant();
                        continue;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            },
            Ok(()) = connections.changed() => StoreError::remote("follow the runs")("connected anew"),
        };
        tracing::debug!(%error, "the runs are followed anew");
        follower = again(&shared, follower.seen, heard).await;
        heard = clock.instant();
    }
}

/// Follows from where it was left off; or from the newest messages, if that is so long ago that marks of what was deleted
/// since can be gone.
async fn again(shared: &Arc<Shared>, seen: u64, heard: Instant) -> Follower {
    let mut tries = 0;
    loop {
        let recent = shared.bucket.clock().instant() - heard < MARKED / 2;
        let started = if recent && seen > 0 {
            Follower::start(&shared.bucket.runs, From::After(seen)).await.map(|(follower, _)| follower)
        } else {
            match shared.ask(Index::clear).await {
                Ok(()) => Follower::start(&shared.bucket.runs, From::Newest).await.map(|(follower, _)| follower),
                Err(error) => Err(error),
            }
        };
        match started {
            Ok(follower) => return follower,
            Err(error) => {
                tracing::debug!(%error, "the runs can't be followed");
                tries += 1;
                shared.bucket.channel.back_off(tries).await;
            }
        }
    }
}
