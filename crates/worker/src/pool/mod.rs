//! Instances kept between calls, and the resources that all instances are charged for.
//!
//! What always holds: an instance is charged for before it is started and until it is gone; an instance serves its own
//! version only, since the shelf is the version's and nothing is ever moved from one shelf to another; only idle
//! instances are on shelves, and only those are ever ended, so no timer and no pressure can end a busy one. The last
//! one put back is the first one taken, so that those beyond the need grow old.
//!
//! A call finds an idle instance under one lock, without an allocation. Else it is charged for a new one, and where there is too
//! little, idle ones of other versions go; only when all is busy does it wait (see `state`), until its caller gives up by dropping
//! the future.

#[doc(hidden)]
pub mod bench;
mod directed;
mod instance;
mod look;
mod room;
mod shelf;
mod state;
pub(crate) mod watch;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lyra_isolation::{Gpu, Grant as Devices};
use lyra_kit::{Clock, Ids};
use lyra_types::{FunctionVersion, Timestamp};
use lyra_wire::worker::InstanceState;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use instance::Place;
pub(crate) use instance::{Instance, Lease};
pub(crate) use room::Room;
pub(crate) use shelf::Told;
use state::{Gone, State, Waiter, Wants};
pub(crate) use state::{Grant, Reason};
use watch::instances_of;

use crate::config::Config;
use crate::metrics::PoolMetrics;
use crate::resources::gpu::Source;
use crate::resources::ledger::{Coming, Reserved};
use crate::resources::{self, Held, Ledger, Need, check_fits};
use crate::templates::{Key, key_of};

/// How long a call waits for an instance that is being looked at, before it starts one of its own.
const PATIENCE: Duration = Duration::from_millis(50);

/// The instances of a worker. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    clock: Clock,
    begin: (Instant, Timestamp),
    /// An instance that was aside is back, or gone.
    returned: Notify,
    metrics: PoolMetrics,
    policy: &'static str,
    gpus: Vec<Gpu>,
    no_gpus: Option<String>,
    source: Arc<dyn Source>,
    resources: resources::Config,
    for_calls: Arc<AtomicU64>,
}

/// No instance could be had: the pool is going away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("waiting for an instance: the pool is going away")]
pub(crate) struct PoolClosed;

enum Arrival<'a> {
    Granted(Grant),
    /// All idle instances of the version are aside for a moment.
    Aside,
    Waiting(Waiting<'a>),
}

impl Pool {
    pub(crate) fn new(config: &Config, clock: Clock, ids: Ids, source: Arc<dyn Source>, metrics: PoolMetrics) -> Pool {
        let found = source.devices();
        let no_gpus = found.as_ref().err().cloned();
        let gpus = found.unwrap_or_default();
        let begin = (clock.instant(), clock.now());
        let ledger = Ledger::new(&config.resources, gpus.len());
        let for_calls = Arc::new(AtomicU64::new(ledger.cpu().total.unwrap_or(u64::MAX)));
        let shared = Arc::new_cyclic(|pool| Shared {
            state: Mutex::new(State {
                pool: pool.clone(),
                ids,
                begin: begin.0,
                shelves: HashMap::default(),
                ledger,
                coming: Coming::default(),
                waiters: VecDeque::new(),
                policy: config.keep_alive.build(config.idle_timeout, &config.hybrid, begin.0),
                records: BTreeMap::new(),
                idle: 0,
                max_idle: config.max_idle_instances,
                next: 0,
                directed: false,
                changes: 0,
                rooms: Need::default(),
                for_calls: for_calls.clone(),
            }),
            clock,
            begin,
            returned: Notify::new(),
            metrics,
            policy: config.keep_alive.name(),
            resources: config.resources.clone(),
            gpus,
            no_gpus,
            source,
            for_calls,
        });
        Pool { shared }
    }

