//! On which workers an application's standing instances are: a pure function from what stands and what is wanted.
//!
//! What must hold: the sum is what is wanted, as long as any worker may hold some; what stands stays where it is unless it is
//! too much or its worker is closed; new ones go where there are the fewest, then where most is free.

use std::collections::BTreeMap;

/// A worker that may be given instances.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate<'a> {
    pub(super) name: &'a str,
    /// Whether it may be given more.
    pub(super) open: bool,
    /// Instances of the application that it could start now.
    pub(super) room: u32,
    /// How full it is, in thousandths.
    pub(super) fullness: u64,
    /// All instances of the application on it, with and without sessions.
    pub(super) instances: u32,
}

/// Standing instances by worker, so that there are `wanted` in all; workers that are to hold none are not in it.
pub(super) fn spread(wanted: u32, now: &BTreeMap<String, u32>, candidates: &[Candidate<'_>]) -> BTreeMap<String, u32> {
    let open: BTreeMap<&str, &Candidate<'_>> = candidates.iter().filter(|of| of.open).map(|of| (of.name, of)).collect();
    let mut placed: BTreeMap<String, u32> = now
        .iter()
        .filter(|(name, _)| open.contains_key(name.as_str()))
        .map(|(name, count)| (name.clone(), *count))
        .collect();
    let mut sum: u32 = placed.values().sum();
    while sum > wanted {
        // Where most stand, then where it is fullest.
        let most = placed.iter().max_by_key(|(name, count)| (**count, open[name.as_str()].fullness, (*name).clone()));
        let Some(name) = most.map(|(name, _)| name.clone()) else { break };
        if let Some(count) = placed.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                placed.remove(&name);
            }
        }
        sum -= 1;
    }
    let mut given: BTreeMap<&str, u32> = BTreeMap::new();
    while sum < wanted {
        let rank = |of: &Candidate<'_>| {
            let standing = placed.get(of.name).copied().unwrap_or(0);
            let more = given.get(of.name).copied().unwrap_or(0);
            // A worker without room gets some only where nobody has any: it says so, and idle functions may make way.
            (more >= of.room, standing, of.instances, of.fullness)
        };
        // The first by name, of several.
        let Some(best) = open.values().min_by_key(|of| rank(of)).map(|of| of.name) else { break };
        *placed.entry(best.to_owned()).or_default() += 1;
        *given.entry(best).or_default() += 1;
        sum += 1;
    }
    placed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(name: &str, open: bool, room: u32) -> Candidate<'_> {
        Candidate { name, open, room, fullness: 0, instances: 0 }
    }

    fn placed(of: &[(&str, u32)]) -> BTreeMap<String, u32> {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn new_ones_are_spread_and_what_is_too_much_goes_where_most_stand() {
        let all = [candidate("a", true, 9), candidate("b", true, 9), candidate("c", true, 0)];
        assert_eq!(spread(3, &placed(&[]), &all), placed(&[("a", 2), ("b", 1)]), "c has no room");
        assert_eq!(spread(4, &placed(&[("a", 3)]), &all), placed(&[("a", 3), ("b", 1)]));
        assert_eq!(spread(2, &placed(&[("a", 3), ("b", 1)]), &all), placed(&[("a", 1), ("b", 1)]));
        assert_eq!(spread(0, &placed(&[("a", 3)]), &all), placed(&[]));
    }

    #[test]
    fn a_closed_worker_holds_none() {
        let all = [candidate("a", false, 9), candidate("b", true, 9)];
        assert_eq!(spread(2, &placed(&[("a", 2)]), &all), placed(&[("b", 2)]));
        assert_eq!(spread(2, &placed(&[("a", 2)]), &[candidate("a", false, 9)]), placed(&[]));
    }

    proptest! {
        #[test]
        fn the_sum_is_what_is_wanted_and_a_plan_stays(
            wanted in 0u32..40, now in proptest::collection::vec(0u32..10, 5), rooms in proptest::collection::vec(0u32..9, 5),
            open in proptest::collection::vec(any::<bool>(), 5),
        ) {
            let names = ["a", "b", "c", "d", "e"];
            let all: Vec<_> = (0..5).map(|at| candidate(names[at], open[at], rooms[at])).collect();
            let before: BTreeMap<_, _> = (0..5).filter(|at| now[*at] > 0).map(|at| (names[at].to_owned(), now[at])).collect();
            let after = spread(wanted, &before, &all);
            let sum: u32 = after.values().sum();
            prop_assert_eq!(sum, if open.contains(&true) { wanted } else { 0 });
            prop_assert_eq!(spread(wanted, &after, &all), after);
        }
    }
}
