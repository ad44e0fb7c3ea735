//! Ahead of what is to be expected by the hour of the week.
//!
//! The method is the seasonal naïve one with exponential smoothing (Hyndman and Athanasopoulos, "Forecasting: Principles and Practice",
//! 3rd edition, 5.2 and 8.1): for each of the 168 hours of a week, in UTC, the highest load that was seen in it, the weeks before weighing
//! half as much with each week; likewise for each of the 24 hours of a day, which is what counts until the hour of the week was seen.
//! Workers are made for the higher one of what is there now and what is expected from now to `lead` ahead, times `safety`.

use lyra_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Reason, Sample, Want, queue, shared, whole};
use crate::Config;

const HOUR_MS: i64 = 3_600_000;
const HOURS_OF_DAY: usize = 24;
const HOURS_OF_WEEK: usize = 168;
/// How much the newest week or day weighs.
const NEWEST: f64 = 0.5;

/// What was learnt of the hours of the week and of the day: jobs and calls, waiting and running.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seasons {
    /// By hour of the week; none: never seen.
    week: Vec<Option<f64>>,
    /// By hour of the day.
    day: Vec<Option<f64>>,
    /// The hour that goes on, since the epoch, and the most that was seen in it.
    now: Option<(i64, f64)>,
}

impl Seasons {
    /// Takes in what was seen. An hour counts when it is over.
    pub(super) fn learn(&mut self, sample: &Sample) {
        let hour = sample.time.millis().div_euclid(HOUR_MS);
        let seen = load(sample);
        match self.now {
            Some((of, most)) if of == hour => self.now = Some((of, most.max(seen))),
            // A clock that was set back: what is newer than it stays.
            Some((of, _)) if of > hour => {}
            Some((of, most)) => {
                self.keep(of, most);
                self.now = Some((hour, seen));
            }
            None => self.now = Some((hour, seen)),
        }
    }

    fn keep(&mut self, hour: i64, most: f64) {
        self.week.resize(HOURS_OF_WEEK, None);
        self.day.resize(HOURS_OF_DAY, None);
        let smooth = |slot: &mut Option<f64>| {
            *slot = Some(slot.map_or(most, |before| before + NEWEST * (most - before)));
        };
        smooth(&mut self.week[of_week(hour)]);
        smooth(&mut self.day[of_day(hour)]);
    }

    /// The load that is to be expected in an hour since the epoch.
    fn expected(&self, hour: i64) -> f64 {
        let of = |slots: &[Option<f64>], slot: usize| slots.get(slot).copied().flatten();
        of(&self.week, of_week(hour)).or_else(|| of(&self.day, of_day(hour))).unwrap_or(0.0)
    }

    /// The highest load that is to be expected between two times.
    fn expected_between(&self, from: Timestamp, to: Timestamp) -> f64 {
        let hour = |time: Timestamp| time.millis().div_euclid(HOUR_MS);
        // A week has all that there is to expect.
        let last = hour(to).min(hour(from) + 168);
        (hour(from)..=last).map(|hour| self.expected(hour)).fold(0.0, f64::max)
    }
}

fn of_week(hour: i64) -> usize {
    usize::try_from(hour.rem_euclid(168)).unwrap_or(0)
}

fn of_day(hour: i64) -> usize {
    usize::try_from(hour.rem_euclid(24)).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "a load, for which a few figures are enough")]
fn load(sample: &Sample) -> f64 {
    sample.look.queued.saturating_add(sample.look.running) as f64
}

pub(super) fn want(sample: &Sample, config: &Config, seasons: &Seasons) -> Want {
    let now = queue::want(&sample.look, config);
    let expected = seasons.expected_between(sample.time, sample.time + config.lead) * config.safety;
    let ahead = shared(u64::from(whole(expected.ceil())), config.queue_per_worker);
    match ahead > now.workers {
        true => Want { workers: ahead, reason: Reason::Prediction },
        false => now,
    }
}
