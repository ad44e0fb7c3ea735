//! What was done and seen, with its time.

use std::collections::BTreeMap;
use std::time::Duration;

use lyra_kit::Clock;
use lyra_testkit::Checked;
use lyra_testkit::traffic::{Seen, Visited};
use tokio::time::Instant;

use super::fault::Fault;

/// The report of a run.
pub struct Report {
    clock: Clock,
    begun: Instant,
    fault: Instant,
    faults: BTreeMap<&'static str, usize>,
    calls: u64,
    failed: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    checks: usize,
    jobs: usize,
    tried_again: usize,
    worst: Duration,
    sessions: u64,
    slowest: Duration,
    asked_again: BTreeMap<String, u64>,
}

impl Report {
    /// Nothing has happened yet.
    pub fn new(clock: Clock) -> Report {
        let now = clock.instant();
        Report {
            clock,
            begun: now,
            fault: now,
            faults: BTreeMap::new(),
            calls: 0,
            failed: BTreeMap::new(),
            refused: BTreeMap::new(),
            checks: 0,
            jobs: 0,
            tried_again: 0,
            worst: Duration::ZERO,
            sessions: 0,
            slowest: Duration::ZERO,
            asked_again: BTreeMap::new(),
        }
    }

    /// Prints a line with its time.
    pub fn say(&self, what: &str) {
        println!("[{:7.1} s] {what}", (self.clock.instant() - self.begun).as_secs_f64());
    }

    /// A fault begins.
    pub fn begun(&mut self, fault: &Fault) {
        self.fault = self.clock.instant();
        *self.faults.entry(fault.kind()).or_default() += 1;
        self.say(&fault.to_string());
    }

    /// It is undone, and the site works as before.
    pub fn healed(&self) {
        self.say(&format!("  whole again after {:.1} s", (self.clock.instant() - self.fault).as_secs_f64()));
    }

    /// What became of the traffic of a round.
    pub fn add(&mut self, seen: &Seen, median: Duration, worst: Duration) {
        self.calls += seen.ok;
        for (total, counts) in [(&mut self.failed, &seen.failed), (&mut self.refused, &seen.refused)] {
            for (code, count) in counts {
                *total.entry(code.clone()).or_default() += count;
            }
        }
        self.worst = self.worst.max(worst);
        self.say(&format!(
            "{} calls went well (median {median:.1?}, worst {worst:.1?}), failed: {:?}; {} jobs accepted, refused before: {:?}",
            seen.ok, seen.failed, seen.jobs, seen.refused
        ));
    }

    /// What became of the visits to sessions of a round, which was checked.
    pub fn visited(&mut self, visited: &Visited) {
        self.sessions += visited.opened;
        self.slowest = self.slowest.max(visited.slowest);
        for (code, count) in &visited.refused {
            *self.asked_again.entry(code.clone()).or_default() += count;
        }
        self.say(&format!(
            "checked: {} sessions were open (slowest after {:.1?}), none in two places, and are closed ({}); none ended by itself, \
             no connection broke, no process is left; asked again: {:?}",
            visited.opened, visited.slowest, visited.closed, visited.refused
        ));
    }

    /// What was checked and holds.
    pub fn checked(&mut self, checked: &Checked) {
        self.checks += 1;
        self.jobs += checked.jobs;
        self.tried_again += checked.tried_again;
        self.say(&format!(
            "checked: {} jobs are there and ended once with the right result ({} after more than one try); {} versions are \
             there; no instance served two versions; {} workers never over-committed and at rest",
            checked.jobs, checked.tried_again, checked.versions, checked.workers
        ));
    }

    /// Prints the sums.
    pub fn summary(&self) {
        let faults: usize = self.faults.values().sum();
        self.say(&format!("{faults} faults: {:?}", self.faults));
        self.say(&format!(
            "{} calls went well (worst {:.1?}), failed: {:?}; {} jobs ended once ({} after more than one try), hand-ins \
             refused: {:?}; {} checks held",
            self.calls, self.worst, self.failed, self.jobs, self.tried_again, self.refused, self.checks
        ));
        self.say(&format!(
            "{} sessions were open, one place each, and closed (slowest open after {:.1?}); opening and closing was asked for again: {:?}",
            self.sessions, self.slowest, self.asked_again
        ));
    }
}
