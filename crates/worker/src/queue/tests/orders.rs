//! In which order each policy lets calls run.

use std::collections::HashMap;

use lyra_kit::Clock;
use proptest::prelude::*;

use super::*;
use crate::queue::policy::{self, Candidate, Policy};

/// What the pool has, by generation; nothing where it says nothing.
struct Pool(HashMap<u64, Start>);

impl Instances for Pool {
    fn ready(&self, version: &Record) -> Start {
        self.0.get(&version.key().0).copied().unwrap_or(Start::Cold)
    }
}

struct Line {
    policy: Box<dyn Policy>,
    epoch: Instant,
    next: u64,
}

impl Line {
    fn new(kind: PolicyKind, pool: &[(u64, Start)]) -> Line {
        let epoch = Clock::system().instant();
        let instances: Arc<dyn Instances> = Arc::new(Pool(pool.iter().copied().collect()));
        Line { policy: policy::of(&of(kind), &instances, epoch), epoch, next: 0 }
    }

    /// A call comes, `at` ms after the beginning.
    fn push(&mut self, at: u64, record: &Arc<Record>) -> u64 {
        let order = self.next;
        self.next += 1;
        let arrived = self.epoch + Duration::from_millis(at);
        self.policy.push(Candidate { order, arrived, record: record.clone() });
        order
    }

    fn push_all(&mut self, calls: u64, at: u64, record: &Arc<Record>) {
        for _ in 0..calls {
            self.push(at, record);
        }
    }

    /// Who runs next, `at` ms after the beginning, and whether for its age.
    fn pop(&mut self, at: u64) -> Option<(u64, bool)> {
        self.policy.pop(self.epoch + Duration::from_millis(at)).map(|choice| (choice.order, choice.aged))
    }

    /// All that wait, in their order, at `at` ms.
    fn drain(&mut self, at: u64) -> Vec<u64> {
        std::iter::from_fn(|| self.pop(at)).map(|(order, _)| order).collect()
    }
}

fn taking(generation: u64, exec_ms: u64) -> Arc<Record> {
    fixtures::record("default", generation, Duration::from_millis(exec_ms))
}

fn every(generation: u64, interval_ms: u64) -> Arc<Record> {
    let record = taking(generation, 1);
    (1..5).for_each(|n| record.arrived(n * interval_ms * 1_000_000));
    record
}

/// The orders of five calls that come 10 ms apart, let in at 50 ms.
fn order(kind: PolicyKind, records: [&Arc<Record>; 5], pool: &[(u64, Start)]) -> Vec<u64> {
    let mut line = Line::new(kind, pool);
    for (at, record) in (0..).zip(records) {
        line.push(at * 10, record);
    }
    line.drain(50)
}

#[test]
fn each_policy_has_its_order() {
    let (long, short, middle) = (taking(1, 100), taking(2, 1), taking(3, 25));
    let by_length = [&long, &middle, &short, &middle, &short];
    assert_eq!(order(PolicyKind::Fcfs, by_length, &[]), [0, 1, 2, 3, 4]);
    assert_eq!(order(PolicyKind::ShortestFirst, by_length, &[]), [2, 4, 1, 3, 0]);
    // Deadlines: 100, 35, 21, 55, 41 ms.
    assert_eq!(order(PolicyKind::EarliestDeadline, by_length, &[]), [2, 1, 4, 3, 0]);

    let (rare, often, unknown) = (every(4, 1_000), every(5, 10), taking(6, 1));
    let by_rate = [&unknown, &rare, &often, &unknown, &rare];
    assert_eq!(order(PolicyKind::InterArrival, by_rate, &[]), [2, 1, 4, 0, 3]);
}

#[test]
fn cold_priority_follows_what_the_pool_has() {
    // Python starts warm in no time here, cold in its default of 20 ms.
    let (long, short, middle) = (taking(1, 100), taking(2, 1), taking(3, 10));
    let calls = [&long, &short, &middle, &short, &middle];
    let kind = PolicyKind::ColdPriority;
    assert_eq!(order(kind, calls, &[]), [1, 3, 2, 4, 0], "all are cold");
    let middle_is_warm = [(3, Start::Warm)];
    assert_eq!(order(kind, calls, &middle_is_warm), [2, 4, 1, 3, 0], "10 ms warm before 1 + 20 ms cold");
    let long_is_warm = [(1, Start::Warm)];
    assert_eq!(order(kind, calls, &long_is_warm), [1, 3, 2, 4, 0], "100 ms warm after 10 + 20 ms cold");
    let prewarmed = [(3, Start::Prewarmed), (2, Start::Warm)];
    assert_eq!(order(kind, calls, &prewarmed), [1, 3, 2, 4, 0]);
}

