//! Quotas of calls: what this process may let in, as a member of those that share each limit.
//!
//! [`Meters`] knows its share of every limit ([`member`] claims them from control); whoever is about to make a call [enters](Meters::enter)
//! first and holds the [`Pass`] until the call has ended. Gateways enter for the calls and jobs that clients ask for, the dispatcher of
//! jobs for their tries; tasks of workflows [wait](Meters::wait).
//!
//! What must hold: where there is no quota, entering is one load of a number; with one, it takes no lock on the way in. What was let in
//! under a quota counts there until its pass is dropped, whatever becomes of the quota. When control is away, the last shares hold.

mod bucket;
mod member;
mod meter;
mod patient;

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lyra_kit::Clock;
use lyra_kit::telemetry::prometheus::IntCounterVec;
use lyra_types::quota::QuotaKey;
use lyra_types::{FunctionName, Result, TenantName};
use lyra_wire::quotas::PERIOD;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use meter::{Meter, Refusal};

/// Longest wait of a call for a part of its limit that others hold: time for each of two members to claim twice.
const WAIT: Duration = PERIOD.saturating_mul(4);
/// Calls that wait for one; more are refused at once.
const WAITING: usize = 1_024;

struct Key(QuotaKey);

/// A key of borrowed names.
struct Of<'a> {
    tenant: &'a TenantName,
    function: Option<&'a FunctionName>,
}

impl Hash for Of<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.tenant, self.function).hash(state);
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Of { tenant: &self.0.tenant, function: self.0.function.as_ref() }.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.0 == other.0
    }
}

impl Eq for Key {}

impl papaya::Equivalent<Key> for Of<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.function == key.0.function.as_ref() && *self.tenant == key.0.tenant
    }
}

/// What a call asks to be let in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It runs now: counts against rate, places, memory and processor time.
    Call,
    /// It is to become a job: counts against the rate, and is refused where no processor time is left.
    Submit,
    /// It is a try of a job that was let in before: counts against places, memory and processor time.
    Try,
}

/// What is about to be called.
#[derive(Debug, Clone, Copy)]
pub struct Called<'a> {
    /// Owner.
    pub tenant: &'a TenantName,
    /// Function; `None` for what is none.
    pub function: Option<&'a FunctionName>,
    /// Memory limit of the version.
    pub memory_mb: u32,
}

/// Places that a call holds; they are given back when this is dropped.
#[derive(Debug, Default)]
#[must_use = "the call counts for as long as this is held"]
pub struct Pass {
    meters: [Option<Arc<Meter>>; 2],
    memory_mb: u64,
}

impl Pass {
    /// Whether nothing is held: there is no quota.
    pub fn is_empty(&self) -> bool {
        self.meters.iter().all(Option::is_none)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        for meter in self.meters.iter().flatten() {
            meter.leave(self.memory_mb);
        }
    }
}

/// Every quota of calls.
pub struct Meters {
    count: AtomicUsize,
    meters: papaya::HashMap<Key, Arc<Meter>>,
    /// Who this is among the members.
    member: u64,
    patient: bool,
    clock: Clock,
    start: Instant,
    refused: IntCounterVec,
    waiting: Semaphore,
    /// Somebody waits for more.
    wanted: Notify,
    /// Claims that were answered, and whether the first has been.
    answered: watch::Sender<u64>,
    progress: Mutex<member::Progress>,
}

impl Meters {
    /// None yet; [`Meters::follow`] learns them. `member` is a number drawn at each start of a process. A `patient` member makes nobody
    /// wait: it gets little ahead of what it wants. `refused` counts calls that were not let in, by `limit`.
    pub fn new(clock: Clock, member: u64, patient: bool, refused: IntCounterVec) -> Meters {
        Meters {
            count: AtomicUsize::new(0),
            meters: papaya::HashMap::new(),
            member,
            patient,
            start: clock.instant(),
            clock,
            refused,
            waiting: Semaphore::new(WAITING),
            wanted: Notify::new(),
            answered: watch::Sender::new(0),
            progress: Mutex::default(),
        }
    }

