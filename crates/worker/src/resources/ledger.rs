//! Who holds how much. Pure state; the pool's lock guards it.

use lyra_wire::worker::Resource;

use super::{Config, Need};

/// One resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    total: u64,
    charged: u64,
    limited: bool,
}

impl Account {
    fn new(total: Option<u64>) -> Account {
        Account { total: total.unwrap_or(u64::MAX), charged: 0, limited: total.is_some() }
    }

    fn free(&self) -> u64 {
        self.total - self.charged
    }

    fn resource(&self) -> Resource {
        Resource { total: self.limited.then_some(self.total), charged: self.charged, waiting: 0 }
    }
}

/// What an instance holds. Given back by [`Ledger::release`] only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Held {
    pub(crate) memory: u64,
    pub(crate) cpu: u64,
    /// Positions of devices; no allocation where there are none.
    pub(crate) gpus: Vec<u32>,
}

/// Amounts that are spoken for by those who came earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reserved {
    pub(crate) memory: u64,
    pub(crate) cpu: u64,
    pub(crate) gpus: bool,
}

impl Reserved {
    /// Keeps what `need` asks for from those who come later.
    pub(crate) fn add(&mut self, need: &Need) {
        self.memory = self.memory.saturating_add(need.memory);
        self.cpu = self.cpu.saturating_add(need.cpu);
        self.gpus |= need.gpus > 0;
    }
}

/// Which resources are too scarce for a need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Short {
    pub(crate) memory: bool,
    pub(crate) cpu: bool,
    pub(crate) gpus: bool,
}

impl Short {
    pub(crate) fn any(self) -> bool {
        self.memory || self.cpu || self.gpus
    }
}

/// The ledgers of a worker.
#[derive(Debug)]
pub(crate) struct Ledger {
    memory: Account,
    cpu: Account,
    /// Slots taken of each device.
    taken: Vec<u32>,
    slots: u32,
}

impl Ledger {
    /// Empty ledgers for `devices` GPUs.
    pub(crate) fn new(config: &Config, devices: usize) -> Ledger {
        Ledger {
            memory: Account::new(config.memory_total()),
            cpu: Account::new(config.cpu_total()),
            taken: vec![0; devices],
            slots: config.gpu_slots.max(1),
        }
    }

    pub(crate) fn memory(&self) -> Resource {
        self.memory.resource()
    }

    pub(crate) fn cpu(&self) -> Resource {
        self.cpu.resource()
    }

    pub(crate) fn gpu(&self) -> Resource {
        let total = self.taken.len() as u64 * u64::from(self.slots);
        Resource { total: Some(total), charged: self.taken.iter().map(|taken| u64::from(*taken)).sum(), waiting: 0 }
    }

    /// Slots of each device, and how many of them the device at `position` has given out.
    pub(crate) fn slots_of(&self, position: usize) -> (u32, u32) {
        (self.slots, self.taken.get(position).copied().unwrap_or_default())
    }

    pub(crate) fn free_memory(&self) -> u64 {
        self.memory.free()
    }

    /// What `need` finds too little of, when `reserved` is left alone and `coming` counts as free.
    pub(crate) fn short(&self, need: &Need, reserved: &Reserved, coming: &Coming) -> Short {
        let short = |account: &Account, need: u64, reserved: u64, coming: u64| {
            need > 0 && account.free().saturating_add(coming) < need.saturating_add(reserved)
        };
        let free = |(taken, coming): (&u32, u32)| taken.saturating_sub(coming) < self.slots;
        let coming_of = |n: usize| coming.gpus.get(n).copied().unwrap_or_default();
        let devices = || self.taken.iter().enumerate().filter(|(n, taken)| free((taken, coming_of(*n)))).count();
        Short {
            memory: short(&self.memory, need.memory, reserved.memory, coming.memory),
            cpu: short(&self.cpu, need.cpu, reserved.cpu, 0),
            gpus: need.gpus > 0 && (reserved.gpus || devices() < need.gpus as usize),
        }
    }

