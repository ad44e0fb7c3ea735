//! That a process is there, for others to see: an object under a lease, for as long as whoever put it is alive.
//!
//! What must hold: who dies is seen no more when the lease ends, and who leaves in good order at once; who was thought dead
//! and is not, because it stood still or the store was away, is seen again by itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lyra_kit::retry::Backoff;
use lyra_kit::{Clock, Random};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Change, LeaseId, Objects, Txn, TxnError};
use crate::StoreError;

/// Waits while the store can't be reached.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(1) };
/// Renewals in the time of one lease.
const RENEWALS: u32 = 4;
/// Processes that are listed at once; there are a few.
const MANY: usize = 1_000;
/// Wait before the store is asked again after a watch has ended.
const AGAIN: Duration = Duration::from_secs(1);
/// They are listed at least so often: a watch over a line that is dead without saying so would show nothing more.
const LOOK: Duration = Duration::from_secs(30);

/// One process among those under a prefix.
pub struct Presence {
    objects: Arc<dyn Objects>,
    key: String,
    /// What it says of itself.
    value: Mutex<Bytes>,
    ttl: Duration,
    lease: Mutex<Option<LeaseId>>,
    /// Set once the process was seen for the first time.
    seen: watch::Sender<bool>,
    clock: Clock,
    random: Random,
}

impl Presence {
    /// Nothing is seen before [`Presence::keep`]. `ttl` is how long a process that has died is seen; 2 s or more, which is
    /// the least that etcd grants.
    pub fn new(
        objects: Arc<dyn Objects>,
        key: String,
        value: Bytes,
        ttl: Duration,
        clock: Clock,
        random: Random,
    ) -> Presence {
        let (value, seen) = (Mutex::new(value), watch::Sender::new(false));
        Presence { objects, key, value, ttl, lease: Mutex::default(), seen, clock, random }
    }

    /// Keeps the process seen, for ever.
    pub async fn keep(&self) {
        let mut tries = 0;
        loop {
            match self.be_seen(&mut tries).await {
                Ok(()) => tracing::warn!(key = self.key, "this process was not seen for a while"),
                Err(error) => tracing::warn!(key = self.key, %error, "this process can't make itself seen"),
            }
            tries += 1;
            self.clock.sleep(RETRY.delay(tries, &self.random)).await;
        }
    }

    /// Is seen until the lease ends, or the store could not be asked for so long that it must have.
    async fn be_seen(&self, tries: &mut u32) -> Result<(), StoreError> {
        let granted = self.objects.grant(self.ttl).await?;
        *self.lease.lock() = Some(granted.id);
        self.put(granted.id).await?;
        self.seen.send_replace(true);
        *tries = 0;
        let mut end = self.clock.instant() + granted.ttl;
        loop {
            self.clock.sleep(granted.ttl / RENEWALS).await;
            let asked = self.clock.instant();
            match self.objects.renew(granted.id).await {
                Ok(true) => end = asked + granted.ttl,
                Ok(false) => return Ok(()),
                Err(error) if self.clock.instant() >= end => return Err(error),
                Err(_) => {}
            }
        }
    }

    async fn put(&self, lease: LeaseId) -> Result<(), StoreError> {
        let value = self.value.lock().clone();
        let put = Txn { checks: Vec::new(), changes: vec![Change::PutLeased(self.key.clone(), value, lease)] };
        match self.objects.txn(put).await {
            Err(TxnError::Store(error)) => Err(error),
            // There is no check that could fail.
            Ok(_) | Err(TxnError::Failed { .. }) => Ok(()),
        }
    }

    /// Waits until the process has been seen once.
    pub async fn seen(&self) {
        // The sender lives as long as `self`.
        let _ = self.seen.subscribe().wait_for(|seen| *seen).await;
    }

    /// Says something else of itself from now on.
    ///
    /// # Errors
    /// When the store can't be asked; it is said with the next lease then.
    pub async fn say(&self, value: Bytes) -> Result<(), StoreError> {
        *self.value.lock() = value;
        let lease = *self.lease.lock();
        match lease {
            Some(lease) => self.put(lease).await,
            None => Ok(()),
        }
    }

    /// Is seen no more. Whoever runs [`Presence::keep`] has to have ended that before.
    ///
    /// # Errors
    /// When the store can't be asked; the process is seen until its lease ends then.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let lease = self.lease.lock().take();
        match lease {
            Some(lease) => self.objects.revoke(lease).await,
            None => Ok(()),
        }
    }
}

