//! How often somebody may try: a token bucket for each user, or each address.
//!
//! What must hold: memory is bounded, whatever names are tried; and where the bound is reached, tries are refused, not let through. A
//! try is taken before what it is for is looked at, and may be given back afterwards, so that tries at the same time count as well.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use lyra_kit::Clock;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Most buckets.
const MOST: usize = 10_000;

/// How many tries there may be.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// Time after which there is one more.
    pub every: Duration,
}

struct Bucket {
    /// Tries that are used up.
    used: f64,
    at: Instant,
}

/// Buckets by key.
pub struct Throttle<K> {
    rate: Rate,
    clock: Clock,
    buckets: Mutex<HashMap<K, Bucket>>,
}

/// The address as a key: somebody who has one address of IPv6 has 2^64.
pub fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

impl<K: Eq + Hash> Throttle<K> {
    /// Nobody has tried yet.
    pub fn new(rate: Rate, clock: Clock) -> Throttle<K> {
        Throttle { rate, clock, buckets: Mutex::default() }
    }

    fn used(&self, bucket: &Bucket, now: Instant) -> f64 {
        let back = now.duration_since(bucket.at).as_secs_f64() / self.rate.every.as_secs_f64();
        (bucket.used - back).max(0.0)
    }

    /// Takes a try.
    ///
    /// # Errors
    /// How long to wait, where none is left.
    pub fn take(&self, key: K) -> Result<(), Duration> {
        let now = self.clock.instant();
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MOST && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| self.used(bucket, now) > 0.0);
            if buckets.len() >= MOST {
                return Err(self.rate.every);
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { used: 0.0, at: now });
        let used = self.used(bucket, now);
        let over = used + 1.0 - f64::from(self.rate.burst);
        if over > 0.0 {
            return Err(self.rate.every.mul_f64(over));
        }
        *bucket = Bucket { used: used + 1.0, at: now };
        Ok(())
    }

    /// Gives a try back.
    pub fn give_back(&self, key: &K) {
        if let Some(bucket) = self.buckets.lock().get_mut(key) {
            bucket.used = (bucket.used - 1.0).max(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tries_are_counted_by_key_and_come_back_with_time() {
        let rate = Rate { burst: 3, every: Duration::from_secs(10) };
        let throttle = Throttle::new(rate, Clock::system());
        for _ in 0..3 {
            assert_eq!(throttle.take("ada"), Ok(()));
        }
        let wait = throttle.take("ada").unwrap_err();
        assert!(wait <= Duration::from_secs(10) && wait > Duration::from_secs(9), "{wait:?}");
        assert_eq!(throttle.take("bob"), Ok(()));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(throttle.take("ada"), Ok(()));
        assert!(throttle.take("ada").is_err());
        throttle.give_back(&"ada");
        assert_eq!(throttle.take("ada"), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_the_bound_refuses() {
        let rate = Rate { burst: 1, every: Duration::from_secs(10) };
        let throttle = Throttle::new(rate, Clock::system());
        for key in 0..MOST {
            assert_eq!(throttle.take(key), Ok(()));
        }
        assert!(throttle.take(MOST).is_err());
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(throttle.take(MOST), Ok(()));
        assert_eq!(throttle.buckets.lock().len(), 1);
    }
}
