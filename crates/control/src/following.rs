//! Keeping in memory what the store holds: filled from a list, then kept up to date by watch.
//!
//! An event only says which object to read again. No change is left out: one that can't be read is tried until it can, and who
//! has missed changes is filled anew.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_kit::Clock;
use lyra_store::Objects;
use lyra_store::objects::{Batch, WatchError};
use lyra_types::Result;
use tokio::time::timeout_at;

/// Wait before the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How long it may take until a follower knows that only objects of others have changed. In a busy store that is most of what changes.
const QUIET: Duration = Duration::from_millis(20);

/// What shows objects of the store.
pub(crate) trait Follows: Sync {
    /// What their keys start with.
    const ALL: &'static str;
    /// What they are, for the log.
    const WHAT: &'static str;

    /// It is complete up to this revision.
    fn shown_revision(&self) -> u64;

    /// Makes it show what the store holds.
    fn fill(&self) -> impl Future<Output = Result<()>> + Send;

    /// Makes it show what has changed.
    fn show(&self, batch: &Batch) -> impl Future<Output = Result<()>> + Send;
}

/// Follows the store for ever.
pub(crate) async fn follow<F: Follows>(follower: &F, objects: &dyn Objects, clock: &Clock) {
    loop {
        match follow_once(follower, objects, clock).await {
            Ok(()) => {}
            Err(WatchError::Compacted { oldest }) => {
                tracing::warn!(oldest, "{} in memory fell behind and are read anew", F::WHAT);
                if let Err(error) = follower.fill().await {
                    tracing::warn!(%error, "{} can't be read", F::WHAT);
                }
            }
            Err(WatchError::Store(error)) => tracing::warn!(%error, "{} can't be followed", F::WHAT),
        }
        clock.sleep(AGAIN).await;
    }
}

async fn follow_once<F: Follows>(follower: &F, objects: &dyn Objects, clock: &Clock) -> Result<(), WatchError> {
    let mut batches = objects.watch(F::ALL, follower.shown_revision() + 1).await?;
    while let Some(batch) = next(&mut batches, clock).await? {
        while let Err(error) = follower.show(&batch).await {
            tracing::warn!(%error, "what has changed of {} can't be read", F::WHAT);
            clock.sleep(AGAIN).await;
        }
    }
    Ok(())
}

/// The next changes; those that are empty, one after the other, as one.
async fn next(
    batches: &mut BoxStream<'static, Result<Batch, WatchError>>,
    clock: &Clock,
) -> Result<Option<Batch>, WatchError> {
    let Some(mut batch) = batches.next().await.transpose()? else { return Ok(None) };
    let until = clock.instant() + QUIET;
    while batch.events.is_empty() {
        let Ok(later) = timeout_at(until, batches.next()).await else { break };
        match later.transpose()? {
            Some(later) => batch = later,
            // It is shown; the end is met again.
            None => break,
        }
    }
    Ok(Some(batch))
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use lyra_store::objects::{Event, EventKind};
    use tokio::time::sleep;

    use super::*;

    fn batch(revision: u64, changes: bool) -> Batch {
        let event = Event { revision, key: "k".to_owned(), kind: EventKind::Put };
        Batch { events: changes.then_some(event).into_iter().collect(), revision }
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_nothing_is_shown_now_and_then_and_what_does_at_once() {
        // Every 2 ms a batch that is empty; one of them is not.
        let slowly = stream::unfold(1, |revision| async move {
            sleep(Duration::from_millis(2)).await;
            Some((Ok(batch(revision, revision == 7)), revision + 1))
        });
        let mut batches = slowly.take(30).chain(stream::once(async { Ok(batch(40, true)) })).boxed();
        let (clock, mut shown) = (Clock::system(), Vec::new());
        let begun = clock.instant();
        while let Some(batch) = next(&mut batches, &clock).await.unwrap() {
            shown.push((batch.revision, batch.events.len()));
        }
        assert_eq!(shown[0], (7, 1), "at once");
        assert_eq!(shown.last(), Some(&(40, 1)));
        assert!(shown.len() <= 6, "{shown:?}");
        assert!(clock.instant() - begun <= Duration::from_millis(61), "nothing waits longer than the store");
        let mut late = stream::iter([Ok(batch(1, false))]).chain(stream::pending()).boxed();
        assert_eq!(next(&mut late, &clock).await.unwrap().map(|batch| batch.revision), Some(1));
    }
}
