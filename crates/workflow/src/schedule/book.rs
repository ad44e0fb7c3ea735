//! What is known of resources: how many tasks each has, how long it takes, how often it failed.
//!
//! What must hold: a place has never more leases than its capacity, whoever asks at once; a lease frees its place when
//! it is dropped, however its task ends; what is kept is bounded by the types that are bound, not by all that ever were.
//! All resources of this machine are one place, since they share its processors.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::estimate::Fit;
use super::{Limit, OptionView};
use crate::mapping::Resource;

/// The place of all resources of this machine.
const LOCAL: &str = "local";
/// After this time a failure counts half.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// Entries that are kept before those that nobody holds are let go.
const KEPT: usize = 1_024;

/// What is known of all resources. Cheap to clone; clones are the same book.
#[derive(Debug, Clone)]
pub struct Book {
    limit: Limit,
    pages: Arc<Mutex<Pages>>,
}

#[derive(Debug, Default)]
struct Pages {
    places: HashMap<String, Arc<Place>>,
    /// By function type and resource.
    records: HashMap<(String, String), Arc<Record>>,
}

/// Something that has room for tasks.
#[derive(Debug, Default)]
struct Place {
    used: AtomicU32,
}

/// What a resource showed with one function type.
#[derive(Debug, Default)]
struct Record {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    fit: Fit,
    failures: f64,
    /// When `failures` was true.
    at: Option<Instant>,
}

impl Seen {
    fn failures(&self, now: Instant) -> f64 {
        let Some(at) = self.at else { return 0.0 };
        let halvings = now.saturating_duration_since(at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.failures * 0.5_f64.powf(halvings)
    }
}

impl Book {
    /// An empty book, with what says capacities.
    pub fn new(limit: Limit) -> Book {
        Book { limit, pages: Arc::default() }
    }

    /// Looks up the resources of a function type once, so that scheduling its tasks needs no look-up.
    pub fn bind(&self, function_type: &str, resources: &[Resource]) -> Bound {
        let mut pages = self.pages.lock();
        if pages.places.len() + pages.records.len() >= KEPT {
            pages.places.retain(|_, place| Arc::strong_count(place) > 1);
            pages.records.retain(|_, record| Arc::strong_count(record) > 1);
        }
        let bind = |resource: &Resource| {
            let id = resource.id();
            let place = if resource.is_local() { LOCAL } else { &id };
            let place = Arc::clone(pages.places.entry(place.to_owned()).or_default());
            let record = Arc::clone(pages.records.entry((function_type.to_owned(), id.clone())).or_default());
            let (capacity, is_local) = (self.limit.capacity(resource), resource.is_local());
            Slot { id, is_local, capacity, place, record }
        };
        Bound { slots: resources.iter().map(bind).collect() }
    }
}

/// The resources of one function type.
#[derive(Debug, Clone)]
pub struct Bound {
    slots: Vec<Slot>,
}

#[derive(Debug, Clone)]
struct Slot {
    id: String,
    is_local: bool,
    capacity: Option<u32>,
    place: Arc<Place>,
    record: Arc<Record>,
}

impl Bound {
    /// What a scheduler is shown.
    pub fn options(&self, now: Instant) -> SmallVec<[OptionView<'_>; 4]> {
        let options = (0..).zip(&self.slots).map(|(index, slot)| {
            let seen = slot.record.seen.lock();
            OptionView {
                index,
                id: &slot.id,
                is_local: slot.is_local,
                used: slot.place.used.load(Ordering::Acquire),
                capacity: slot.capacity,
                failures: seen.failures(now),
                estimate: seen.fit.estimate(),
            }
        });
        options.collect()
    }

    /// Takes a place of the resource of that number; none where it is full by now.
    pub fn begin(&self, index: u32) -> Option<Lease> {
        let slot = self.slots.get(index as usize)?;
        let fits = |used: u32| match slot.capacity {
            Some(capacity) if used >= capacity => None,
            _ => used.checked_add(1),
        };
        slot.place.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Lease { place: Arc::clone(&slot.place), record: Arc::clone(&slot.record) })
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an output.
    Succeeded {
        /// Size of the input, in bytes.
        input_bytes: u64,
        /// From call to output.
        took: Duration,
    },
    /// With a failure that says something of the resource.
    Failed,
}

/// A place that is taken; free again when this is dropped. A call that was cancelled is dropped without an outcome.
#[derive(Debug)]
pub struct Lease {
    place: Arc<Place>,
    record: Arc<Record>,
}

impl Lease {
    /// Frees the place and writes down how the call ended.
    pub fn end(self, outcome: Outcome, now: Instant) {
        let mut seen = self.record.seen.lock();
        match outcome {
            Outcome::Succeeded { input_bytes, took } => seen.fit.add(input_bytes, took),
            Outcome::Failed => {
                seen.failures = seen.failures(now) + 1.0;
                seen.at = Some(now);
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.place.used.fetch_sub(1, Ordering::AcqRel);
    }
}
