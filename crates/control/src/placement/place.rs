//! Places what is missing: the demand with the least first, tenants in turn.

use std::collections::BTreeMap;

use lyra_types::TenantName;

use super::state::State;

/// Instances that are looked at, in one round, to go elsewhere for one that finds no place. What can be placed only so is
/// rare, and where all is full every look is in vain.
const LOOKS: usize = 20_000;

/// What a round of placing came to.
#[derive(Debug)]
pub(super) struct Missing {
    /// Demands of which some is missing still.
    pub(super) unplaced: Vec<usize>,
    /// Instances went elsewhere for others, so that there may be room now where there was none.
    pub(super) shuffled: bool,
}

impl<K: Ord> State<'_, K> {
    /// Places what is missing, as far as there is room.
    pub(super) fn place(&mut self) -> Missing {
        let mut levels: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (demand, want) in self.wants.iter().enumerate() {
            if want.have < want.demand.instances {
                levels.entry(want.have).or_default().push(demand);
            }
        }
        let mut missing = Missing { unplaced: Vec::new(), shuffled: false };
        let mut looks = LOOKS;
        while let Some((have, demands)) = levels.pop_first() {
            let mut next = Vec::new();
            for demand in self.in_turn(demands) {
                let host = self.choose(demand, None);
                if let Some(host) = host {
                    self.add(demand, host, 1, false);
                } else if self.make_room(demand, &mut looks) {
                    missing.shuffled = true;
                } else {
                    missing.unplaced.push(demand);
                    continue;
                }
                if have + 1 < self.wants[demand].demand.instances {
                    next.push(demand);
                }
            }
            if !next.is_empty() {
                levels.entry(have + 1).or_default().extend(next);
            }
        }
        missing
    }

    /// Demands in an order in which no tenant has two turns before every other one has had one.
    fn in_turn(&self, mut demands: Vec<usize>) -> Vec<usize> {
        if demands.len() < 2 {
            return demands;
        }
        demands.sort_unstable();
        let mut turns: BTreeMap<&TenantName, usize> = BTreeMap::new();
        let turn = |demand: usize| {
            let tenant = &self.wants[demand].demand.tenant;
            let turns = turns.entry(tenant).or_default();
            *turns += 1;
            (*turns, tenant, demand)
        };
        let mut ordered: Vec<_> = demands.into_iter().map(turn).collect();
        ordered.sort_unstable();
        ordered.into_iter().map(|(_, _, demand)| demand).collect()
    }

    /// Has an instance that was placed in this run go elsewhere, where that lets this one in; what stood before stays.
    fn make_room(&mut self, demand: usize, looks: &mut usize) -> bool {
        let need = self.wants[demand].need;
        for at in 0..self.able[self.wants[demand].able].len() {
            let host = self.able[self.wants[demand].able][at];
            if *looks == 0 {
                return false;
            }
            *looks -= 1;
            let room = &self.rooms[host];
            if self.is_barred(demand, host) || room.fits(&need) {
                continue;
            }
            let lacks = [0, 1, 2].map(|at| match need[at] {
                0 => 0,
                need => room.used[at].saturating_add(need).saturating_sub(room.capacity[at]),
            });
            let mut others = room.fresh.clone();
            others.sort_unstable();
            others.dedup();
            for other in others {
                *looks = looks.saturating_sub(1);
                let want = &self.wants[other];
                let is_fresh = want.at.iter().any(|held| held.host == host && held.count > held.stood);
                if other == demand || !is_fresh || (0..3).any(|at| want.need[at] < lacks[at]) {
                    continue;
                }
                if let Some(elsewhere) = self.choose(other, Some(host)) {
                    self.remove(other, host);
                    self.add(other, elsewhere, 1, false);
                    self.add(demand, host, 1, false);
                    return true;
                }
            }
        }
        false
    }
}
