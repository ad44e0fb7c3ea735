//! Keeps the book up to date: fills it from a list, then follows the store's changes; and tells gateways.
//!
//! An event only says which object to read again.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_store::objects::{Batch, Entry, WatchError};
use lyra_types::{Code, Error, Result};
use lyra_wire::accounts::{BEAT, GrantEvent};
use tokio::sync::broadcast::error::RecvError;

use super::book::{Book, Held, too_slow};
use super::keys::{self, Part};
use super::{Accounts, record};

/// Objects read at once while the book is filled.
const PAGE: usize = 2_000;
/// Wait before the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for the book to show all that the store has before a watcher is sent to another process.
const BEHIND: Duration = Duration::from_secs(2);

fn held(part: Part, entry: &Entry) -> Held {
    match part {
        Part::Tenant(tenant) => Held::Tenant(tenant, record::read(entry)),
        Part::User(tenant, user) => Held::User(tenant, user, record::read(entry)),
        Part::Token(id) => Held::Token(id, record::read(entry).map(Box::new)),
    }
}

impl Accounts {
    /// Makes the book show what the store holds.
    pub(super) async fn fill(&self) -> Result<()> {
        let (mut start, mut after, mut found) = (None, None, Vec::new());
        let mut there = HashSet::new();
        loop {
            let page = self.objects.list(keys::ALL, PAGE, after.as_deref()).await?;
            let revision = *start.get_or_insert(page.revision);
            after = page.entries.last().map(|entry| entry.key.clone());
            for entry in &page.entries {
                match keys::parse(&entry.key) {
                    Some(part) => {
                        there.insert(entry.key.clone());
                        found.push(held(part, entry));
                    }
                    None => tracing::error!(key = entry.key, "an object that is none of accounts"),
                }
            }
            if !page.more {
                let gone = self.book.parts().into_iter().filter(|part| !there.contains(&key(part)));
                found.extend(gone.map(Held::nothing));
                // Objects that were read later than the first page are newer than this says; following from here reads
                // them once more.
                self.apply(revision, found);
                return Ok(());
            }
        }
    }

    /// Follows the store for ever.
    pub(super) async fn follow(&self) {
        loop {
            if let Err(error) = self.follow_once().await {
                match error {
                    WatchError::Compacted { oldest } => {
                        tracing::warn!(oldest, "the book of accounts fell behind and is filled anew");
                        if let Err(error) = self.fill().await {
                            tracing::warn!(%error, "the book of accounts can't be filled");
                        }
                    }
                    WatchError::Store(error) => tracing::warn!(%error, "accounts can't be followed"),
                }
            }
            self.clock.sleep(AGAIN).await;
        }
    }

    async fn follow_once(&self) -> Result<(), WatchError> {
        let mut batches = self.objects.watch(keys::ALL, self.book.revision() + 1).await?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            while let Err(error) = self.show(&batch).await {
                tracing::warn!(%error, "a changed account can't be read");
                self.clock.sleep(AGAIN).await;
            }
        }
        Ok(())
    }

    async fn show(&self, batch: &Batch) -> Result<()> {
        let changed: BTreeSet<&str> = batch.events.iter().map(|event| event.key.as_str()).collect();
        let mut found = Vec::with_capacity(changed.len());
        for key in changed {
            let Some(part) = keys::parse(key) else { continue };
            found.push(match self.objects.get(key).await? {
                Some(entry) => held(part, &entry),
                None => Held::nothing(part),
            });
        }
        self.apply(batch.revision, found);
        Ok(())
    }

    fn apply(&self, revision: u64, found: Vec<Held>) {
        self.book.apply(revision, found);
        self.metrics.grants.set(i64::try_from(self.book.granted()).unwrap_or(i64::MAX));
    }

    /// Every tenant and grant, then each change; and every [`BEAT`] a word that nothing was missed, for which the store is asked.
    pub(super) fn watch(self: &Arc<Self>) -> BoxStream<'static, Result<(u64, GrantEvent)>> {
        let (revision, first, changes) = self.book.subscribe();
        let first = first.into_iter().chain([GrantEvent::Synced]).map(move |event| Ok((revision, event)));
        let rest = futures::stream::unfold(Some((Arc::clone(self), changes)), |state| async move {
            let (accounts, mut changes) = state?;
            let change = tokio::select! {
                biased;
                change = changes.recv() => match change {
                    Ok(change) => Ok(change),
                    Err(RecvError::Closed) => return None,
                    Err(RecvError::Lagged(missed)) => Err(too_slow(missed)),
                },
                () = accounts.clock.sleep(BEAT) => accounts.is_complete().await.map(|revision| (revision, GrantEvent::Beat)),
            };
            match change {
                Ok(change) => Some((Ok(change), Some((accounts, changes)))),
                Err(error) => Some((Err(error), None)),
            }
        });
        futures::stream::iter(first).chain(rest).boxed()
    }

    /// Makes sure that the book shows all that was stored before now, by whatever process. Changes that this waits for stand in the
    /// subscriber's queue, before the beat that follows.
    async fn is_complete(&self) -> Result<u64> {
        let newest = self.objects.list("accounts/.", 1, None).await?.revision;
        if tokio::time::timeout(BEHIND, self.book.reaches(newest)).await.is_err() {
            return Err(Error::new(Code::Unavailable, "the store can't be followed here; watch again"));
        }
        Ok(newest)
    }
}

fn key(part: &Part) -> String {
    match part {
        Part::Tenant(tenant) => keys::tenant(tenant),
        Part::User(tenant, user) => keys::user(tenant, user),
        Part::Token(id) => keys::token(*id),
    }
}

impl Book {
    /// Waits until the book is complete up to `revision`, for a bounded time.
    pub(super) async fn shown(&self, revision: u64) {
        if tokio::time::timeout(Duration::from_secs(10), self.reaches(revision)).await.is_err() {
            tracing::warn!(revision, "the book of accounts is behind");
        }
    }
}
