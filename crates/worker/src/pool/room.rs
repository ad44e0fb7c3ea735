//! Resources for instances that the pool does not keep: those of applications.
//!
//! They are charged in the same ledger as those of functions, wait in the same queue, and have idle instances of functions
//! let go for them. What must hold: what a [`Room`] holds is given back when it is dropped, once.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use lyra_isolation::Grant as Devices;
use lyra_types::FunctionVersion;

use super::state::{Gone, Grant, State};
use super::{Pool, PoolClosed, Shared};
use crate::resources::ledger::Reserved;
use crate::resources::{Held, Need};

/// What is charged for one instance that the pool does not keep.
pub(crate) struct Room {
    held: Held,
    devices: Option<Box<Devices>>,
    pool: Weak<Shared>,
}

impl Pool {
    /// Charges for an instance of the version that the pool does not keep. Waits while there is too little, in turn with
    /// calls; dropping the future gives the place among those who wait up.
    ///
    /// # Errors
    /// When the pool goes away.
    pub(crate) async fn room(&self, version: &Arc<FunctionVersion>, need: Need) -> Result<Room, PoolClosed> {
        let mut gone = Gone::new();
        let waiting = {
            let state = &mut *self.shared.state.lock();
            let now = self.shared.clock.instant();
            if state.waiters.is_empty()
                && let Some(room) = state.make(&need, &Reserved::default())
            {
                return Ok(room);
            }
            self.wait(state, version, need, super::state::Wants::Room, now, &mut gone)
        };
        self.dispose(gone);
        match waiting.granted().await? {
            Grant::Room(room) => Ok(room),
            Grant::Idle(_) | Grant::Start(_) => Err(PoolClosed),
        }
    }

    /// Whether there could be such an instance here, if there were no other.
    pub(crate) fn holds(&self, need: &Need) -> bool {
        self.shared.state.lock().ledger.holds(need, &Need::default())
    }

    /// Charges for an instance that is there already: all that it needs, or what is left of it where that is less.
    pub(crate) fn room_of_found(&self, need: Need) -> Room {
        let state = &mut *self.shared.state.lock();
        if let Some(room) = state.make(&need, &Reserved::default()) {
            return room;
        }
        tracing::warn!(?need, "an instance that was found holds more than this worker may charge for");
        let left = Need { memory: need.memory.min(state.ledger.free_memory()), ..Need::default() };
        state.make(&left, &Reserved::default()).unwrap_or_else(|| Room {
            held: Held::default(),
            devices: None,
            pool: self.shared_weak(),
        })
    }
}

impl State {
    /// Charges for what the pool does not keep, when it is there beyond what is reserved.
    pub(super) fn make(&mut self, need: &Need, reserved: &Reserved) -> Option<Room> {
        let held = self.ledger.charge(need, reserved)?;
        self.rooms.add(&held);
        self.tell_calls();
        let devices = self.pool.upgrade().and_then(|pool| pool.devices_of(&held)).map(Box::new);
        Some(Room { held, devices, pool: self.pool.clone() })
    }

    /// Notes what processors are left for calls.
    fn tell_calls(&self) {
        if let Some(total) = self.ledger.cpu().total {
            self.for_calls.store(total.saturating_sub(self.rooms.cpu), Ordering::Relaxed);
        }
    }
}

impl Room {
    /// The devices that it was granted.
    pub(crate) fn devices(&self) -> Option<&Devices> {
        self.devices.as_deref()
    }

    /// Bytes of memory that are charged.
    pub(crate) fn memory(&self) -> u64 {
        self.held.memory
    }

    /// What is missing to `need`.
    pub(crate) fn missing(&self, need: &Need) -> Need {
        let (memory, cpu) = (need.memory.saturating_sub(self.held.memory), need.cpu.saturating_sub(self.held.cpu));
        Need { memory, cpu, gpus: 0 }
    }

    /// Gives back processors, and memory beyond `memory` bytes: the instance is hibernated.
    pub(crate) fn shrink(&mut self, memory: u64) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut gone = Gone::new();
        {
            let state = &mut *pool.state.lock();
            state.rooms.take(&self.held);
            state.ledger.shrink(&mut self.held, memory);
            state.ledger.release_cpu(&mut self.held);
            state.rooms.add(&self.held);
            state.tell_calls();
            if !state.waiters.is_empty() {
                state.settle(pool.clock.instant(), &mut gone);
            }
        }
        pool.count(&gone);
    }

    /// Takes over what `other` holds.
    pub(crate) fn absorb(&mut self, mut other: Room) {
        let more = std::mem::take(&mut other.held);
        self.held.memory += more.memory;
        self.held.cpu += more.cpu;
        self.held.gpus.extend(more.gpus);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade().filter(|_| self.held != Held::default()) else { return };
        let mut gone = Gone::new();
        {
            let state = &mut *pool.state.lock();
            state.ledger.release(&self.held);
            state.rooms.take(&self.held);
            state.tell_calls();
            if !state.waiters.is_empty() {
                state.settle(pool.clock.instant(), &mut gone);
            }
        }
        pool.count(&gone);
        // What is let go is dropped here, outside of the lock.
    }
}