    /// Refuses what no instance could ever be granted here.
    ///
    /// # Errors
    /// [`lyra_types::Code::InvalidField`] with the fields at fault.
    pub(crate) fn check(&self, asked: &lyra_wire::worker::Prepare) -> Result<(), lyra_types::Error> {
        let shared = &self.shared;
        check_fits(&shared.resources, asked, shared.gpus.len(), shared.no_gpus.as_deref())
    }

    /// Thousandths of a core that calls may hold together: what instances of applications have left of them. `None`: not limited.
    pub(crate) fn processors(&self) -> Option<u64> {
        Some(self.shared.for_calls.load(Ordering::Relaxed)).filter(|millis| *millis < u64::MAX)
    }

    /// An idle instance of the version for a call, when there is one and nobody waits.
    pub(crate) fn take(&self, key: Key, now: Instant) -> Option<Instance> {
        self.shared.state.lock().take(key, now)
    }

    /// An idle instance of the version for a call, or the resources for a new one. Waits while there are none;
    /// dropping the future gives the place among those who wait up.
    ///
    /// # Errors
    /// When the pool goes away.
    pub(crate) async fn claim(
        &self,
        version: &Arc<FunctionVersion>,
        need: Need,
        now: Instant,
    ) -> Result<Grant, PoolClosed> {
        match self.arrive(version, need, now, true) {
            Arrival::Granted(grant) => Ok(grant),
            Arrival::Waiting(waiting) => waiting.granted().await,
            Arrival::Aside => self.claim_after_a_moment(version, need).await,
        }
    }

    async fn claim_after_a_moment(&self, version: &Arc<FunctionVersion>, need: Need) -> Result<Grant, PoolClosed> {
        let returned = self.shared.returned.notified();
        // It may have come back between the look and the line above: then this waits for the next one, but not for long.
        drop(tokio::time::timeout(PATIENCE, returned).await);
        match self.arrive(version, need, self.shared.clock.instant(), false) {
            Arrival::Waiting(waiting) => waiting.granted().await,
            Arrival::Granted(grant) => Ok(grant),
            Arrival::Aside => Err(PoolClosed),
        }
    }

