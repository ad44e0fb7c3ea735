//! What a worker holds of versions, as far as the calls that went there from here tell.
//!
//! A call that found a worker cold shows that it had no idle instance; one that ended well leaves one behind. What others'
//! calls or timers did is not known: the guess is put right by the next call that went wrong by it.

use std::collections::HashMap;
use std::time::Duration;

use lyra_types::invocation::Start;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::balance::Holds;

/// Versions that are remembered; then those that were not called for [`LASTS`] go, or all.
const MAX_VERSIONS: usize = 10_000;
/// Nothing is taken to be there of a version that was not called for so long: workers keep idle instances no longer unless
/// they are told to.
const LASTS: Duration = Duration::from_secs(600);

/// All versions that a worker was called for.
#[derive(Debug, Default)]
pub(crate) struct Footprints(Mutex<HashMap<u64, Footprint>>);

#[derive(Debug, Clone, Copy)]
struct Footprint {
    /// Instances that are taken to be there, busy or idle.
    instances: u32,
    /// Calls from here.
    busy: u32,
    last: Instant,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// What it had to wait for.
    pub(crate) start: Option<Start>,
    /// Whether its instance is there still.
    pub(crate) kept: bool,
}

impl Footprints {
    pub(crate) fn holds(&self, version: u64, now: Instant) -> Holds {
        match self.0.lock().get(&version) {
            Some(print) if now.saturating_duration_since(print.last) >= LASTS => Holds::Nothing,
            Some(print) if print.instances > print.busy => Holds::Instance,
            Some(_) => Holds::Code,
            None => Holds::Nothing,
        }
    }

    /// A call begins.
    pub(crate) fn enter(&self, version: u64, now: Instant) {
        let mut prints = self.0.lock();
        if prints.len() >= MAX_VERSIONS && !prints.contains_key(&version) {
            prints.retain(|_, print| print.busy > 0 || now.saturating_duration_since(print.last) < LASTS);
            if prints.len() >= MAX_VERSIONS {
                prints.clear();
            }
        }
        let print = prints.entry(version).or_insert(Footprint { instances: 0, busy: 0, last: now });
        print.busy += 1;
        print.last = now;
    }

    /// A call ended, or was given up.
    pub(crate) fn leave(&self, version: u64, ended: Ended) {
        let mut prints = self.0.lock();
        let Some(print) = prints.get_mut(&version) else { return };
        match ended.start {
            // No idle one was there; each call that runs has one.
            Some(Start::Cold) => print.instances = print.busy,
            Some(Start::Warm | Start::Prewarmed) => print.instances = print.instances.max(print.busy),
            None => {}
        }
        print.busy = print.busy.saturating_sub(1);
        if !ended.kept {
            print.instances = print.instances.saturating_sub(1);
        }
        if ended.start.is_none() && print.instances == 0 && print.busy == 0 {
            // It was refused, or never came so far: nothing shows that anything is there.
            prints.remove(&version);
        }
    }

    /// The worker was started anew.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: bool = true;

    fn ended(start: Start, kept: bool) -> Ended {
        Ended { start: Some(start), kept }
    }

    #[test]
    fn an_instance_is_there_after_a_call_until_another_has_it() {
        let (prints, t) = (Footprints::default(), lyra_kit::Clock::system().instant());
        assert_eq!(prints.holds(1, t), Holds::Nothing);
        prints.enter(1, t);
        assert_eq!(prints.holds(1, t), Holds::Code, "on its way");
        prints.leave(1, ended(Start::Cold, KEPT));
        assert_eq!((prints.holds(1, t), prints.holds(2, t)), (Holds::Instance, Holds::Nothing));
        prints.enter(1, t);
        assert_eq!(prints.holds(1, t), Holds::Code, "busy");
        prints.enter(1, t);
        prints.leave(1, ended(Start::Warm, KEPT));
        assert_eq!(prints.holds(1, t), Holds::Instance);
        assert_eq!(prints.holds(1, t + LASTS), Holds::Nothing);
    }

    #[test]
    fn a_cold_start_puts_the_guess_right() {
        let (prints, t) = (Footprints::default(), lyra_kit::Clock::system().instant());
        for _ in 0..3 {
            prints.enter(1, t);
        }
        for _ in 0..3 {
            prints.leave(1, ended(Start::Warm, KEPT));
        }
        // Three were thought to be there; now there is one, and it is busy with the next call.
        prints.enter(1, t);
        prints.leave(1, ended(Start::Cold, KEPT));
        prints.enter(1, t);
        assert_eq!(prints.holds(1, t), Holds::Code);
    }

    #[test]
    fn an_instance_that_ended_with_its_call_is_gone() {
        let (prints, t) = (Footprints::default(), lyra_kit::Clock::system().instant());
        prints.enter(1, t);
        prints.leave(1, ended(Start::Cold, !KEPT));
        assert_eq!(prints.holds(1, t), Holds::Code, "the code is there still");
        prints.enter(2, t);
        prints.leave(2, Ended { start: None, kept: false });
        assert_eq!(prints.holds(2, t), Holds::Nothing, "it never came so far");
        prints.clear();
        assert_eq!(prints.holds(1, t), Holds::Nothing);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (prints, t) = (Footprints::default(), lyra_kit::Clock::system().instant());
        for version in 0..MAX_VERSIONS as u64 * 3 {
            prints.enter(version, t);
            prints.leave(version, ended(Start::Cold, KEPT));
        }
        assert!(prints.0.lock().len() <= MAX_VERSIONS);
    }
}
