//! Simulations from a trace to a report: they repeat, they lose no call, and each policy does what it is for.

use lyra_load::compare::{Run, compare};
use lyra_load::simulation::Machine;
use lyra_load::trace::{Arrival, Function, Settings, generate};
use lyra_load::{Policy, Report, Trace, simulate};

fn day() -> Trace {
    let settings = Settings { functions: 40, invocations: 20_000, ..Settings::default() };
    generate(&settings).expect("makes")
}

fn run(trace: &Trace, memory_mb: u64, policy: &str) -> Report {
    let machine = Machine { memory_mb, ..Machine::default() };
    simulate(trace, &machine, &policy.parse().expect("a policy")).expect("runs")
}

#[test]
fn a_simulation_repeats_bit_by_bit_under_every_policy() {
    let trace = day();
    for policy in Policy::keep_alives().into_iter().chain(Policy::queues()) {
        let machine = Machine { memory_mb: 2_048, max_running: 8, seed: 5 };
        let first = simulate(&trace, &machine, &policy).expect("runs");
        assert_eq!(first, simulate(&trace, &machine, &policy).expect("runs"), "{policy}");
        assert_eq!((first.invocations, first.failed), (20_000, 0), "{policy}: {:?}", first.errors);
        assert!(first.peak_memory_mb <= 2_048, "{policy}: memory is never over-committed");
    }
}

#[test]
fn runs_at_the_same_time_do_not_touch_each_other() {
    let trace = day();
    let one = Run { policy: Policy::default(), machine: Machine { memory_mb: 2_048, ..Machine::default() } };
    let all = compare(&trace, &[one.clone(), one.clone(), one], |_| {}).expect("runs");
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|report| *report == all[0]));
}

/// One function, called every five minutes.
fn regular() -> Trace {
    let function =
        Function { name: "tick".into(), tenant: "t".into(), start_ms: 1_000.0, exec_ms: 10.0, memory_mb: 128 };
    let arrivals = (0..100).map(|n| Arrival { at_ms: n * 300_000, function: 0, exec_ms: 10 }).collect();
    Trace { functions: vec![function], arrivals }
}

#[test]
fn a_time_to_live_below_the_gap_makes_every_call_cold_and_one_above_only_the_first() {
    let short = run(&regular(), 1_024, "keep_alive=ttl:60s");
    assert_eq!((short.cold_starts, short.cold_start_seconds.round()), (100, 100.0));
    let long = run(&regular(), 1_024, "keep_alive=ttl:600s");
    assert_eq!((long.cold_starts, long.instances_started), (1, 1));
    assert!(long.memory_gb_hours > short.memory_gb_hours, "warm instances cost memory");
    assert_eq!((long.latency_ms.p50, long.latency_ms.max), (10.0, 1_010.0));
}

#[test]
fn shortest_first_lets_short_calls_pass_long_ones() {
    let function =
        |name: &str, exec_ms| Function { name: name.into(), tenant: "t".into(), start_ms: 1.0, exec_ms, memory_mb: 16 };
    let mut arrivals = Vec::new();
    // First each is called once, so that it is known; then a crowd of both comes at one moment.
    for (function, exec_ms) in [(0, 1_000), (1, 10)] {
        arrivals.push(Arrival { at_ms: 0, function, exec_ms });
        arrivals.extend((0..20).map(|_| Arrival { at_ms: 60_000, function, exec_ms }));
    }
    arrivals.sort_by_key(|call| call.at_ms);
    let trace = Trace { functions: vec![function("long", 1_000.0), function("short", 10.0)], arrivals };
    let machine = Machine { max_running: 1, ..Machine::default() };
    let under = |policy: &str| simulate(&trace, &machine, &policy.parse().expect("a policy")).expect("runs");
    let (plain, shortest) = (under("queue=fcfs"), under("queue=shortest-first"));
    assert!(shortest.slowdown.mean < plain.slowdown.mean / 2.0, "{} {}", shortest.slowdown.mean, plain.slowdown.mean);
}

#[test]
fn a_trace_whose_function_can_not_be_deployed_is_refused_with_its_name() {
    let mut trace = regular();
    trace.functions[0].memory_mb = 100_000;
    let error = simulate(&trace, &Machine::default(), &Policy::default()).expect_err("is refused").to_string();
    assert!(error.contains("tick"), "{error}");
}
