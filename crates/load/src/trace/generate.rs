//! Makes a trace like those of Azure Functions, from the statistics that Shahrad et al. published ("Serverless in the
//! Wild", USENIX ATC 2020): few functions get almost all calls; average execution times are log-normal (figure 7);
//! memory follows a Burr distribution (figure 8); a sixth of the functions are timers, and most of the others come in
//! bursts (figures 2 and 6).
//!
//! The paper has no cold-start times; ours are log-normal around a second, which spans the 0.2 s to 6 s that
//! FaasCache (ASPLOS 2021, table 1) measured for real applications.

use lyra_isolation::simulated::Spread;
use lyra_kit::Random;

use super::popularity::{Day, Process, shares};
use super::{Arrival, Function, Trace, whole_ms};
use crate::Error;

/// What to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Functions.
    pub functions: usize,
    /// Calls, of all functions together.
    pub invocations: u64,
    /// Length, in seconds.
    pub seconds: u64,
    /// How much the popular functions stand out: calls are shared by rank to the power of minus this.
    pub skew: f64,
    /// The same seed makes the same trace.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { functions: 400, invocations: 1_000_000, seconds: 86_400, skew: 1.9, seed: 1 }
    }
}

/// Share of functions that are timers (table in section 3.2 of the paper).
const TIMERS: f64 = 0.156;
/// Share of the others whose calls are independent of each other; the rest comes in bursts.
const POISSON: f64 = 0.33;
/// Most calls a day of a timer: one a minute.
const MOST_TIMED: u64 = 1_440;
/// Average execution times, in ms: exp(-0.38) s, sigma 2.36.
const EXEC: Spread = Spread::LogNormal { median: 683.9, sigma: 2.36 };
/// Longest average execution time, in ms: 96 % of the paper's are below a minute.
const LONGEST: f64 = 60_000.0;
/// No function keeps more than so many instances busy on average. The paper does not say how popularity and execution
/// time go together; without a bound, one draw decides over the whole load.
const BUSIEST: f64 = 4.0;
/// Cold-start times, in ms.
const START: Spread = Spread::LogNormal { median: 1_000.0, sigma: 0.8 };
/// Owners: functions per tenant, on average.
const PER_TENANT: usize = 8;

/// Makes a trace.
///
/// # Errors
/// [`Error::Setting`] when a setting makes no sense.
pub fn generate(settings: &Settings) -> Result<Trace, Error> {
    check(settings)?;
    let random = Random::seeded(settings.seed);
    let day = Day::new(settings.seconds * 1_000);
    let counts = shares(settings.functions, settings.invocations, settings.skew);
    let mut trace = Trace::default();
    for (rank, count) in (0u32..).zip(&counts) {
        let rate = *count as f64 / (settings.seconds as f64 * 1e3);
        let exec_ms = f64::from(whole_ms(EXEC.draw(&random).min(LONGEST).min(BUSIEST / rate)));
        let spread =
            Spread::LogNormal { median: exec_ms, sigma: Spread::Uniform { min: 0.05, max: 0.7 }.draw(&random) };
        let process = process(*count, exec_ms, &random);
        trace.functions.push(Function {
            name: format!("f{:04}", rank + 1),
            tenant: format!("t{:03}", random.u64() % tenants(settings.functions) + 1),
            start_ms: f64::from(whole_ms(START.draw(&random))),
            exec_ms,
            memory_mb: memory(&random),
        });
        trace.arrivals.extend(day.times(process, *count, &random).into_iter().map(|at_ms| Arrival {
            at_ms,
            function: rank,
            exec_ms: whole_ms(spread.draw(&random)),
        }));
    }
    Ok(trace.sorted())
}