/// Tells what all processes under `prefix` say of themselves, then again at each change, for ever. While the store is away
/// nothing is told.
pub async fn follow(objects: &dyn Objects, prefix: &str, clock: &Clock, mut tell: impl FnMut(Vec<Bytes>) + Send) {
    loop {
        match objects.list(prefix, MANY, None).await {
            Ok(listing) => {
                tell(listing.entries.into_iter().map(|entry| entry.value).collect());
                // What changes in between is seen with the next look.
                let _ = tokio::time::timeout(LOOK, changed(objects, prefix, listing.revision, clock)).await;
            }
            Err(error) => {
                tracing::debug!(prefix, %error, "processes can't be listed");
                clock.sleep(AGAIN).await;
            }
        }
    }
}

/// Waits until something under `prefix` has changed since `revision`; for a second where it can't be watched.
pub async fn changed(objects: &dyn Objects, prefix: &str, revision: u64, clock: &Clock) {
    if let Ok(mut changes) = objects.watch(prefix, revision + 1).await {
        while let Some(Ok(batch)) = changes.next().await {
            if !batch.events.is_empty() {
                return;
            }
        }
    }
    // It can't be watched now.
    clock.sleep(AGAIN).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{History, SqliteObjects};

    const PREFIX: &str = "processes/";

    struct Seen {
        objects: Arc<dyn Objects>,
        all: watch::Receiver<Vec<Bytes>>,
        _dir: tempfile::TempDir,
    }

    fn seen(tasks: &lyra_kit::Tasks) -> Seen {
        let dir = tempfile::tempdir().expect("a directory");
        let objects = SqliteObjects::open(&dir.path().join("objects.db"), History::default(), None).expect("opens");
        let objects: Arc<dyn Objects> = Arc::new(objects);
        let (sender, all) = watch::channel(Vec::new());
        let followed = Arc::clone(&objects);
        tasks.spawn_cancellable("follow", async move {
            follow(followed.as_ref(), PREFIX, &Clock::system(), |all| drop(sender.send(all))).await;
        });
        Seen { objects, all, _dir: dir }
    }

    fn presence(seen: &Seen, name: &str, ttl: Duration) -> Arc<Presence> {
        let (key, value) = (format!("{PREFIX}{name}"), Bytes::from(name.to_owned()));
        let (clock, random) = (Clock::system(), Random::seeded(1));
        Arc::new(Presence::new(Arc::clone(&seen.objects), key, value, ttl, clock, random))
    }

    async fn until(seen: &mut Seen, names: &[&str]) {
        let is = |all: &Vec<Bytes>| all.iter().map(|name| &name[..]).eq(names.iter().map(|name| name.as_bytes()));
        let shown = tokio::time::timeout(Duration::from_secs(30), seen.all.wait_for(is)).await;
        shown.expect("in time").expect("it is followed");
    }

    #[tokio::test]
    async fn who_dies_is_seen_no_more_when_its_lease_ends_and_who_leaves_at_once() {
        let (following, dying) = (lyra_kit::Tasks::new(), lyra_kit::Tasks::new());
        let mut seen = seen(&following);
        // One lease is so long that only leaving can end it in this test.
        let (a, b) = (presence(&seen, "a", Duration::from_secs(3_600)), presence(&seen, "b", Duration::from_secs(2)));
        let (keeps_a, keeps_b) = (Arc::clone(&a), Arc::clone(&b));
        dying.spawn_cancellable("a", async move { keeps_a.keep().await });
        dying.spawn_cancellable("b", async move { keeps_b.keep().await });
        until(&mut seen, &["a", "b"]).await;
        a.say(Bytes::from_static(b"a, which leaves")).await.expect("said");
        until(&mut seen, &["a, which leaves", "b"]).await;
        dying.stop(Duration::from_secs(1)).await;
        until(&mut seen, &["a, which leaves"]).await;
        a.leave().await.expect("left");
        until(&mut seen, &[]).await;
        following.stop(Duration::from_secs(1)).await;
    }

    #[tokio::test]
    async fn who_was_thought_dead_and_is_not_is_seen_again() {
        let tasks = lyra_kit::Tasks::new();
        let mut seen = seen(&tasks);
        let a = presence(&seen, "a", Duration::from_secs(2));
        let keeps = Arc::clone(&a);
        tasks.spawn_cancellable("a", async move { keeps.keep().await });
        until(&mut seen, &["a"]).await;
        let lease = a.lease.lock().expect("it has one");
        seen.objects.revoke(lease).await.expect("revoked");
        until(&mut seen, &[]).await;
        until(&mut seen, &["a"]).await;
        tasks.stop(Duration::from_secs(1)).await;
    }
}
