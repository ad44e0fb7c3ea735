//! One worker, with what this process knows of its load.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use lyra_types::Runtime;
use lyra_wire::Operated;
use lyra_wire::registry::{Member, MemberState};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::metrics::{Metrics, OfWorker};

/// A worker that could not be reached gets no calls for so long, if there are others.
const SUSPECT: Duration = Duration::from_secs(1);

/// A worker as this process sees it.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) hash: u64,
    pub(crate) address: String,
    pub(crate) worker: Arc<dyn Operated>,
    member: ArcSwap<Member>,
    /// Calls from here that are there now, and that were there when it last told its load.
    calls: AtomicUsize,
    calls_then: AtomicUsize,
    suspect_until: Mutex<Option<Instant>>,
    /// Where its calls are counted.
    measured: OnceLock<OfWorker>,
}

impl Node {
    pub(crate) fn new(member: Member, worker: Arc<dyn Operated>) -> Node {
        let registration = &member.registration;
        let mut hasher = DefaultHasher::new();
        registration.name.hash(&mut hasher);
        Node {
            name: registration.name.clone(),
            hash: hasher.finish(),
            address: registration.address.clone(),
            worker,
            calls: AtomicUsize::new(0),
            calls_then: AtomicUsize::new(0),
            suspect_until: Mutex::new(None),
            measured: OnceLock::new(),
            member: ArcSwap::from_pointee(member),
        }
    }

    /// Takes what the registry says.
    pub(crate) fn update(&self, member: Member) {
        self.calls_then.store(self.calls.load(Ordering::Relaxed), Ordering::Relaxed);
        self.member.store(Arc::new(member));
    }

    pub(crate) fn state(&self) -> MemberState {
        self.member.load().state
    }

    pub(crate) fn runs(&self, runtime: Runtime) -> bool {
        self.member.load().registration.backends.iter().any(|backend| backend.runtimes.contains(&runtime))
    }

    /// Calls that it has now: what it told last, and what changed here since. Others' changes are not known.
    pub(crate) fn load(&self) -> usize {
        let state = &self.member.load().registration.state;
        let (now, then) = (self.calls.load(Ordering::Relaxed), self.calls_then.load(Ordering::Relaxed));
        // What is here now is there at least.
        (state.running + state.queued + now).saturating_sub(then).max(now)
    }

    /// Counts a call for as long as what is returned lives.
    pub(crate) fn enter(self: &Arc<Node>) -> Entered {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Entered(Arc::clone(self))
    }

    /// Where its calls are counted, where they are.
    pub(crate) fn measured(&self, metrics: Option<&Metrics>) -> Option<&OfWorker> {
        metrics.map(|metrics| self.measured.get_or_init(|| metrics.of(&self.name)))
    }

    pub(crate) fn suspect(&self, now: Instant) {
        *self.suspect_until.lock() = Some(now + SUSPECT);
    }

    pub(crate) fn is_suspect(&self, now: Instant) -> bool {
        self.suspect_until.lock().is_some_and(|until| now < until)
    }
}

/// A call that a node has.
pub(crate) struct Entered(Arc<Node>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
