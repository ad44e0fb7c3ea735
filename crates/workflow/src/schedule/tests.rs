//! What each policy promises, and what all promise together.

use std::time::Duration;

use lyra_kit::{Clock, Random};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::mapping::{Mapping, Resource};

const TASK: TaskView<'static> = TaskView { function_type: "f", task: "f", input_bytes: 100, attempt: 1, redundancy: 1 };

fn option(index: u32, is_local: bool) -> OptionView<'static> {
    OptionView { index, id: "r", is_local, used: 0, capacity: None, failures: 0.0, estimate: None }
}

fn full(option: OptionView<'static>) -> OptionView<'static> {
    OptionView { used: 2, capacity: Some(2), ..option }
}

fn timed(index: u32, base: f64, per_byte: f64) -> OptionView<'static> {
    OptionView { estimate: Some(Estimate { base, per_byte }), ..option(index, false) }
}

fn decide(policy: Policy, task: &TaskView<'_>, options: &[OptionView<'_>]) -> Decision {
    policy.scheduler().schedule(task, options, &Random::seeded(1))
}

fn one_of(decision: &Decision) -> u32 {
    match decision {
        Decision::Picks(picks) if picks.len() == 1 => picks[0],
        other => panic!("one pick, not {other:?}"),
    }
}

#[test]
fn a_single_option_must_be_the_only_one() {
    let two = [option(0, true), option(1, false)];
    assert!(matches!(decide(Policy::SingleOption, &TASK, &two), Decision::Impossible(_)));
    assert_eq!(one_of(&decide(Policy::SingleOption, &TASK, &two[..1])), 0);
    assert_eq!(decide(Policy::SingleOption, &TASK, &[full(option(0, true))]), Decision::Wait);
}

#[test]
fn round_robin_gives_each_its_turn_and_passes_over_full_ones() {
    let mut scheduler = Policy::RoundRobin.scheduler();
    let mut options = [option(0, false), option(1, false), option(2, false)];
    let random = Random::seeded(1);
    let turns: Vec<u32> = (0..4).map(|_| one_of(&scheduler.schedule(&TASK, &options, &random))).collect();
    assert_eq!(turns, [0, 1, 2, 0]);
    options[1] = full(options[1]);
    assert_eq!(one_of(&scheduler.schedule(&TASK, &options, &random)), 2);
    let other = TaskView { function_type: "g", ..TASK };
    assert_eq!(one_of(&scheduler.schedule(&other, &options, &random)), 0, "each type has its own turns");
}

#[test]
fn this_machine_comes_first_and_overflows() {
    let options = [option(0, false), option(1, true), option(2, false)];
    assert_eq!(one_of(&decide(Policy::LocalFirst, &TASK, &options)), 1);
    let busy = [option(0, false), full(option(1, true))];
    assert_eq!(one_of(&decide(Policy::LocalFirst, &TASK, &busy)), 0);
    let twice = TaskView { redundancy: 2, ..TASK };
    let Decision::Picks(picks) = decide(Policy::LocalFirst, &twice, &options) else { panic!("picks") };
    assert!(picks.len() == 2 && picks[0] == 1, "{picks:?}");
}

#[test]
fn large_inputs_stay_and_small_ones_leave() {
    let policy = Policy::SizeConstraint { threshold_kb: 10 };
    let options = [option(0, true), option(1, false)];
    for (bytes, index) in [(9_999, 1), (10_000, 1), (10_001, 0)] {
        assert_eq!(one_of(&decide(policy, &TaskView { input_bytes: bytes, ..TASK }, &options)), index, "{bytes}");
    }
    let large = TaskView { input_bytes: 20_000, ..TASK };
    assert_eq!(decide(policy, &large, &[full(options[0]), options[1]]), Decision::Wait);
    assert_eq!(one_of(&decide(policy, &large, &options[1..])), 1, "a constraint that nothing meets is dropped");
}

#[test]
fn a_failure_costs_the_rank() {
    let mut options = [option(0, true), option(1, false)];
    assert_eq!(one_of(&decide(Policy::Ranked, &TASK, &options)), 0);
    options[0].failures = 1.0;
    assert_eq!(one_of(&decide(Policy::Ranked, &TASK, &options)), 1);
    options[1].failures = 2.0;
    assert_eq!(one_of(&decide(Policy::Ranked, &TASK, &options)), 0);
    options[0].failures = 0.04;
    options[1].failures = 0.0;
    assert_eq!(one_of(&decide(Policy::Ranked, &TASK, &options)), 0, "an old failure is forgotten");
}

#[test]
fn redundant_tasks_get_all_that_have_room() {
    let options = [option(0, true), full(option(1, false)), option(2, false)];
    assert_eq!(decide(Policy::Redundant, &TASK, &options), Decision::Picks(Picks::from_slice(&[0, 2])));
}

#[test]
fn the_one_that_is_done_first_is_taken_at_any_size() {
    let options = [timed(0, 0.1, 0.0), timed(1, 0.01, 1e-6)];
    let of = |input_bytes| decide(Policy::ExpectedFinishTime, &TaskView { input_bytes, ..TASK }, &options);
    assert_eq!((one_of(&of(1_000)), one_of(&of(1_000_000))), (1, 0));
}

