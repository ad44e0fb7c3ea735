//! Who has a place to run, who waits for one, and behind which limit. Pure state, no waiting.
//!
//! A call waits at one of two spots: *held* behind its own function's limit, in order of arrival, or *eligible* behind the
//! worker's, where the policy decides. A function's eligible calls count towards its limit, so that a call that was let
//! through is never held up again.
//!
//! The worker's limit is that of calls, and for those that hold a processor each that of its processors. What both kinds wait
//! for differs, so each has a lane of its own, with the policy's order in it: calls that need no processor of their own are
//! never behind those that do. The pool is what charges in the end; here is decided whose turn it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::Clock;
use rustc_hash::FxBuildHasher;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::config::Bypass;
use super::policy::{Candidate, Charge, Choice, Instances, Policy};
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
    lane: usize,
    /// Processor time that it holds of what is counted here.
    cpu: u64,
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
    cpu: u64,
    grant: oneshot::Sender<Place>,
}

/// A call that waits for the worker only.
#[derive(Debug)]
struct Eligible {
    waiter: Waiter,
    since: Instant,
}

/// Those who wait for the same, in the policy's order.
struct Lane {
    policy: Box<dyn Policy>,
    /// Whose turn it is, and who needs more than is free.
    chosen: Option<Choice>,
    waiting: usize,
    /// Processor time that they ask for.
    cpu: u64,
}

/// The lane of calls without processors of their own, and that of the others.
const LANES: usize = 2;

/// In which lane a call is.
fn lane_of(cpu: u64) -> usize {
    usize::from(cpu > 0)
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
    /// That wait for the worker's limit, or its processors.
    pub eligible: usize,
    /// The worker's limit.
    pub limit: usize,
    /// Thousandths of a core that the eligible ones ask for.
    pub cpu_waiting: u64,
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
    /// Thousandths of a core that those within the limit hold.
    cpu: u64,
    /// Waits for the worker's limit only; the policies have their order.
    eligible: HashMap<u64, Eligible, FxBuildHasher>,
    lanes: [Lane; LANES],
    /// The lane that goes first when both may.
    turn: usize,
    instances: Arc<dyn Instances>,
}

