//! Who has a place to run, who waits for one, and behind which limit. Pure state, no waiting.
//!
//! A call waits at one of two spots: *held* behind its own function's limit, in order of arrival, or *eligible* behind the
//! worker's, where the policy decides. A function's eligible calls count towards its limit, so that a call that was let
//! through is never held up again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::Clock;
use rustc_hash::FxBuildHasher;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::config::Bypass;
use super::policy::{Candidate, Charge, Policy};
use super::{Ask, Calls, Limits, Refused, Waited};
use crate::characteristics::Record;

/// A place in the queue: the order of arrival, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    order: u64,
    function: u64,
}

/// A place to run.
#[derive(Debug)]
pub(super) struct Place {
    function: u64,
    bypasses: bool,
    charge: Charge,
    /// When it was taken, where the policy needs to know.
    began: Option<Instant>,
    pub(super) waited: Option<Waited>,
}

impl Place {
    pub(super) fn bypasses(&self) -> bool {
        self.bypasses
    }
}

/// What happens with a call that arrives.
#[derive(Debug)]
pub(super) enum Admission {
    Run(Place),
    Wait(Ticket, oneshot::Receiver<Place>),
}

/// A call that waits.
#[derive(Debug)]
struct Waiter {
    arrived: Instant,
    record: Arc<Record>,
    grant: oneshot::Sender<Place>,
}

/// A call that waits for the worker only.
#[derive(Debug)]
struct Eligible {
    waiter: Waiter,
    since: Instant,
}

#[derive(Debug, Default)]
struct Function {
    running: usize,
    limit: usize,
    /// Waits for the function's own limit.
    held: BTreeMap<u64, Waiter>,
    /// Of this function, in the worker's queue: counts towards the limit already.
    eligible: usize,
}

impl Function {
    fn has_room(&self) -> bool {
        self.running + self.eligible < self.limit
    }

    fn is_idle(&self) -> bool {
        self.running == 0 && self.eligible == 0 && self.held.is_empty()
    }
}

/// Numbers of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lengths {
    /// That run.
    pub running: usize,
    /// Of those, outside of the worker's limit.
    pub bypassing: usize,
    /// That wait for their function's limit.
    pub held: usize,
    /// That wait for the worker's limit.
    pub eligible: usize,
    /// The worker's limit.
    pub limit: usize,
}

/// All places of a worker.
pub(super) struct Places {
    limits: Limits,
    bypass: Option<Bypass>,
    clock: Clock,
    closed: bool,
    next: u64,
    /// Within the worker's limit.
    running: usize,
    bypassing: usize,
    held: usize,
    /// Keys are given out by the control role, none by a caller: the fast hash can't be attacked.
    functions: HashMap<u64, Function, FxBuildHasher>,
    /// Waits for the worker's limit only; the policy has their order.
    eligible: HashMap<u64, Eligible, FxBuildHasher>,
    policy: Box<dyn Policy>,
}

impl Places {
    pub(super) fn new(limits: Limits, bypass: Option<Bypass>, policy: Box<dyn Policy>, clock: Clock) -> Places {
        Places {
            limits,
            bypass,
            clock,
            closed: false,
            next: 0,
            running: 0,
            bypassing: 0,
            held: 0,
            functions: HashMap::default(),
            eligible: HashMap::default(),
            policy,
        }
    }

    pub(super) fn lengths(&self) -> Lengths {
        Lengths {
            running: self.running + self.bypassing,
            bypassing: self.bypassing,
            held: self.held,
            eligible: self.eligible.len(),
            limit: self.limits.running,
        }
    }