fn check(settings: &Settings) -> Result<(), Error> {
    let wrong = |reason: &str| Err(Error::Setting(reason.to_owned()));
    match settings {
        Settings { functions, .. } if !(1..=1_000_000).contains(functions) => wrong("functions: 1 to 1000000"),
        Settings { functions, invocations, .. } if *invocations < *functions as u64 || *invocations > 1 << 32 => {
            wrong("invocations: at least one for each function, and at most 4294967296")
        }
        Settings { seconds, .. } if !(1..=31_536_000).contains(seconds) => wrong("length: a second to a year"),
        Settings { skew, .. } if !(0.0..=5.0).contains(skew) => wrong("skew: 0 to 5"),
        _ => Ok(()),
    }
}

fn tenants(functions: usize) -> u64 {
    functions.div_ceil(PER_TENANT) as u64
}

fn process(count: u64, exec_ms: f64, random: &Random) -> Process {
    // Both draws are made whatever comes out, so that one function's kind does not move all that follow.
    let (timer, poisson) = (random.unit() < TIMERS, random.unit() < POISSON);
    // Within a burst calls come from every tenth of an execution time to every ten of them.
    let gap_ms = exec_ms * Spread::LogNormal { median: 1.0, sigma: 1.2 }.draw(random).clamp(0.1, 10.0);
    match (timer && count <= MOST_TIMED, poisson) {
        (true, _) => Process::Periodic,
        (false, true) => Process::Poisson,
        (false, false) => Process::Bursty { gap_ms },
    }
}

/// Memory of an instance: Burr XII with c = 11.652, k = 0.221, scale 107.083 MiB, within what a function may have.
fn memory(random: &Random) -> u32 {
    use lyra_types::function::limit;
    let tail = (1.0 - random.unit()).powf(-1.0 / 0.221) - 1.0;
    whole_ms(107.083 * tail.powf(1.0 / 11.652)).clamp(limit::MIN_MEMORY_MB, limit::MAX_MEMORY_MB)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_below(values: &mut [f64], bound: f64) -> f64 {
        values.iter().filter(|value| **value <= bound).count() as f64 / values.len() as f64
    }

    #[test]
    fn a_seed_repeats_its_trace_and_another_does_not() {
        let settings = Settings { functions: 30, invocations: 3_000, ..Settings::default() };
        let trace = generate(&settings).expect("makes");
        assert_eq!(trace, generate(&settings).expect("makes"));
        assert_ne!(trace, generate(&Settings { seed: 2, ..settings }).expect("makes"));
        assert_eq!(trace.arrivals.len(), 3_000);
        assert!(trace.arrivals.is_sorted_by_key(|call| call.at_ms));
    }

    /// The figures of the paper, as far as 400 functions can show them.
    #[test]
    fn the_trace_has_the_published_statistics() {
        let trace = generate(&Settings::default()).expect("makes");
        let mut counts = vec![0.0; 400];
        for call in &trace.arrivals {
            counts[call.function as usize] += 1.0;
        }
        assert_eq!(trace.arrivals.len(), 1_000_000);
        // 18.6 % of the functions get 99.6 % of the calls; 45 % are called once an hour or less.
        let popular: f64 = counts[..74].iter().sum();
        assert!(popular > 980_000.0, "{popular}");
        let rare = share_below(&mut counts, 24.0);
        assert!((0.4..0.6).contains(&rare), "{rare}");
        // Half of the functions take less than a second on average, 96 % less than a minute.
        let mut times: Vec<f64> = trace.functions.iter().map(|function| function.exec_ms).collect();
        let short = share_below(&mut times, 1_000.0);
        assert!((0.4..0.7).contains(&short), "{short}");
        assert!(share_below(&mut times, 60_000.0) > 0.95);
        // Half of the applications have at most 170 MB, 90 % at most 400 MB.
        let mut memory: Vec<f64> = trace.functions.iter().map(|function| f64::from(function.memory_mb)).collect();
        assert!(share_below(&mut memory, 170.0) > 0.5 && share_below(&mut memory, 400.0) > 0.9);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for settings in [
            Settings { functions: 0, ..Settings::default() },
            Settings { invocations: 10, ..Settings::default() },
            Settings { seconds: 0, ..Settings::default() },
            Settings { skew: f64::NAN, ..Settings::default() },
        ] {
            assert!(generate(&settings).is_err(), "{settings:?}");
        }
    }
}
