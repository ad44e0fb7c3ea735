//! What the leader does: takes messages for each trigger that has any to take, and has consumers deleted that nobody needs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use lyra_kit::Tasks;
use lyra_store::objects::{Batch, Change, Pages, WatchError};
use lyra_types::trigger::TriggerState;
use lyra_types::{Code, Error, Result};
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Triggers;
use super::record::{ALL, LEFTOVERS, Leftover, Record, parse_key, parse_leftover, read};
use super::tally::Whose;
use crate::leader::Term;

/// Triggers read at once.
const PAGE: usize = 1_000;
/// Wait before the store is asked again after it failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How often consumers are looked for that nobody needs.
const CLEAR: Duration = Duration::from_secs(15);
/// For how long their deletion is tried.
const CLEAR_FOR: Duration = Duration::from_secs(24 * 3_600);

/// Messages that wait, by trigger.
#[derive(Default)]
pub(super) struct Lags {
    by: Mutex<HashMap<Whose, u64>>,
}

/// A trigger whose messages are being taken; that ends when this is dropped.
struct Taking {
    record: Record,
    _stop: DropGuard,
}

impl Triggers {
    /// Takes messages, for as long as the term lasts.
    pub(crate) async fn lead(self: &Arc<Self>, term: &Term) {
        let take = async {
            loop {
                if let Err(error) = self.follow().await {
                    tracing::warn!(%error, "triggers can't be followed");
                }
                self.clock.sleep(AGAIN).await;
            }
        };
        let clear = async {
            loop {
                if let Err(error) = self.clear_leftovers().await {
                    tracing::warn!(%error, "consumers that nobody needs can't be looked for");
                }
                self.clock.sleep(CLEAR).await;
            }
        };
        tokio::join!(term.over.run_until_cancelled(take), term.over.run_until_cancelled(clear));
        self.lags.by.lock().clear();
        self.metrics.trigger_lag.set(0);
    }

    /// Reads all triggers and takes their messages, until the store fails or forgets. Dropped, it has all of it ended.
    async fn follow(self: &Arc<Self>) -> Result<()> {
        let mut taking: HashMap<String, Taking> = HashMap::new();
        let tasks = Tasks::new();
        let mut pages = Pages::of(self.objects.as_ref(), ALL, PAGE);
        while let Some(entries) = pages.next().await? {
            for entry in &entries {
                self.look_at(&tasks, &mut taking, &entry.key, read(entry).ok());
            }
        }
        let unavailable = |error: WatchError| Error::new(Code::Unavailable, error.to_string());
        let watched = self.objects.watch(ALL, pages.revision() + 1).await.map_err(unavailable)?;
        let mut changes: BoxStream<'static, Result<Batch, WatchError>> = watched;
        while let Some(batch) = changes.next().await {
            for event in batch.map_err(unavailable)?.events {
                let record = match self.objects.get(&event.key).await? {
                    Some(entry) => read(&entry).ok(),
                    None => None,
                };
                self.look_at(&tasks, &mut taking, &event.key, record);
            }
        }
        Ok(())
    }

    /// Begins to take messages for a trigger, or ends it, as it stands now.
    fn look_at(
        self: &Arc<Self>,
        tasks: &Tasks,
        taking: &mut HashMap<String, Taking>,
        key: &str,
        record: Option<Record>,
    ) {
        let Some(whose) = parse_key(key) else { return };
        let wanted = record.filter(|record| record.trigger.source.nats().is_some());
        if let (Some(wanted), Some(now)) = (&wanted, taking.get(key))
            && (wanted.uid, &wanted.trigger) == (now.record.uid, &now.record.trigger)
        {
            return;
        }
        taking.remove(key);
        self.measure_lag(&whose, None);
        let Some(record) = wanted else { return };
        if taking.len() >= self.config.max_connections {
            let most = self.config.max_connections;
            let error =
                format!("{most} triggers take messages already, the most that may (control.triggers.max_connections)");
            tracing::warn!(tenant = %whose.0, trigger = %whose.1, error, "a trigger takes no messages");
            self.tally.stands(&whose, record.uid, TriggerState::Failing, Some(error));
            return;
        }
        let stop = CancellationToken::new();
        let (this, token, of) = (Arc::clone(self), stop.clone(), record.clone());
        tasks.spawn("trigger", async move {
            token.run_until_cancelled(this.take(&whose, &of)).await;
        });
        taking.insert(key.to_owned(), Taking { record, _stop: stop.drop_guard() });
    }

    /// Notes how many messages wait for a trigger; `None` where that is not known.
    pub(super) fn measure_lag(&self, whose: &Whose, lag: Option<u64>) {
        let mut by = self.lags.by.lock();
        match lag {
            Some(lag) => drop(by.insert(whose.clone(), lag)),
            None => drop(by.remove(whose)),
        }
        self.metrics.trigger_lag.set(i64::try_from(by.values().sum::<u64>()).unwrap_or(i64::MAX));
    }

    /// Deletes consumers of triggers that are gone, or that take their messages from elsewhere now.
    async fn clear_leftovers(&self) -> Result<()> {
        let found = self.objects.list(LEFTOVERS, PAGE, None).await?;
        for entry in &found.entries {
            let Some((tenant, uid)) = parse_leftover(&entry.key) else { continue };
            let leftover: Leftover = read(entry)?;
            let whose = (tenant, leftover.name.clone());
            let too_old = self.clock.now().since(leftover.since) >= CLEAR_FOR;
            match self.delete_consumer(&whose, uid, &leftover.source).await {
                Ok(()) => {}
                Err(error) if too_old => {
                    tracing::warn!(tenant = %whose.0, trigger = %whose.1, error, "a consumer at NATS is left behind");
                }
                Err(error) => {
                    tracing::debug!(tenant = %whose.0, trigger = %whose.1, error, "a consumer can't be deleted yet");
                    continue;
                }
            }
            self.commit(Vec::new(), vec![Change::Delete(entry.key.clone())]).await?;
        }
        Ok(())
    }
}
