//! What the pool holds of one version.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use lyra_types::FunctionVersion;
use tokio::time::Instant;

use super::instance::Instance;
use crate::keep_alive::{Track, schedule};
use crate::resources::Need;

/// A version that is not held up keeps its minimum for so long after a call.
const FAREWELL: Duration = Duration::from_secs(10 * 60);

/// Longest time between two tries to bring a version's instances up to its minimum.
const MOST_BACKOFF: Duration = Duration::from_secs(60);

/// What control wants held up of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) instances: u32,
    /// The version's schedule, too.
    pub(crate) schedule: bool,
}

/// One version: its idle instances, and counts of the others. A busy one is not in here, so nothing that walks the
/// shelves can end it.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) serial: u64,
    pub(super) version: Arc<FunctionVersion>,
    pub(super) need: Need,
    /// The longest idle first.
    pub(super) idle: VecDeque<Instance>,
    pub(super) busy: usize,
    pub(super) ahead: usize,
    pub(super) aside: usize,
    pub(super) track: Track,
    pub(super) called: Instant,
    /// The worker was told to hold its minimum and its window up, and no newer version has taken over since.
    pub(super) held_up: bool,
    /// What control wants held up, where it says so.
    pub(super) told: Option<Told>,
    /// Instances that stay however long they are idle.
    pub(super) floor: usize,
    pub(super) window: Option<schedule::Window>,
    /// The policy's pre-warming after the last call was done.
    pub(super) predicted: bool,
    retry: Instant,
    failures: u32,
}

impl Shelf {
    pub(super) fn new(serial: u64, version: &Arc<FunctionVersion>, need: Need, now: Instant) -> Shelf {
        // A label that is at fault was refused at deploy; an older version may still carry one.
        let window = schedule::Window::of(&version.labels).ok().flatten();
        Shelf {
            serial,
            version: version.clone(),
            need,
            idle: VecDeque::new(),
            busy: 0,
            ahead: 0,
            aside: 0,
            track: Track { memory: need.memory, ..Track::default() },
            called: now,
            held_up: false,
            told: None,
            floor: 0,
            window,
            predicted: false,
            retry: now,
            failures: 0,
        }
    }

    /// A shelf without instances, of which the same is wanted.
    pub(super) fn renewed(&mut self, serial: u64, now: Instant) -> Shelf {
        Shelf {
            track: std::mem::take(&mut self.track),
            called: self.called,
            held_up: self.held_up,
            told: self.told,
            floor: self.floor,
            predicted: self.predicted,
            ..Shelf::new(serial, &self.version, self.need, now)
        }
    }

    /// Instances that serve or will.
    pub(super) fn live(&self) -> usize {
        self.idle.len() + self.busy + self.ahead + self.aside
    }

    /// Most instances.
    pub(super) fn most(&self) -> usize {
        if self.version.max_instances == 0 { usize::MAX } else { self.version.max_instances as usize }
    }

    /// Sets the floor for `now`, and says what sets it. `directed`: only control says what is held up.
    pub(super) fn refresh_floor(&mut self, now: Instant, wall: lyra_types::Timestamp, directed: bool) -> &'static str {
        let (minimum, follows) = match self.told {
            Some(told) => (told.instances as usize, told.schedule),
            None if directed => (0, false),
            None => {
                let stands_down = !self.held_up && now.saturating_duration_since(self.called) >= FAREWELL;
                (if stands_down { 0 } else { self.version.min_instances as usize }, self.held_up)
            }
        };
        let scheduled = match &self.window {
            Some(window) if follows => window.wanted(wall) as usize,
            _ => 0,
        };
        self.floor = minimum.max(scheduled).min(self.most());
        if scheduled > minimum { "schedule" } else { "minimum" }
    }

    /// Whether it may be brought up to its floor now.
    pub(super) fn may_refill(&self, now: Instant) -> bool {
        self.ahead == 0 && now >= self.retry
    }

    /// Notes how a start ahead of a call went: after a failure, the next try comes later and later.
    pub(super) fn refilled(&mut self, worked: bool, now: Instant) {
        if worked {
            self.failures = 0;
            self.retry = now;
            return;
        }
        self.failures = (self.failures + 1).min(16);
        self.retry = now + Duration::from_secs(1 << self.failures).min(MOST_BACKOFF);
    }

    /// Nothing is lost when it is dropped.
    pub(super) fn is_bare(&self) -> bool {
        self.live() == 0 && self.floor == 0 && self.window.is_none() && self.told.is_none()
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("id", &self.lease.record.id)
            .field("since", &self.lease.since)
            .finish_non_exhaustive()
    }
}

/// Hashes the two numbers of a version's key. They come from this installation, not from callers, so no hash that withstands
/// attacks is needed; and without a random seed, walks over the shelves go in the same order in every run.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio's bits, as Fibonacci hashing has it; the high bits are the best ones, so they come down.
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// See [`KeyHasher`].
pub(super) type Keyed = BuildHasherDefault<KeyHasher>;
