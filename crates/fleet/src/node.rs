//! One worker, with what this process knows of its load.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use lyra_types::api::{BackendStatus, Resource};
use lyra_types::invocation::Report;
use lyra_types::{Code, Error, FunctionVersion, Runtime};
use lyra_wire::Operated;
use lyra_wire::registry::{Member, MemberState, NodeState, Registration};
use lyra_wire::worker::Prepare;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::balance::Policy;
use crate::footprint::{Ended, Footprints};
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
    /// Of versions whose policy goes by it.
    pub(crate) footprints: Footprints,
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
            footprints: Footprints::default(),
            member: ArcSwap::from_pointee(member),
        }
    }

    /// Takes what the registry says.
    pub(crate) fn update(&self, member: Member) {
        self.calls_then.store(self.calls.load(Ordering::Relaxed), Ordering::Relaxed);
        if member.registration.incarnation != self.member.load().registration.incarnation {
            self.footprints.clear();
        }
        self.member.store(Arc::new(member));
    }

    pub(crate) fn state(&self) -> MemberState {
        self.member.load().state
    }

    pub(crate) fn runs(&self, runtime: Runtime) -> bool {
        self.member.load().registration.backends.iter().any(|backend| backend.runtimes.contains(&runtime))
    }

    /// Whether calls of the version may be sent there: it is ready, has a back end for it, and as much in all as an instance
    /// needs.
    pub(crate) fn takes(&self, version: &FunctionVersion) -> bool {
        let member = self.member.load();
        member.state == MemberState::Ready && Asked::of(version).can_be_had(&member.registration)
    }

    /// Whether a version of this could run there.
    pub(crate) fn could_run(&self, prepare: &Prepare) -> bool {
        Asked::by(prepare).can_be_had(&self.member.load().registration)
    }

    /// Calls that it has now: what it told last, and what changed here since. Others' changes are not known.
    pub(crate) fn load(&self) -> usize {
        let state = &self.member.load().registration.state;
        let (now, then) = (self.calls.load(Ordering::Relaxed), self.calls_then.load(Ordering::Relaxed));
        // What is here now is there at least.
        (state.running + state.queued + now).saturating_sub(then).max(now)
    }

    /// How much it has to do for a call of `version`, as `policy` measures it. What it told last is as old as a
    /// heartbeat: calls from here since then are added, each with what it takes.
    pub(crate) fn measure(&self, policy: Policy, version: &FunctionVersion) -> u64 {
        let calls = self.load() as u64;
        let member = self.member.load();
        let state = &member.registration.state;
        let told = (state.running + state.queued) as u64;
        let since = calls.saturating_sub(told);
        let share = |of: &Resource, more: u64| match of.total {
            Some(total) if total > 0 => millionths(of.charged.saturating_add(since.saturating_mul(more)), total),
            _ => 0,
        };
        let measured = match policy {
            Policy::LeastQueued => {
                let room = state.concurrency_limit.saturating_sub(state.running) as u64;
                state.queued as u64 + since.saturating_sub(room)
            }
            Policy::LeastMemory => share(&state.memory, version.memory_bytes() as u64),
            Policy::LeastCpu => share(&state.cpu, u64::from(version.cpu_millis)),
            Policy::LeastLoadAverage => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a load average is small")]
                let millis = state.load.map_or(0.0, |load| load[0] * 1e3) as u64;
                millionths(millis + since * 1_000, state.cpu.total.unwrap_or(1_000).max(1))
            }
            _ => return calls,
        };
        // Of those that measure the same, the one with fewer calls.
        measured.min(u64::from(u32::MAX)) << 32 | calls.min(u64::from(u32::MAX))
    }

    /// Counts a call for as long as what is returned lives. `version` is given where its policy goes by what is held of it.
    pub(crate) fn enter(self: &Arc<Node>, version: Option<u64>, now: Instant) -> Entered {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(version) = version {
            self.footprints.enter(version, now);
        }
        Entered { node: Arc::clone(self), version, ended: Ended { start: None, kept: false } }
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

/// What a worker has to have for instances of a version.
struct Asked<'a> {
    runtime: Runtime,
    isolation: &'a str,
    /// Bytes.
    memory: u64,
    cpu_millis: u64,
    gpus: u64,
}

impl<'a> Asked<'a> {
    fn of(version: &'a FunctionVersion) -> Asked<'a> {
        let in_engine = matches!(version.runtime, Runtime::Js | Runtime::Wasm);
        Asked {
            runtime: version.runtime,
            isolation: &version.isolation,
            // What is made for one call alone is held to the engine's own budget.
            memory: if in_engine && !version.reuse { 0 } else { version.memory_bytes() as u64 },
            cpu_millis: if in_engine { 0 } else { version.cpu_millis.into() },
            gpus: version.gpus.into(),
        }
    }

    /// A worker prepares nothing that asks for more memory than it has.
    fn by(prepare: &'a Prepare) -> Asked<'a> {
        let in_engine = matches!(prepare.runtime, Runtime::Js | Runtime::Wasm);
        Asked {
            runtime: prepare.runtime,
            isolation: &prepare.isolation,
            memory: u64::from(prepare.memory_mb) << 20,
            cpu_millis: if in_engine { 0 } else { prepare.cpu_millis.into() },
            gpus: prepare.gpus.into(),
        }
    }

    fn can_be_had(&self, of: &Registration) -> bool {
        let has = |backend: &BackendStatus| {
            (self.isolation == "auto" || self.isolation == backend.name) && backend.runs(self.runtime)
        };
        let enough = |resource: &Resource, need: u64| need == 0 || resource.total.is_none_or(|total| total >= need);
        let NodeState { memory, cpu, gpu, .. } = &of.state;
        of.backends.iter().any(has)
            && enough(memory, self.memory)
            && enough(cpu, self.cpu_millis)
            && enough(gpu, self.gpus)
    }
}

/// A share, in millionths.
fn millionths(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 1_000_000 / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

/// A call that a node has.
pub(crate) struct Entered {
    node: Arc<Node>,
    version: Option<u64>,
    ended: Ended,
}

impl Entered {
    /// How it ended; one that is dropped without was given up, and its instance with it.
    pub(crate) fn ended(&mut self, version: &FunctionVersion, report: &Report, failed: Option<&Error>) {
        // What a function threw does not end its instance.
        let kept = version.reuse && failed.is_none_or(|error| error.code == Code::FunctionError);
        self.ended = Ended { start: report.start, kept };
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.node.calls.fetch_sub(1, Ordering::Relaxed);
        if let Some(version) = self.version {
            self.node.footprints.leave(version, self.ended);
        }
    }
}