    /// Whether `need` would find enough if nobody but `others` held anything.
    pub(crate) fn holds(&self, need: &Need, others: &Need) -> bool {
        let slots = self.taken.len() as u64 * u64::from(self.slots);
        let left = |total: u64, others: u64, need: u64| need == 0 || total.saturating_sub(others) >= need;
        left(self.memory.total, others.memory, need.memory)
            && left(self.cpu.total, others.cpu, need.cpu)
            && left(slots, others.gpus.into(), need.gpus.into())
    }

    /// Charges `need` when all of it is free beyond what is reserved.
    pub(crate) fn charge(&mut self, need: &Need, reserved: &Reserved) -> Option<Held> {
        if self.short(need, reserved, &Coming::default()).any() {
            return None;
        }
        self.memory.charged += need.memory;
        self.cpu.charged += need.cpu;
        Some(Held { memory: need.memory, cpu: need.cpu, gpus: self.take_devices(need.gpus) })
    }

    /// The devices with the most free slots, so that instances spread over them.
    fn take_devices(&mut self, wanted: u32) -> Vec<u32> {
        let mut chosen = Vec::new();
        for _ in 0..wanted {
            let free = |n: &usize| self.taken[*n] < self.slots && !chosen.contains(&(*n as u32));
            let Some(device) = (0..self.taken.len()).filter(free).min_by_key(|n| self.taken[*n]) else { break };
            self.taken[device] += 1;
            chosen.push(device as u32);
        }
        chosen
    }

    /// Gives back all that is held.
    pub(crate) fn release(&mut self, held: &Held) {
        self.memory.charged -= held.memory;
        self.cpu.charged -= held.cpu;
        for device in &held.gpus {
            self.taken[*device as usize] -= 1;
        }
    }

    /// Gives back processors of an instance that has become idle.
    pub(crate) fn release_cpu(&mut self, held: &mut Held) {
        self.cpu.charged -= std::mem::take(&mut held.cpu);
    }

    /// Gives back memory beyond `memory`.
    pub(crate) fn shrink(&mut self, held: &mut Held, memory: u64) {
        let back = held.memory.saturating_sub(memory);
        held.memory -= back;
        self.memory.charged -= back;
    }

    /// Charges an instance up to `need`: one that was idle or hibernated and is to serve again. False: there is too
    /// little, and nothing has changed.
    pub(crate) fn top_up(&mut self, held: &mut Held, need: &Need, reserved: &Reserved) -> bool {
        let more =
            Need { memory: need.memory.saturating_sub(held.memory), cpu: need.cpu.saturating_sub(held.cpu), gpus: 0 };
        if self.short(&more, reserved, &Coming::default()).any() {
            return false;
        }
        self.memory.charged += more.memory;
        self.cpu.charged += more.cpu;
        held.memory += more.memory;
        held.cpu += more.cpu;
        true
    }
}

/// What instances hold that are being ended: it will be free soon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Coming {
    pub(crate) memory: u64,
    /// Slots by device; shorter than there are devices where none is coming.
    gpus: Vec<u32>,
}

impl Coming {
    pub(crate) fn add(&mut self, held: &Held) {
        self.memory += held.memory;
        for device in &held.gpus {
            let device = *device as usize;
            if self.gpus.len() <= device {
                self.gpus.resize(device + 1, 0);
            }
            self.gpus[device] += 1;
        }
    }

