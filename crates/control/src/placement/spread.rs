//! Moves instances of demands that are crowded on some hosts while others have room.

use super::state::State;

/// A move of one instance of a demand.
struct Step {
    from: usize,
    to: usize,
}

impl<K: Ord> State<'_, K> {
    /// Moves up to `moves` instances, until no move levels anything; returns how many did.
    pub(super) fn spread(&mut self, moves: &mut usize) -> usize {
        let before = *moves;
        // What one demand leaves another may take.
        while self.spread_once(moves) && *moves > 0 {}
        before - *moves
    }

    /// One of each crowded demand in turn, until none is left; says whether anything moved.
    fn spread_once(&mut self, moves: &mut usize) -> bool {
        let mut moved = false;
        let mut crowded: Vec<usize> = (0..self.wants.len()).filter(|demand| self.wants[*demand].have > 1).collect();
        while !crowded.is_empty() {
            let mut still = Vec::new();
            for demand in crowded {
                if *moves == 0 {
                    return moved;
                }
                if let Some(Step { from, to }) = self.step(demand) {
                    self.remove(demand, from);
                    self.add(demand, to, 1, false);
                    *moves -= 1;
                    moved = true;
                    still.push(demand);
                }
            }
            crowded = still;
        }
        moved
    }

    /// The move that levels a demand most, if any levels it: from a host, or zone, with two more than another with room.
    fn step(&self, demand: usize) -> Option<Step> {
        let to = self.choose(demand, None)?;
        let want = &self.wants[demand];
        let zones = self.by_zone(demand);
        let zone = |host: usize| zones.get(self.rooms[host].zone).copied().unwrap_or_default();
        let fullest = want.at.iter().max_by_key(|held| {
            (zone(held.host), held.count, self.rooms[held.host].weight, std::cmp::Reverse(held.host))
        })?;
        if zone(fullest.host) >= zone(to) + 2 {
            return Some(Step { from: fullest.host, to });
        }
        // Within the zone of the emptiest host, since the zones are level.
        let near = want.at.iter().filter(|held| zones.is_empty() || self.rooms[held.host].zone == self.rooms[to].zone);
        let fullest =
            near.max_by_key(|held| (held.count, self.rooms[held.host].weight, std::cmp::Reverse(held.host)))?;
        (fullest.count >= want.on(to) + 2).then_some(Step { from: fullest.host, to })
    }
}