    /// `first`: this is the call's first try, which counts, and which may be told that all are aside.
    fn arrive(&self, version: &Arc<FunctionVersion>, need: Need, now: Instant, first: bool) -> Arrival<'_> {
        let key = key_of(version);
        let mut gone = Gone::new();
        let arrival = {
            let state = &mut *self.shared.state.lock();
            let shelf = state.shelf(version, need, now);
            let aside = first && shelf.idle.is_empty() && shelf.aside > 0;
            if first {
                state.called(key, now);
            }
            if aside {
                return Arrival::Aside;
            }
            let grant =
                if state.waiters.is_empty() { state.attempt(key, false, &Reserved::default(), now) } else { None };
            match grant {
                Some(grant) => Arrival::Granted(grant),
                None => Arrival::Waiting(self.wait(state, version, need, Wants::Call, now, &mut gone)),
            }
        };
        self.dispose(gone);
        arrival
    }

    fn wait(
        &self,
        state: &mut State,
        version: &Arc<FunctionVersion>,
        need: Need,
        wants: Wants,
        now: Instant,
        gone: &mut Gone,
    ) -> Waiting<'_> {
        let ticket = state.number();
        let (grant, granted) = oneshot::channel();
        state.waiters.push_back(Waiter { ticket, version: version.clone(), need, wants, grant });
        state.settle(now, gone);
        Waiting { pool: self, ticket, granted, done: false }
    }

    /// The resources for an instance that is started ahead of a call. Waits like a call does.
    ///
    /// # Errors
    /// When the pool goes away.
    pub(crate) async fn claim_ahead(&self, version: &Arc<FunctionVersion>, need: Need) -> Result<Lease, PoolClosed> {
        let mut gone = Gone::new();
        let waiting = {
            let state = &mut *self.shared.state.lock();
            let now = self.shared.clock.instant();
            state.shelf(version, need, now);
            self.wait(state, version, need, Wants::Ahead, now, &mut gone)
        };
        self.dispose(gone);
        match waiting.granted().await? {
            Grant::Start(lease) => Ok(lease),
            Grant::Idle(_) | Grant::Room(_) => Err(PoolClosed),
        }
    }

    /// The same, but at once or not at all, for no other instance's end, and only while there are fewer than `up_to`.
    pub(crate) fn try_claim_ahead(&self, version: &Arc<FunctionVersion>, up_to: usize) -> Option<Lease> {
        let state = &mut *self.shared.state.lock();
        let is_there = state.shelves.get(&key_of(version)).is_some_and(|shelf| shelf.live() >= up_to);
        if is_there || !state.waiters.is_empty() {
            return None;
        }
        match state.attempt(key_of(version), true, &Reserved::default(), self.shared.clock.instant())? {
            Grant::Start(lease) => Some(lease),
            Grant::Idle(_) | Grant::Room(_) => None,
        }
    }

    /// Puts an instance on its shelf: one that has served a call, or was started ahead of one.
    pub(crate) fn put(&self, instance: Instance, now: Instant) {
        let mut gone = Gone::new();
        self.shared.state.lock().shelve(instance, now, &mut gone);
        self.dispose(gone);
    }

    /// Marks an instance that will not serve again, so that nobody else need go for what it holds. Drop it then.
    pub(crate) fn retire(&self, lease: &mut Lease, failed: bool) {
        let state = if failed { InstanceState::Failed } else { InstanceState::Terminating };
        self.shared.leave(lease, state);
        if failed {
            self.shared.metrics.ended(self.shared.policy, Reason::Failed);
        }
    }

    /// Counts a call that an instance begins to serve; returns how many it had served.
    pub(crate) fn begin_call(lease: &Lease) -> u64 {
        let served = lease.record.served();
        lease.record.begin_call();
        served
    }

    /// A new instance serves the call that it was started for.
    pub(crate) fn serves(&self, lease: &Lease) {
        let at = self.shared.clock.instant().saturating_duration_since(self.shared.begin.0);
        lease.record.enter(InstanceState::Active, at);
    }

    /// Idle instances of one version.
    pub(crate) fn count(&self, key: Key) -> usize {
        self.shared.state.lock().shelves.get(&key).map_or(0, |shelf| shelf.idle.len())
    }

    /// Whether the version has any instance, whatever it does.
    pub(crate) fn has_any(&self, key: Key) -> bool {
        self.shared.state.lock().shelves.get(&key).is_some_and(|shelf| shelf.live() > 0)
    }

    /// Whether the version has as many instances as it may.
    pub(crate) fn is_full(&self, key: Key) -> bool {
        self.shared.state.lock().shelves.get(&key).is_some_and(|shelf| shelf.live() >= shelf.most())
    }

    /// Idle instances of all versions.
    pub(crate) fn total(&self) -> usize {
        self.shared.state.lock().idle
    }

    /// Ends the idle instances of a function, or of one of its versions; busy ones when their call has ended.
    pub(crate) fn forget(&self, generation: u64, version: Option<u64>) {
        let mut gone = Gone::new();
        {
            let state = &mut *self.shared.state.lock();
            let now = self.shared.clock.instant();
            let is_meant = |key: &Key| key.0 == generation && version.is_none_or(|v| v == key.1);
            let keys: Vec<Key> = state.shelves.keys().copied().filter(is_meant).collect();
            for key in keys {
                while state.shelves.get(&key).is_some_and(|shelf| !shelf.idle.is_empty()) {
                    state.take_off(key, 0, Reason::Forgotten, now, &mut gone);
                }
                state.shelves.remove(&key);
            }
        }
        self.dispose(gone);
    }

    /// Ends the idle instances of a version, and busy ones when their call has ended; what was asked of the version stands, so
    /// others are started in their place.
    pub(crate) fn renew(&self, key: Key) {
        let mut gone = Gone::new();
        {
            let state = &mut *self.shared.state.lock();
            let now = self.shared.clock.instant();
            while state.shelves.get(&key).is_some_and(|shelf| !shelf.idle.is_empty()) {
                state.take_off(key, 0, Reason::Renewed, now, &mut gone);
            }
            state.renew(key, now);
        }
        self.dispose(gone);
    }

    fn shared_weak(&self) -> std::sync::Weak<Shared> {
        Arc::downgrade(&self.shared)
    }

    /// Ends what the lock's holder handed out. In the background: ending a sandbox is a system call or two.
    fn dispose(&self, gone: Gone) {
        if gone.is_empty() {
            return;
        }
        self.shared.count(&gone);
        drop(lyra_kit::tasks::spawn("end-instances", async move { drop(gone) }));
    }
}

