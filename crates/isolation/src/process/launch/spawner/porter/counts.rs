//! What goes over the ports of one sandbox: bounded and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Bounds;
use crate::session::Traffic;

/// Counts of one sandbox.
pub(super) struct Counts {
    bounds: Bounds,
    connections: AtomicU64,
    associations: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

/// Which of the counts a [`Place`] belongs to.
#[derive(Clone, Copy)]
pub(super) enum Of {
    Connections,
    Associations,
}

/// One connection or association; it is not counted any more when this is dropped.
pub(super) struct Place {
    counts: Arc<Counts>,
    of: Of,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.open(self.of).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counts {
    pub(super) fn new(bounds: Bounds) -> Counts {
        Counts {
            bounds,
            connections: AtomicU64::new(0),
            associations: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    fn open(&self, of: Of) -> &AtomicU64 {
        match of {
            Of::Connections => &self.connections,
            Of::Associations => &self.associations,
        }
    }

    /// Counts one more in; `None`: there are as many as there may be, and it is counted as refused.
    pub(super) fn take(self: &Arc<Self>, of: Of) -> Option<Place> {
        let most = match of {
            Of::Connections => self.bounds.connections,
            Of::Associations => self.bounds.associations,
        };
        // One thread only: nobody comes between.
        if self.open(of).load(Ordering::Relaxed) >= u64::from(most) {
            self.refuse();
            return None;
        }
        self.open(of).fetch_add(1, Ordering::Relaxed);
        Some(Place { counts: Arc::clone(self), of })
    }

    pub(super) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Where bytes to the program are counted.
    pub(super) fn received(&self) -> &AtomicU64 {
        &self.received
    }

    /// Where bytes from the program are counted.
    pub(super) fn sent(&self) -> &AtomicU64 {
        &self.sent
    }

    /// How long a UDP client is remembered.
    pub(super) fn idle(&self) -> Duration {
        self.bounds.idle
    }

    pub(super) fn traffic(&self) -> Traffic {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Traffic {
            connections: read(&self.connections),
            associations: read(&self.associations),
            accepted: read(&self.accepted),
            refused: read(&self.refused),
            received: read(&self.received),
            sent: read(&self.sent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_let_in_than_the_bound_and_a_place_is_free_again_when_it_is_left() {
        let bounds = Bounds { connections: 2, associations: 1, idle: Duration::from_secs(1) };
        let counts = Arc::new(Counts::new(bounds));
        let (one, two) = (counts.take(Of::Connections), counts.take(Of::Connections));
        assert!(one.is_some() && two.is_some() && counts.take(Of::Connections).is_none());
        assert!(counts.take(Of::Associations).is_some());
        drop(one);
        assert!(counts.take(Of::Connections).is_some());
        let traffic = counts.traffic();
        assert_eq!((traffic.connections, traffic.refused), (1, 1));
        drop(two);
        assert_eq!(counts.traffic().connections, 0);
    }
}
