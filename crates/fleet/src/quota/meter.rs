//! One quota of calls as this process holds it: its share, what runs under it, and what was asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lyra_types::quota::{LimitKind, rate_text};
use lyra_types::{Error, Timestamp};
use lyra_wire::quotas::{Limit, PERIOD, Share, Want};
use parking_lot::RwLock;
use tokio::sync::{Mutex, Notify};

use super::bucket::Bucket;

/// Calls in a million seconds are counted.
const MILLION: u64 = 1_000_000;
/// When a place may be free again; nobody knows better.
const SOON: Duration = Duration::from_secs(1);
/// No limit.
const ANY: u64 = u64::MAX;

/// A number that may not grow over a limit.
#[derive(Debug)]
struct Gauge {
    used: AtomicU64,
    most: AtomicU64,
    /// Most that was used or asked for since it was looked at.
    peak: AtomicU64,
}

impl Gauge {
    fn new(most: Option<u64>) -> Gauge {
        Gauge { used: AtomicU64::new(0), most: AtomicU64::new(most.unwrap_or(ANY)), peak: AtomicU64::new(0) }
    }

    fn set(&self, most: Option<u64>) {
        self.most.store(most.unwrap_or(ANY), Ordering::Relaxed);
    }

    fn take(&self, amount: u64) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let take = |used: u64| used.checked_add(amount).filter(|now| *now <= most);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        let (used, taken) = match taken {
            Ok(used) => (used, true),
            Err(used) => (used, false),
        };
        self.peak.fetch_max(used.saturating_add(amount), Ordering::Relaxed);
        taken
    }

    fn give(&self, amount: u64) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn room(&self) -> u64 {
        self.most.load(Ordering::Relaxed).saturating_sub(self.used())
    }
}

/// Why a call is not let in.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) kind: LimitKind,
    pub(super) error: Error,
    /// Others hold a part of the limit: it may come over.
    pub(super) may_grow: bool,
    /// It is the function's limit, and not the tenant's.
    pub(super) of_function: bool,
}

/// A quota of calls.
#[derive(Debug)]
pub(super) struct Meter {
    limit: RwLock<Limit>,
    limits_rate: AtomicBool,
    bucket: Bucket,
    calls: Gauge,
    memory: Gauge,
    largest: AtomicU64,
    /// Milliseconds; nothing is let in before.
    spent_until: AtomicI64,
    /// Calls that were asked for since this was looked at.
    asked: AtomicU64,
    /// Calls that found no place since then.
    turned_away: AtomicU64,
    /// Calls that wait to be let in, the first of which holds the turn.
    pub(super) waits: AtomicU64,
    pub(super) turn: Arc<Mutex<()>>,
    /// A place has come free here.
    pub(super) freed: Notify,
    /// What was wanted before, so that a short pause does not give all away.
    before: RwLock<Option<Want>>,
}

fn rate(share: &Share) -> (u64, u64) {
    (share.rate.unwrap_or(0), share.burst.unwrap_or(0))
}

impl Meter {
    /// `now` in nanoseconds.
    pub(super) fn new(limit: Limit, now: u64) -> Meter {
        let (per, burst) = rate(&limit.share);
        Meter {
            limits_rate: AtomicBool::new(limit.share.rate.is_some()),
            bucket: Bucket::new(per, burst, now),
            calls: Gauge::new(limit.share.concurrency),
            memory: Gauge::new(limit.share.memory_mb),
            largest: AtomicU64::new(0),
            spent_until: AtomicI64::new(spent(&limit)),
            asked: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            turn: Arc::default(),
            freed: Notify::new(),
            before: RwLock::new(None),
            limit: RwLock::new(limit),
        }
    }

    pub(super) fn set(&self, limit: Limit, now: u64) {
        let mut held = self.limit.write();
        let (per, burst) = rate(&limit.share);
        if held.share.rate.is_none() {
            self.bucket.begin(per, burst, now);
        } else if held.share.rate != limit.share.rate || held.share.burst != limit.share.burst {
            self.bucket.set(per, burst, now);
        }
        self.limits_rate.store(limit.share.rate.is_some(), Ordering::Relaxed);
        self.calls.set(limit.share.concurrency);
        self.memory.set(limit.share.memory_mb);
        self.spent_until.store(spent(&limit), Ordering::Relaxed);
        *held = limit;
    }

    pub(super) fn share(&self) -> Share {
        self.limit.read().share
    }

