//! Keeps the book up to date: fills it from a list, then follows the store's changes; and tells gateways.
//!
//! An event only says which object to read again.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_store::objects::{Batch, Entry, Pages};
use lyra_types::{Code, Error, Result};
use lyra_wire::accounts::{BEAT, GrantEvent};
use tokio::sync::broadcast::error::RecvError;

use super::book::{Book, Held, too_slow};
use super::keys::{self, Part};
use super::{Accounts, record};
use crate::following::Follows;

/// Objects read at once while the book is filled.
const PAGE: usize = 2_000;
/// Longest wait for the book to show all that the store has before a watcher is sent to another process.
const BEHIND: Duration = Duration::from_secs(2);

fn held(part: Part, entry: &Entry) -> Held {
    match part {
        Part::Tenant(tenant) => Held::Tenant(tenant, record::read(entry)),
        Part::User(tenant, user) => Held::User(tenant, user, record::read(entry)),
        Part::Token(id) => Held::Token(id, record::read(entry).map(Box::new)),
    }
}

impl Follows for Accounts {
    const ALL: &'static str = keys::ALL;
    const WHAT: &'static str = "accounts";

    fn shown_revision(&self) -> u64 {
        self.book.revision()
    }

    async fn fill(&self) -> Result<()> {
        let (mut found, mut there) = (Vec::new(), HashSet::new());
        let mut pages = Pages::of(self.objects.as_ref(), keys::ALL, PAGE);
        while let Some(entries) = pages.next().await? {
            for entry in &entries {
                match keys::parse(&entry.key) {
                    Some(part) => {
                        there.insert(entry.key.clone());
                        found.push(held(part, entry));
                    }
                    None => tracing::error!(key = entry.key, "an object that is none of accounts"),
                }
            }
        }
        let gone = self.book.parts().into_iter().filter(|part| !there.contains(&key(part)));
        found.extend(gone.map(Held::nothing));
        self.apply(pages.revision(), found);
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
}

impl Accounts {
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