    /// How many quotas of calls there are.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.clock.instant().duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    fn find(&self, tenant: &TenantName, function: Option<&FunctionName>) -> Option<Arc<Meter>> {
        self.meters.pin().get(&Of { tenant, function }).cloned()
    }

    /// Lets a call in, or says which limit it would break.
    ///
    /// Where others hold a part of the limit this waits for it, for a second at most.
    ///
    /// # Errors
    /// [`lyra_types::Code::LimitReached`] with the limit, and when to come again.
    #[inline]
    pub async fn enter(&self, called: Called<'_>, entry: Entry) -> Result<Pass> {
        if self.is_empty() {
            return Ok(Pass::default());
        }
        // Rare, and large.
        Box::pin(self.enter_limited(called, entry)).await
    }

    async fn enter_limited(&self, called: Called<'_>, entry: Entry) -> Result<Pass> {
        let meters = self.find_both(called);
        let memory_mb = u64::from(called.memory_mb);
        meters.iter().flatten().for_each(|meter| meter.ask(memory_mb));
        let deadline = self.clock.instant() + WAIT;
        let mut waits = None;
        loop {
            // From here on an answer is noticed, so none can fall between the look and the wait.
            let mut answered = self.answered.subscribe();
            let refusal = match self.try_enter(&meters, memory_mb, entry) {
                Ok(pass) => return Ok(pass),
                Err(refusal) => refusal,
            };
            if refusal.may_grow && waits.is_none() {
                waits = self.waiting.try_acquire().ok();
            }
            if refusal.may_grow && waits.is_some() && self.clock.instant() < deadline {
                self.wanted.notify_one();
                if let Ok(Ok(())) = tokio::time::timeout_at(deadline, answered.changed()).await {
                    continue;
                }
            }
            self.refused.with_label_values(&[refusal.kind.as_str()]).inc();
            return Err(refusal.error);
        }
    }

    /// Lets a try of a job in, at once or not at all.
    ///
    /// # Errors
    /// As [`Meters::enter`]; nothing is counted as refused, since it is tried again.
    pub fn try_now(&self, called: Called<'_>) -> Result<Pass> {
        if self.is_empty() {
            return Ok(Pass::default());
        }
        let meters = self.find_both(called);
        let memory_mb = u64::from(called.memory_mb);
        meters.iter().flatten().for_each(|meter| meter.ask(memory_mb));
        self.try_enter(&meters, memory_mb, Entry::Try).map_err(|refusal| refusal.error)
    }

    fn try_enter(
        &self,
        meters: &[Option<Arc<Meter>>; 2],
        memory_mb: u64,
        entry: Entry,
    ) -> std::result::Result<Pass, Refusal> {
        let now = self.clock.now();
        meters.iter().flatten().try_for_each(|meter| meter.check_spent(now))?;
        let mut pass = Pass { meters: [None, None], memory_mb };
        if entry != Entry::Submit {
            for (held, meter) in pass.meters.iter_mut().zip(meters) {
                if let Some(meter) = meter {
                    meter.enter(memory_mb)?;
                    *held = Some(Arc::clone(meter));
                }
            }
        }
        if entry != Entry::Try {
            // The function's first: what the tenant's refuses is given back to it.
            let (nanos, [tenant, function]) = (self.nanos(), meters);
            function.as_ref().map_or(Ok(()), |meter| meter.take(nanos))?;
            if let Some(Err(refusal)) = tenant.as_ref().map(|meter| meter.take(nanos)) {
                function.iter().for_each(|meter| meter.give_back());
                return Err(refusal);
            }
        }
        Ok(pass)
    }

    /// How many more tries of jobs each quota has room for, where that is limited.
    pub fn rooms(&self) -> Vec<(QuotaKey, u64)> {
        let now = self.clock.now();
        let meters = self.meters.pin();
        let room = |(key, meter): (&Key, &Arc<Meter>)| Some((key.0.clone(), meter.room(now)?));
        meters.iter().filter_map(room).collect()
    }

    /// The quotas of places.
    pub fn of_places(&self) -> Vec<QuotaKey> {
        let meters = self.meters.pin();
        meters.iter().filter(|(_, meter)| meter.limits_places()).map(|(key, _)| key.0.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
