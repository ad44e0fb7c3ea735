//! Instances kept between calls, for versions with `reuse`.
//!
//! An idle instance serves its own version only: the pool's key is the version, and nothing is ever moved from one
//! key to another. The last one put back is the first one taken, so that those beyond the need grow old and go.

use std::collections::{HashMap, VecDeque};

use lyra_isolation::Sandbox;
use lyra_types::InstanceId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::Config;
use crate::templates::Key;

/// An instance that waits for its next call.
pub(crate) struct Idle {
    pub(crate) id: InstanceId,
    pub(crate) sandbox: Box<dyn Sandbox>,
    /// Calls it has served.
    pub(crate) served: u64,
}

struct Shelved {
    idle: Idle,
    since: Instant,
}

#[derive(Default)]
struct Shelf {
    instances: VecDeque<Shelved>,
    /// The version's `min_instances`.
    keep: usize,
}

/// The idle instances of a worker.
pub(crate) struct Pool {
    max: usize,
    idle_timeout: std::time::Duration,
    shelves: Mutex<HashMap<Key, Shelf>>,
}

impl Pool {
    pub(crate) fn new(config: &Config) -> Pool {
        Pool { max: config.max_idle_instances, idle_timeout: config.idle_timeout, shelves: Mutex::default() }
    }

    /// Takes an idle instance of the version.
    pub(crate) fn take(&self, key: Key) -> Option<Idle> {
        let mut shelves = self.shelves.lock();
        shelves.get_mut(&key)?.instances.pop_back().map(|shelved| shelved.idle)
    }

    /// Puts an instance back; `keep` is its version's `min_instances`.
    pub(crate) fn put(&self, key: Key, idle: Idle, keep: usize, now: Instant) {
        // What is pushed out is dropped outside of the lock: freeing a sandbox is a system call or two.
        let _pushed_out = {
            let mut shelves = self.shelves.lock();
            let shelf = shelves.entry(key).or_default();
            shelf.keep = keep;
            shelf.instances.push_back(Shelved { idle, since: now });
            let total: usize = shelves.values().map(|shelf| shelf.instances.len()).sum();
            (total > self.max).then(|| take_longest_idle(&mut shelves)).flatten()
        };
    }

    /// Idle instances of one version.
    pub(crate) fn count(&self, key: Key) -> usize {
        self.shelves.lock().get(&key).map_or(0, |shelf| shelf.instances.len())
    }

    /// Idle instances of all versions.
    pub(crate) fn total(&self) -> usize {
        self.shelves.lock().values().map(|shelf| shelf.instances.len()).sum()
    }

    /// Drops the instances of a function, or of one of its versions.
    pub(crate) fn forget(&self, generation: u64, version: Option<u64>) {
        let _dropped: Vec<Shelf> = {
            let mut shelves = self.shelves.lock();
            let gone: Vec<Key> = shelves
                .keys()
                .copied()
                .filter(|key| key.0 == generation && version.is_none_or(|v| v == key.1))
                .collect();
            gone.into_iter().filter_map(|key| shelves.remove(&key)).collect()
        };
    }

    /// Drops the instances that nobody needed for the idle timeout.
    pub(crate) fn sweep(&self, now: Instant) {
        let _dropped: Vec<Shelved> = {
            let mut shelves = self.shelves.lock();
            let mut dropped = Vec::new();
            for shelf in shelves.values_mut() {
                while shelf.instances.len() > shelf.keep
                    && shelf
                        .instances
                        .front()
                        .is_some_and(|oldest| now.duration_since(oldest.since) >= self.idle_timeout)
                {
                    dropped.extend(shelf.instances.pop_front());
                }
            }
            shelves.retain(|_, shelf| !shelf.instances.is_empty());
            dropped
        };
    }
}

fn take_longest_idle(shelves: &mut HashMap<Key, Shelf>) -> Option<Shelved> {
    let beyond_minimum = |shelf: &&mut Shelf| shelf.instances.len() > shelf.keep;
    let key_of_age = |shelf: &&mut Shelf| shelf.instances.front().map(|oldest| oldest.since);
    let shelf = shelves.values_mut().filter(beyond_minimum).min_by_key(key_of_age);
    match shelf {
        Some(shelf) => shelf.instances.pop_front(),
        // All are within some minimum: the bound on memory wins.
        None => shelves.values_mut().filter(|s| !s.instances.is_empty()).min_by_key(key_of_age)?.instances.pop_front(),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "ages are made by hand")]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use bytes::Bytes;
    use lyra_isolation::{CallContext, Served};
    use lyra_types::Error;

    use super::*;

    struct Nothing;

    #[async_trait]
    impl Sandbox for Nothing {
        async fn call(&mut self, _: CallContext, event: Bytes) -> Result<Bytes, Error> {
            Ok(event)
        }
        async fn serve(
            self: Box<Self>,
            _: CallContext,
            _: http::Request<lyra_isolation::Body>,
        ) -> Result<Served, Error> {
            Err(Error::internal("not an http component"))
        }
        fn is_reusable(&self) -> bool {
            true
        }
    }

    fn idle(n: u128) -> Idle {
        Idle { id: InstanceId::from_parts(0, n), sandbox: Box::new(Nothing), served: 1 }
    }

    fn pool(max: usize) -> Pool {
        Pool::new(&Config { max_idle_instances: max, idle_timeout: Duration::from_secs(10), ..Config::default() })
    }

    #[test]
    fn an_instance_comes_back_for_its_own_version_only_last_in_first_out() {
        let (pool, now) = (pool(10), Instant::now());
        pool.put((1, 1), idle(1), 0, now);
        pool.put((1, 1), idle(2), 0, now);
        assert!(pool.take((1, 2)).is_none() && pool.take((2, 1)).is_none());
        assert_eq!(pool.take((1, 1)).map(|i| i.id), Some(InstanceId::from_parts(0, 2)));
        assert_eq!(pool.take((1, 1)).map(|i| i.id), Some(InstanceId::from_parts(0, 1)));
        assert!(pool.take((1, 1)).is_none());
    }

    #[test]
    fn the_longest_idle_goes_when_the_pool_is_full_but_not_below_a_minimum() {
        let (pool, now) = (pool(2), Instant::now());
        pool.put((1, 1), idle(1), 1, now);
        pool.put((2, 1), idle(2), 0, now + Duration::from_secs(1));
        pool.put((3, 1), idle(3), 0, now + Duration::from_secs(2));
        assert_eq!((pool.count((1, 1)), pool.count((2, 1)), pool.count((3, 1))), (1, 0, 1));
    }

    #[test]
    fn a_sweep_drops_what_is_idle_for_too_long_beyond_the_minimum() {
        let (pool, now) = (pool(10), Instant::now());
        for n in 0..3 {
            pool.put((1, 1), idle(n), 1, now);
        }
        pool.sweep(now + Duration::from_secs(9));
        assert_eq!(pool.total(), 3);
        pool.sweep(now + Duration::from_secs(11));
        assert_eq!(pool.total(), 1);
        pool.forget(1, Some(1));
        assert_eq!(pool.total(), 0);
    }
}
