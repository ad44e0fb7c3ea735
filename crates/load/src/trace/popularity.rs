//! How many calls each function gets, and when they come.

use lyra_isolation::simulated::Spread;
use lyra_kit::Random;

/// Calls a day is not the same at every hour: this much above and below the mean ("Serverless in the Wild", figure 4,
/// shows a daily wave over a constant base of about half).
const WAVE: f64 = 0.4;
/// Steps of the table that the wave is inverted with.
const STEPS: usize = 1_440;
/// Mean calls of a burst.
const BURST: f64 = 12.0;

/// How a function's calls follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Process {
    /// Every so often, to the second: timers.
    Periodic,
    /// Each without regard to the others.
    Poisson,
    /// Some at once, then none for long; `gap_ms` between those of one burst.
    Bursty { gap_ms: f64 },
}

/// Shares `total` calls among `functions` by rank, as rank to the power of `-exponent`; each gets one at least.
pub(super) fn shares(functions: usize, total: u64, exponent: f64) -> Vec<u64> {
    let weights: Vec<f64> = (1..=functions).map(|rank| (rank as f64).powf(-exponent)).collect();
    let sum: f64 = weights.iter().sum();
    let spare = total.saturating_sub(functions as u64) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u64, not negative")]
    let mut counts: Vec<u64> = weights.iter().map(|weight| 1 + (weight / sum * spare) as u64).collect();
    let given: u64 = counts.iter().sum();
    if let Some(first) = counts.first_mut() {
        *first += total.saturating_sub(given);
    }
    counts
}

/// Turns a uniform draw into a time of the day that follows the daily wave.
pub(super) struct Day {
    cumulative: Vec<f64>,
    length_ms: f64,
}

impl Day {
    pub(super) fn new(length_ms: u64) -> Day {
        let mut sum = 0.0;
        let mut cumulative = vec![0.0];
        for step in 0..STEPS {
            let angle = (step as f64 + 0.5) / STEPS as f64 * std::f64::consts::TAU;
            sum += 1.0 - WAVE * angle.cos();
            cumulative.push(sum);
        }
        for value in &mut cumulative {
            *value /= sum;
        }
        Day { cumulative, length_ms: length_ms as f64 }
    }

    /// In ms since the begin.
    fn time(&self, draw: f64) -> f64 {
        let above = self.cumulative.partition_point(|value| *value <= draw).clamp(1, STEPS);
        let (low, high) = (self.cumulative[above - 1], self.cumulative[above]);
        (above as f64 - 1.0 + (draw - low) / (high - low)) / STEPS as f64 * self.length_ms
    }

    /// The times of `count` calls, in no order, each within the day.
    pub(super) fn times(&self, process: Process, count: u64, random: &Random) -> Vec<u64> {
        let mut times = Vec::new();
        match process {
            Process::Periodic => {
                let period = self.length_ms / count as f64;
                let phase = random.unit() * period;
                // Schedulers start timers within a second of when they are due.
                let late = Spread::Uniform { min: 0.0, max: 1_000.0_f64.min(period / 2.0) };
                times.extend((0..count).map(|n| phase + n as f64 * period + late.draw(random)));
            }
            // Given how many come, the calls of a Poisson process are that many independent draws.
            Process::Poisson => times.extend((0..count).map(|_| self.time(random.unit()))),
            Process::Bursty { gap_ms } => {
                let gap = Spread::Exponential { mean: gap_ms };
                while (times.len() as u64) < count {
                    let mut at = self.time(random.unit());
                    let size = Spread::Exponential { mean: BURST }.draw(random).ceil();
                    let mut left = size.min((count - times.len() as u64) as f64);
                    while left >= 1.0 {
                        times.push(at);
                        at += gap.draw(random);
                        left -= 1.0;
                    }
                }
            }
        }
        let last = self.length_ms - 1.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the day")]
        let whole = |at: f64| at.clamp(0.0, last) as u64;
        times.into_iter().map(whole).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_called_and_all_calls_are_given_out() {
        for (functions, total) in [(400, 1_000_000), (1, 5), (10, 10)] {
            let counts = shares(functions, total, 1.8);
            assert_eq!((counts.len(), counts.iter().sum::<u64>()), (functions, total));
            assert!(counts.iter().all(|count| *count >= 1) && counts.is_sorted_by(|a, b| a >= b));
        }
    }

    #[test]
    fn each_process_gives_as_many_calls_as_asked_within_the_day() {
        let day = Day::new(86_400_000);
        for process in [Process::Periodic, Process::Poisson, Process::Bursty { gap_ms: 500.0 }] {
            for count in [1, 7, 1_440] {
                let times = day.times(process, count, &Random::seeded(3));
                assert_eq!(times.len() as u64, count);
                assert!(times.iter().all(|at| *at < 86_400_000));
            }
        }
    }

    #[test]
    fn the_middle_of_the_day_is_busier_than_its_ends() {
        let day = Day::new(1_000);
        let times = day.times(Process::Poisson, 10_000, &Random::seeded(1));
        let middle = times.iter().filter(|at| (250..750).contains(*at)).count();
        assert!((6_000..6_600).contains(&middle), "{middle}");
    }
}