impl Places {
    /// `policy` makes the policy, once for each lane.
    pub(super) fn new(
        limits: Limits,
        bypass: Option<Bypass>,
        policy: impl Fn() -> Box<dyn Policy>,
        instances: Arc<dyn Instances>,
        clock: Clock,
    ) -> Places {
        let lane = |_| Lane { policy: policy(), chosen: None, waiting: 0, cpu: 0 };
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
            cpu: 0,
            eligible: HashMap::default(),
            lanes: std::array::from_fn(lane),
            turn: 0,
            instances,
        }
    }

    pub(super) fn lengths(&self) -> Lengths {
        Lengths {
            running: self.running + self.bypassing,
            bypassing: self.bypassing,
            held: self.held,
            eligible: self.eligible.len(),
            limit: self.limits.running,
            cpu_waiting: self.lanes.iter().map(|lane| lane.cpu).sum(),
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
        let cpu = self.counted(ask.cpu);
        let is_free =
            self.running < self.limits.running && self.lanes[lane_of(cpu)].waiting == 0 && self.has_processors(cpu);
        let queued = self.held + self.eligible.len();
        let function = self.functions.entry(id).or_default();
        function.limit = ask.concurrency.max(1);
        let has_room = function.has_room() && function.held.is_empty();
        if has_room && (is_free || bypasses(self.bypass.as_ref(), self.bypassing, ask.record, is_ready)) {
            return Ok(Admission::Run(self.place(ask.record, cpu, !is_free, None)));
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
        let waiter = Waiter { arrived: ask.arrived, record: ask.record.clone(), cpu, grant };
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
            self.lane_left(&gone.waiter);
            let lane = &mut self.lanes[lane_of(gone.waiter.cpu)];
            match lane.chosen.take_if(|chosen| chosen.order == ticket.order) {
                Some(_) => {}
                None => lane.policy.remove(ticket.order, &gone.waiter.record),
            }
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
        for lane in &mut self.lanes {
            lane.policy.clear();
            (lane.chosen, lane.waiting, lane.cpu) = (None, 0, 0);
        }
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

    /// Lets in whom there is room for: there may be more than when the last call ended.
    pub(super) fn look_again(&mut self) {
        self.grant();
    }

    /// Whether calls wait for the limit, whatever else they need.
    pub(super) fn is_at_limit(&self) -> bool {
        self.running >= self.limits.running && !self.eligible.is_empty()
    }

    /// Calls that run within the limit.
    pub(super) fn running_within_limit(&self) -> usize {
        self.running
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let lengths = self.lengths();
        let is_bare = |lane: &Lane| lane.waiting == 0 && lane.chosen.is_none();
        (lengths.running, lengths.cpu_waiting, self.cpu, self.held) == (0, 0, 0, 0)
            && self.functions.is_empty()
            && self.eligible.is_empty()
            && self.lanes.iter().all(is_bare)
    }

    /// What of the processor time that a call asks for is counted here: none where it is not limited, and none of a call that
    /// asks for more than there is, which the pool refuses.
    fn counted(&self, cpu: u64) -> u64 {
        if cpu > 0 && self.instances.processors().is_some_and(|total| cpu <= total) { cpu } else { 0 }
    }

    /// Whether so much processor time is free. One call may run in any case: what there is may have become less since it came.
    fn has_processors(&self, cpu: u64) -> bool {
        let within = |total| self.cpu.saturating_add(cpu) <= total;
        cpu == 0 || self.cpu == 0 || self.instances.processors().is_none_or(within)
    }

    fn place(&mut self, record: &Record, cpu: u64, bypasses: bool, waited: Option<Waited>) -> Place {
        let id = record.key().0;
        if let Some(function) = self.functions.get_mut(&id) {
            function.running += 1;
        }
        *(if bypasses { &mut self.bypassing } else { &mut self.running }) += 1;
        let lane = lane_of(cpu);
        let cpu = if bypasses { 0 } else { cpu };
        self.cpu += cpu;
        let policy = &mut self.lanes[lane].policy;
        let charge = policy.began(record);
        let began = policy.meters().then(|| self.clock.instant());
        Place { function: id, bypasses, lane, cpu, charge, began, waited }
    }

    fn vacate(&mut self, place: &Place, held: Duration) {
        *(if place.bypasses { &mut self.bypassing } else { &mut self.running }) -= 1;
        if let Some(function) = self.functions.get_mut(&place.function) {
            function.running -= 1;
        }
        self.cpu -= place.cpu;
        self.lanes[place.lane].policy.ended(place.charge, held);
    }

    fn make_eligible(&mut self, order: u64, waiter: Waiter, now: Instant) {
        if let Some(function) = self.functions.get_mut(&waiter.record.key().0) {
            function.eligible += 1;
        }
        let lane = &mut self.lanes[lane_of(waiter.cpu)];
        lane.waiting += 1;
        lane.cpu += waiter.cpu;
        lane.policy.push(Candidate { order, arrived: waiter.arrived, record: waiter.record.clone() });
        self.eligible.insert(order, Eligible { waiter, since: now });
    }

    fn lane_left(&mut self, waiter: &Waiter) {
        let lane = &mut self.lanes[lane_of(waiter.cpu)];
        lane.waiting -= 1;
        lane.cpu -= waiter.cpu;
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
            && let Some(choice) = self.next_choice(now)
        {
            let Some(Eligible { waiter, since }) = self.eligible.remove(&choice.order) else { continue };
            self.lane_left(&waiter);
            let id = waiter.record.key().0;
            if let Some(function) = self.functions.get_mut(&id) {
                function.eligible -= 1;
            }
            let waited = Waited { held: since - waiter.arrived, eligible: now - since, aged: choice.aged };
            let place = self.place(&waiter.record, waiter.cpu, false, Some(waited));
            // The receiver lives as long as its ticket is in the queue, so this fails only for a call that is
            // being dropped at this moment; its place goes to the next one.
            if let Err(place) = waiter.grant.send(place) {
                self.vacate(&place, Duration::ZERO);
                self.promote(id);
            }
        }
    }

    /// Who runs next. Where calls of both lanes may, they take turns.
    fn next_choice(&mut self, now: Instant) -> Option<Choice> {
        for lane in [self.turn, LANES - 1 - self.turn] {
            if let Some(choice) = self.choose(lane, now) {
                self.turn = LANES - 1 - lane;
                return Some(choice);
            }
        }
        None
    }

    /// Who of a lane runs next. Nobody passes the one whose turn it is.
    fn choose(&mut self, lane: usize, now: Instant) -> Option<Choice> {
        // No turn is given out while nobody could take it: who comes later may be before all those.
        if self.lanes[lane].waiting == 0 || !self.has_processors(u64::from(lane > 0)) {
            return None;
        }
        let of = &mut self.lanes[lane];
        let choice = match of.chosen.take() {
            Some(choice) => choice,
            None => of.policy.pop(now)?,
        };
        let cpu = self.eligible.get(&choice.order).map_or(0, |eligible| eligible.waiter.cpu);
        if self.has_processors(cpu) {
            return Some(choice);
        }
        self.lanes[lane].chosen = Some(choice);
        None
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
