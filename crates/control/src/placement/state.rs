//! What the solver knows while it works: how full each host is, and where each demand stands.
//!
//! Hosts and demands go by their index in the order of their names and keys, so that the order of the input has no say.

use std::collections::BTreeMap;

use lyra_types::Runtime;

use super::problem::{Demand, Host, Problem, Reason, Short, Spread, Unplaced};

/// A host is as full as another when their shares differ by less than this, in millionths; then the load decides.
const FULLNESS_STEP: u64 = 50_000;
/// 1 in millionths.
const WHOLE: u64 = 1_000_000;

/// How full a host is.
#[derive(Debug)]
pub(super) struct Room<'a> {
    pub(super) name: &'a str,
    pub(super) capacity: [u64; 3],
    pub(super) used: [u64; 3],
    pub(super) zone: usize,
    load: u64,
    /// Fuller, then busier is more; see [`Room::weigh`].
    pub(super) weight: u64,
    /// Demands that had an instance placed here in this run.
    pub(super) fresh: Vec<usize>,
}

/// Instances of a demand on a host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) host: usize,
    pub(super) count: u32,
    /// Of these: those that stood there before.
    pub(super) stood: u32,
}

/// A demand, and where it stands.
#[derive(Debug)]
pub(super) struct Want<'a, K> {
    pub(super) demand: &'a Demand<K>,
    pub(super) need: [u64; 3],
    /// Index of the hosts that run it in [`State::able`].
    pub(super) able: usize,
    /// In the order of hosts. No count is 0.
    pub(super) at: Vec<Held>,
    pub(super) have: u32,
    /// Hosts that have its image, in order.
    images: Vec<usize>,
    /// Index of its word in [`State::owners`].
    apart: Option<usize>,
}

/// Everything.
#[derive(Debug)]
pub(super) struct State<'a, K> {
    pub(super) rooms: Vec<Room<'a>>,
    pub(super) wants: Vec<Want<'a, K>>,
    /// Open hosts that run a combination of runtime and isolation, in order.
    pub(super) able: Vec<Vec<usize>>,
    zones: usize,
    any_open: bool,
    /// By word, by host: the demand with that word that is there.
    owners: Vec<Vec<Option<usize>>>,
}

impl Room<'_> {
    /// Whether one more of this fits, exactly or with room to spare.
    pub(super) fn fits(&self, need: &[u64; 3]) -> bool {
        let fits = |at: usize| need[at] == 0 || self.used[at].saturating_add(need[at]) <= self.capacity[at];
        fits(0) && fits(1) && fits(2)
    }

    /// Takes stock: how full in steps, how busy, then how full exactly.
    fn weigh(&mut self) {
        let share = |at: usize| match self.capacity[at] {
            u64::MAX => 0,
            // Something is used of a resource that is not there: as full as can be.
            0 => WHOLE * u64::from(self.used[at] > 0),
            all => u64::try_from(u128::from(self.used[at]) * u128::from(WHOLE) / u128::from(all)).unwrap_or(u64::MAX),
        };
        let full = (0..3).map(share).max().unwrap_or_default().min(WHOLE * 10);
        self.weight = (full / FULLNESS_STEP) << 48 | self.load << 24 | full;
    }

    fn take(&mut self, need: &[u64; 3]) {
        for (used, need) in self.used.iter_mut().zip(need) {
            *used = used.saturating_add(*need);
        }
        self.weigh();
    }

    fn give_back(&mut self, need: &[u64; 3]) {
        for (used, need) in self.used.iter_mut().zip(need) {
            *used = used.saturating_sub(*need);
        }
        self.weigh();
    }
}

impl<K> Want<'_, K> {
    pub(super) fn on(&self, host: usize) -> u32 {
        self.at.binary_search_by_key(&host, |held| held.host).map_or(0, |at| self.at[at].count)
    }
}

/// Where an instance would go, the best first: fewest of its zone, fewest on the host, image there, weight, name.
type Rank = (u32, u32, bool, u64, usize);

