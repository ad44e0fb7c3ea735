//! Documents and inputs that would compute for ever, nest without end or fill the memory.

use super::constructs::{FAN, WHILE};
use super::*;
use crate::core::datum::DEPTH;

/// Loops in a loop, of which no iteration calls anything.
const SPIN: &str = r#"
name: spin
dataIns: [{ name: never, type: boolean, source: never }]
workflowBody:
  - parallelFor:
      name: p
      iterators: [OUTER]
      loopBody:
        - parallelFor:
            name: q
            iterators: [INNER]
            loopBody:
              - if:
                  name: i
                  condition: [{ data1: spin/never, data2: "true", type: boolean, operator: "==" }]
                  then:
                    - function: { name: f, type: Increment, dataIns: [{ name: in, type: number, source: "1" }], dataOuts: [{ name: out, type: number }] }
"#;

/// A value that goes round a loop and is put into an array each time, as often as HOW says.
const GROWS: &str = r#"
name: grows
dataIns: [{ name: first, type: collection, source: first }, { name: rounds, type: number, source: rounds }]
workflowBody:
  - while:
      name: again
      dataIns: [{ name: x, type: collection, source: grows/first }]
      loopBody:
        - parallel:
            name: p
            dataIns: [{ name: v, type: collection, source: again/x }]
            parallelBody:
              - section:
                  - if:
                      name: i
                      condition: [{ data1: "1", data2: "2", type: number, operator: "==" }]
                      then:
                        - function: { name: f, type: Increment, dataIns: [{ name: in, type: number, source: "1" }], dataOuts: [{ name: out, type: number }] }
            dataOuts: [{ name: y, type: collection, source: "WHAT", constraints: [{ name: aggregation, value: "HOW" }] }]
      condition: [{ data1: again/counter, data2: grows/rounds, type: number, operator: "<" }]
      dataOuts: [{ name: x, type: collection, source: p/y }]
dataOuts: [{ name: out, type: collection, source: again/x }]
"#;

fn spin(outer: usize, inner: usize) -> Arc<Plan> {
    plan(&SPIN.replace("OUTER", &outer.to_string()).replace("INNER", &inner.to_string()))
}

fn begun(plan: &Arc<Plan>, limits: &Limits, input: Value) -> Core {
    let mut core = Core::new(Arc::clone(plan), limits.clone(), object(input));
    core.take(&Entry { at: 0, event: Event::Begun });
    core
}

