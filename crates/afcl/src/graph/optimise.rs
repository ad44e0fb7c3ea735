//! Finds where to cut: which functions and compounds of a scope should run on another Lyra, so that what stays here
//! fits the capacity and the fewest bytes go between the two.
//!
//! With a limit on what stays this is as hard as the knapsack problem, so that no fast way is always right. Up to
//! [`EXACT_UNITS`] functions and compounds all cuts are compared, and the best one is found. Beyond that a cut is made
//! better step by step from several starts: it always fits and is never worse than sending everything, but there may
//! be a better one.

use super::cut::Crossing;
use super::part::Part;
use super::{Cut, Graph, ScopeId};

/// Most functions and compounds of a scope for which all cuts are compared.
pub const EXACT_UNITS: usize = 12;

/// Most cuts that are compared beyond that.
const MOST_TRIES: usize = 20_000;

/// What it costs to run tasks, and to move data.
#[derive(Debug, Clone, Copy)]
pub struct Costs<'c> {
    /// Size of each datum in bytes, by its number: what crosses a cut once.
    pub bytes: &'c [u64],
    /// Load of each task, by its number, in the unit of `capacity`; that of a loop's body counts as it stands there, so
    /// it is given for all iterations together.
    pub loads: &'c [u64],
    /// Most load that may stay here.
    pub capacity: u64,
}

/// A cut that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What runs elsewhere; nothing where all fits here.
    pub members: Vec<String>,
    /// Bytes that go between the two.
    pub bytes: u64,
}

/// The cut of a scope that moves the fewest bytes of all those with which what stays here fits the capacity; of equals
/// the one with fewer members.
///
/// The slices of `costs` have an entry for each datum and task of `graph`.
pub fn local_cut(graph: &Graph, scope: ScopeId, costs: &Costs<'_>) -> Found {
    let units = units(graph, scope, costs);
    let search = Search { graph, costs, units };
    let total: u64 = search.units.iter().map(|unit| unit.load).fold(0, u64::saturating_add);
    if total <= costs.capacity {
        return Found { members: Vec::new(), bytes: 0 };
    }
    let best = if search.units.len() <= EXACT_UNITS { search.compare_all() } else { search.improve() };
    Found { members: search.names(&best.sent), bytes: best.bytes }
}

/// Something that stays or goes as a whole.
struct Unit {
    name: String,
    load: u64,
}

/// One way to cut.
#[derive(Debug, Clone)]
struct Choice {
    sent: Vec<bool>,
    bytes: u64,
}

/// The functions and compounds of a scope.
fn units(graph: &Graph, scope: ScopeId, costs: &Costs<'_>) -> Vec<Unit> {
    let functions = graph.tasks.iter().filter(|task| task.scope == scope && task.kind.is_function());
    let mut names: Vec<&str> = functions.map(|task| task.name.as_str()).collect();
    names.extend(graph.scopes.iter().filter(|inner| inner.parent == Some(scope)).map(|inner| inner.name.as_str()));
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(*name));
    let each = |name: &str| {
        let cut = Cut { name: String::new(), members: vec![name.to_owned()], url: None };
        let part = Part::of(graph, &cut).ok()?;
        let loads = costs.loads.iter().zip(&part.tasks).filter(|(_, inside)| **inside).map(|(load, _)| *load);
        Some(Unit { name: name.to_owned(), load: loads.fold(0, u64::saturating_add) })
    };
    names.into_iter().filter_map(each).collect()
}

struct Search<'g> {
    graph: &'g Graph,
    costs: &'g Costs<'g>,
    units: Vec<Unit>,
}

impl Search<'_> {
    fn names(&self, sent: &[bool]) -> Vec<String> {
        self.units.iter().zip(sent).filter(|(_, sent)| **sent).map(|(unit, _)| unit.name.clone()).collect()
    }

    fn fits(&self, sent: &[bool]) -> bool {
        let stays = self.units.iter().zip(sent).filter(|(_, sent)| !**sent).map(|(unit, _)| unit.load);
        stays.fold(0, u64::saturating_add) <= self.costs.capacity
    }

    /// The bytes that go over a cut; none where it can't be made.
    fn bytes(&self, sent: &[bool]) -> Option<u64> {
        let members = self.names(sent);
        if members.is_empty() {
            return Some(0);
        }
        let part = Part::of(self.graph, &Cut { name: String::new(), members, url: None }).ok()?;
        let crossing = Crossing::of(self.graph, &part);
        let members = crossing.into.iter().chain(&crossing.out);
        Some(members.map(|member| self.costs.bytes[member.data.0 as usize]).fold(0, u64::saturating_add))
    }

    fn choice(&self, sent: Vec<bool>) -> Option<Choice> {
        let bytes = self.fits(&sent).then(|| self.bytes(&sent))??;
        Some(Choice { sent, bytes })
    }

    fn everything(&self) -> Choice {
        let sent = vec![true; self.units.len()];
        let bytes = self.bytes(&sent).expect("all of a scope is convex");
        Choice { sent, bytes }
    }

    fn compare_all(&self) -> Choice {
        let mut best = self.everything();
        for number in 0..1_u32 << self.units.len() {
            let sent = (0..self.units.len()).map(|index| number & (1 << index) != 0).collect();
            if let Some(choice) = self.choice(sent) {
                best = better(best, choice);
            }
        }
        best
    }

    /// From sending all, and from sending each one alone with what it takes: adds or takes back one at a time as long as
    /// that helps.
    fn improve(&self) -> Choice {
        let mut best = self.everything();
        let mut tries = 0;
        let mut starts = vec![best.clone()];
        for first in 0..self.units.len() {
            let mut sent = vec![false; self.units.len()];
            for index in (0..self.units.len()).cycle().skip(first).take(self.units.len()) {
                sent[index] = true;
                tries += 1;
                if let Some(choice) = self.choice(sent.clone()) {
                    starts.push(choice);
                    break;
                }
            }
        }
        for mut current in starts {
            loop {
                let mut next = current.clone();
                for index in 0..self.units.len() {
                    let mut sent = current.sent.clone();
                    sent[index] = !sent[index];
                    tries += 1;
                    if let Some(choice) = self.choice(sent) {
                        next = better(next, choice);
                    }
                }
                let is_better = next.sent != current.sent;
                current = next;
                if !is_better || tries > MOST_TRIES {
                    break;
                }
            }
            best = better(best, current);
            if tries > MOST_TRIES {
                break;
            }
        }
        best
    }
}

fn better(one: Choice, other: Choice) -> Choice {
    let rank = |choice: &Choice| (choice.bytes, choice.sent.iter().filter(|sent| **sent).count());
    if rank(&other) < rank(&one) { other } else { one }
}
