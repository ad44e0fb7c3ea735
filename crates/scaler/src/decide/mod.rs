//! How many workers there shall be: pure decisions on what was seen.
//!
//! Each rule has a file of its own and says how many workers it [wants](Want). What is done about that is the same for all: it is kept
//! within the bounds; a change waits until the one before it has cooled down, for workers to be more and to be fewer separately; a
//! number outside of the bounds is put right at once. No rule reads a clock: the time comes with each [`Sample`].
//!
//! What must hold (the tests of `tests.rs`): no decision is outside of the bounds; changes that the bounds do not ask for are their
//! cool-down apart; with more load no rule wants fewer workers.

mod doubling;
mod prediction;
mod queue;
#[cfg(test)]
mod tests;
mod utilisation;
mod wait;

use lyra_types::Timestamp;
use lyra_types::api::{ScalerDecision, ScalerLook};
use serde::{Deserialize, Serialize};

pub use prediction::Seasons;

use crate::Config;

/// By how much a measure may miss its target before anything is done about it; the Horizontal Pod Autoscaler of Kubernetes leaves as
/// much.
const TOLERANCE: f64 = 0.1;
/// Most times as many workers as before that one decision may ask for.
const STEP: f64 = 4.0;

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Twice as many when much waits, half as many when nearly nothing does: the classic system's rule.
    #[default]
    Doubling,
    /// So many that each has a number of jobs.
    Queue,
    /// So many that nothing waits longer than a time.
    Wait,
    /// So many that a share of their places and processors is in use.
    Utilisation,
    /// As `queue`, and ahead of what was seen at this hour of the last weeks and days.
    Prediction,
}

impl Mode {
    /// Every rule.
    pub const ALL: [Mode; 5] = [Mode::Doubling, Mode::Queue, Mode::Wait, Mode::Utilisation, Mode::Prediction];

    /// The name in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Doubling => "doubling",
            Mode::Queue => "queue",
            Mode::Wait => "wait",
            Mode::Utilisation => "utilisation",
            Mode::Prediction => "prediction",
        }
    }

    /// The rule of that name.
    pub fn parse(text: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
}

/// What was seen at one time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub time: Timestamp,
    /// What.
    #[serde(flatten)]
    pub look: ScalerLook,
}

/// Fewest and most workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Fewest.
    pub min: u32,
    /// Most; no less than the fewest.
    pub max: u32,
}

impl Bounds {
    /// These, with what operators ask for over them. Where that leaves no number, the most wins.
    #[must_use]
    pub fn ordered(self, min: Option<u32>, max: Option<u32>) -> Bounds {
        let max = max.unwrap_or_else(|| self.max.max(min.unwrap_or(0))).max(1);
        Bounds { min: min.unwrap_or(self.min).clamp(1, max), max }
    }
}

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// More workers.
    Up,
    /// Fewer.
    Down,
    /// As many as before.
    None,
}

impl Direction {
    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::Up => "up",
            Direction::Down => "down",
            Direction::None => "none",
        }
    }
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Of what waits.
    Queue,
    /// Nearly nothing waits.
    Idle,
    /// Of how long it waits.
    Wait,
    /// Of how much is in use.
    Utilisation,
    /// Of what is to be expected.
    Prediction,
    /// Nothing is to be done.
    Steady,
    /// The change before has not cooled down.
    Cooldown,
    /// There are fewer than may be.
    Minimum,
    /// There are more than may be.
    Maximum,
}

impl Reason {
    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Queue => "queue",
            Reason::Idle => "idle",
            Reason::Wait => "wait",
            Reason::Utilisation => "utilisation",
            Reason::Prediction => "prediction",
            Reason::Steady => "steady",
            Reason::Cooldown => "cooldown",
            Reason::Minimum => "minimum",
            Reason::Maximum => "maximum",
        }
    }
}

