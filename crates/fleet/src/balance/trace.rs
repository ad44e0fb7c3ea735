//! Every policy on the same skewed trace over three workers that keep a bounded number of instances: how even the calls
//! are spread, and how many find an instance warm.

use std::collections::BTreeMap;

use lyra_kit::Random;

use super::*;
use crate::popularity::Popularity;

const WORKERS: usize = 3;
const VERSIONS: u64 = 60;
const CALLS: usize = 20_000;
/// Instances that a worker keeps, busy ones included: all of them together can't hold one of each version three times.
const KEPT: usize = 40;
/// How many others arrive while a call runs, on average.
const LASTS: f64 = 24.0;

#[derive(Default)]
struct Worker {
    /// Ends of the calls that run, with their version.
    busy: Vec<(f64, u64)>,
    /// Idle instances: when each was last used, and its version.
    idle: Vec<(f64, u64)>,
    calls: usize,
    peak: usize,
}

impl Worker {
    fn pass(&mut self, now: f64) {
        let (ended, busy): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.busy).into_iter().partition(|(end, _)| *end <= now);
        self.busy = busy;
        self.idle.extend(ended);
        self.idle.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.idle.truncate(KEPT.saturating_sub(self.busy.len()));
    }

    /// Runs a call; says whether it found an instance.
    fn call(&mut self, version: u64, ends: f64) -> bool {
        let warm = self.idle.iter().position(|(_, of)| *of == version);
        warm.map(|at| self.idle.remove(at));
        self.busy.push((ends, version));
        self.calls += 1;
        self.peak = self.peak.max(self.busy.len());
        warm.is_some()
    }

    fn holds(&self, version: u64) -> Holds {
        let mine = |all: &[(f64, u64)]| all.iter().any(|(_, of)| *of == version);
        match (mine(&self.idle), mine(&self.busy)) {
            (true, _) => Holds::Instance,
            (false, true) => Holds::Code,
            (false, false) => Holds::Nothing,
        }
    }
}

/// The share of calls that were warm, and by how much the busiest worker has more calls than the average.
fn run(policy: Policy) -> (f64, f64) {
    let (random, popularity) = (Random::seeded(7), Popularity::default());
    let hash: Vec<u64> = (0..VERSIONS).map(|_| random.u64()).collect();
    let names: Vec<u64> = (0..WORKERS).map(|_| random.u64()).collect();
    let mut workers: Vec<Worker> = (0..WORKERS).map(|_| Worker::default()).collect();
    let mut warm = 0;
    for turn in 0..CALLS {
        let now = turn as f64;
        // Half of all calls are of an eighth of the versions.
        let version = (random.unit().powi(3) * VERSIONS as f64) as u64;
        workers.iter_mut().for_each(|worker| worker.pass(now));
        let candidate = |(worker, name): (&Worker, &u64)| Candidate {
            name: *name,
            load: worker.busy.len() as u64,
            holds: worker.holds(version),
        };
        let candidates: Vec<_> = workers.iter().zip(&names).map(candidate).collect();
        let version_hash = hash[version as usize];
        let share = popularity.count(version_hash);
        let toss = Toss { version: version_hash, turn, draw: random.u64(), share };
        let at = choose(policy, &candidates, toss).unwrap();
        let lasts = -random.unit().max(1e-9).ln() * LASTS;
        warm += usize::from(workers[at].call(version, now + lasts));
    }
    let most = workers.iter().map(|worker| worker.calls).max().unwrap();
    (warm as f64 / CALLS as f64, most as f64 * WORKERS as f64 / CALLS as f64 - 1.0)
}

#[test]
fn every_policy_keeps_its_promise_of_spread_and_warmth_on_a_skewed_trace() {
    let seen: BTreeMap<&str, (f64, f64)> = Policy::ALL.iter().map(|policy| (policy.as_str(), run(*policy))).collect();
    for (name, (warm, over)) in &seen {
        println!("{name:20} warm {:5.1} %  busiest worker {:+5.1} %", warm * 100.0, over * 100.0);
    }
    let (blind, _) = seen["round-robin"];
    for policy in Policy::ALL {
        let (warm, over) = seen[policy.as_str()];
        match policy {
            Policy::BoundedHash | Policy::ChRlu | Policy::LocalityFirst => {
                assert!(warm > blind + 0.05 && over < 0.35, "{policy}: {seen:?}");
            }
            // Without a look at what a worker holds.
            _ => assert!((warm - blind).abs() < 0.05 && over < 0.05, "{policy}: {seen:?}"),
        }
    }
}
