//! Calls that wait until they are let in, however long that takes: those of tasks, which nobody sits in front of.
//!
//! What must hold: whoever came first under a quota is let in first; one that waits for a function's quota holds up no other function of
//! its tenant, and no tenant another; one that is given up leaves its turn to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::meter::{Meter, Refusal};
use super::{Called, Entry, Meters, Pass};

/// Shortest time between two looks of whoever is next.
const LEAST: Duration = Duration::from_millis(20);
/// Longest: a place may come free at another member, or a quota may be taken back.
const MOST: Duration = Duration::from_secs(1);

/// Being next, or waiting to be, under a quota.
struct Turn {
    meter: Arc<Meter>,
    _first: OwnedMutexGuard<()>,
    _counted: Counted,
}

/// One that waits under a quota, as long as this is held.
struct Counted(Arc<Meter>);

impl Counted {
    fn new(meter: &Arc<Meter>) -> Counted {
        meter.waits.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(meter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.waits.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Turn {
    async fn of(meter: &Arc<Meter>) -> Turn {
        let counted = Counted::new(meter);
        let first = Arc::clone(&meter.turn).lock_owned().await;
        Turn { meter: Arc::clone(meter), _first: first, _counted: counted }
    }
}

impl Meters {
    /// Lets a call in, now or when there is room. It takes no place while it waits; dropping the future gives it up.
    pub async fn wait(&self, called: Called<'_>, entry: Entry) -> Pass {
        if self.is_empty() {
            return Pass::default();
        }
        // Rare, and large.
        Box::pin(self.wait_limited(called, entry)).await
    }

    async fn wait_limited(&self, called: Called<'_>, entry: Entry) -> Pass {
        let memory_mb = u64::from(called.memory_mb);
        let meters = self.find_both(called);
        meters.iter().flatten().for_each(|meter| meter.ask(memory_mb));
        // Nobody goes past those that wait.
        let queued = meters.iter().rev().flatten().find(|meter| meter.waits.load(Ordering::Relaxed) > 0);
        let mut turn = match queued {
            Some(meter) => Some(Turn::of(meter).await),
            None => None,
        };
        let mut is_held = false;
        loop {
            // From here on an answer is noticed, so none can fall between the look and the wait.
            let mut answered = self.answered.subscribe();
            // Another quota may be in force by now.
            let meters = self.find_both(called);
            let refusal = match self.try_enter(&meters, memory_mb, entry) {
                Ok(pass) => return pass,
                Err(refusal) => refusal,
            };
            if !std::mem::replace(&mut is_held, true) {
                self.refused.with_label_values(&[refusal.kind.as_str()]).inc();
            }
            let Some(meter) = meters[usize::from(refusal.of_function)].as_ref() else { continue };
            if turn.as_ref().is_none_or(|turn| !Arc::ptr_eq(&turn.meter, meter)) {
                // The one before goes first, so that nobody waits for two.
                drop(turn.take());
                turn = Some(Turn::of(meter).await);
                continue;
            }
            if refusal.may_grow {
                self.wanted.notify_one();
            }
            tokio::select! {
                () = meter.freed.notified() => {}
                _ = answered.changed() => {}
                () = self.clock.sleep(pause(&refusal)) => {}
            }
        }
    }

    pub(super) fn find_both(&self, called: Called<'_>) -> [Option<Arc<Meter>>; 2] {
        let of_function = called.function.and_then(|function| self.find(called.tenant, Some(function)));
        [self.find(called.tenant, None), of_function]
    }
}

fn pause(refusal: &Refusal) -> Duration {
    refusal.error.retry_after.unwrap_or(MOST).clamp(LEAST, MOST)
}