#[test]
fn fair_share_takes_turns_between_tenants_by_weight() {
    let mut config = of(PolicyKind::FairShare);
    config.fair_share.throttle = Duration::ZERO;
    let heavy = lyra_types::TenantName::new("heavy").expect("a valid name");
    config.fair_share.weights.insert(heavy, std::num::NonZeroU32::new(2).expect("not zero"));
    let (heavy, light) = (fixtures::record("heavy", 1, 10 * MS), fixtures::record("light", 2, 10 * MS));
    let mut line = Line::new(PolicyKind::FairShare, &[]);
    line.policy = policy::of(&config, &(Arc::new(Pool(HashMap::new())) as Arc<dyn Instances>), line.epoch);
    line.push_all(6, 0, &heavy);
    line.push_all(6, 0, &light);
    let mut served = String::new();
    while let Some((order, _)) = line.pop(0) {
        served.push(if order < 6 { 'h' } else { 'l' });
        line.policy.began(if order < 6 { &heavy } else { &light });
    }
    assert_eq!(served, "hlhhlhhlhlll");
}

#[test]
fn a_tenant_keeps_its_turn_within_the_throttling_window() {
    let (one, two) = (fixtures::record("one", 1, 10 * MS), fixtures::record("two", 2, 10 * MS));
    let mut line = Line::new(PolicyKind::FairShare, &[]);
    line.push_all(5, 0, &one);
    line.push_all(5, 0, &two);
    let mut served = String::new();
    while let Some((order, _)) = line.pop(0) {
        served.push(if order < 5 { '1' } else { '2' });
        line.policy.began(if order < 5 { &one } else { &two });
    }
    // 20 ms ahead is two calls of 10 ms.
    assert_eq!(served, "1122221112");
}

#[test]
fn a_call_that_gave_up_is_not_chosen() {
    let records = [taking(1, 5), taking(2, 1), taking(3, 3)];
    for kind in PolicyKind::ALL {
        for gone in 0..3usize {
            let mut line = Line::new(kind, &[]);
            let orders: Vec<u64> = records.iter().map(|record| line.push(0, record)).collect();
            line.policy.remove(orders[gone], &records[gone]);
            let mut left = line.drain(0);
            left.sort_unstable();
            let want: Vec<u64> = orders.into_iter().filter(|order| *order != gone as u64).collect();
            assert_eq!(left, want, "{kind:?}");
            line.push(0, &records[0]);
            line.policy.clear();
            assert_eq!(line.pop(0), None);
        }
    }
}

proptest! {
    /// Better ranked calls come all the time, faster than they are served; the worst one still runs when it is as old as the
    /// ageing bound, and not before.
    #[test]
    fn no_call_starves(
        kind in prop::sample::select(vec![
            PolicyKind::ShortestFirst, PolicyKind::InterArrival, PolicyKind::ColdPriority,
        ]),
        per_turn in 1..4u64, turn_ms in 1..200u64,
    ) {
        let mut line = Line::new(kind, &[(2, Start::Warm)]);
        let (worst, better) = (taking(1, 1_000), every(2, 1));
        line.push(0, &worst);
        let mut at = 0;
        let aged = loop {
            line.push_all(per_turn, at, &better);
            at += turn_ms;
            match line.pop(at) {
                Some((0, aged)) => break aged,
                Some(_) => prop_assert!(at < 6_000, "it starves"),
                None => prop_assert!(false, "somebody waits"),
            }
        };
        prop_assert!(aged && (5_000..5_000 + turn_ms).contains(&at), "let in at {at} ms");
    }

    /// An effective deadline is a bound by itself: what comes later than a call's own expected execution never goes before it.
    #[test]
    fn the_earliest_deadline_is_overtaken_only_by_what_came_within_its_own_length(exec_ms in 1..1_000u64) {
        let mut line = Line::new(PolicyKind::EarliestDeadline, &[]);
        let (long, short) = (taking(1, exec_ms), taking(2, 0));
        line.push(0, &long);
        // Two come in each millisecond and one is served: the other lengths of the queue don't matter.
        for at in 0.. {
            line.push_all(2, at, &short);
            let (order, _) = line.pop(at).expect("calls wait");
            if order == 0 {
                break;
            }
            prop_assert!((order - 1) / 2 <= exec_ms, "overtaken by a call of {} ms", (order - 1) / 2);
        }
    }
}
