//! What a guest may use: memory up to its version's limit and the process's budget, processor time in slices.
//!
//! Memory: a [`Governor`] is the store's resource limiter; all linear memories and tables of the store count, and
//! are given back when the store is dropped. Processor: a guest gives way after each slice. After its first slices it
//! needs one of the engine's permits (one for each core, first come first served) for each further slice, so
//! endless loops, however many, share the cores among themselves and leave room for short calls and for I/O.
//!
//! Every future that runs guest code of a store must be run through [`Share::run`]: it keeps the ticks
//! going and gives the permit back when the guest waits for something.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use lyra_types::{Code, Error};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use super::engine::Engine;
use crate::CpuMeter;

/// Slices that a guest has for nothing.
const FREE_SLICES: u64 = 10;

/// Bytes of one table element.
const TABLE_ELEMENT: usize = size_of::<usize>();

/// Memory that all instances share.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Budget {
        Budget { limit, used: AtomicU64::new(0) }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn charge(&self, bytes: u64) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.checked_add(bytes).is_some_and(|used| used <= self.limit);
        if !fits {
            self.release(bytes);
        }
        fits
    }

    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Data of a store that has a governor.
pub trait Governed {
    /// The store's governor.
    fn governor(&mut self) -> &mut Governor;
}

/// Limits one store.
pub struct Governor {
    limit: usize,
    used: usize,
    last_charge: usize,
    starved: Option<Starved>,
    /// Holds one of the engine's places for instances.
    placed: bool,
    budget: Arc<Budget>,
    share: Arc<Share>,
}

impl Governor {
    /// A governor with `limit` bytes for all memories and tables of the store.
    pub fn new(engine: &Engine, limit: usize) -> Governor {
        Governor {
            limit,
            used: 0,
            last_charge: 0,
            starved: None,
            placed: false,
            budget: Arc::clone(engine.budget()),
            share: Arc::new(Share {
                engine: engine.clone(),
                slices: AtomicU64::new(0),
                resumed: AtomicU64::new(0),
                permit: Mutex::new(None),
            }),
        }
    }

    /// Whether the guest was refused memory.
    pub fn oom(&self) -> bool {
        self.starved.is_some()
    }

    /// Why the guest was last refused memory, if it was.
    pub fn starved(&self) -> Option<Starved> {
        self.starved
    }

    /// Bytes that the store's memories and tables have.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The guest's share of the processor.
    pub fn share(&self) -> Arc<Share> {
        Arc::clone(&self.share)
    }

    fn charge(&mut self, bytes: usize) -> bool {
        let within = self.used.checked_add(bytes).is_some_and(|used| used <= self.limit);
        if !within {
            return self.refuse(Starved::Limit);
        }
        if !self.budget.charge(bytes as u64) {
            return self.refuse(Starved::Budget);
        }
        self.used += bytes;
        self.last_charge = bytes;
        true
    }

    fn refuse(&mut self, why: Starved) -> bool {
        self.last_charge = 0;
        self.starved = Some(why);
        false
    }

    /// Growth that was granted did not happen.
    fn refund(&mut self) {
        let bytes = std::mem::take(&mut self.last_charge);
        if bytes > 0 {
            self.starved = Some(Starved::Limit);
        }
        self.used -= bytes;
        self.budget.release(bytes as u64);
    }
}

/// Why a guest was refused memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starved {
    /// It has reached its version's limit.
    Limit,
    /// All instances together have reached the worker's limit.
    Budget,
}

impl Starved {
    /// The error of a call that failed after this; `memory_mb` is the version's limit.
    pub fn error(self, memory_mb: u32) -> Error {
        match self {
            Starved::Limit => Error::new(
                Code::OutOfMemory,
                format!(
                    "the function needed more than its {memory_mb} MiB of memory; deploy it with a larger memory_mb"
                ),
            ),
            Starved::Budget => {
                Error::new(Code::Overloaded, "all memory of the worker's instances is in use now; try again")
                    .with_retry_after(std::time::Duration::from_secs(1))
            }
        }
    }
}

