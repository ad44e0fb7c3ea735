//! Counts and standings of triggers: gathered in memory, written down now and then.
//!
//! Every control process takes posted events, and the leader takes those of NATS: each adds what it has seen to what is stored. What a
//! process had not yet written down when it was killed is not counted.

use std::collections::HashMap;
use std::time::Duration;

use lyra_store::objects::Check;
use lyra_types::trigger::{TriggerCounts, TriggerState};
use lyra_types::{Result, TenantName, TriggerName};
use parking_lot::Mutex;

use super::record::{Standing, key, put, read, standing_key};
use super::{TRIES, Triggers};

/// How often what was seen is written down.
pub(super) const WRITE_EVERY: Duration = Duration::from_secs(1);

/// A trigger, by its tenant and name.
pub(super) type Whose = (TenantName, TriggerName);

/// What was seen of a trigger since it was last written down.
#[derive(Debug, Clone, Default)]
struct Seen {
    uid: u64,
    counts: TriggerCounts,
    now: Option<(TriggerState, Option<String>)>,
    lag: Option<u64>,
}

/// What was seen and is not written down.
#[derive(Debug, Default)]
pub(super) struct Tally {
    seen: Mutex<HashMap<Whose, Seen>>,
}

impl Tally {
    fn note(&self, whose: &Whose, uid: u64, note: impl FnOnce(&mut Seen)) {
        let mut all = self.seen.lock();
        let seen = all.entry(whose.clone()).or_default();
        if seen.uid != uid {
            *seen = Seen { uid, ..Seen::default() };
        }
        note(seen);
    }

    pub(super) fn count(&self, whose: &Whose, uid: u64, more: TriggerCounts) {
        self.note(whose, uid, |seen| seen.counts += more);
    }

    pub(super) fn stands(&self, whose: &Whose, uid: u64, state: TriggerState, error: Option<String>) {
        self.note(whose, uid, |seen| seen.now = Some((state, error)));
    }

    pub(super) fn lags(&self, whose: &Whose, uid: u64, lag: u64) {
        self.note(whose, uid, |seen| seen.lag = Some(lag));
    }

    /// Puts back what could not be written down, below what was seen meanwhile.
    fn put_back(&self, whose: Whose, before: Seen) {
        let mut all = self.seen.lock();
        let seen = all.entry(whose).or_insert_with(|| Seen { uid: before.uid, ..Seen::default() });
        if seen.uid == before.uid {
            seen.counts += before.counts;
            seen.now = seen.now.take().or(before.now);
            seen.lag = seen.lag.or(before.lag);
        }
    }
}

impl Triggers {
    /// Writes down what was seen.
    pub(crate) async fn write_down(&self) {
        let all = std::mem::take(&mut *self.tally.seen.lock());
        for (whose, seen) in all {
            if let Err(error) = self.write_one(&whose, &seen).await {
                tracing::debug!(%error, "how a trigger stands can't be written down yet");
                self.tally.put_back(whose, seen);
            }
        }
    }

    async fn write_one(&self, (tenant, name): &Whose, seen: &Seen) -> Result<()> {
        let place = standing_key(tenant, name);
        for _ in 0..TRIES {
            let entry = self.objects.get(&place).await?;
            let before: Option<Standing> = entry.as_ref().map(read).transpose()?;
            let check = match &entry {
                Some(entry) => Check::Modified(place.clone(), entry.modified),
                None => Check::Absent(place.clone()),
            };
            let before = before.filter(|before| before.uid == seen.uid);
            let mut standing = before.clone().unwrap_or_else(|| Standing { uid: seen.uid, ..Standing::default() });
            standing.counts += seen.counts;
            if let Some((state, error)) = &seen.now {
                // The last error stays to be read.
                standing.error = error.clone().or(standing.error);
                standing.state = *state;
            }
            standing.lag = seen.lag.or(standing.lag);
            if before.as_ref() == Some(&standing) {
                return Ok(());
            }
            // Where the trigger is gone, there is nothing to say of it.
            let there = Check::Exists(key(tenant, name));
            if self.objects.get(&key(tenant, name)).await?.is_none() {
                return Ok(());
            }
            if self.commit(vec![there, check], vec![put(place.clone(), &standing)?]).await? {
                return Ok(());
            }
        }
        Ok(())
    }
}