fn cause(outcome: Option<&Outcome>) -> (String, String) {
    match outcome {
        Some(Outcome::Failed(error)) => (error.cause.code.clone(), error.cause.message.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_would_spin_for_ever_gives_way_and_ends_at_its_limit() {
    let plan = spin(1_000_000, 1_000_000);
    let limits = Limits { steps: 200_000, ..Limits::default() };
    let mut core = begun(&plan, &limits, json!({"never": false}));
    let mut turns = 0;
    while core.advance(1_000) {
        turns += 1;
        assert!(core.moved() <= turns * 2_000, "{} after {turns} turns", core.moved());
        assert!(core.state.held.bytes() < 1 << 20, "{} bytes", core.state.held.bytes());
    }
    assert!(turns > 100, "{turns}");
    let (code, message) = cause(core.outcome());
    assert_eq!(code, "limit_reached");
    assert!(message.contains("200000 steps") && message.contains("workflow.max_steps"), "{message}");
}

#[test]
fn a_run_that_is_ended_in_the_middle_is_read_back_as_far_and_goes_on_there() {
    let plan = spin(20, 20);
    let limits = Limits { live_iterations: 8, ..Limits::default() };
    let input = json!({"never": false});
    let new = || {
        let mut core = Core::new(Arc::clone(&plan), limits.clone(), object(input.clone()));
        core.keep_trace();
        core
    };
    let mut core = new();
    let begun = Entry { at: 0, event: Event::Begun };
    core.take(&begun);
    assert!(core.advance(777) && core.is_busy());
    let stopped = Entry { at: 1, event: Event::Stopped { error: None, moved: Some(core.moved()) } };
    core.take(&stopped);
    assert!(!core.advance(u64::MAX));
    assert_eq!(core.outcome(), Some(&Outcome::Cancelled));
    let trace = core.take_trace();

    let mut again = new();
    again.take(&begun);
    assert!(again.advance(stopped.moved().expect("a number") - again.moved()));
    again.take(&stopped);
    assert_eq!(again.take_trace(), trace);
    again.apply(&Entry { at: 2, event: Event::Redriven });
    assert_eq!(again.outcome(), Some(&Outcome::Succeeded(Map::new())), "it goes on where it was");
    let mut whole = new();
    whole.apply(&begun);
    assert_eq!(whole.outcome(), again.outcome());
    let ended = |core: &mut Core| core.take_trace().iter().filter(|token| token.step == "X").count();
    let before = trace.iter().filter(|token| token.step == "X").count();
    assert_eq!(before + ended(&mut again), ended(&mut whole), "no helper is done twice");
}

#[test]
fn how_far_a_run_moves_at_a_time_changes_nothing() {
    for (document, input) in [(FAN, json!({"list": [1, 2, 3, 4, 5]})), (WHILE, json!({"first": 3}))] {
        let driven = drive(document, input.clone(), &Driver::default());
        let mut core = Core::new(Arc::clone(&driven.plan), Limits::default(), object(input));
        for entry in &driven.journal {
            core.take(entry);
            while core.advance(1) {}
        }
        assert_eq!(core.outcome(), Some(&driven.outcome));
    }
}

#[test]
fn a_value_that_nests_once_more_each_round_ends_the_run() {
    let nests = GROWS.replace("WHAT", "p/v").replace("HOW", ",");
    let rounds = |n: u32| drive(&nests, json!({"first": [1], "rounds": n}), &Driver::default()).outcome;
    assert!(matches!(rounds(DEPTH - 2), Outcome::Succeeded(_)));
    let (code, message) = cause(Some(&rounds(1_000_000)));
    assert_eq!((code.as_str(), message.contains("deeper than 100")), ("invalid_data", true), "{message}");

    let mut deep = json!(1);
    for _ in 0..=DEPTH {
        deep = json!([deep]);
    }
    let (code, message) = cause(Some(&drive(FAN, json!({"list": deep}), &Driver::default()).outcome));
    assert_eq!((code.as_str(), message.contains("deeper than 100")), ("invalid_input", true), "{message}");
}

#[test]
fn a_value_that_doubles_each_round_ends_the_run_before_it_fills_the_memory() {
    let doubles = GROWS.replace("WHAT", "p/v,p/v").replace("HOW", "+");
    let input = json!({"first": ["x".repeat(100)], "rounds": 1_000_000});
    let limits = Limits { result_bytes: 1 << 20, ..Limits::default() };
    let driven = drive(&doubles, input.clone(), &Driver { limits, ..Driver::default() });
    let (code, message) = cause(Some(&driven.outcome));
    assert_eq!((code.as_str(), message.contains("workflow.max_result_bytes")), ("limit_reached", true), "{message}");
    let limits = Limits { live_bytes: 1 << 20, ..Limits::default() };
    let driven = drive(&doubles, input, &Driver { limits, ..Driver::default() });
    let (code, message) = cause(Some(&driven.outcome));
    assert_eq!((code.as_str(), message.contains("workflow.max_live_bytes")), ("limit_reached", true), "{message}");
}

#[test]
fn loops_take_memory_for_the_iterations_that_have_ended_and_not_for_all() {
    // A thousand inner loops are under way at a time, each of a million iterations.
    let document = r#"
name: w
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - parallelFor:
      name: p
      iterators: [1000]
      loopBody:
        - parallelFor:
            name: q
            iterators: [1000000]
            loopBody:
              - function: { name: f, type: Increment, dataIns: [{ name: in, type: number, source: w/n }], dataOuts: [{ name: out, type: number }] }
            dataOuts: [{ name: all, type: collection, source: f/out }]
      dataOuts: [{ name: all, type: collection, source: q/all }]
dataOuts: [{ name: all, type: collection, source: p/all }]
"#;
    let plan = plan(document);
    let mut core = begun(&plan, &Limits::default(), json!({"n": 1}));
    while core.advance(100_000) {}
    assert!(core.schedulable() >= 1_000);
    let collected = core.state.iterations.values().flat_map(|it| &it.collected).map(Vec::capacity).sum::<usize>();
    assert_eq!(collected, 0);
}

#[test]
fn fewer_iterations_are_under_way_where_each_has_many_tasks() {
    let functions: String = (0..100)
        .map(|n| format!("        - function: {{ name: f{n}, type: Increment, dataIns: [{{ name: in, type: number, source: w/n }}], dataOuts: [{{ name: out, type: number }}] }}\n"))
        .collect();
    let document = format!(
        "name: w\ndataIns: [{{ name: n, type: number, source: n }}]\nworkflowBody:\n  - parallelFor:\n      name: p\n      iterators: [50]\n      loopBody:\n{functions}"
    );
    let plan = plan(&document);
    let limits = Limits { live_tasks: 1_000, ..Limits::default() };
    let mut core = begun(&plan, &limits, json!({"n": 1}));
    while core.advance(u64::MAX) {}
    assert_eq!(core.schedulable(), 1_000);
    let driven = drive_plan(&plan, json!({"n": 1}), &Driver { limits, ..Driver::default() });
    assert_eq!((driven.outcome, driven.inputs.len()), (Outcome::Succeeded(Map::new()), 5_000));
}

#[test]
fn nothing_is_held_once_all_is_dropped_and_calls_wait_for_room() {
    let list: Vec<String> = (0..8).map(|_| "x".repeat(100_000)).collect();
    let document = FAN
        .replace("type: Double", "type: Echo")
        .replace("double/out", "double/in")
        .replace("dataOuts: [{ name: out, type: number }]", "dataOuts: [{ name: in, type: string }]");
    let plan = plan(&document.replace("type: number", "type: string"));
    let limits = Limits { live_bytes: 1_000_000, ..Limits::default() };
    let mut core = begun(&plan, &limits, json!({"list": list}));
    while core.advance(u64::MAX) {}
    let held = core.state.held.bytes();
    assert!((800_000..900_000).contains(&held), "the input, once: {held}");
    let mut at = 0;
    while core.has_room() {
        let waiting = core.next_schedulable().expect("a function waits");
        at += 1;
        let picks = [0].into_iter().collect();
        core.apply(&Entry { at, event: Event::Scheduled { key: waiting.key, attempt: 1, picks } });
    }
    assert_eq!(at, 5, "half of what a run may hold is for the inputs of calls");
    let called = core.state.called.clone();
    assert!(called.bytes() > 500_000);
    core.apply(&Entry { at: 100, event: Event::Stopped { error: None, moved: None } });
    let held = core.state.held.clone();
    drop(core);
    assert_eq!((called.bytes(), held.bytes()), (0, 0));
}