#[test]
fn a_wait_is_chosen_where_it_ends_sooner() {
    let fast = OptionView { used: 4, capacity: Some(4), ..timed(0, 0.1, 0.0) };
    assert_eq!(decide(Policy::ExpectedFinishTime, &TASK, &[fast, timed(1, 1.0, 0.0)]), Decision::Wait);
    assert_eq!(one_of(&decide(Policy::ExpectedFinishTime, &TASK, &[fast, timed(1, 0.11, 0.0)])), 1);
    let failing = OptionView { failures: 30.0, ..timed(0, 0.1, 0.0) };
    assert_eq!(one_of(&decide(Policy::ExpectedFinishTime, &TASK, &[failing, timed(1, 1.0, 0.0)])), 1);
}

#[test]
fn what_was_never_measured_is_tried_by_one_task() {
    let known = timed(0, 0.1, 0.0);
    assert_eq!(one_of(&decide(Policy::ExpectedFinishTime, &TASK, &[known, option(1, false)])), 1);
    let tried = OptionView { used: 1, ..option(1, false) };
    assert_eq!(one_of(&decide(Policy::ExpectedFinishTime, &TASK, &[known, tried])), 0);
}

fn resources() -> Vec<Resource> {
    let mapping = Mapping::parse(&json!([{"functionType": "Addition", "resources": [
        {"type": "Demo"},
        {"type": "Function", "properties": {"name": "add"}},
    ]}]));
    mapping.expect("a good mapping").types.remove(0).resources
}

#[test]
fn this_machine_is_one_place_with_one_capacity() {
    let (book, now) = (Book::new(Limit::TaskNumber { max: 2 }), Clock::system().instant());
    let (first, second) = (book.bind("Addition", &resources()), book.bind("Subtraction", &resources()));
    let held = [first.begin(0), second.begin(0)];
    assert!(held.iter().all(Option::is_some) && first.begin(0).is_none() && second.begin(0).is_none());
    assert_eq!(second.options(now)[0].used, 2);
    assert!(first.begin(1).is_some(), "what is elsewhere has no limit");
    drop(held);
    assert!(first.begin(0).is_some() && first.begin(9).is_none());
}

#[test]
fn the_book_learns_and_forgets() {
    let (book, now) = (Book::new(Limit::None), Clock::system().instant());
    let bound = book.bind("Addition", &resources());
    let took = Duration::from_millis(20);
    bound.begin(0).expect("a place").end(Outcome::Succeeded { input_bytes: 10, took }, now);
    bound.begin(0).expect("a place").end(Outcome::Failed, now);
    let again = book.bind("Addition", &resources());
    let view = again.options(now)[0];
    assert_eq!((view.used, view.failures), (0, 1.0));
    assert!((view.estimate.expect("it was measured").seconds(10) - 0.02).abs() < 1e-9);
    assert!((again.options(now + Duration::from_secs(60))[0].failures - 0.5).abs() < 1e-9);
    assert_eq!(book.bind("Other", &resources()).options(now)[0].estimate, None, "a type has its own record");
}

#[test]
fn those_that_wait_come_in_the_order_of_their_arbitration() {
    let now = Clock::system().instant();
    let tasks = [(30, 1), (10, 5), (20, 5)];
    for (arbitration, order) in
        [(Arbitration::Fcfs, [0, 1, 2]), (Arbitration::Shortest, [1, 2, 0]), (Arbitration::CriticalPath, [1, 2, 0])]
    {
        let mut list = WaitingList::new(arbitration);
        for (number, (seconds, critical_path)) in tasks.into_iter().enumerate() {
            let view = WaitingView { expected: Some(Duration::from_secs(seconds)), critical_path };
            list.push(number, &view, now);
        }
        let popped: Vec<usize> = std::iter::from_fn(|| list.pop(now)).collect();
        assert_eq!(popped, order, "{arbitration:?}");
    }
}

#[test]
fn nobody_is_overtaken_for_ever() {
    let now = Clock::system().instant();
    let mut list = WaitingList::new(Arbitration::Shortest);
    let view = |seconds| WaitingView { expected: Some(Duration::from_secs(seconds)), critical_path: 1 };
    list.push("long", &view(100), now);
    list.push("short", &view(1), now + Duration::from_secs(29));
    assert_eq!(list.pop(now + Duration::from_secs(30)), Some("long"));
}

fn policies() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::SingleOption),
        (0_u32..5).prop_map(|picks| Policy::Random { picks }),
        Just(Policy::RoundRobin),
        Just(Policy::LocalFirst),
        (0_u64..3).prop_map(|threshold_kb| Policy::SizeConstraint { threshold_kb }),
        Just(Policy::Ranked),
        Just(Policy::Redundant),
        Just(Policy::ExpectedFinishTime),
    ]
}

