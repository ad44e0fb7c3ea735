//! The pool's state: shelves, ledgers, and those who wait. Pure: no clock, no waiting, no sandbox is ended in here.
//!
//! Who waits is served in the order of arrival, for each resource: what an earlier one asks for is kept from those
//! behind it, those that ask for none of it pass. Idle instances go, the policy's least valuable first, as soon as someone waits
//! for what they hold. All that must be dropped is handed out, to be dropped when the lock is free.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lyra_types::FunctionVersion;
use lyra_wire::worker::InstanceState;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Shared;
use super::instance::{Body, Instance, Lease, Place, Record};
use super::room::Room;
use super::shelf::{Keyed, Shelf};
use crate::keep_alive::KeepAlive;
use crate::resources::ledger::{Coming, Reserved, Short};
use crate::resources::{Ledger, Need};
use crate::templates::{Key, key_of};

/// What one who asked for an instance gets.
pub(crate) enum Grant {
    /// An idle instance.
    Idle(Instance),
    /// The resources for a new one.
    Start(Lease),
    /// The resources for one that the pool does not keep.
    Room(Room),
}

/// What one who waits wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// An instance for a call.
    Call,
    /// A new instance, ahead of a call.
    Ahead,
    /// Resources for an instance that the pool does not keep.
    Room,
}

/// Why an instance was ended, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Pressure,
    Buffer,
    Expired,
    Crowded,
    Forgotten,
    Cleaned,
    Drained,
    Probe,
    Failed,
    Told,
    Renewed,
}

impl Reason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Reason::Pressure => "pressure",
            Reason::Buffer => "buffer",
            Reason::Expired => "expired",
            Reason::Crowded => "max_idle",
            Reason::Forgotten => "forgotten",
            Reason::Cleaned => "cleaned",
            Reason::Drained => "drained",
            Reason::Probe => "probe",
            Reason::Failed => "failed",
            Reason::Told => "told",
            Reason::Renewed => "renewed",
        }
    }
}

/// What is to be dropped outside of the lock, and why.
pub(super) type Gone = Vec<(Reason, Grant)>;

pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) version: Arc<FunctionVersion>,
    pub(super) need: Need,
    pub(super) wants: Wants,
    pub(super) grant: oneshot::Sender<Grant>,
}

pub(super) struct State {
    pub(super) pool: Weak<Shared>,
    pub(super) ids: lyra_kit::Ids,
    pub(super) begin: Instant,
    pub(super) shelves: HashMap<Key, Shelf, Keyed>,
    pub(super) ledger: Ledger,
    pub(super) coming: Coming,
    pub(super) waiters: VecDeque<Waiter>,
    pub(super) policy: Box<dyn KeepAlive>,
    pub(super) records: BTreeMap<u128, Arc<Record>>,
    /// Idle instances on all shelves.
    pub(super) idle: usize,
    pub(super) max_idle: usize,
    pub(super) next: u64,
    /// Only control says what is held up.
    pub(super) directed: bool,
    /// Counts what is told of instances.
    pub(super) changes: u64,
    /// What is charged for instances that the pool does not keep. They may stay for long: nobody can have them go.
    pub(super) rooms: Need,
    /// What those have left of the processors, for the queue to know without the pool's lock.
    pub(super) for_calls: Arc<AtomicU64>,
}

