//! Hybrid histogram: learn when the next call comes, unload until then.
//!
//! After Shahrad et al., "Serverless in the Wild: Characterizing and Optimizing the Serverless Workload at a Large
//! Cloud Provider", USENIX ATC'20. For each version a histogram of idle times (end of a call to the next call, in
//! one-minute bins over four hours). Its head (5th percentile) and tail (99th) give two windows, each with a margin
//! of 10 %: instances go when a call has ended, one is started again after the *pre-warming window*, and it stays for
//! the *keep-alive window*. A head in the first bin means: stay.
//!
//! Where the histogram can't be trusted: counts spread too evenly (coefficient of variation under 2) keep
//! instances for the whole range of the histogram; mostly idle times beyond its range are predicted from the latest of them, with a
//! margin of 15 % to both sides. The paper predicts the latter by ARIMA; here the median of the latest nine stands for
//! it, which needs no fitting and is not led astray by one outlier.
//!
//! Two things the paper leaves open. It has one instance for each application; where calls overlap, the idle time of the
//! second instance is the time from when fewer than two calls ran until two run again, and so on, and all of them go into
//! the version's one histogram: without that, instances of which a burst needs many would go between bursts, because the
//! first of them is never idle for long. And it has memory enough; where it is short, the longest idle goes first.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::histogram::IdleTimes;
use super::{KeepAlive, Rested, Track};

/// Settings of the policy; the defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hybrid {
    /// Width of a bin.
    #[serde(with = "humantime_serde")]
    pub bin: Duration,
    /// Bins; together they are the range.
    pub bins: usize,
    /// Share of the idle times that may be shorter than the pre-warming window.
    pub head: f64,
    /// Share of the idle times that the keep-alive window must reach.
    pub tail: f64,
    /// By how much each window is made wider.
    pub margin: f64,
    /// Least coefficient of variation of a histogram that is trusted.
    pub variation: f64,
    /// Most share of idle times beyond the range in a histogram that is trusted.
    pub beyond: f64,
    /// By how much the window around a predicted idle time is made wider, to each side.
    pub forecast_margin: f64,
}

impl Default for Hybrid {
    fn default() -> Hybrid {
        Hybrid {
            bin: Duration::from_secs(60),
            bins: 240,
            head: 0.05,
            tail: 0.99,
            margin: 0.10,
            variation: 2.0,
            beyond: 0.5,
            forecast_margin: 0.15,
        }
    }
}

/// When a version without instances is given one, and how long that one stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// From the end of the last call; zero: instances are not unloaded.
    pub(super) prewarm: Duration,
    /// From the start of the instance, or from the end of the last call where `prewarm` is zero.
    pub(super) keep: Duration,
}

impl Hybrid {
    fn range(&self) -> Duration {
        self.bin.saturating_mul(u32::try_from(self.bins).unwrap_or(u32::MAX))
    }

    /// The windows for what is known.
    pub(super) fn window(&self, times: Option<&IdleTimes>) -> Window {
        let standard = Window { prewarm: Duration::ZERO, keep: self.range() };
        let Some(times) = times else { return standard };
        if times.share_beyond() > self.beyond {
            return times.usual_beyond().map_or(standard, |usual| Window {
                prewarm: usual.mul_f64((1.0 - self.forecast_margin).max(0.0)),
                keep: usual.mul_f64(2.0 * self.forecast_margin),
            });
        }
        if times.variation() < self.variation {
            return standard;
        }
        let (Some(head), Some(tail)) = (times.percentile(self.head), times.percentile(self.tail)) else {
            return standard;
        };
        let at = |bin: usize| self.bin.saturating_mul(u32::try_from(bin).unwrap_or(u32::MAX));
        let prewarm = at(head).mul_f64((1.0 - self.margin).max(0.0));
        let end = at(tail + 1).mul_f64(1.0 + self.margin);
        Window { prewarm, keep: end.saturating_sub(prewarm) }
    }
}

/// The policy.
#[derive(Debug)]
pub(super) struct Windows {
    settings: Hybrid,
    begin: Instant,
}

impl Windows {
    pub(super) fn new(settings: Hybrid, begin: Instant) -> Windows {
        Windows { settings, begin }
    }

    fn window(&self, track: &Track) -> Window {
        self.settings.window(track.idle_times.as_deref())
    }

    fn stay(&self, track: &Track, rested: &Rested) -> Duration {
        let window = self.window(track);
        // One that has served is unloaded at once where another will be started in time.
        if rested.served > 0 && !window.prewarm.is_zero() { Duration::ZERO } else { window.keep }
    }
}

impl KeepAlive for Windows {
    fn called(&mut self, track: &mut Track, now: Instant) {
        // None: so many have never run at once.
        let Some(vacated) = track.vacated.pop() else { return };
        let settings = &self.settings;
        let times = track.idle_times.get_or_insert_with(|| Box::new(IdleTimes::new(settings.bin, settings.bins)));
        times.record(now.saturating_duration_since(vacated));
    }

    fn ended(&mut self, track: &mut Track, now: Instant) {
        track.vacated.push(now);
    }

    /// The longest idle goes first. Not the one whose window closes first: the windows of what is called often are the
    /// shortest, and those of what nothing is known of the longest.
    fn rank(&self, _: &mut Track, rested: &Rested) -> f64 {
        rested.since.saturating_duration_since(self.begin).as_secs_f64()
    }

    fn keep(&self, track: &mut Track, rested: &Rested) -> Option<Duration> {
        Some(self.stay(track, rested))
    }

    fn prewarm(&self, track: &mut Track) -> Option<Duration> {
        let window = self.window(track);
        (!window.prewarm.is_zero()).then_some(window.prewarm)
    }
}