/// What a rule asks for, before bounds and cool-downs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) workers: u32,
    pub(crate) reason: Reason,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// What it was decided by.
    pub sample: Sample,
    /// How many workers there shall be.
    pub to: u32,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    /// Where to.
    pub fn direction(&self) -> Direction {
        match self.to.cmp(&self.sample.look.workers) {
            std::cmp::Ordering::Greater => Direction::Up,
            std::cmp::Ordering::Less => Direction::Down,
            std::cmp::Ordering::Equal => Direction::None,
        }
    }

    /// As it is told and remembered.
    pub fn told(&self, dry_run: bool) -> ScalerDecision {
        ScalerDecision {
            time: self.sample.time,
            direction: self.direction().as_str().to_owned(),
            reason: self.reason.as_str().to_owned(),
            from: self.sample.look.workers,
            to: self.to,
            look: self.sample.look,
            dry_run,
        }
    }
}

/// Decides, and remembers what that depends on.
#[derive(Debug, Clone)]
pub struct Decider {
    config: Config,
    changed: Option<Timestamp>,
    seasons: Seasons,
}

impl Decider {
    /// One that has decided nothing yet and knows these seasons.
    pub fn new(config: Config, seasons: Seasons) -> Decider {
        Decider { config, changed: None, seasons }
    }

    /// What was learnt of the hours of the week.
    pub fn seasons(&self) -> &Seasons {
        &self.seasons
    }

    /// Decides how many workers there shall be.
    pub fn decide(&mut self, sample: Sample, bounds: Bounds) -> Decision {
        self.seasons.learn(&sample);
        let from = sample.look.workers;
        let decision = |to, reason| Decision { sample, to, reason };
        let made = if from < bounds.min {
            decision(bounds.min, Reason::Minimum)
        } else if from > bounds.max {
            decision(bounds.max, Reason::Maximum)
        } else {
            let want = self.want(&sample);
            let to = want.workers.clamp(bounds.min, bounds.max);
            match to == from {
                true if want.workers > to => decision(to, Reason::Maximum),
                true if want.workers < to => decision(to, Reason::Minimum),
                true => decision(to, Reason::Steady),
                false if self.cools(sample.time, to > from) => decision(from, Reason::Cooldown),
                false => decision(to, want.reason),
            }
        };
        if made.to != from {
            self.changed = Some(sample.time);
        }
        made
    }

    /// Whether the last change was too short a time ago for another.
    fn cools(&self, now: Timestamp, up: bool) -> bool {
        let cooldown = if up { self.config.up_cooldown } else { self.config.down_cooldown };
        // A clock that was set back does not stop the scaler: a change of the future counts as none.
        self.changed.is_some_and(|changed| changed <= now && now.since(changed) < cooldown)
    }

    fn want(&self, sample: &Sample) -> Want {
        let (config, look) = (&self.config, &sample.look);
        match config.mode {
            Mode::Doubling => doubling::want(look, config),
            Mode::Queue => queue::want(look, config),
            Mode::Wait => wait::want(look, config),
            Mode::Utilisation => utilisation::want(look, config),
            Mode::Prediction => prediction::want(sample, config, &self.seasons),
        }
    }
}

/// Workers that so much asks for with so much for each: rounded up, from 1.
fn shared(amount: u64, each: u32) -> u32 {
    u32::try_from(amount.div_ceil(u64::from(each.max(1)))).unwrap_or(u32::MAX).max(1)
}

/// Workers that what runs asks for.
fn for_running(look: &ScalerLook, config: &Config) -> u32 {
    shared(look.running, config.running_per_worker)
}

/// `workers` times `ratio`: rounded up, from 1, at most a [`STEP`] more; the same number where the ratio is nearly 1.
fn scaled(workers: u32, ratio: f64) -> u32 {
    let ratio = if ratio.is_finite() { ratio.clamp(0.0, STEP) } else { STEP };
    if (ratio - 1.0).abs() <= TOLERANCE {
        return workers;
    }
    whole((f64::from(workers) * ratio).ceil())
}

/// A count that was computed with fractions: from 1.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what u32 holds")]
fn whole(amount: f64) -> u32 {
    amount.clamp(1.0, f64::from(u32::MAX)) as u32
}
