//! One instance: its sandbox, what is charged for it, and where it is in its life.
//!
//! A [`Lease`] is the charge; it is there before the sandbox and is dropped after it, and dropping it gives all of it back. So
//! however an instance ends (a failed start, a cancelled call, an eviction), nothing stays charged.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use lyra_isolation::{Grant as Devices, Sandbox};
use lyra_types::{FunctionVersion, InstanceId};
use lyra_wire::worker::InstanceState;
use tokio::time::Instant;

use super::Shared;
use crate::keep_alive::Rested;
use crate::resources::Held;

/// What status shows of an instance.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: InstanceId,
    pub(crate) version: Arc<FunctionVersion>,
    state: AtomicU8,
    /// Microseconds after the pool's beginning.
    since: AtomicU64,
    memory: AtomicU64,
    served: AtomicU64,
    /// Positions of its devices.
    pub(crate) gpus: Vec<u32>,
}

impl Record {
    pub(super) fn new(id: InstanceId, version: Arc<FunctionVersion>, held: &Held, since: Duration) -> Record {
        let record = Record {
            id,
            version,
            state: AtomicU8::new(0),
            since: AtomicU64::new(0),
            memory: AtomicU64::new(held.memory),
            served: AtomicU64::new(0),
            gpus: held.gpus.clone(),
        };
        record.enter(InstanceState::Creating, since);
        record
    }

    /// Enters a state; `at` is the time since the pool's beginning.
    pub(super) fn enter(&self, state: InstanceState, at: Duration) {
        self.state.store(state as u8, Ordering::Relaxed);
        self.since.store(u64::try_from(at.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn set_memory(&self, bytes: u64) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    pub(super) fn begin_call(&self) {
        // Only the one call that has the instance writes here.
        self.served.store(self.served.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Calls that it has begun to serve.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self) -> InstanceState {
        let state = usize::from(self.state.load(Ordering::Relaxed));
        InstanceState::ALL.get(state).copied().unwrap_or(InstanceState::Terminated)
    }

    pub(super) fn since(&self) -> Duration {
        Duration::from_micros(self.since.load(Ordering::Relaxed))
    }
}

/// Where the pool counts an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// With a call.
    Busy,
    /// Being started ahead of a call.
    Ahead,
    /// Idle, but taken aside for a moment, to be probed for example.
    Aside,
    /// On its version's shelf.
    Shelf,
    /// Nowhere any more: it is being ended.
    Leaving,
}

/// The resources of one instance. Dropping it gives them back and lets those in who wait for them.
///
/// One pointer, since it moves from hand to hand with every call.
pub(crate) struct Lease(Box<Body>);

/// What the pool knows of an instance.
pub(crate) struct Body {
    pub(crate) record: Arc<Record>,
    pub(super) held: Held,
    pub(super) place: Place,
    /// The shelf that counts it: a later one of the same version does not.
    pub(super) shelf: u64,
    /// Devices; `None` where there are none, which is nearly always.
    pub(super) devices: Option<Box<Devices>>,
    /// How long its start took, until that was noted.
    pub(super) took: Option<Duration>,
    /// When it became idle.
    pub(super) since: Instant,
    /// The keep-alive policy's mark of that moment.
    pub(super) stamp: f64,
    /// When it last showed that it serves.
    pub(super) proved: Instant,
    /// It is stopped, with most of its memory given back.
    pub(crate) hibernated: bool,
    /// It has said that it can't be hibernated.
    pub(super) restless: bool,
    pub(super) pool: Weak<Shared>,
}

impl Lease {
    pub(super) fn new(body: Body) -> Lease {
        Lease(Box::new(body))
    }

    /// The instance's id.
    pub(crate) fn id(&self) -> InstanceId {
        self.0.record.id
    }

    /// The devices that it was granted.
    pub(crate) fn devices(&self) -> Option<&Devices> {
        self.0.devices.as_deref()
    }

    pub(super) fn rested(&self) -> Rested {
        Rested { since: self.0.since, stamp: self.0.stamp, served: self.0.record.served() }
    }
}

impl Deref for Lease {
    type Target = Body;

    fn deref(&self) -> &Body {
        &self.0
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Body {
        &mut self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(pool) = self.0.pool.upgrade() {
            pool.release(self);
        }
    }
}

/// An instance with its sandbox. The sandbox is dropped first, then what was charged for it is given back.
pub(crate) struct Instance {
    pub(crate) sandbox: Box<dyn Sandbox>,
    pub(crate) lease: Lease,
}

impl Instance {
    /// A new instance; its start took `took`.
    pub(crate) fn new(sandbox: Box<dyn Sandbox>, mut lease: Lease, took: Duration) -> Instance {
        lease.took = Some(took);
        Instance { sandbox, lease }
    }
}
