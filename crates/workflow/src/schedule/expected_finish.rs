//! The resource that is expected to be done first: what it took for inputs of that size so far, longer where it fails,
//! and the wait for a place where it is full. The idea is the processor choice of HEFT (Topcuoglu, Hariri, Wu, "Performance-effective and
//! low-complexity task scheduling for heterogeneous computing", TPDS 2002), with times that are measured.
//!
//! A resource that was never measured is tried, one task at a time while there is another.

use lyra_kit::Random;
use smallvec::SmallVec;

use super::{Decision, OptionView, Scheduler, TaskView, picks, unmapped};

/// See [`super::Policy::ExpectedFinishTime`].
pub(super) struct ExpectedFinish;

impl Scheduler for ExpectedFinish {
    fn schedule(&mut self, task: &TaskView<'_>, options: &[OptionView<'_>], _: &Random) -> Decision {
        if options.is_empty() {
            return unmapped(task);
        }
        let slowest = options.iter().filter_map(|option| run_time(option, task)).fold(0.0, f64::max);
        let mut ordered: SmallVec<[(f64, &OptionView<'_>); 8]> =
            options.iter().map(|option| (finish(option, task, slowest), option)).collect();
        ordered.sort_unstable_by(|(a, first), (b, second)| a.total_cmp(b).then(first.index.cmp(&second.index)));
        let wanted = task.redundancy.max(1) as usize;
        // A full resource that will still be done first is worth the wait; it ends, since what runs there does.
        if wanted == 1 && ordered.first().is_some_and(|(_, best)| !best.has_room()) {
            return Decision::Wait;
        }
        picks(ordered.iter().filter(|(_, option)| option.has_room()).map(|(_, option)| option.index).take(wanted))
    }
}

/// Seconds from start to end, failures counted as tries that must be repeated.
fn run_time(option: &OptionView<'_>, task: &TaskView<'_>) -> Option<f64> {
    option.estimate.map(|estimate| estimate.seconds(task.input_bytes) * (1.0 + option.failures))
}

/// Seconds from now to the end.
fn finish(option: &OptionView<'_>, task: &TaskView<'_>, slowest: f64) -> f64 {
    let run = match run_time(option, task) {
        Some(seconds) => seconds,
        None if option.used == 0 && option.failures < 0.5 => 0.0,
        // Being tried: as slow as the slowest, the more so the more tasks it has and the more it failed.
        None => slowest.max(1e-3) * (1.0 + f64::from(option.used) + option.failures),
    };
    match option.capacity {
        // Its tasks end one after the other, evenly.
        Some(capacity) if option.used >= capacity => {
            run + run * f64::from(option.used - capacity + 1) / f64::from(capacity.max(1))
        }
        _ => run,
    }
}
