//! Wall-clock and monotonic time, real or virtual.
#![expect(clippy::disallowed_methods, reason = "this module is where the clock is read")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lyra_types::Timestamp;
use tokio::time::Instant;

/// Reads time. Cheap to clone.
///
/// Under `tokio::time::pause` the monotonic side is virtual; a [`Clock::simulated`] makes the
/// wall-clock side follow it.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Where it started, when, and the milliseconds by which it was set since.
    simulated: Option<(Timestamp, Instant, Arc<AtomicI64>)>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock { simulated: None }
    }

    /// A wall clock that starts at `base` and moves with tokio's clock. Call inside of a runtime.
    pub fn simulated(base: Timestamp) -> Clock {
        Clock { simulated: Some((base, Instant::now(), Arc::default())) }
    }

    /// The wall-clock time.
    pub fn now(&self) -> Timestamp {
        match &self.simulated {
            Some((base, start, set)) => {
                let now = *base + start.elapsed();
                Timestamp::from_millis(now.millis().saturating_add(set.load(Ordering::Relaxed)))
            }
            None => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }

    /// Sets a simulated wall clock, with all its clones, ahead or back by so many milliseconds, as an operator or NTP does. The
    /// machine's clock stays as it is.
    pub fn set_by(&self, millis: i64) {
        if let Some((_, _, set)) = &self.simulated {
            set.fetch_add(millis, Ordering::Relaxed);
        }
    }

    /// The monotonic time, for measuring and for deadlines.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Processor time that the calling thread has used since it began.
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(unsafe_code, reason = "the crates that wrap it leave this clock out or need a feature of their own")]
    // SAFETY: the pointer is to a timespec of this frame, which the call fills in.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if answer != 0 {
        return Duration::ZERO;
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Blocks the calling thread. Only for threads of their own, never inside of a runtime.
pub fn block_for(duration: Duration) {
    std::thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_moves_with_virtual_time() {
        let clock = Clock::simulated(Timestamp::from_millis(1_000));
        clock.sleep(Duration::from_secs(3_600)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(3_601_000));
        clock.clone().set_by(-3_600_000);
        assert_eq!(clock.now(), Timestamp::from_millis(1_000));
    }
}
