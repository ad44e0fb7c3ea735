//! Tasks that wait for a place, in the order of an [`Arbitration`].
//!
//! What must hold: each task that is put in comes out once; none waits for ever behind better ranked ones: one that has
//! waited for [`AGEING`] is next, whatever the order. Putting in and taking out cost the logarithm of how many wait.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::arbitration::{Arbitration, Priority, WaitingView};

/// How long a task can be overtaken.
pub const AGEING: Duration = Duration::from_secs(30);

/// Tasks that wait.
#[derive(Debug)]
pub struct WaitingList<T> {
    arbitration: Arbitration,
    /// By order of arrival.
    tasks: BTreeMap<u64, Waiting<T>>,
    ranked: BTreeSet<(Priority, u64)>,
    next: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    priority: Priority,
    since: Instant,
}

impl<T> WaitingList<T> {
    /// Nobody waits.
    pub fn new(arbitration: Arbitration) -> WaitingList<T> {
        WaitingList { arbitration, tasks: BTreeMap::new(), ranked: BTreeSet::new(), next: 0 }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Puts a task in. The number that it gets takes it out again by [`WaitingList::remove`].
    pub fn push(&mut self, item: T, task: &WaitingView, now: Instant) -> u64 {
        let (number, priority) = (self.next, self.arbitration.priority(task));
        self.next += 1;
        self.tasks.insert(number, Waiting { item, priority, since: now });
        self.ranked.insert((priority, number));
        number
    }

    /// Takes out who is next.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        let (oldest, waiting) = self.tasks.first_key_value()?;
        let number = match now.saturating_duration_since(waiting.since) >= AGEING {
            true => *oldest,
            false => self.ranked.first()?.1,
        };
        self.remove(number)
    }

    /// Takes one out that does not wait any more; nothing where it is out.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let waiting = self.tasks.remove(&number)?;
        self.ranked.remove(&(waiting.priority, number));
        Some(waiting.item)
    }
}
