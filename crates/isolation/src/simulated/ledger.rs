//! What all instances of the back end hold together: accounted, never allocated.

use std::sync::Arc;

use lyra_kit::Clock;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Figures of the back end since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Instances that are there, those that start included.
    pub instances: usize,
    /// What they hold, in MiB.
    pub memory_mb: u64,
    /// The most that they held at one time, in MiB.
    pub peak_memory_mb: u64,
    /// Memory times time, in MiB · ms.
    pub memory_ms: u128,
    /// Instances that were started, or tried to.
    pub starts: u64,
}

struct State {
    figures: Figures,
    since: Instant,
}

impl State {
    /// Brings memory × time up to now, then changes what is held.
    fn change(&mut self, now: Instant, from_mb: u32, to_mb: u32) {
        let figures = &mut self.figures;
        figures.memory_ms += u128::from(figures.memory_mb) * now.duration_since(self.since).as_millis();
        self.since = now;
        figures.memory_mb = figures.memory_mb - u64::from(from_mb) + u64::from(to_mb);
        figures.peak_memory_mb = figures.peak_memory_mb.max(figures.memory_mb);
    }
}

/// The account of a back end. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ledger {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl Ledger {
    pub(super) fn new(clock: Clock) -> Ledger {
        let state = State { figures: Figures::default(), since: clock.instant() };
        Ledger { clock, state: Arc::new(Mutex::new(state)) }
    }

    /// The figures, up to this moment.
    pub(super) fn figures(&self) -> Figures {
        let mut state = self.state.lock();
        state.change(self.clock.instant(), 0, 0);
        state.figures
    }

    /// Books a new instance; it is there until the share is dropped.
    pub(super) fn start(&self, memory_mb: u32) -> Share {
        let mut state = self.state.lock();
        state.change(self.clock.instant(), 0, memory_mb);
        state.figures.instances += 1;
        state.figures.starts += 1;
        Share { ledger: self.clone(), memory_mb }
    }
}

/// What one instance holds.
pub(super) struct Share {
    ledger: Ledger,
    memory_mb: u32,
}

impl Share {
    pub(super) fn memory_mb(&self) -> u32 {
        self.memory_mb
    }

    pub(super) fn resize(&mut self, memory_mb: u32) {
        if memory_mb != self.memory_mb {
            self.ledger.state.lock().change(self.ledger.clock.instant(), self.memory_mb, memory_mb);
            self.memory_mb = memory_mb;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.ledger.state.lock();
        state.change(self.ledger.clock.instant(), self.memory_mb, 0);
        state.figures.instances -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn memory_is_counted_over_time() {
        let clock = Clock::system();
        let ledger = Ledger::new(clock.clone());
        let mut one = ledger.start(100);
        clock.sleep(Duration::from_secs(1)).await;
        let two = ledger.start(50);
        clock.sleep(Duration::from_secs(1)).await;
        one.resize(10);
        drop(two);
        clock.sleep(Duration::from_secs(1)).await;
        let expected = Figures {
            instances: 1,
            memory_mb: 10,
            peak_memory_mb: 150,
            memory_ms: 100_000 + 150_000 + 10_000,
            starts: 2,
        };
        assert_eq!(ledger.figures(), expected);
        drop(one);
        assert_eq!((ledger.figures().instances, ledger.figures().memory_mb), (0, 0));
    }
}