fn options() -> impl Strategy<Value = Vec<OptionView<'static>>> {
    let one = (
        any::<bool>(),
        0_u32..5,
        proptest::option::of(1_u32..5),
        0.0..50.0_f64,
        proptest::option::of((0.0..10.0_f64, 0.0..1e-3_f64)),
    );
    proptest::collection::vec(one, 0..6).prop_map(|all| {
        let views = (0..).zip(all).map(|(index, (is_local, used, capacity, failures, line))| OptionView {
            index,
            id: "r",
            is_local,
            used,
            capacity,
            failures,
            estimate: line.map(|(base, per_byte)| Estimate { base, per_byte }),
        });
        views.collect()
    })
}

proptest! {
    #[test]
    fn whatever_the_policy_picks_have_room_and_nobody_is_sent_away(
        policy in policies(), options in options(), bytes in 0_u64..5_000, redundancy in 0_u32..6, seed in any::<u64>(),
    ) {
        let task = TaskView { input_bytes: bytes, redundancy, ..TASK };
        let mut scheduler = policy.scheduler();
        for _ in 0..3 {
            match scheduler.schedule(&task, &options, &Random::seeded(seed)) {
                Decision::Picks(picks) => {
                    prop_assert!(!picks.is_empty());
                    let mut distinct = picks.to_vec();
                    distinct.sort_unstable();
                    distinct.dedup();
                    prop_assert_eq!(distinct.len(), picks.len());
                    prop_assert!(picks.iter().all(|pick| options[*pick as usize].has_room()));
                    let most = match policy {
                        Policy::Redundant => options.len(),
                        Policy::SingleOption => 1,
                        Policy::Random { picks } => picks.max(redundancy).max(1) as usize,
                        _ => redundancy.max(1) as usize,
                    };
                    prop_assert!(picks.len() <= most);
                }
                Decision::Wait => prop_assert!(options.iter().any(|option| !option.has_room()), "somebody will end"),
                Decision::Impossible(why) => {
                    prop_assert!(!why.is_empty());
                    prop_assert!(options.is_empty() || (policy == Policy::SingleOption && options.len() > 1));
                }
            }
        }
    }

    #[test]
    fn capacity_holds_and_no_task_is_forgotten(
        policy in prop_oneof![Just(Policy::Ranked), Just(Policy::LocalFirst), Just(Policy::RoundRobin),
            Just(Policy::ExpectedFinishTime), Just(Policy::Redundant), Just(Policy::Random { picks: 2 })],
        arbitration in prop_oneof![Just(Arbitration::Fcfs), Just(Arbitration::Shortest), Just(Arbitration::CriticalPath)],
        max in 1_u32..4, only_local in any::<bool>(), tasks in 1_usize..40, seed in any::<u64>(),
    ) {
        let (random, now) = (Random::seeded(seed), Clock::system().instant());
        let mut mapped = resources();
        if only_local {
            mapped.truncate(1);
        }
        let bound = Book::new(Limit::TaskNumber { max }).bind("Addition", &mapped);
        let mut scheduler = policy.scheduler();
        let mut waiting = WaitingList::new(arbitration);
        let mut running: Vec<(usize, Vec<Lease>)> = Vec::new();
        let (mut begun, mut ended) = (0, Vec::new());
        while ended.len() < tasks {
            let arrives = begun < tasks && (running.is_empty() || random.unit() < 0.6);
            let next = if arrives {
                begun += 1;
                Some(begun - 1)
            } else if running.is_empty() {
                prop_assert!(false, "tasks wait and none runs");
                None
            } else {
                let place = (random.unit() * running.len() as f64) as usize;
                let (task, leases) = running.swap_remove(place);
                for lease in leases {
                    match random.unit() < 0.3 {
                        true => lease.end(Outcome::Failed, now),
                        false => lease.end(Outcome::Succeeded { input_bytes: 1, took: Duration::from_millis(5) }, now),
                    }
                }
                ended.push(task);
                waiting.pop(now)
            };
            // Who comes, and then all that wait, until one does not fit: it goes back.
            let mut candidate = next;
            while let Some(task) = candidate.take() {
                match scheduler.schedule(&TASK, &bound.options(now), &random) {
                    Decision::Picks(picks) => {
                        let leases: Vec<Lease> = picks.iter().filter_map(|pick| bound.begin(*pick)).collect();
                        prop_assert_eq!(leases.len(), picks.len());
                        running.push((task, leases));
                        candidate = waiting.pop(now);
                    }
                    Decision::Wait => {
                        let critical_path = task as u32 % 3;
                        let expected = Some(Duration::from_millis(task as u64 % 7));
                        waiting.push(task, &WaitingView { expected, critical_path }, now);
                    }
                    Decision::Impossible(why) => prop_assert!(false, "{}", why),
                }
            }
            prop_assert!(bound.options(now)[0].used <= max);
        }
        ended.sort_unstable();
        prop_assert_eq!(ended, (0..tasks).collect::<Vec<_>>());
        prop_assert!(waiting.is_empty());
        prop_assert!(bound.options(now).iter().all(|option| option.used == 0));
    }
}