impl State {
    pub(super) fn at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begin)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The version's shelf, made when there is none.
    pub(super) fn shelf(&mut self, version: &Arc<FunctionVersion>, need: Need, now: Instant) -> &mut Shelf {
        let key = key_of(version);
        if !self.shelves.contains_key(&key) {
            let shelf = Shelf::new(self.number(), version, need, now);
            // Older versions of the function are held up no longer.
            for (_, other) in self.shelves.iter_mut().filter(|(other, _)| other.0 == key.0 && other.1 < key.1) {
                other.held_up = false;
            }
            self.shelves.insert(key, shelf);
        }
        self.shelves.get_mut(&key).expect("it was inserted above")
    }

    /// Puts another shelf in the place of one without idle instances: instances that are with calls come back to none.
    pub(super) fn renew(&mut self, key: Key, now: Instant) {
        let serial = self.number();
        if let Some(shelf) = self.shelves.get_mut(&key) {
            *shelf = shelf.renewed(serial, now);
        }
    }

    /// An idle instance for a call, when nobody waits and one is there: the warm path, with one look at the shelves.
    pub(super) fn take(&mut self, key: Key, now: Instant) -> Option<Instance> {
        if !self.waiters.is_empty() {
            return None;
        }
        let at = self.at(now);
        let shelf = self.shelves.get_mut(&key)?;
        let idle = &mut shelf.idle.back_mut()?.lease;
        let is_charged = shelf.need.cpu == 0 && !idle.hibernated;
        if !is_charged && !self.ledger.top_up(&mut idle.held, &shelf.need, &Reserved::default()) {
            return None;
        }
        if idle.hibernated {
            idle.record.set_memory(idle.held.memory);
        }
        idle.place = Place::Busy;
        idle.record.enter(InstanceState::Active, at);
        self.policy.called(&mut shelf.track, now);
        shelf.track.calls += 1;
        shelf.track.ended = None;
        shelf.called = now;
        shelf.busy += 1;
        self.idle -= 1;
        shelf.idle.pop_back()
    }

    /// Notes a call of the version.
    pub(super) fn called(&mut self, key: Key, now: Instant) {
        let Some(shelf) = self.shelves.get_mut(&key) else { return };
        self.policy.called(&mut shelf.track, now);
        shelf.track.calls += 1;
        shelf.track.ended = None;
        shelf.called = now;
    }

    /// What the version can be given at once, when `reserved` is left alone.
    pub(super) fn attempt(&mut self, key: Key, ahead: bool, reserved: &Reserved, now: Instant) -> Option<Grant> {
        let at = self.at(now);
        let shelf = self.shelves.get_mut(&key)?;
        if !ahead && let Some(idle) = shelf.idle.back_mut() {
            if !self.ledger.top_up(&mut idle.lease.held, &shelf.need, reserved) {
                return None;
            }
            let mut instance = shelf.idle.pop_back()?;
            self.idle -= 1;
            shelf.busy += 1;
            instance.lease.place = Place::Busy;
            let record = &instance.lease.record;
            record.enter(InstanceState::Active, at);
            if instance.lease.hibernated {
                record.set_memory(instance.lease.held.memory);
            }
            return Some(Grant::Idle(instance));
        }
        if shelf.live() >= shelf.most() {
            return None;
        }
        let held = self.ledger.charge(&shelf.need, reserved)?;
        let place = if ahead { Place::Ahead } else { Place::Busy };
        *(if ahead { &mut shelf.ahead } else { &mut shelf.busy }) += 1;
        let record = Arc::new(Record::new(self.ids.instance(), shelf.version.clone(), &held, at));
        self.records.insert(record.id.number(), record.clone());
        self.changes += 1;
        let devices = self.pool.upgrade().and_then(|pool| pool.devices_of(&held)).map(Box::new);
        Some(Grant::Start(Lease::new(Body {
            record,
            held,
            place,
            shelf: shelf.serial,
            devices,
            took: None,
            since: now,
            stamp: 0.0,
            proved: now,
            hibernated: false,
            restless: false,
            pool: self.pool.clone(),
        })))
    }

    /// What a waiter still needs: less where an idle instance of its version is there.
    fn still_needed(&self, waiter: &Waiter) -> Need {
        let idle = self.shelves.get(&key_of(&waiter.version)).and_then(|shelf| shelf.idle.back());
        match idle {
            Some(idle) if waiter.wants == Wants::Call => Need {
                memory: waiter.need.memory.saturating_sub(idle.lease.held.memory),
                cpu: waiter.need.cpu.saturating_sub(idle.lease.held.cpu),
                gpus: 0,
            },
            _ => waiter.need,
        }
    }

    /// Serves those who wait, in order, as far as it goes; lets idle instances go for them.
    pub(super) fn settle(&mut self, now: Instant, gone: &mut Gone) {
        let mut reserved = Reserved::default();
        let mut n = 0;
        while let Some(waiter) = self.waiters.get(n) {
            let (key, wants, need) = (key_of(&waiter.version), waiter.wants, waiter.need);
            if waiter.grant.is_closed() {
                self.waiters.remove(n);
                continue;
            }
            if wants != Wants::Room && !self.shelves.contains_key(&key) {
                // The function was deleted while the call waited; it may still run.
                let (version, need) = (waiter.version.clone(), waiter.need);
                self.shelf(&version, need, now);
            }
            let grant = match wants {
                Wants::Room => self.make(&need, &reserved).map(Grant::Room),
                Wants::Call | Wants::Ahead => self.attempt(key, wants == Wants::Ahead, &reserved, now),
            };
            if let Some(grant) = grant {
                let Some(waiter) = self.waiters.remove(n) else { break };
                if let Err(grant) = waiter.grant.send(grant) {
                    self.unwanted(grant, now, gone);
                    // That may have served others: from the start again.
                    (n, reserved) = (0, Reserved::default());
                }
                continue;
            }
            let need = self.still_needed(&self.waiters[n]);
            // One that waits for its version's own bound only holds nobody up; nor does one that only the end of a
            // session can help, for which there is no time.
            let short = self.ledger.short(&need, &reserved, &Coming::default());
            if short.any() && self.ledger.holds(&need, &self.rooms) {
                // Processors come free when a call ends, which is when this is looked at again: until then nothing need go for one
                // who could not start anyway.
                if !short.cpu {
                    let own = (wants != Wants::Room).then_some(key);
                    self.make_room(own, &need, &reserved, now, gone);
                }
                reserved.add(&need);
            }
            n += 1;
        }
    }

    /// The one it was for has just given up.
    fn unwanted(&mut self, grant: Grant, now: Instant, gone: &mut Gone) {
        match grant {
            Grant::Idle(instance) => self.shelve(instance, now, gone),
            grant @ (Grant::Start(_) | Grant::Room(_)) => gone.push((Reason::Failed, grant)),
        }
    }

    /// Lets idle instances go until `need` fits beyond what is reserved, or none is left that would help. The last one of
    /// the version `own` stays.
    fn make_room(&mut self, own: Option<Key>, need: &Need, reserved: &Reserved, now: Instant, gone: &mut Gone) {
        loop {
            let short = self.ledger.short(need, reserved, &self.coming);
            if !short.memory && !short.gpus {
                return;
            }
            let Some(victim) = self.victim(short, own, true) else { return };
            self.evict(victim, Reason::Pressure, now, gone);
        }
    }

    /// The version whose longest idle instance is to go first, of those that hold what is short. Instances within a
    /// version's floor go only where `all` says so, and only after all others.
    fn victim(&mut self, short: Short, wanted_by: Option<Key>, all: bool) -> Option<(Key, f64)> {
        let (policy, mut beyond, mut within) = (&self.policy, None, None);
        for (key, shelf) in &mut self.shelves {
            let spare = shelf.live() > shelf.floor;
            let only_one = shelf.idle.len() == 1;
            let Some(oldest) = shelf.idle.front() else { continue };
            let helps =
                (short.memory && oldest.lease.held.memory > 0) || (short.gpus && !oldest.lease.held.gpus.is_empty());
            // The last one of the version that asks is the one it would be given.
            if !helps || (only_one && wanted_by == Some(*key)) {
                continue;
            }
            let rested = oldest.lease.rested();
            shelf.track.instances = shelf.idle.len() + shelf.busy;
            let rank = policy.rank(&mut shelf.track, &rested);
            let best = if spare { &mut beyond } else { &mut within };
            let order = |(rank, since, key): &(f64, Instant, Key)| (*rank, *since, *key);
            let candidate = (rank, rested.since, *key);
            let is_less = |best: &(f64, Instant, Key)| {
                let (left, right) = (order(&candidate), order(best));
                left.0.total_cmp(&right.0).then(left.1.cmp(&right.1)).then(left.2.cmp(&right.2)).is_lt()
            };
            if best.as_ref().is_none_or(is_less) {
                *best = Some(candidate);
            }
        }
        beyond.or(if all { within } else { None }).map(|(rank, _, key)| (key, rank))
    }

    fn evict(&mut self, (key, rank): (Key, f64), reason: Reason, now: Instant, gone: &mut Gone) {
        self.policy.evicted(rank);
        self.take_off(key, 0, reason, now, gone);
    }

    /// Takes the idle instance at `position` off its shelf, to be ended.
    pub(super) fn take_off(&mut self, key: Key, position: usize, reason: Reason, now: Instant, gone: &mut Gone) {
        let at = self.at(now);
        let Some(shelf) = self.shelves.get_mut(&key) else { return };
        let Some(mut instance) = shelf.idle.remove(position) else { return };
        self.idle -= 1;
        if shelf.live() == 0 {
            shelf.track.calls = 0;
        }
        self.leave(&mut instance.lease, InstanceState::Evacuating, at);
        gone.push((reason, Grant::Idle(instance)));
    }

    /// Counts an instance nowhere any more; what it holds will be free soon.
    pub(super) fn leave(&mut self, lease: &mut Lease, state: InstanceState, at: Duration) {
        lease.place = Place::Leaving;
        lease.record.enter(state, at);
        self.changes += 1;
        self.coming.add(&lease.held);
    }

    /// Puts an instance on its version's shelf.
    pub(super) fn shelve(&mut self, mut instance: Instance, now: Instant, gone: &mut Gone) {
        let at = self.at(now);
        let key = key_of(&instance.lease.record.version);
        self.ledger.release_cpu(&mut instance.lease.held);
        let Some(shelf) = self.shelves.get_mut(&key).filter(|shelf| shelf.serial == instance.lease.shelf) else {
            self.leave(&mut instance.lease, InstanceState::Evacuating, at);
            gone.push((Reason::Forgotten, Grant::Idle(instance)));
            return;
        };
        uncount(shelf, &mut *self.policy, instance.lease.place, now);
        if instance.lease.place == Place::Ahead {
            shelf.refilled(true, now);
        }
        if let Some(took) = instance.lease.took.take() {
            shelf.track.started(took);
            self.changes += 1;
        }
        let state = if instance.lease.hibernated { InstanceState::Hibernated } else { InstanceState::Standby };
        let from_aside = instance.lease.place == Place::Aside;
        // One that was only looked at has been in its state all the time.
        if !from_aside || instance.lease.record.state() != state {
            instance.lease.record.enter(state, at);
        }
        instance.lease.place = Place::Shelf;
        if from_aside {
            // It was idle all the time: back to where its age belongs.
            let position = shelf.idle.partition_point(|other| other.lease.since <= instance.lease.since);
            shelf.idle.insert(position, instance);
        } else {
            instance.lease.since = now;
            instance.lease.proved = now;
            instance.lease.stamp = self.policy.stamp();
            shelf.idle.push_back(instance);
        }
        self.idle += 1;
        // None within a floor: it would be started again at once.
        if self.idle > self.max_idle
            && let Some(victim) = self.victim(Short { memory: true, cpu: false, gpus: true }, None, false)
        {
            self.evict(victim, Reason::Crowded, now, gone);
        }
        if !self.waiters.is_empty() {
            self.settle(now, gone);
        }
    }

    /// Lets idle instances go until so much memory is free, but none within a version's floor.
    pub(super) fn keep_free(&mut self, memory: u64, now: Instant, gone: &mut Gone) {
        let short = Short { memory: true, ..Short::default() };
        while self.ledger.free_memory().saturating_add(self.coming.memory) < memory {
            let Some(victim) = self.victim(short, None, false) else { return };
            self.evict(victim, Reason::Buffer, now, gone);
        }
    }

    /// Gives back what an instance held that is gone now.
    pub(super) fn release(&mut self, lease: &mut Lease, now: Instant, gone: &mut Gone) {
        let at = self.at(now);
        let key = key_of(&lease.record.version);
        if lease.place == Place::Leaving {
            self.coming.remove(&lease.held);
        } else if let Some(shelf) = self.shelves.get_mut(&key).filter(|shelf| shelf.serial == lease.shelf) {
            uncount(shelf, &mut *self.policy, lease.place, now);
            if lease.place == Place::Ahead {
                shelf.refilled(false, now);
            }
            if shelf.live() == 0 {
                shelf.track.calls = 0;
            }
        }
        lease.record.enter(InstanceState::Terminated, at);
        self.records.remove(&lease.record.id.number());
        self.changes += 1;
        self.ledger.release(&lease.held);
        lease.held = crate::resources::Held::default();
        if !self.waiters.is_empty() {
            self.settle(now, gone);
        }
    }
}

/// Counts an instance at a place no more.
pub(super) fn uncount(shelf: &mut Shelf, policy: &mut dyn KeepAlive, place: Place, now: Instant) {
    match place {
        Place::Busy => {
            shelf.busy -= 1;
            policy.ended(&mut shelf.track, now);
            if shelf.busy == 0 {
                shelf.track.ended = Some(now);
                shelf.predicted = false;
            }
        }
        Place::Ahead => shelf.ahead -= 1,
        Place::Aside => shelf.aside -= 1,
        Place::Shelf | Place::Leaving => {}
    }
}
