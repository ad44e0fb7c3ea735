//! Watches on etcd: every change once, over restarts and moves from member to member.
//!
//! A watcher follows all of the store's keys, not only its prefix: so it sees the mark of each transaction, and
//! can say how far it is complete. After a lost connection it goes on from the revision after the last one that it has shown.

use std::sync::Arc;

use tonic::Streaming;

use super::endpoints::{Endpoints, reason};
use super::txn::open_watch;
use super::{EtcdObjects, pb};
use crate::objects::{Batch, Event, EventKind, WatchError, prefix_end};

pub(super) struct Watcher {
    store: EtcdObjects,
    /// Start of the keys that are shown, and how much of them is not part of the key.
    shown: String,
    strip: usize,
    /// Complete up to here.
    seen: u64,
    open: Option<(usize, Streaming<pb::WatchResponse>)>,
}

impl Watcher {
    /// Opens the stream.
    ///
    /// # Errors
    /// When history is missing.
    pub(super) async fn start(store: EtcdObjects, prefix: &str, from: u64) -> Result<Watcher, WatchError> {
        let watcher = Watcher {
            shown: store.object(prefix),
            strip: store.object("").len(),
            seen: from.max(1) - 1,
            open: None,
            store,
        };
        watcher.check_history().await?;
        Ok(watcher)
    }

    fn endpoints(&self) -> &Arc<Endpoints> {
        &self.store.endpoints
    }

    /// Whether everything since the last revision that was shown is still kept. etcd itself would start a watch at the very
    /// revision that was compacted, whose deletions are gone.
    async fn check_history(&self) -> Result<(), WatchError> {
        match self.store.is_kept(self.seen).await? {
            true => Ok(()),
            false => Err(self.compacted(self.seen).await?),
        }
    }

    async fn compacted(&self, oldest: u64) -> Result<WatchError, WatchError> {
        // Who lists now must get a revision that can be watched from.
        self.store.raise().await?;
        Ok(WatchError::Compacted { oldest })
    }

    async fn open(&mut self) -> Result<(), String> {
        let root = self.store.root();
        let create = pb::WatchCreateRequest {
            range_end: prefix_end(root).expect("the root is not empty").into(),
            key: root.to_owned().into(),
            start_revision: i64::try_from(self.seen + 1).unwrap_or(i64::MAX),
        };
        self.open = Some(open_watch(self.endpoints(), create).await.map_err(|status| reason(&status))?);
        Ok(())
    }

    /// The next changes.
    pub(super) async fn next(&mut self) -> Result<Batch, WatchError> {
        let mut tries = 0;
        loop {
            if self.open.is_none() {
                let opened = match self.open().await {
                    Ok(()) => self.check_history().await,
                    Err(detail) => {
                        tracing::debug!(detail, "a watch can't be opened");
                        Err(WatchError::Store(crate::StoreError::Remote { operation: "watch", detail }))
                    }
                };
                match opened {
                    Ok(()) => {}
                    Err(error @ WatchError::Compacted { .. }) => return Err(error),
                    // The store can't be reached: whoever watches goes on with what it knows.
                    Err(WatchError::Store(_)) => {
                        self.open = None;
                        tries += 1;
                        self.endpoints().back_off(tries).await;
                        continue;
                    }
                }
            }
            match self.answer().await {
                Some(answer) if answer.compact_revision > 0 => {
                    return Err(self.compacted(answer.compact_revision.cast_unsigned()).await?);
                }
                Some(answer) if answer.canceled => {
                    tracing::debug!(detail = answer.cancel_reason, "a watch was cancelled");
                    self.open = None;
                    tries += 1;
                    self.endpoints().back_off(tries).await;
                }
                Some(answer) => {
                    tries = 0;
                    if let Some(batch) = self.batch(answer) {
                        return Ok(batch);
                    }
                }
                None => {
                    self.open = None;
                    tries += 1;
                    self.endpoints().back_off(tries).await;
                }
            }
        }
    }

    /// What the stream says next; `None` when it has ended, or another member is to be asked.
    async fn answer(&mut self) -> Option<pb::WatchResponse> {
        let mut moves = self.store.endpoints.moves();
        let (number, answers) = self.open.as_mut()?;
        let ours = *number;
        tokio::select! {
            answer = answers.message() => match answer {
                Ok(Some(answer)) => Some(answer),
                Ok(None) => None,
                Err(status) => {
                    tracing::debug!(detail = reason(&status), "a watch was cut off");
                    self.store.endpoints.failed(ours);
                    None
                }
            },
            _ = moves.wait_for(|current| *current != ours) => None,
        }
    }

    /// The changes of an answer, if it has any that were not shown.
    fn batch(&mut self, answer: pb::WatchResponse) -> Option<Batch> {
        let mut events = Vec::with_capacity(answer.events.len());
        let mut revision = self.seen;
        for event in answer.events {
            let deleted = event.r#type() == pb::event::EventType::Delete;
            let Some(kv) = event.kv else { continue };
            let at = kv.mod_revision.cast_unsigned();
            if at <= self.seen {
                continue;
            }
            revision = revision.max(at);
            if !kv.key.starts_with(self.shown.as_bytes()) {
                continue;
            }
            // Keys are ASCII, or were put by somebody else.
            if let Ok(key) = std::str::from_utf8(&kv.key[self.strip..]) {
                let kind = if deleted { EventKind::Delete } else { EventKind::Put };
                events.push(Event { revision: at, key: key.to_owned(), kind });
            }
        }
        if revision == self.seen {
            return None;
        }
        events.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
        self.seen = revision;
        Some(Batch { events, revision })
    }
}
