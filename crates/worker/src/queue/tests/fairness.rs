//! The bounds of the policy `fair-share`, on a small simulation: places, calls of known length, and virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::num::NonZeroU32;

use lyra_kit::Clock;
use proptest::prelude::*;

use super::*;
use crate::queue::fair_share::FairShare as Accounts;
use crate::queue::policy::{Candidate, Charge, Policy};

/// A call that is served.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Served {
    tenant: usize,
    arrived_ms: u64,
    began_ms: u64,
}

struct Simulation {
    accounts: Accounts,
    epoch: Instant,
    places: usize,
    now_ms: u64,
    next: u64,
    waiting: HashMap<u64, (usize, u64, Arc<Record>, u64)>,
    running: BinaryHeap<Reverse<(u64, u64)>>,
    charges: HashMap<u64, (Charge, u64)>,
    served: Vec<Served>,
}

impl Simulation {
    fn new(throttle_ms: u64, weights: &[u32], places: usize) -> Simulation {
        let name = |n| lyra_types::TenantName::new(&tenant(n)).expect("a valid name");
        let weights = (0..).zip(weights).map(|(n, weight)| (name(n), NonZeroU32::new(*weight).expect("not zero")));
        let config = FairShare {
            throttle: Duration::from_millis(throttle_ms),
            weights: weights.collect(),
            ..FairShare::default()
        };
        Simulation {
            accounts: Accounts::new(config),
            epoch: Clock::system().instant(),
            places,
            now_ms: 0,
            next: 0,
            waiting: HashMap::new(),
            running: BinaryHeap::new(),
            charges: HashMap::new(),
            served: Vec::new(),
        }
    }

    /// A call of `tenant` comes that takes `takes_ms`; `record` says what is expected of it.
    fn arrive(&mut self, tenant: usize, record: &Arc<Record>, takes_ms: u64) {
        let order = self.next;
        self.next += 1;
        let arrived = self.epoch + Duration::from_millis(self.now_ms);
        self.accounts.push(Candidate { order, arrived, record: record.clone() });
        self.waiting.insert(order, (tenant, self.now_ms, record.clone(), takes_ms));
        self.fill();
    }

    fn fill(&mut self) {
        while self.running.len() < self.places
            && let Some(choice) = self.accounts.pop(self.epoch)
        {
            let (tenant, arrived_ms, record, takes_ms) = self.waiting.remove(&choice.order).expect("it waits");
            self.charges.insert(choice.order, (self.accounts.began(&record), takes_ms));
            self.running.push(Reverse((self.now_ms + takes_ms, choice.order)));
            self.served.push(Served { tenant, arrived_ms, began_ms: self.now_ms });
        }
    }

    /// Lets time pass up to the end of the next call, `until_ms` at most.
    fn step(&mut self, until_ms: u64) -> bool {
        match self.running.peek() {
            Some(Reverse((ends_ms, order))) if *ends_ms <= until_ms => {
                let (ends_ms, order) = (*ends_ms, *order);
                self.running.pop();
                self.now_ms = ends_ms;
                let (charge, took_ms) = self.charges.remove(&order).expect("it runs");
                self.accounts.ended(charge, Duration::from_millis(took_ms));
                self.fill();
                true
            }
            _ => {
                self.now_ms = until_ms;
                false
            }
        }
    }
}

fn tenant(n: usize) -> String {
    format!("tenant-{n}")
}

/// A version of which `expected_ms` is expected.
fn expecting(of: usize, expected_ms: u64) -> Arc<Record> {
    fixtures::record(&tenant(of), of as u64, Duration::from_millis(expected_ms))
}

