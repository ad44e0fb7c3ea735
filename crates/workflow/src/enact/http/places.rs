//! How many calls of one host may be open at a time.
//!
//! What must hold: what is kept is bounded by the calls that are open, not by the hosts that were ever named.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use tokio::sync::Semaphore;

/// Hosts that are kept before those without a call are let go.
const KEPT: usize = 1_024;

/// The places of every host.
pub(super) struct Places {
    per_host: usize,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Places {
    pub(super) fn new(per_host: usize) -> Places {
        Places { per_host: per_host.clamp(1, Semaphore::MAX_PERMITS), hosts: Mutex::default() }
    }

    /// The places of `host`; one is taken with [`Semaphore::acquire_owned`].
    pub(super) fn of(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock();
        if let Some(places) = hosts.get(host) {
            return Arc::clone(places);
        }
        if hosts.len() >= KEPT {
            // Who holds or waits for a place holds the semaphore.
            hosts.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let places = Arc::new(Semaphore::new(self.per_host));
        hosts.insert(host.to_owned(), Arc::clone(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hosts_in_use_are_kept_and_others_are_let_go() {
        let places = Places::new(1);
        let held = places.of("busy").acquire_owned().await.expect("the first place");
        for number in 0..3 * KEPT {
            drop(places.of(&number.to_string()));
        }
        assert!(places.hosts.lock().len() <= KEPT);
        assert_eq!(places.of("busy").available_permits(), 0);
        drop(held);
        assert_eq!(places.of("busy").available_permits(), 1);
    }
}
