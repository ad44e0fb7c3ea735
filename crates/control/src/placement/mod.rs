//! Which worker holds how many instances of what: a pure function from what there is and what is wanted to a plan.
//!
//! [`solve`] takes hosts, demands and what stands now, and says what shall stand. It reads no clock, does no I/O and
//! draws nothing by chance; the order of its input does not matter. The steps, each in a file of its own:
//!
//! 1. `stay`: what stands stays where it can. Only what is on a host that is gone, closed, or over capacity has to go.
//! 2. `place`: what is missing is placed, one instance of each demand in turn, the demand with the least first and tenants
//!    in turn, so that where there is too little everybody has something. An instance goes where there are the fewest of its
//!    kind, then where its image is, then where more is free, then where the load is less.
//! 3. `spread`: instances move, few at a time, where a demand is crowded on some hosts while others have room.
//!
//! What must hold: no host gets more than its capacity; no instance moves without one of the reasons above; a plan
//! solved again is the same plan. What it does not do: it starts and ends nothing, and does not know whether what stands
//! works.
//!
//! After: Borg (Verma et al., "Large-scale cluster management at Google with Borg", EuroSys 2015) for feasibility, then
//! score, and for shares of the scarcest resource; Kubernetes' topology spread and image locality for the order of scores.

mod place;
mod problem;
mod reconcile;
mod spread;
mod state;
mod stay;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use problem::{Amounts, Demand, Host, Offer, Placed, Plan, Problem, Reason, Short, Spread, Unplaced};

use place::Missing;
pub(crate) use reconcile::Placement;
use state::State;

/// Places what is demanded on the hosts; `previous` is what stands now.
///
/// Names of hosts and keys of demands are unique; of several with the same, any one counts.
pub fn solve<K: Ord + Clone>(problem: &Problem<K>, previous: &Placed<K>) -> Plan<K> {
    let mut state = State::new(problem);
    state.keep(previous);
    let mut moves = problem.moves;
    loop {
        let Missing { unplaced, shuffled } = state.place();
        let moved = state.spread(&mut moves);
        // What moved may have left room behind. Either way ends: more is placed each time, and less is crowded.
        if unplaced.is_empty() || (moved == 0 && !shuffled) {
            return Plan { placed: placed(&state), unplaced: state.told(unplaced) };
        }
    }
}

fn placed<K: Ord + Clone>(state: &State<'_, K>) -> Placed<K> {
    let mut placed = Placed::new();
    for want in &state.wants {
        if want.at.is_empty() {
            continue;
        }
        let at = want.at.iter().map(|held| (state.rooms[held.host].name.to_owned(), held.count));
        placed.insert(want.demand.key.clone(), at.collect::<BTreeMap<_, _>>());
    }
    placed
}
