//! Amounts that vary: a fixed number, or a distribution to draw from.

use std::time::Duration;

use lyra_kit::Random;
use serde::Deserialize;

/// Largest amount of milliseconds that may be asked for: a day.
const MAX: f64 = 86_400_000.0;
/// Largest sigma of a log-normal distribution: beyond it, single draws are all that counts.
const MAX_SIGMA: f64 = 5.0;

/// A number, or a distribution of numbers. In JSON: `20`, `{"median": 20, "sigma": 0.5}` (log-normal),
/// `{"mean": 20}` (exponential) or `{"min": 5, "max": 10}` (uniform).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "a number of milliseconds, {\"median\", \"sigma\"}, {\"mean\"} or {\"min\", \"max\"}"
)]
pub enum Spread {
    /// Always the same.
    Fixed(f64),
    /// Log-normal: half of the draws are below `median`; `sigma` is the standard deviation of the logarithm.
    LogNormal {
        /// Half of the draws are below it.
        median: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// Exponential.
    Exponential {
        /// Its mean.
        mean: f64,
    },
    /// Uniform in `[min, max)`.
    Uniform {
        /// Least.
        min: f64,
        /// Most.
        max: f64,
    },
}

impl Default for Spread {
    fn default() -> Spread {
        Spread::Fixed(0.0)
    }
}

impl Spread {
    /// Why this is no distribution of durations, where it is none.
    pub fn fault(&self) -> Option<&'static str> {
        let fits = |value: f64| (0.0..=MAX).contains(&value);
        let good = match *self {
            Spread::Fixed(value) | Spread::Exponential { mean: value } => fits(value),
            Spread::LogNormal { median, sigma } => fits(median) && (0.0..=MAX_SIGMA).contains(&sigma),
            Spread::Uniform { min, max } => fits(min) && fits(max) && min <= max,
        };
        (!good).then_some("must be from 0 to 86400000 ms, sigma from 0 to 5, and min not above max")
    }

    /// A number of milliseconds; draws nothing when it is fixed.
    pub fn draw(&self, random: &Random) -> f64 {
        match *self {
            Spread::Fixed(value) => value,
            Spread::LogNormal { median, sigma } => (median * (sigma * normal(random)).exp()).min(MAX),
            // 1 - unit is in (0, 1]: its logarithm is finite.
            Spread::Exponential { mean } => (-mean * (1.0 - random.unit()).ln()).min(MAX),
            Spread::Uniform { min, max } => min + (max - min) * random.unit(),
        }
    }

    /// The same as a duration.
    pub fn duration(&self, random: &Random) -> Duration {
        match *self {
            Spread::Fixed(0.0) => Duration::ZERO,
            _ => Duration::from_secs_f64(self.draw(random) / 1e3),
        }
    }
}

/// A draw from the standard normal distribution (Box and Muller, "A Note on the Generation of Random Normal
/// Deviates", 1958; the second of the pair is not used).
pub fn normal(random: &Random) -> f64 {
    let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.unit()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(spread: Spread) -> Vec<f64> {
        let random = Random::seeded(1);
        let mut all: Vec<f64> = (0..20_000).map(|_| spread.draw(&random)).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn draws_follow_their_distribution() {
        let log_normal = draws(Spread::LogNormal { median: 20.0, sigma: 0.5 });
        assert!((log_normal[10_000] - 20.0).abs() < 0.5, "{}", log_normal[10_000]);
        assert!((mean(&log_normal) - 20.0 * 0.125_f64.exp()).abs() < 0.5);
        assert!((mean(&draws(Spread::Exponential { mean: 20.0 })) - 20.0).abs() < 0.5);
        let uniform = draws(Spread::Uniform { min: 5.0, max: 10.0 });
        assert!(uniform[0] >= 5.0 && uniform[19_999] < 10.0 && (mean(&uniform) - 7.5).abs() < 0.1);
        assert_eq!(Spread::Fixed(0.0).duration(&Random::seeded(1)), Duration::ZERO);
    }

    #[test]
    fn reads_each_form_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<Spread>(text);
        assert_eq!(read("20").expect("a number"), Spread::Fixed(20.0));
        assert_eq!(read(r#"{"mean": 3}"#).expect("exponential"), Spread::Exponential { mean: 3.0 });
        for wrong in [r#""20""#, "{}", r#"{"median": 3}"#, r#"{"mean": 3, "sigma": 1}"#, "[1]"] {
            let error = read(wrong).expect_err(wrong).to_string();
            assert!(error.contains("milliseconds"), "{error}");
        }
        for wrong in ["-1", "1e9", r#"{"median": 3, "sigma": 9}"#, r#"{"min": 3, "max": 1}"#] {
            assert!(read(wrong).expect("is read").fault().is_some(), "{wrong}");
        }
    }
}
