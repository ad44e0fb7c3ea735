//! What the pool shows of itself.

use std::time::Duration;

use lyra_types::invocation::Start;
use lyra_wire::worker::{Check, GpuStatus, Holdings, InstanceStatus};

use super::Pool;
use super::instance::Record;
use crate::templates::Key;

/// Longest that a health check waits for the pool's lock.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);

impl Pool {
    /// The start that a call of the version would have now.
    pub(crate) fn next_start(&self, key: Key) -> Start {
        let state = self.shared.state.lock();
        // Nobody passes those who wait for resources.
        let is_open = state.waiters.is_empty();
        match state.shelves.get(&key).and_then(|shelf| shelf.idle.back()).filter(|_| is_open) {
            Some(next) if next.lease.record.served() == 0 => Start::Prewarmed,
            Some(_) => Start::Warm,
            None => Start::Cold,
        }
    }

    /// What instances hold, and who waits for more.
    pub(crate) fn holdings(&self) -> Holdings {
        let shared = &*self.shared;
        let mut holdings = Holdings { keep_alive: shared.policy.to_owned(), ..Holdings::default() };
        let mut slots = Vec::new();
        {
            let state = shared.state.lock();
            holdings.memory = state.ledger.memory();
            holdings.cpu = state.ledger.cpu();
            holdings.gpu = state.ledger.gpu();
            holdings.waiting = state.waiters.len();
            for waiter in &state.waiters {
                holdings.memory.waiting += waiter.need.memory;
                holdings.cpu.waiting += waiter.need.cpu;
                holdings.gpu.waiting += u64::from(waiter.need.gpus);
            }
            for record in state.records.values() {
                holdings.instances.add(record.state());
            }
            slots.extend((0..shared.gpus.len()).map(|position| state.ledger.slots_of(position)));
        }
        // The driver is asked outside of the lock.
        let show = |(gpu, (slots, taken)): (&lyra_isolation::Gpu, (u32, u32))| {
            let load = shared.source.load(&gpu.uuid);
            GpuStatus {
                index: gpu.index,
                uuid: gpu.uuid.clone(),
                name: gpu.name.clone(),
                memory: gpu.memory,
                memory_used: load.memory_used,
                utilisation: load.utilisation,
                slots,
                slots_charged: taken,
            }
        };
        holdings.gpus = shared.gpus.iter().zip(slots).map(show).collect();
        holdings
    }

    /// Every instance that is charged for.
    pub(crate) fn list(&self) -> Vec<InstanceStatus> {
        let shared = &*self.shared;
        let state = shared.state.lock();
        state.records.values().map(|record| self.status_of(record)).collect()
    }

    fn status_of(&self, record: &Record) -> InstanceStatus {
        let version = &record.version;
        let number = |position: &u32| self.shared.gpus.get(*position as usize).map(|gpu| gpu.index);
        InstanceStatus {
            id: record.id,
            tenant: version.tenant.clone(),
            function: version.function.clone(),
            version: version.version,
            runtime: version.runtime,
            state: record.state(),
            since: self.shared.begin.1 + record.since(),
            memory: record.memory(),
            served: record.served(),
            gpus: record.gpus.iter().filter_map(number).collect(),
            application: None,
            session: None,
        }
    }

    /// Whether the pool's lock can be had, and whether what is charged is what instances hold.
    pub(crate) fn check_up(&self) -> Check {
        let (healthy, detail) = match self.shared.state.try_lock_for(LOCK_PATIENCE) {
            None => (false, format!("the pool's lock could not be had in {} ms", LOCK_PATIENCE.as_millis())),
            Some(state) => {
                let kept: u64 = state.records.values().map(|record| record.memory()).sum();
                let charged = kept + state.rooms.memory;
                let counted = state.ledger.memory().charged;
                let idle: usize = state.shelves.values().map(|shelf| shelf.idle.len()).sum();
                let right = charged == counted && idle == state.idle;
                let detail = format!(
                    "{} instances, {} idle; {counted} bytes charged, {charged} held; {} wait for resources",
                    state.records.len(),
                    state.idle,
                    state.waiters.len()
                );
                (right, detail)
            }
        };
        Check { name: "pool".to_owned(), healthy, detail }
    }

    /// Nothing is held, nobody waits. For tests.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.shared.state.lock();
        state.records.is_empty()
            && state.waiters.is_empty()
            && state.idle == 0
            && state.ledger.memory().charged == 0
            && state.ledger.cpu().charged == 0
            && state.ledger.gpu().charged == 0
            && state.coming == crate::resources::ledger::Coming::default()
    }
}
