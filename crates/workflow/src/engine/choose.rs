//! Gives resources to tasks: the scheduler of the settings, one book of places for all runs of this host, and a list of
//! runs that wait for a place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lyra_kit::{Clock, Random};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Message;
use crate::config::Scheduling;
use crate::mapping::Mapping;
use crate::schedule::{Book, Bound, Decision, Lease, Picks, Scheduler, TaskView, WaitingList, WaitingView};

/// Function types whose schedulers are kept.
const KEPT: usize = 4_096;

/// Chooses for all runs of this host.
pub(crate) struct Chooser {
    scheduling: Scheduling,
    book: Book,
    /// One for each function type: round robin goes round each type's own resources.
    schedulers: Mutex<HashMap<Arc<str>, Box<dyn Scheduler>>>,
    waiting: Mutex<WaitingList<mpsc::WeakSender<Message>>>,
    clock: Clock,
    random: Random,
}

/// What was chosen.
pub(crate) enum Choice {
    /// These resources, with their places.
    Taken(Picks, Vec<Lease>),
    /// There is no place now.
    Full(WaitingView),
    /// There never will be one.
    Impossible(String),
}

impl Chooser {
    pub(crate) fn new(scheduling: Scheduling, clock: Clock, random: Random) -> Chooser {
        Chooser {
            book: Book::new(scheduling.capacity),
            schedulers: Mutex::default(),
            waiting: Mutex::new(WaitingList::new(scheduling.arbitration)),
            scheduling,
            clock,
            random,
        }
    }

    /// The resources of each function type of a mapping.
    pub(crate) fn bind(&self, mapping: &Mapping) -> HashMap<String, Bound> {
        let types = mapping.types.iter();
        types.map(|of| (of.function_type.clone(), self.book.bind(&of.function_type, &of.resources))).collect()
    }

    /// Chooses for one task. `rank`: how many tasks stand on the longest way from it to its run's end.
    pub(crate) fn choose(&self, function_type: &Arc<str>, bound: &Bound, task: &TaskView<'_>, rank: u32) -> Choice {
        let now = self.clock.instant();
        let options = bound.options(now);
        let decision = {
            let mut schedulers = self.schedulers.lock();
            if schedulers.len() >= KEPT && !schedulers.contains_key(function_type) {
                schedulers.clear();
            }
            let new = || self.scheduling.scheduler.scheduler();
            let scheduler = schedulers.entry(Arc::clone(function_type)).or_insert_with(new);
            scheduler.schedule(task, &options, &self.random)
        };
        let expected =
            options.iter().filter_map(|option| option.estimate.map(|estimate| estimate.seconds(task.input_bytes)));
        let expected = expected.min_by(f64::total_cmp).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let full = Choice::Full(WaitingView { expected, critical_path: rank });
        match decision {
            Decision::Picks(picks) => {
                // Another run may have taken a place meanwhile.
                let taken = picks.iter().filter_map(|pick| bound.begin(*pick).map(|lease| (*pick, lease)));
                let (picks, leases): (Picks, Vec<Lease>) = taken.unzip();
                if picks.is_empty() { full } else { Choice::Taken(picks, leases) }
            }
            Decision::Wait => full,
            Decision::Impossible(reason) => Choice::Impossible(reason),
        }
    }

    /// Tells this run when there may be a place.
    pub(crate) fn wait(&self, run: mpsc::WeakSender<Message>, task: &WaitingView) {
        self.waiting.lock().push(run, task, self.clock.instant());
    }

    /// A place has become free: the next run that waits hears of it.
    pub(crate) fn freed(&self) {
        loop {
            let Some(next) = self.waiting.lock().pop(self.clock.instant()) else { return };
            let Some(run) = next.upgrade() else { continue };
            match run.try_send(Message::Freed) {
                Ok(()) => return,
                // It has so much to take in that it will look by itself.
                Err(mpsc::error::TrySendError::Full(_)) => return,
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
    }
}
