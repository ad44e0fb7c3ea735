//! What time does: runs that ended long ago go, and so does what killed processes left behind.

use std::collections::BTreeSet;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use futures::{StreamExt, TryStreamExt};
use lyra_types::Timestamp;

use super::bucket::{PLACE, Put};
use super::entry::{Name, Place};
use super::index::News;
use super::owners::until;
use super::{AT_ONCE, MARKED, Shared, TRIES};
use crate::StoreError;

/// What is kept with a time of its own, and is over.
struct Over {
    sequence: u64,
    /// Words of its subject after the kind, and the place of its payload, if it has one.
    parts: Option<(String, String)>,
}

impl Shared {
    pub(super) async fn sweep(&self, ended_before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let ended = self.ask(move |index| index.ended(ended_before, limit)).await?;
        let removed: Vec<bool> = futures::stream::iter(ended)
            .map(|name| async move { self.remove(&name, ended_before).await })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        self.forget_marks(limit).await?;
        let clock = self.bucket.clock();
        let searched = *self.searched.lock();
        if searched.is_none_or(|at| clock.instant() - at >= MARKED) {
            if self.drop_over(ended_before, limit).await? {
                *self.searched.lock() = Some(clock.instant());
            }
            self.drop_orphans().await?;
        }
        Ok(removed.into_iter().filter(|removed| *removed).count() as u64)
    }

    /// Deletes a run if it ended before this time still.
    pub(super) async fn remove(&self, name: &Name, ended_before: Timestamp) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let Some((sequence, Some(found))) = self.bucket.last(name).await? else { return Ok(false) };
            let state = &found.entry.state;
            if !state.status.is_final() || state.ended_at.is_none_or(|at| at >= ended_before) {
                self.learn_run(name, &found).await?;
                return Ok(false);
            }
            if let Put::Done(mark) = self.bucket.mark(name, sequence).await? {
                let since = self.bucket.clock().now();
                self.learn(News::Gone { name: name.clone(), sequence: mark, since }).await?;
                self.bucket.drop_payloads(name, &state.place).await?;
                return Ok(true);
            }
        }
        Err(StoreError::Overloaded)
    }

    /// Deletes marks that every process has seen.
    async fn forget_marks(&self, limit: usize) -> Result<(), StoreError> {
        let since = self.bucket.clock().now() - MARKED;
        for (name, sequence) in self.ask(move |index| index.marks(since, limit)).await? {
            self.bucket.channel.forget(&self.bucket.runs, sequence).await?;
            self.ask(move |index| index.forget(&name, sequence)).await?;
        }
        Ok(())
    }

    /// Deletes up to `limit` kept results and owners whose time was over before `before`; says whether that was all.
    async fn drop_over(&self, before: Timestamp, limit: usize) -> Result<bool, StoreError> {
        let mut all = true;
        for kind in ["m", "o"] {
            let prefix = self.bucket.data_subject(kind, "");
            let config = PullConfig {
                deliver_policy: DeliverPolicy::All,
                filter_subject: format!("{prefix}>"),
                headers_only: true,
                ..PullConfig::default()
            };
            let mut over = Vec::new();
            self.bucket
                .read(&self.bucket.data, config, |message, sequence| {
                    let headers = message.headers.as_ref();
                    if headers.and_then(until).is_some_and(|until| until < before) {
                        let rest = message.subject.strip_prefix(&*prefix);
                        let place = headers.and_then(|headers| headers.get(PLACE));
                        let parts = rest.zip(place).map(|(rest, place)| (rest.to_owned(), place.as_str().to_owned()));
                        over.push(Over { sequence, parts });
                    }
                    Ok(over.len() < limit)
                })
                .await?;
            all &= over.len() < limit;
            for Over { sequence, parts } in over {
                // One that was renewed meanwhile has another sequence.
                self.bucket.channel.forget(&self.bucket.data, sequence).await?;
                if let Some((rest, place)) = parts {
                    self.drop_memo_parts(&rest, &place).await?;
                }
            }
        }
        Ok(all)
    }

    /// Deletes payloads whose run or kept result was never written, or is gone: their process was killed between the two.
    async fn drop_orphans(&self) -> Result<(), StoreError> {
        let before = (self.bucket.clock().now() - MARKED).millis();
        let prefix = self.bucket.data_subject("d", "");
        let subjects = self.bucket.channel.subjects(&self.bucket.data, &format!("{prefix}>")).await?;
        let mut places = BTreeSet::new();
        for subject in &subjects {
            let mut words = subject.strip_prefix(&*prefix).unwrap_or_default().split('.');
            let (Some(kind), Some(one), Some(two), Some(place)) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            // Younger ones may be about to be named.
            if Place(place.to_owned()).made().is_some_and(|made| made < before) {
                places.insert((kind.to_owned(), format!("{one}.{two}"), Place(place.to_owned())));
            }
        }
        for (kind, rest, place) in places {
            match (&*kind, Name::parse(&rest)) {
                ("r", Some(name)) => self.drop_orphan(name, place).await?,
                ("m", _) => {
                    let subject = self.bucket.data_subject("m", &rest);
                    let found = self.bucket.channel.last(&self.bucket.data, &subject, "look for a kept result").await?;
                    let named = found.as_ref().and_then(|found| found.headers.get(PLACE));
                    if named.is_none_or(|named| named.as_str() != place.0) {
                        self.drop_memo_parts(&rest, &place.0).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn drop_orphan(&self, name: Name, place: Place) -> Result<(), StoreError> {
        let asked = name.clone();
        if self.ask(move |index| index.place(&asked)).await?.as_ref() == Some(&place) {
            return Ok(());
        }
        // The index may be behind.
        if self.fetch(&name).await?.is_some_and(|found| found.entry.state.place == place) {
            return Ok(());
        }
        self.bucket.drop_payloads(&name, &place).await
    }
}