impl<'a, K: Ord> State<'a, K> {
    pub(super) fn new(problem: &'a Problem<K>) -> State<'a, K> {
        let mut hosts: Vec<&Host<K>> = problem.hosts.iter().collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        hosts.dedup_by(|a, b| a.name == b.name);
        let mut demands: Vec<&Demand<K>> = problem.demands.iter().collect();
        demands.sort_by(|a, b| a.key.cmp(&b.key));
        demands.dedup_by(|a, b| a.key == b.key);
        let mut zones = BTreeMap::new();
        let rooms = hosts.iter().map(|host| {
            let next = zones.len();
            let zone = *zones.entry(host.zone.as_deref()).or_insert(next);
            room(host, zone)
        });
        let rooms: Vec<Room<'a>> = rooms.collect();
        let mut kinds: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut able = Vec::new();
        let mut words: BTreeMap<&str, usize> = BTreeMap::new();
        let mut wants: Vec<Want<'a, K>> = Vec::with_capacity(demands.len());
        for demand in demands {
            let kind = *kinds.entry((demand.runtime.as_str(), &demand.isolation)).or_insert_with(|| {
                let runs = |at: &usize| hosts[*at].open && runs(hosts[*at], demand.runtime, &demand.isolation);
                able.push((0..hosts.len()).filter(runs).collect());
                able.len() - 1
            });
            let next = words.len();
            let apart = demand.apart.as_deref().map(|word| *words.entry(word).or_insert(next));
            let need = demand.need.array();
            wants.push(Want { demand, need, able: kind, at: Vec::new(), have: 0, images: Vec::new(), apart });
        }
        for (at, host) in hosts.iter().enumerate() {
            for image in &host.images {
                if let Ok(demand) = wants.binary_search_by(|want| want.demand.key.cmp(image)) {
                    wants[demand].images.push(at);
                }
            }
        }
        let owners = vec![vec![None; rooms.len()]; words.len()];
        let any_open = hosts.iter().any(|host| host.open);
        State { rooms, wants, able, zones: zones.len(), any_open, owners }
    }

    pub(super) fn host(&self, name: &str) -> Option<usize> {
        self.rooms.binary_search_by(|room| room.name.cmp(name)).ok()
    }

    /// Whether the host holds something that the demand must be apart from.
    pub(super) fn is_barred(&self, demand: usize, host: usize) -> bool {
        let owner = self.wants[demand].apart.and_then(|word| self.owners[word][host]);
        owner.is_some_and(|owner| owner != demand)
    }

    /// Adds instances; those that `stood` there before may move only for a reason.
    pub(super) fn add(&mut self, demand: usize, host: usize, count: u32, stood: bool) {
        let want = &mut self.wants[demand];
        let old = if stood { count } else { 0 };
        match want.at.binary_search_by_key(&host, |held| held.host) {
            Ok(at) => {
                want.at[at].count += count;
                want.at[at].stood += old;
            }
            Err(at) => want.at.insert(at, Held { host, count, stood: old }),
        }
        want.have += count;
        if let Some(word) = want.apart {
            self.owners[word][host] = Some(demand);
        }
        let need = want.need.map(|need| need.saturating_mul(u64::from(count)));
        let room = &mut self.rooms[host];
        room.take(&need);
        if !stood {
            room.fresh.push(demand);
        }
    }

    /// Takes one instance away, a fresh one if there is one.
    pub(super) fn remove(&mut self, demand: usize, host: usize) {
        let want = &mut self.wants[demand];
        let Ok(at) = want.at.binary_search_by_key(&host, |held| held.host) else { return };
        let held = &mut want.at[at];
        held.count -= 1;
        held.stood = held.stood.min(held.count);
        want.have -= 1;
        if held.count == 0 {
            want.at.remove(at);
            if let Some(word) = want.apart {
                self.owners[word][host] = None;
            }
        }
        self.rooms[host].give_back(&want.need);
    }

    /// Instances of a demand by zone, where it is spread over zones.
    pub(super) fn by_zone(&self, demand: usize) -> Vec<u32> {
        let want = &self.wants[demand];
        if want.demand.spread == Spread::Hosts {
            return Vec::new();
        }
        let mut counts = vec![0; self.zones];
        for held in &want.at {
            counts[self.rooms[held.host].zone] += held.count;
        }
        counts
    }

    /// The host that gets the next instance.
    pub(super) fn choose(&self, demand: usize, not: Option<usize>) -> Option<usize> {
        let want = &self.wants[demand];
        let zones = self.by_zone(demand);
        let (mut at, mut images) = (want.at.iter().peekable(), want.images.iter().peekable());
        let mut best: Option<Rank> = None;
        for &host in &self.able[want.able] {
            let room = &self.rooms[host];
            if !room.fits(&want.need) {
                continue;
            }
            while at.next_if(|held| held.host < host).is_some() {}
            let count = at.peek().filter(|held| held.host == host).map_or(0, |held| held.count);
            while images.next_if(|image| **image < host).is_some() {}
            let bare = images.peek() != Some(&&host);
            let rank = (zones.get(room.zone).copied().unwrap_or_default(), count, bare, room.weight, host);
            if best.is_none_or(|best| rank < best) && not != Some(host) && !self.is_barred(demand, host) {
                best = Some(rank);
            }
        }
        best.map(|(.., host)| host)
    }

    /// What is told of demands that are short.
    pub(super) fn told(&self, unplaced: Vec<usize>) -> Vec<Unplaced<K>>
    where
        K: Clone,
    {
        let tell = |demand: usize| {
            let want = &self.wants[demand];
            let missing = want.demand.instances.saturating_sub(want.have);
            Unplaced { key: want.demand.key.clone(), missing, reason: self.reason(demand) }
        };
        let mut told: Vec<_> = unplaced.into_iter().map(tell).collect();
        told.sort_by(|a, b| a.key.cmp(&b.key));
        told
    }

    fn reason(&self, demand: usize) -> Reason {
        let want = &self.wants[demand];
        let able = &self.able[want.able];
        if !self.any_open {
            return Reason::NoHost;
        }
        if able.is_empty() {
            return Reason::NotOffered;
        }
        if able.iter().any(|host| self.rooms[*host].fits(&want.need)) {
            return Reason::Apart;
        }
        // What the most hosts lack; of two such the first.
        let most = |lacks: &dyn Fn(&Room<'_>, usize) -> bool| {
            let lacking = (0..3).map(|at| able.iter().filter(|host| lacks(&self.rooms[**host], at)).count());
            lacking.enumerate().max_by_key(|(at, hosts)| (*hosts, 2 - at)).unwrap_or_default()
        };
        let (at, hosts) = most(&|room, at| want.need[at] > room.capacity[at]);
        let small = |host: &usize| (0..3).any(|at| want.need[at] > self.rooms[*host].capacity[at]);
        if hosts > 0 && able.iter().all(small) {
            return Reason::TooLarge(Short::ALL[at]);
        }
        let short = |room: &Room<'_>, at: usize| {
            want.need[at] > 0 && room.used[at].saturating_add(want.need[at]) > room.capacity[at]
        };
        Reason::Short(Short::ALL[most(&short).0])
    }
}

fn room<'a, K>(host: &'a Host<K>, zone: usize) -> Room<'a> {
    // A load that is no number is the worst.
    let load = if host.load.is_nan() { f64::MAX } else { host.load };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, as it is clamped")]
    let load = (load * 1e3).clamp(0.0, f64::from((1 << 24) - 1)) as u64;
    let (capacity, used) = (host.capacity.array(), host.charged.array());
    let mut room = Room { name: &host.name, capacity, used, zone, load, weight: 0, fresh: Vec::new() };
    room.weigh();
    room
}

fn runs<K>(host: &Host<K>, runtime: Runtime, isolation: &str) -> bool {
    let fits = |offer: &super::Offer| isolation == "auto" || offer.backend == isolation;
    host.offers.iter().any(|offer| fits(offer) && offer.runtimes.contains(&runtime))
}
