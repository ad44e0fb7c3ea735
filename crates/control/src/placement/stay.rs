//! What stands and may stay.

use super::problem::Placed;
use super::state::State;

impl<K: Ord> State<'_, K> {
    /// Takes over what stands on open hosts, as far as it is wanted and fits.
    pub(super) fn keep(&mut self, previous: &Placed<K>) {
        let mut standing = Vec::new();
        for (demand, want) in self.wants.iter().enumerate() {
            let at = previous.get(&want.demand.key).into_iter().flatten();
            for (name, count) in at.filter(|(_, count)| **count > 0) {
                let host = self.host(name).filter(|host| self.able[want.able].binary_search(host).is_ok());
                standing.extend(host.map(|host| (*count, demand, host)));
            }
        }
        // Of demands that must be apart, the one with the most instances on a host stays there.
        standing.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))));
        for (count, demand, host) in standing {
            if !self.is_barred(demand, host) {
                self.add(demand, host, count, true);
            }
        }
        for demand in 0..self.wants.len() {
            while self.wants[demand].have > self.wants[demand].demand.instances {
                self.remove_one(demand);
            }
        }
        for host in 0..self.rooms.len() {
            if self.excess(host).is_some() {
                self.relieve(host);
            }
        }
    }

    /// Takes one instance of a demand that has too many: from a host that is over capacity, then from where there are the most.
    fn remove_one(&mut self, demand: usize) {
        let zones = self.by_zone(demand);
        let worst = self.wants[demand].at.iter().max_by_key(|held| {
            let room = &self.rooms[held.host];
            let zone = zones.get(room.zone).copied().unwrap_or_default();
            (self.excess(held.host).is_some(), zone, held.count, room.weight, held.host)
        });
        if let Some(host) = worst.map(|held| held.host) {
            self.remove(demand, host);
        }
    }

    /// What is used beyond the host's capacity, if anything is.
    fn excess(&self, host: usize) -> Option<[u64; 3]> {
        let room = &self.rooms[host];
        let excess = [0, 1, 2].map(|at| room.used[at].saturating_sub(room.capacity[at]));
        (excess != [0; 3]).then_some(excess)
    }

    /// Lets instances go until the host holds no more than it can: the smallest one that is enough, else the largest.
    fn relieve(&mut self, host: usize) {
        let here: Vec<usize> = (0..self.wants.len()).filter(|demand| self.wants[*demand].on(host) > 0).collect();
        while let Some(excess) = self.excess(host) {
            let helps = |need: &[u64; 3]| -> u128 {
                (0..3).map(|at| u128::from(need[at].min(excess[at])) * 1_000_000 / u128::from(excess[at].max(1))).sum()
            };
            let best = here.iter().copied().filter(|demand| self.wants[*demand].on(host) > 0).max_by_key(|demand| {
                let want = &self.wants[*demand];
                // Of those that help as much, the smallest; of these the demand with the most instances here.
                (helps(&want.need), std::cmp::Reverse(want.need), want.on(host), std::cmp::Reverse(*demand))
            });
            match best.filter(|demand| helps(&self.wants[*demand].need) > 0) {
                Some(demand) => self.remove(demand, host),
                // Others than instances hold too much.
                None => return,
            }
        }
    }
}