    pub(super) fn ask(&self, memory_mb: u64) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.largest.fetch_max(memory_mb, Ordering::Relaxed);
    }

    /// Refuses while no processor time is left.
    pub(super) fn check_spent(&self, now: Timestamp) -> Result<(), Refusal> {
        let until = self.spent_until.load(Ordering::Relaxed);
        if until <= now.millis() {
            return Ok(());
        }
        let limit = self.limit.read();
        let (most, period) = limit.quota.cpu().unwrap_or_default();
        let end = Timestamp::from_millis(until);
        let counted = format!("used up in this {period}, which ends at {end}");
        let error = LimitKind::Cpu.refusal(&limit.key, most, counted, end.since(now));
        let of_function = limit.key.function.is_some();
        Err(Refusal { kind: LimitKind::Cpu, error, may_grow: false, of_function })
    }

    /// Takes a place; [`Meter::leave`] gives it back.
    pub(super) fn enter(&self, memory_mb: u64) -> Result<(), Refusal> {
        if !self.calls.take(1) {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            let limit = self.limit.read();
            let most = u64::from(limit.quota.concurrency.unwrap_or_default());
            let may_grow = limit.shared && limit.share.concurrency.is_some_and(|share| share < most);
            return Err(self.full(LimitKind::Concurrency, &limit, most, self.calls.used(), may_grow));
        }
        if !self.memory.take(memory_mb) {
            self.calls.give(1);
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            let limit = self.limit.read();
            let most = u64::from(limit.quota.memory_mb.unwrap_or_default());
            let may_grow = limit.shared && memory_mb <= most && limit.share.memory_mb.is_some_and(|share| share < most);
            return Err(self.full(LimitKind::Memory, &limit, most, self.memory.used(), may_grow));
        }
        Ok(())
    }

    fn full(&self, kind: LimitKind, limit: &Limit, most: u64, used: u64, may_grow: bool) -> Refusal {
        let counted = match limit.shared {
            true => format!("{used} are in use here, the others elsewhere"),
            false => format!("{used} are in use"),
        };
        let of_function = limit.key.function.is_some();
        Refusal { kind, error: kind.refusal(&limit.key, most, counted, SOON), may_grow, of_function }
    }

    pub(super) fn leave(&self, memory_mb: u64) {
        self.calls.give(1);
        self.memory.give(memory_mb);
        self.freed.notify_one();
    }

    /// Takes one call of the rate. `now` in nanoseconds.
    pub(super) fn take(&self, now: u64) -> Result<(), Refusal> {
        if !self.limits_rate.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.bucket.take(now).map_err(|wait| {
            let limit = self.limit.read();
            let (most, burst) =
                (rate_text(limit.quota.rate.unwrap_or_default()), limit.quota.burst().unwrap_or_default());
            // Without a share nothing ever comes in; the next one may be larger.
            let none = limit.share.rate == Some(0);
            // Nor need it wait for longer than the whole rate would have it: parts follow what is asked for.
            let whole = limit.quota.rate.map_or(SOON, |rate| Duration::from_secs_f64(rate.recip()).max(SOON));
            let wait = if none { SOON } else { wait.min(whole) };
            let counted = format!("{burst} at once at most, and they are used up");
            let error = LimitKind::Rate.refusal(&limit.key, most, counted, wait);
            let of_function = limit.key.function.is_some();
            Refusal { kind: LimitKind::Rate, error, may_grow: none && limit.shared, of_function }
        })
    }

    pub(super) fn give_back(&self) {
        if self.limits_rate.load(Ordering::Relaxed) {
            self.bucket.give_back();
        }
    }

    /// Calls that could be let in now, as far as places and processor time go; `None`: any number.
    pub(super) fn room(&self, now: Timestamp) -> Option<u64> {
        if self.check_spent(now).is_err() || self.memory.room() == 0 {
            return Some(0);
        }
        self.limits_places().then(|| self.calls.room())
    }

    pub(super) fn limits_places(&self) -> bool {
        let share = self.limit.read().share;
        share.concurrency.is_some() || share.memory_mb.is_some()
    }

    /// What was asked for in the time since this was last asked; `None`: nothing.
    pub(super) fn want(&self, passed: Duration, waiting: u64) -> Option<Want> {
        let (asked, away) = (self.asked.swap(0, Ordering::Relaxed), self.turned_away.swap(0, Ordering::Relaxed));
        let (running, running_mb) = (self.calls.used(), self.memory.used());
        let peak = self.calls.peak.swap(running, Ordering::Relaxed).max(running);
        let peak_mb = self.memory.peak.swap(running_mb, Ordering::Relaxed).max(running_mb);
        let waiting = waiting.saturating_add(self.waits.load(Ordering::Relaxed));
        let limit = self.limit.read();
        let mut before = self.before.write();
        // A claim ahead of its time tells too little of a rate.
        let micros = u64::try_from(passed.max(PERIOD).as_micros()).unwrap_or(u64::MAX);
        let rate = asked.saturating_mul(MILLION).saturating_mul(MILLION) / micros;
        let largest_mb = self.largest.load(Ordering::Relaxed);
        let wanted = peak.saturating_add(away.saturating_sub(1)).max(running + waiting);
        let mut want = Want {
            key: limit.key.clone(),
            rate,
            concurrency: wanted.min(limit.quota.concurrency.map_or(wanted, u64::from)),
            memory_mb: peak_mb.saturating_add((away.saturating_sub(1).max(waiting)).saturating_mul(largest_mb)),
            largest_mb,
            running,
            running_mb,
        };
        want.memory_mb = want.memory_mb.min(limit.quota.memory_mb.map_or(want.memory_mb, u64::from));
        if let Some(before) = &*before {
            // What is wanted less goes by halves.
            want.rate = want.rate.max(before.rate / 2);
            want.concurrency = want.concurrency.max(before.concurrency / 2);
            want.memory_mb = want.memory_mb.max(before.memory_mb / 2);
        }
        let is_nothing = (want.rate, want.concurrency, want.memory_mb, running) == (0, 0, 0, 0);
        *before = (!is_nothing).then(|| want.clone());
        before.clone()
    }
}

fn spent(limit: &Limit) -> i64 {
    limit.spent_until.map_or(i64::MIN, Timestamp::millis)
}