impl Shared {
    fn count(&self, gone: &Gone) {
        for (reason, grant) in gone {
            if matches!(grant, Grant::Idle(_)) {
                self.metrics.ended(self.policy, *reason);
            }
        }
    }

    fn leave(&self, lease: &mut Lease, to: InstanceState) {
        let mut gone = Gone::new();
        {
            let state = &mut *self.state.lock();
            let now = self.clock.instant();
            let at = state.at(now);
            let key = key_of(&lease.record.version);
            if let Some(shelf) = state.shelves.get_mut(&key).filter(|shelf| shelf.serial == lease.shelf) {
                state::uncount(shelf, &mut *state.policy, lease.place, now);
            }
            state.leave(lease, to, at);
            // Its version may have room for another one now.
            if !state.waiters.is_empty() {
                state.settle(now, &mut gone);
            }
        }
        self.count(&gone);
    }

    /// Gives back what an instance held; called when it is gone.
    fn release(&self, lease: &mut Lease) {
        let mut gone = Gone::new();
        let was_aside = lease.place == Place::Aside;
        self.state.lock().release(lease, self.clock.instant(), &mut gone);
        self.count(&gone);
        if was_aside {
            self.returned.notify_waiters();
        }
        // Dropped here, outside of the lock: it comes back to this function, with less left to let go each time.
    }

    /// The devices that were charged.
    fn devices_of(&self, held: &Held) -> Option<Devices> {
        let gpus: Vec<Gpu> =
            held.gpus.iter().filter_map(|position| self.gpus.get(*position as usize).cloned()).collect();
        let least = gpus.iter().map(|gpu| gpu.memory).min()?;
        Some(Devices { gpus, gpu_memory: least / u64::from(self.resources.gpu_slots.max(1)), secrets: None })
    }
}

/// A place among those who wait.
struct Waiting<'a> {
    pool: &'a Pool,
    ticket: u64,
    granted: oneshot::Receiver<Grant>,
    done: bool,
}

impl Waiting<'_> {
    async fn granted(mut self) -> Result<Grant, PoolClosed> {
        let outcome = (&mut self.granted).await;
        self.done = true;
        outcome.map_err(|_| PoolClosed)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut gone = Gone::new();
        {
            let state = &mut *self.pool.shared.state.lock();
            let before = state.waiters.len();
            state.waiters.retain(|waiter| waiter.ticket != self.ticket);
            // What it was kept for may do for those behind it.
            if state.waiters.len() < before {
                state.settle(self.pool.shared.clock.instant(), &mut gone);
            }
        }
        // It may have been granted at the same moment.
        if let Ok(grant) = self.granted.try_recv() {
            match grant {
                Grant::Idle(instance) => self.pool.put(instance, self.pool.shared.clock.instant()),
                other @ (Grant::Start(_) | Grant::Room(_)) => drop(other),
            }
        }
        self.pool.dispose(gone);
    }
}
