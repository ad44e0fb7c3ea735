//! The invocation queue: which call runs now, which waits, which is refused.
//!
//! Two limits hold at once: calls that run on this worker (so many, and so many that hold a processor each as it has processors),
//! and calls that run of one function (its `concurrency`). A call that finds both free runs at once and touches no queue. Otherwise it waits: behind its own
//! function's limit in the order of arrival, then behind the worker's in the order of a [policy](PolicyKind). A function
//! at its limit never holds up another function. Both queues are bounded; the wait has a deadline, which the caller
//! enforces by dropping the future of [`Queue::admit`]. Where it is set so, short calls that have an instance run outside
//! of the worker's limit, and that limit follows the machine's load.

mod adaptive;
mod cold_priority;
mod config;
mod deadline;
mod fair_share;
mod fcfs;
mod inter_arrival;
mod places;
mod policy;
mod ranked;
mod shortest;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use lyra_kit::Clock;
use lyra_types::invocation::Start;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use config::{Adaptive, Bypass, Config, FairShare, LoadKind, PolicyKind};
pub use places::Lengths;
pub use policy::Instances;

use crate::characteristics::Record;
use places::{Admission, Place, Places, Ticket};

/// Sizes of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls that run at once; the most of them, where the limit is adapted.
    pub running: usize,
    /// Calls that wait.
    pub queued: usize,
    /// Calls of one function that wait.
    pub queued_per_function: usize,
}

/// What a call asks for a place with.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What is known of its version. Generations tell functions apart.
    pub record: &'a Arc<Record>,
    /// The function's limit.
    pub concurrency: usize,
    /// Thousandths of a core that it holds while it runs; 0: it has no processor of its own.
    pub cpu: u64,
    /// When the call came.
    pub arrived: Instant,
}

/// Why a call was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many calls of the function wait behind its concurrency limit.
    #[error("too many calls of the function wait")]
    FunctionFull,
    /// Too many calls wait on this worker.
    #[error("too many calls wait on the worker")]
    WorkerFull,
    /// The worker takes no more calls.
    #[error("the worker is draining")]
    Closed,
}

/// How long a call waited, behind which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited {
    /// Behind its function's limit.
    pub held: Duration,
    /// Behind the worker's limit, or for its processors.
    pub eligible: Duration,
    /// It was let in for its age, past what the policy says.
    pub aged: bool,
}

/// Calls of one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// That run.
    pub running: usize,
    /// That wait for the function's limit.
    pub held: usize,
    /// That wait for the worker's limit, or its processors.
    pub eligible: usize,
}

/// The queue. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    places: Mutex<Places>,
    instances: Arc<dyn Instances>,
    adaptive: Option<Adaptive>,
    /// The greatest limit.
    max_running: usize,
}

impl Queue {
    /// An empty queue.
    pub fn new(limits: Limits, config: &Config, instances: Arc<dyn Instances>, clock: Clock) -> Queue {
        let epoch = clock.instant();
        let policy = || policy::of(config, &instances, epoch);
        let adaptive = config.adaptive.clone();
        let max_running = limits.running;
        let running = adaptive.as_ref().map_or(max_running, |adaptive| adaptive.min.get().min(max_running));
        let limits = Limits { running, ..limits };
        let places = Places::new(limits, config.bypass.clone(), policy, instances.clone(), clock);
        Queue { shared: Arc::new(Shared { places: Mutex::new(places), instances, adaptive, max_running }) }
    }

    /// Waits for a place.
    ///
    /// Dropping the future gives the place in the queue up.
    ///
    /// # Errors
    /// At once, when a queue is full or closed.
    pub async fn admit(&self, ask: Ask<'_>) -> Result<Permit, Refused> {
        let shared = &self.shared;
        let is_ready = || shared.instances.ready(ask.record) != Start::Cold;
        let admission = shared.places.lock().arrive(&ask, is_ready)?;
        match admission {
            Admission::Run(place) => Ok(Permit { shared: shared.clone(), place }),
            Admission::Wait(ticket, granted) => Waiting { shared, ticket, granted, done: false }.admitted().await,
        }
    }

    /// Refuses further calls and those that wait; the ones that run go on.
    pub fn close(&self) {
        self.shared.places.lock().close();
    }

    /// How many calls run and wait.
    pub fn lengths(&self) -> Lengths {
        self.shared.places.lock().lengths()
    }

    /// Functions with calls that run or wait, by generation.
    pub fn functions(&self) -> Vec<(u64, Calls)> {
        self.shared.places.lock().functions()
    }

    /// Lets in whom there is room for now, where processors came free that no call held.
    pub(crate) fn look_again(&self) {
        self.shared.places.lock().look_again();
    }

    /// How the limit is adapted, where it is.
    pub(crate) fn adaptive(&self) -> Option<&Adaptive> {
        self.shared.adaptive.as_ref()
    }

    /// Adapts the worker's limit to the machine's load, in percent. Gives the limit back. Does nothing where it is fixed.
    pub fn adapt(&self, load: u32) -> usize {
        let mut places = self.shared.places.lock();
        let lengths = places.lengths();
        let Some(adaptive) = &self.shared.adaptive else { return lengths.limit };
        let observed = adaptive::Observed {
            limit: lengths.limit,
            running: places.running_within_limit(),
            waiting: places.is_at_limit(),
            load,
        };
        let next = adaptive::next_limit(adaptive, self.shared.max_running, observed);
        if next != lengths.limit {
            places.set_limit(next);
        }
        next
    }
}

/// A place to run. Dropping it lets the next call in.
pub struct Permit {
    shared: Arc<Shared>,
    place: Place,
}

impl Permit {
    /// How long the call waited; `None` when it ran at once.
    pub fn waited(&self) -> Option<Waited> {
        self.place.waited
    }

    /// Whether the call runs outside of the worker's limit.
    pub fn bypasses(&self) -> bool {
        self.place.bypasses()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.places.lock().leave(&self.place);
    }
}

/// Keeps the count right when a waiting call is dropped, before or after it was let in.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    ticket: Ticket,
    granted: oneshot::Receiver<Place>,
    done: bool,
}

impl Waiting<'_> {
    async fn admitted(mut self) -> Result<Permit, Refused> {
        let outcome = (&mut self.granted).await;
        self.done = true;
        match outcome {
            Ok(place) => Ok(Permit { shared: self.shared.clone(), place }),
            Err(_) => Err(Refused::Closed),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut places = self.shared.places.lock();
        if !places.give_up(self.ticket)
            && let Ok(place) = self.granted.try_recv()
        {
            places.leave(&place);
        }
    }
}