impl Drop for Governor {
    fn drop(&mut self) {
        self.budget.release(self.used as u64);
        if self.placed {
            self.share.engine.give_place_back();
        }
    }
}

impl ResourceLimiter for Governor {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(self.refuse(Starved::Limit));
        }
        Ok(self.charge(desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refund();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(self.refuse(Starved::Limit));
        }
        Ok(self.charge(desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT)))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refund();
        Ok(())
    }
}

/// One guest's share of the processor.
pub struct Share {
    engine: Engine,
    /// Slices used so far.
    slices: AtomicU64,
    /// Tick at which the guest was last resumed.
    resumed: AtomicU64,
    /// Right to run the slice that runs now.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Share {
    /// Runs `work`, which runs guest code of this share's store.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        Running { share: self, meter: None, work: pin!(work) }.await
    }

    /// The same for a call, whose processor time `meter` takes.
    pub async fn run_metered<T>(&self, meter: &CpuMeter, work: impl Future<Output = T>) -> T {
        Running { share: self, meter: Some(meter), work: pin!(work) }.await
    }

    /// Processor time used so far, in whole slices.
    pub fn slices(&self) -> u64 {
        self.slices.load(Ordering::Relaxed)
    }

    fn resume(&self) {
        self.engine.stay_awake();
        self.resumed.store(self.engine.ticks(), Ordering::Relaxed);
    }

    /// A slice has ended.
    fn tick(self: Arc<Share>) -> UpdateDeadline {
        self.engine.stay_awake();
        let now = self.engine.ticks();
        if self.resumed.swap(now, Ordering::Relaxed) == now {
            // The deadline passed while the guest waited; it has used no slice.
            return UpdateDeadline::Continue(1);
        }
        let used = self.slices.fetch_add(1, Ordering::Relaxed) + 1;
        self.permit.lock().take();
        UpdateDeadline::YieldCustom(1, Box::pin(self.give_way(used)))
    }

    async fn give_way(self: Arc<Share>, used: u64) {
        tokio::task::yield_now().await;
        if used >= FREE_SLICES {
            // The semaphore is never closed.
            if let Ok(permit) = Arc::clone(self.engine.cpus()).acquire_owned().await {
                *self.permit.lock() = Some(permit);
            }
        }
    }
}

struct Running<'a, F> {
    share: &'a Share,
    meter: Option<&'a CpuMeter>,
    work: Pin<&'a mut F>,
}

impl<F: Future> Future for Running<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.share.resume();
        let begun = self.meter.map(|_| lyra_kit::clock::thread_time());
        let polled = self.work.as_mut().poll(context);
        if let (Some(meter), Some(begun)) = (self.meter, begun) {
            meter.add(lyra_kit::clock::thread_time().saturating_sub(begun));
        }
        // It waits or has ended: it computes nothing, so others may.
        self.share.permit.lock().take();
        polled
    }
}

impl<F> Drop for Running<'_, F> {
    fn drop(&mut self) {
        self.share.permit.lock().take();
    }
}

/// Makes a store whose guest is limited by its governor.
///
/// # Errors
/// [`Code::Overloaded`] when as many instances are live as may be.
pub fn new_store<T: Governed + Send + 'static>(engine: &Engine, mut data: T) -> Result<Store<T>, Error> {
    let governor = data.governor();
    governor.placed = engine.take_place();
    if !governor.placed {
        return Err(no_room(&wasmtime::format_err!("all places are taken")));
    }
    let share = governor.share();
    let mut store = Store::try_new(engine.wasmtime(), data).map_err(|error| no_room(&error))?;
    store.limiter(|data| data.governor());
    store.epoch_deadline_callback(move |_| Ok(Arc::clone(&share).tick()));
    store.set_epoch_deadline(1);
    Ok(store)
}

/// The error for an instance that finds no place now.
pub(super) fn no_room(error: &wasmtime::Error) -> Error {
    tracing::debug!(error = format!("{error:#}"), "no room for one more instance");
    Error::new(Code::Overloaded, "there is no room for one more instance now; try again")
        .with_retry_after(std::time::Duration::from_secs(1))
}