    /// Functions with calls that run or wait, by generation.
    pub(super) fn functions(&self) -> Vec<(u64, Calls)> {
        let calls = |f: &Function| Calls { running: f.running, held: f.held.len(), eligible: f.eligible };
        let mut all: Vec<_> = self.functions.iter().map(|(id, function)| (*id, calls(function))).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// `is_ready` says whether the call would have an instance without starting one.
    pub(super) fn arrive(&mut self, ask: &Ask<'_>, is_ready: impl FnOnce() -> bool) -> Result<Admission, Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        let id = ask.record.key().0;
        let queued = self.held + self.eligible.len();
        let function = self.functions.entry(id).or_default();
        function.limit = ask.concurrency.max(1);
        let has_room = function.has_room() && function.held.is_empty();
        let is_free = self.running < self.limits.running && self.eligible.is_empty();
        if has_room && (is_free || bypasses(self.bypass.as_ref(), self.bypassing, ask.record, is_ready)) {
            return Ok(Admission::Run(self.place(ask.record, !is_free, None)));
        }
        if !has_room && function.held.len() >= self.limits.queued_per_function {
            return Err(Refused::FunctionFull);
        }
        if queued >= self.limits.queued {
            self.drop_if_idle(id);
            return Err(Refused::WorkerFull);
        }
        let ticket = Ticket { order: self.next, function: id };
        self.next += 1;
        let (grant, granted) = oneshot::channel();
        let waiter = Waiter { arrived: ask.arrived, record: ask.record.clone(), grant };
        if has_room {
            self.make_eligible(ticket.order, waiter, ask.arrived);
        } else {
            function.held.insert(ticket.order, waiter);
            self.held += 1;
        }
        Ok(Admission::Wait(ticket, granted))
    }

    /// A call has ended.
    pub(super) fn leave(&mut self, place: &Place) {
        let held = place.began.map_or(Duration::ZERO, |began| self.clock.instant() - began);
        self.vacate(place, held);
        self.let_in(place.function);
    }

    /// Takes a call out of the queue; false when it is not in it (any more).
    pub(super) fn give_up(&mut self, ticket: Ticket) -> bool {
        if let Some(gone) = self.eligible.remove(&ticket.order) {
            self.policy.remove(ticket.order, &gone.waiter.record);
            if let Some(function) = self.functions.get_mut(&ticket.function) {
                function.eligible -= 1;
            }
            self.let_in(ticket.function);
            return true;
        }
        let of = self.functions.get_mut(&ticket.function);
        let held = of.is_some_and(|function| function.held.remove(&ticket.order).is_some());
        if held {
            self.held -= 1;
            self.drop_if_idle(ticket.function);
        }
        held
    }

    /// Refuses all that wait: their senders are dropped.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.policy.clear();
        self.eligible.clear();
        self.held = 0;
        for function in self.functions.values_mut() {
            function.held.clear();
            function.eligible = 0;
        }
        self.functions.retain(|_, function| !function.is_idle());
    }

    /// Changes the worker's limit. Calls that run go on.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limits.running = limit;
        self.grant();
    }

    /// Calls that run within the limit.
    pub(super) fn running_within_limit(&self) -> usize {
        self.running
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.eligible.is_empty() && self.lengths().running == 0 && self.held == 0
    }

    fn place(&mut self, record: &Record, bypasses: bool, waited: Option<Waited>) -> Place {
        let id = record.key().0;
        if let Some(function) = self.functions.get_mut(&id) {
            function.running += 1;
        }
        *(if bypasses { &mut self.bypassing } else { &mut self.running }) += 1;
        let charge = self.policy.began(record);
        let began = self.policy.meters().then(|| self.clock.instant());
        Place { function: id, bypasses, charge, began, waited }
    }

    fn vacate(&mut self, place: &Place, held: Duration) {
        *(if place.bypasses { &mut self.bypassing } else { &mut self.running }) -= 1;
        if let Some(function) = self.functions.get_mut(&place.function) {
            function.running -= 1;
        }
        self.policy.ended(place.charge, held);
    }

    fn make_eligible(&mut self, order: u64, waiter: Waiter, now: Instant) {
        if let Some(function) = self.functions.get_mut(&waiter.record.key().0) {
            function.eligible += 1;
        }
        self.policy.push(Candidate { order, arrived: waiter.arrived, record: waiter.record.clone() });
        self.eligible.insert(order, Eligible { waiter, since: now });
    }

    /// Lets in whom the function's limit and the worker's have room for, after one of its calls has gone.
    fn let_in(&mut self, id: u64) {
        self.promote(id);
        self.grant();
    }

    /// Lets the function's longest waiting calls through its own limit.
    fn promote(&mut self, id: u64) {
        while let Some(function) = self.functions.get_mut(&id)
            && function.has_room()
            && let Some((order, waiter)) = function.held.pop_first()
        {
            self.held -= 1;
            let now = self.clock.instant();
            self.make_eligible(order, waiter, now);
        }
        self.drop_if_idle(id);
    }

    /// Lets calls run, in the policy's order, while there is room.
    fn grant(&mut self) {
        if self.eligible.is_empty() {
            return;
        }
        let now = self.clock.instant();
        while self.running < self.limits.running
            && let Some(choice) = self.policy.pop(now)
        {
            let Some(Eligible { waiter, since }) = self.eligible.remove(&choice.order) else { continue };
            let id = waiter.record.key().0;
            if let Some(function) = self.functions.get_mut(&id) {
                function.eligible -= 1;
            }
            let waited = Waited { held: since - waiter.arrived, eligible: now - since, aged: choice.aged };
            let place = self.place(&waiter.record, false, Some(waited));
            // The receiver lives as long as its ticket is in the queue, so this fails only for a call that is
            // being dropped at this moment; its place goes to the next one.
            if let Err(place) = waiter.grant.send(place) {
                self.vacate(&place, Duration::ZERO);
                self.promote(id);
            }
        }
    }

    fn drop_if_idle(&mut self, id: u64) {
        if self.functions.get(&id).is_some_and(Function::is_idle) {
            self.functions.remove(&id);
        }
    }
}

/// Whether a call may run outside of the worker's limit.
fn bypasses(bypass: Option<&Bypass>, bypassing: usize, record: &Record, is_ready: impl FnOnce() -> bool) -> bool {
    bypass.is_some_and(|bypass| {
        bypassing < bypass.most && record.measured_exec().is_some_and(|exec| exec < bypass.below) && is_ready()
    })
}
