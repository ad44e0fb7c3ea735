//! What the pool is told from outside, one version or one instance at a time.

use std::sync::Arc;

use lyra_types::function::VersionKey;
use lyra_types::{Code, Error, FunctionVersion, InstanceId};
use lyra_wire::registry::InstanceReport;
use lyra_wire::worker::InstanceState;
use tokio::time::Instant;

use super::instance::{Instance, Place};
use super::shelf::Told;
use super::state::{Gone, Reason};
use super::{Pool, instances_of};
use crate::resources::Need;
use crate::templates::{Key, key_of};

impl Pool {
    /// Changes whenever an instance is new, is gone, or rests in another way than before.
    pub(crate) fn changes(&self) -> u64 {
        self.shared.state.lock().changes
    }

    /// Every instance that is charged for, as control is told of it: with those that serve shown as standing by.
    pub(crate) fn reports(&self) -> Vec<InstanceReport> {
        let state = self.shared.state.lock();
        let report = |record: &Arc<super::instance::Record>| InstanceReport {
            id: record.id,
            version: record.version.key(),
            state: match record.state() {
                InstanceState::Active => InstanceState::Standby,
                state => state,
            },
            memory: record.memory(),
        };
        state.records.values().map(report).collect()
    }

    /// From now on instances stay by what is told here, and no more by what their versions ask for.
    pub(crate) fn be_directed(&self) {
        self.shared.state.lock().directed = true;
    }

    /// Holds so many instances of the version up from now on. Where these are fewer than before, those beyond that are
    /// idle are ended: they are held up elsewhere.
    pub(crate) fn tell(&self, version: &Arc<FunctionVersion>, need: Need, told: Told) {
        let mut gone = Gone::new();
        {
            let state = &mut *self.shared.state.lock();
            let now = self.shared.clock.instant();
            let before = state.shelf(version, need, now).told.replace(told);
            state.end_surplus(key_of(version), before, told.instances, now, &mut gone);
        }
        self.dispose(gone);
    }

    /// Holds the version up no more.
    pub(crate) fn untell(&self, version: &VersionKey) {
        let mut gone = Gone::new();
        {
            let state = &mut *self.shared.state.lock();
            let (key, now) = ((version.generation, version.version), self.shared.clock.instant());
            if let Some(shelf) = state.shelves.get_mut(&key) {
                let before = shelf.told.take();
                shelf.held_up = false;
                state.end_surplus(key, before, 0, now, &mut gone);
            }
        }
        self.dispose(gone);
    }

    /// Takes an idle instance off its shelf, to be ended.
    ///
    /// # Errors
    /// [`Code::NotFound`]; [`Code::Conflict`] while it is not idle.
    pub(crate) fn take_out(&self, id: InstanceId) -> Result<Instance, Error> {
        let mut gone = Gone::new();
        {
            let state = &mut *self.shared.state.lock();
            let now = self.shared.clock.instant();
            let (key, position) = state.find(id)?;
            state.take_off(key, position, Reason::Told, now, &mut gone);
        }
        self.shared.count(&gone);
        instances_of(gone).pop().ok_or_else(|| Error::not_found("instance", id))
    }

    /// Takes an idle instance aside, so that no call gets it meanwhile.
    ///
    /// # Errors
    /// As [`Pool::take_out`].
    pub(crate) fn set_aside(&self, id: InstanceId) -> Result<Instance, Error> {
        let state = &mut *self.shared.state.lock();
        let (key, position) = state.find(id)?;
        let shelf = state.shelves.get_mut(&key).ok_or_else(|| Error::not_found("instance", id))?;
        let mut instance = shelf.idle.remove(position).ok_or_else(|| Error::not_found("instance", id))?;
        instance.lease.place = Place::Aside;
        shelf.aside += 1;
        state.idle -= 1;
        Ok(instance)
    }

    /// Charges for the memory that a hibernated instance takes when it is awake.
    ///
    /// # Errors
    /// [`Code::Overloaded`] where it is not there.
    pub(crate) fn charge_awake(&self, instance: &mut Instance) -> Result<(), Error> {
        let state = &mut *self.shared.state.lock();
        let need = Need::of(&instance.lease.record.version);
        let reserved = crate::resources::ledger::Reserved::default();
        let charged = need.is_none_or(|need| state.ledger.top_up(&mut instance.lease.held, &need, &reserved));
        if !charged {
            return Err(Error::new(Code::Overloaded, "there is too little memory for this instance to be awake"));
        }
        instance.lease.record.set_memory(instance.lease.held.memory);
        Ok(())
    }
}

impl super::state::State {
    /// Takes off the instances that were held up and shall not be any more, the longest idle first.
    fn end_surplus(&mut self, key: Key, before: Option<Told>, now_held: u32, now: Instant, gone: &mut Gone) {
        let held_before = before.map_or(0, |told| told.instances);
        for _ in now_held..held_before {
            let surplus = |shelf: &super::shelf::Shelf| shelf.live() > now_held as usize && !shelf.idle.is_empty();
            if !self.shelves.get(&key).is_some_and(surplus) {
                return;
            }
            self.take_off(key, 0, Reason::Told, now, gone);
        }
    }

    /// Where an idle instance is.
    fn find(&self, id: InstanceId) -> Result<(Key, usize), Error> {
        let record = self.records.get(&id.number()).ok_or_else(|| Error::not_found("instance", id))?;
        let key = key_of(&record.version);
        let position = self.shelves.get(&key).and_then(|shelf| shelf.idle.iter().position(|of| of.lease.id() == id));
        let busy = || Error::new(Code::Conflict, format!("instance {id} is not idle"));
        position.map(|position| (key, position)).ok_or_else(busy)
    }
}