    pub(crate) fn remove(&mut self, held: &Held) {
        self.memory -= held.memory;
        for device in &held.gpus {
            self.gpus[*device as usize] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ledger(memory: u64, cpu: u64, devices: usize, slots: u32) -> Ledger {
        let config = Config { memory: Some(memory), cpu_millis: Some(cpu), gpu_slots: slots, ..Config::default() };
        Ledger::new(&config, devices)
    }

    #[test]
    fn an_exact_fit_is_granted_and_one_more_is_not() {
        let mut ledger = ledger(100, 2_000, 0, 1);
        let need = Need { memory: 50, cpu: 1_000, gpus: 0 };
        let none = Reserved::default();
        let (one, two) = (ledger.charge(&need, &none), ledger.charge(&need, &none));
        assert!(one.is_some() && two.is_some());
        assert_eq!(ledger.charge(&Need { memory: 1, ..Need::default() }, &none), None);
        assert_eq!(ledger.charge(&Need { cpu: 1, ..Need::default() }, &none), None);
        ledger.release(&one.expect("granted"));
        assert_eq!(ledger.charge(&need, &Reserved { memory: 1, ..none }), None, "what others wait for is left alone");
        assert!(ledger.charge(&need, &none).is_some());
    }

    #[test]
    fn a_factor_lets_more_be_charged_than_there_is() {
        let config = Config { memory: Some(100), memory_factor: 1.5, ..Config::default() };
        assert_eq!(config.memory_total(), Some(150));
        assert_eq!(Config { memory_factor: f64::NAN, ..config }.memory_total(), Some(100));
    }

    #[test]
    fn gpus_of_one_instance_are_different_devices_and_slots_are_spread() {
        let mut ledger = ledger(0, 0, 2, 2);
        let none = Reserved::default();
        let one = Need { gpus: 1, ..Need::default() };
        let both = Need { gpus: 2, ..Need::default() };
        assert_eq!(ledger.charge(&one, &none).expect("free").gpus, [0]);
        assert_eq!(ledger.charge(&one, &none).expect("free").gpus, [1]);
        let held = ledger.charge(&both, &none).expect("a slot of each is left");
        assert_eq!(held.gpus.len(), 2);
        assert_eq!(ledger.charge(&one, &none), None);
        ledger.release(&held);
        assert_eq!(ledger.gpu().charged, 2);
        assert_eq!(ledger.charge(&Need { gpus: 3, ..Need::default() }, &none), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Charge(u64, u64, u32),
        Release(prop::sample::Index),
        Idle(prop::sample::Index),
        Shrink(prop::sample::Index, u64),
        TopUp(prop::sample::Index, u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..60u64, 0..1_500u64, 0..4u32).prop_map(|(memory, cpu, gpus)| Step::Charge(memory, cpu, gpus)),
            2 => any::<prop::sample::Index>().prop_map(Step::Release),
            1 => any::<prop::sample::Index>().prop_map(Step::Idle),
            1 => (any::<prop::sample::Index>(), 0..60u64).prop_map(|(of, to)| Step::Shrink(of, to)),
            1 => (any::<prop::sample::Index>(), 0..60u64, 0..1_500u64).prop_map(|(of, m, c)| Step::TopUp(of, m, c)),
        ]
    }

    proptest! {
        #[test]
        fn the_sum_of_what_is_held_is_what_is_charged_and_never_more_than_there_is(
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let mut ledger = ledger(100, 3_000, 3, 2);
            let mut held: Vec<Held> = Vec::new();
            for step in steps {
                let none = Reserved::default();
                match step {
                    Step::Charge(memory, cpu, gpus) => {
                        if let Some(new) = ledger.charge(&Need { memory, cpu, gpus }, &none) {
                            prop_assert_eq!(new.gpus.len(), gpus as usize);
                            held.push(new);
                        }
                    }
                    Step::Release(of) if !held.is_empty() => {
                        let gone = held.swap_remove(of.index(held.len()));
                        ledger.release(&gone);
                    }
                    Step::Idle(of) if !held.is_empty() => {
                        let at = of.index(held.len());
                        ledger.release_cpu(&mut held[at]);
                    }
                    Step::Shrink(of, to) if !held.is_empty() => {
                        let at = of.index(held.len());
                        ledger.shrink(&mut held[at], to);
                    }
                    Step::TopUp(of, memory, cpu) if !held.is_empty() => {
                        let at = of.index(held.len());
                        ledger.top_up(&mut held[at], &Need { memory, cpu, gpus: 0 }, &none);
                    }
                    _ => {}
                }
                prop_assert_eq!(ledger.memory().charged, held.iter().map(|h| h.memory).sum::<u64>());
                prop_assert_eq!(ledger.cpu().charged, held.iter().map(|h| h.cpu).sum::<u64>());
                prop_assert_eq!(ledger.gpu().charged, held.iter().map(|h| h.gpus.len() as u64).sum::<u64>());
                prop_assert!(ledger.memory().charged <= 100 && ledger.cpu().charged <= 3_000);
                prop_assert!((0..3).all(|device| ledger.slots_of(device).1 <= 2));
            }
            for gone in &held {
                ledger.release(gone);
            }
            prop_assert_eq!((ledger.memory().charged, ledger.cpu().charged, ledger.gpu().charged), (0, 0, 0));
        }
    }
}
