//! A member of those that share limits: claims its shares, and puts them into force.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lyra_types::Result;
use lyra_types::quota::QuotaKey;
use lyra_wire::quotas::{Claim, IDLE, PERIOD, Share, Shares};
use tokio::time::Instant;

use super::{Key, Meter, Meters, Of};

/// Least time between two claims.
const LEAST: Duration = Duration::from_millis(20);
/// So many claims in a row that fail are worth a line in the log.
const SAY: u32 = 20;

/// Where the conversation with the leader stands.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Session and number of the answer in force.
    have: Option<(u64, u64)>,
    /// When what was asked for was last looked at.
    looked: Option<Instant>,
    /// Claims in a row that were not answered.
    failures: u32,
}

impl Meters {
    /// Claims for ever, by `share`, which asks the control role. `waiting` says how many calls wait under a quota, of a member that holds them back itself.
    pub async fn follow<S, F>(&self, share: impl Fn(Claim) -> S, waiting: impl Fn() -> F)
    where
        S: Future<Output = Result<Shares>>,
        F: Future<Output = HashMap<QuotaKey, u64>>,
    {
        loop {
            let waiting = waiting().await;
            match self.claim(&share, &waiting).await {
                Ok(()) => self.progress.lock().failures = 0,
                Err(error) => {
                    let failures = {
                        let mut progress = self.progress.lock();
                        progress.failures += 1;
                        progress.failures
                    };
                    // One that leads may not be found at once.
                    if failures == SAY {
                        tracing::warn!(%error, "shares of quotas can't be claimed; the last ones hold");
                    }
                }
            }
            self.clock.sleep(LEAST).await;
            let period = if self.is_empty() { IDLE } else { PERIOD };
            tokio::select! {
                () = self.wanted.notified() => {}
                () = self.clock.sleep(period - LEAST) => {}
            }
        }
    }

    /// Has shares claimed ahead of time, where there are any.
    pub fn claim_soon(&self) {
        if !self.is_empty() {
            self.wanted.notify_one();
        }
    }

    /// Waits until a claim that is made from now on was answered, up to `wait`. Says whether one was.
    pub async fn refreshed(&self, wait: Duration) -> bool {
        let mut answered = self.answered.subscribe();
        // One may be under way.
        let enough = *answered.borrow() + 2;
        let two = async {
            loop {
                self.wanted.notify_one();
                if *answered.borrow_and_update() >= enough || answered.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(wait, two).await.is_ok()
    }

    async fn claim<S>(&self, share: impl Fn(Claim) -> S, waiting: &HashMap<QuotaKey, u64>) -> Result<()>
    where
        S: Future<Output = Result<Shares>>,
    {
        let now = self.clock.instant();
        let (have, passed) = {
            let mut progress = self.progress.lock();
            let looked = progress.looked.replace(now).unwrap_or(self.start);
            (progress.have, now.duration_since(looked))
        };
        let wants = {
            let meters = self.meters.pin();
            let want = |(key, meter): (&Key, &Arc<Meter>)| {
                meter.want(passed, waiting.get(&key.0).copied().unwrap_or_default())
            };
            meters.iter().filter_map(want).collect()
        };
        let holds = have.is_none().then(|| self.holds());
        let mut claim = Claim { member: self.member, patient: self.patient, have, holds, wants };
        let mut shares = share(claim.clone()).await?;
        if shares.tell_all {
            claim.holds = Some(self.holds());
            shares = share(claim).await?;
        }
        self.apply(shares);
        Ok(())
    }

    fn holds(&self) -> Vec<(QuotaKey, Share)> {
        self.meters.pin().iter().map(|(key, meter)| (key.0.clone(), meter.share())).collect()
    }

    fn apply(&self, shares: Shares) {
        if shares.tell_all {
            return;
        }
        let (meters, nanos) = (self.meters.pin(), self.nanos());
        if shares.whole {
            let there: HashSet<&QuotaKey> = shares.limits.iter().map(|limit| &limit.key).collect();
            meters.retain(|key, _| there.contains(&key.0));
        }
        for key in &shares.gone {
            meters.remove(&Of { tenant: &key.tenant, function: key.function.as_ref() });
        }
        for limit in shares.limits {
            match meters.get(&Of { tenant: &limit.key.tenant, function: limit.key.function.as_ref() }) {
                Some(meter) => meter.set(limit, nanos),
                None => {
                    let key = Key(limit.key.clone());
                    meters.insert(key, Arc::new(Meter::new(limit, nanos)));
                }
            }
        }
        self.count.store(meters.len(), Ordering::Relaxed);
        self.progress.lock().have = Some((shares.session, shares.number));
        self.answered.send_modify(|count| *count += 1);
    }
}