proptest! {
    /// Two tenants whose calls wait all the time: over any span, what they were let in for, each over its weight, differs by
    /// the bound at most.
    #[test]
    fn tenants_that_wait_get_service_by_weight_within_the_bound(
        weights in prop::array::uniform2(1..6u32), lengths in prop::array::uniform2(1..50u64),
        throttle in 0..100u64, places in 1..5usize,
    ) {
        let mut simulation = Simulation::new(throttle, &weights, places);
        let records = [expecting(0, lengths[0]), expecting(1, lengths[1])];
        for of in [0, 1].repeat(600) {
            simulation.arrive(of, &records[of], lengths[of]);
        }
        let per = |of: usize| lengths[of] as f64 / f64::from(weights[of]);
        let (mut ahead, mut least, mut most) = (0.0, 0.0f64, 0.0f64);
        let mut left = [600usize; 2];
        let mut counted = 0;
        // As long as calls of both wait.
        while left.iter().all(|left| *left > 0) {
            for served in &simulation.served[counted..] {
                left[served.tenant] = left[served.tenant].saturating_sub(1);
                if left.contains(&0) {
                    break;
                }
                ahead += if served.tenant == 0 { per(0) } else { -per(1) };
                (least, most) = (least.min(ahead), most.max(ahead));
            }
            counted = simulation.served.len();
            if !simulation.step(u64::MAX) {
                break;
            }
        }
        let bound = 2.0 * throttle as f64 + per(0) + per(1);
        // The first calls found free places, one for each, before anybody waited.
        let without_wait = places as f64 * per(0).max(per(1));
        prop_assert!(most - least <= bound + without_wait + 1e-6, "{} over {bound}", most - least);
    }

    /// One tenant sends a thousand calls at once; another, one now and then, waits no longer than the bound.
    #[test]
    fn a_greedy_tenant_delays_another_by_the_bound_at_most(
        greedy_ms in 1..40u64, throttle in 0..60u64, places in 1..4usize,
    ) {
        let mut simulation = Simulation::new(throttle, &[1, 1], places);
        let (greedy, modest) = (expecting(0, greedy_ms), expecting(1, 1));
        for _ in 0..1_000 {
            simulation.arrive(0, &greedy, greedy_ms);
        }
        for n in 1..20 {
            while simulation.step(n * 100) {}
            simulation.arrive(1, &modest, 1);
        }
        while simulation.step(u64::MAX) {}
        let of_modest: Vec<_> = simulation.served.iter().filter(|served| served.tenant == 1).collect();
        prop_assert_eq!(of_modest.len(), 19);
        let longest = of_modest.iter().map(|served| served.began_ms - served.arrived_ms).max().unwrap_or(0);
        // The window, the call that ends it, and the one that is running.
        prop_assert!(longest <= throttle + 2 * greedy_ms, "waited {longest} ms");
    }
}

#[test]
fn wrong_estimates_even_out() {
    let mut simulation = Simulation::new(0, &[1, 1], 2);
    // The first tenant's calls take ten times what is expected of them.
    let (liar, honest) = (expecting(0, 2), expecting(1, 20));
    for _ in 0..2_000 {
        simulation.arrive(0, &liar, 20);
        simulation.arrive(1, &honest, 20);
    }
    while simulation.step(10_000) {}
    let count = |tenant| simulation.served.iter().filter(|served| served.tenant == tenant).count();
    assert!(count(0).abs_diff(count(1)) <= 4, "{} and {}", count(0), count(1));
}

#[test]
fn use_of_an_idle_worker_is_not_held_against_a_tenant() {
    let mut simulation = Simulation::new(0, &[1, 1], 1);
    let (early, late) = (expecting(0, 10), expecting(1, 10));
    for _ in 0..100 {
        simulation.arrive(0, &early, 10);
        while simulation.step(simulation.now_ms + 10) {}
    }
    for _ in 0..10 {
        simulation.arrive(0, &early, 10);
        simulation.arrive(1, &late, 10);
    }
    let begun = simulation.now_ms;
    while simulation.step(begun + 100) {}
    let of_early = simulation.served.iter().filter(|s| s.tenant == 0 && s.arrived_ms >= begun).count();
    assert!((5..=6).contains(&of_early), "{of_early} of the first 11");
}

#[test]
fn accounts_of_tenants_that_are_gone_are_closed() {
    let mut accounts = Accounts::new(FairShare::default());
    for n in 0..10_000usize {
        let charge = accounts.began(&expecting(n, 1));
        accounts.ended(charge, MS);
    }
    assert!(accounts.open() <= 1_025, "{} accounts", accounts.open());
}
