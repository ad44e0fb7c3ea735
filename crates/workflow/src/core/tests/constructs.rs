//! Each construct by itself: branches, loops, collections, limits, the trace.

use super::*;

pub(super) const WHILE: &str = r#"
name: sums
dataIns: [{ name: first, type: number, source: first }]
workflowBody:
  - while:
      name: repeat
      dataIns: [{ name: total, type: number, source: sums/first }]
      loopBody:
        - function:
            name: double
            type: Double
            dataIns: [{ name: in, type: number, source: repeat/total }]
            dataOuts: [{ name: out, type: number }]
      condition:
        - { data1: repeat/counter, data2: "5", type: number, operator: "<", negation: false, combinedWith: and }
      dataOuts:
        - { name: total, type: number, source: double/out }
        - { name: rounds, type: number, source: repeat/counter }
dataOuts:
  - { name: total, type: number, source: repeat/total }
  - { name: rounds, type: number, source: repeat/rounds }
"#;

pub(super) const FAN: &str = r#"
name: fan
dataIns: [{ name: list, type: collection, source: list }]
workflowBody:
  - parallelFor:
      name: each
      dataIns: [{ name: one, type: number, source: fan/list }]
      iterators: [one]
      loopBody:
        - function:
            name: double
            type: Double
            dataIns: [{ name: in, type: number, source: each/one }]
            dataOuts: [{ name: out, type: number }]
      dataOuts: [{ name: all, type: collection, source: double/out }]
dataOuts: [{ name: all, type: collection, source: each/all }]
"#;

pub(super) const BRANCH: &str = r#"
name: choose
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - if:
      name: big
      dataIns: [{ name: n, type: number, source: choose/n }]
      condition:
        - { data1: big/n, data2: "10", type: number, operator: ">", negation: false, combinedWith: and }
      then:
        - function:
            name: double
            type: Double
            dataIns: [{ name: in, type: number, source: big/n }]
            dataOuts: [{ name: out, type: number }]
      else:
        - function:
            name: increment
            type: Increment
            dataIns: [{ name: in, type: number, source: big/n }]
            dataOuts: [{ name: out, type: number }]
      dataOuts: [{ name: out, type: number, source: "double/out,increment/out" }]
dataOuts: [{ name: out, type: number, source: big/out }]
"#;

fn output(document: &str, input: Value) -> Value {
    match drive(document, input, &Driver::default()).outcome {
        Outcome::Succeeded(output) => Value::Object(output),
        other => panic!("{other:?}"),
    }
}

fn failure(document: &str, input: Value) -> String {
    match drive(document, input, &Driver::default()).outcome {
        Outcome::Failed(error) => format!("{}: {}", error.cause.code, error.cause.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_while_runs_at_least_once_and_hands_values_on() {
    assert_eq!(output(WHILE, json!({"first": 1})), json!({"total": 32, "rounds": 5}));
    let once = WHILE.replace("data2: \"5\"", "data2: \"1\"");
    assert_eq!(output(&once, json!({"first": 1})), json!({"total": 2, "rounds": 1}));
}

#[test]
fn a_while_without_an_end_ends_at_its_limit() {
    let endless = WHILE.replace("\"<\"", "\">\"").replace("data2: \"5\"", "data2: \"0\"");
    let limits = Limits { loop_iterations: 50, ..Limits::default() };
    let driven = drive(&endless, json!({"first": 0}), &Driver { limits, ..Driver::default() });
    let Outcome::Failed(error) = driven.outcome else { panic!("{:?}", driven.outcome) };
    assert_eq!(error.cause.code, "limit_reached");
    assert!(driven.most_values < 10, "what an iteration made is dropped: {}", driven.most_values);
}

#[test]
fn a_parallel_for_keeps_the_order_of_its_elements() {
    let list: Vec<i64> = (0..100).collect();
    let doubled: Vec<i64> = list.iter().map(|n| n * 2).collect();
    for seed in 0..5 {
        let driven = drive(FAN, json!({"list": list}), &Driver { seed, ..Driver::default() });
        assert_eq!(driven.outcome, Outcome::Succeeded(object(json!({"all": doubled}))));
    }
    assert_eq!(output(FAN, json!({"list": []})), json!({"all": []}), "none is no fault");
}

#[test]
fn a_large_parallel_for_holds_a_few_iterations_at_a_time() {
    let list: Vec<i64> = (0..20_000).collect();
    let limits = Limits { live_iterations: 16, ..Limits::default() };
    let driven = drive(FAN, json!({"list": list}), &Driver { limits, ..Driver::default() });
    assert!(matches!(driven.outcome, Outcome::Succeeded(_)));
    assert!(driven.most_values <= 16, "{} values at a time", driven.most_values);
}

#[test]
fn what_is_no_collection_or_too_long_is_an_error() {
    assert!(failure(FAN, json!({"list": 5})).contains("no array to iterate over"));
    let limits = Limits { elements: 3, ..Limits::default() };
    let driven = drive(FAN, json!({"list": [1, 2, 3, 4]}), &Driver { limits, ..Driver::default() });
    assert!(matches!(driven.outcome, Outcome::Failed(error) if error.cause.code == "limit_reached"));
}

#[test]
fn only_the_branch_that_is_taken_runs() {
    let driven = drive(BRANCH, json!({"n": 20}), &Driver::default());
    assert_eq!(driven.outcome, Outcome::Succeeded(object(json!({"out": 40}))));
    assert_eq!(driven.inputs, vec![("double".to_owned(), object(json!({"in": 20})))]);
    assert_eq!(output(BRANCH, json!({"n": 3})), json!({"out": 4}));
}

#[test]
fn a_missing_input_is_told_by_name() {
    assert_eq!(failure(BRANCH, json!({})), "invalid_input: the input has no \"n\"");
}

#[test]
fn a_trace_has_every_token_in_order() {
    let plan = plan(BRANCH);
    let driven = drive_plan(&plan, json!({"n": 20}), &Driver::default());
    let mut core = Core::new(Arc::clone(&plan), Limits::default(), object(json!({"n": 20})));
    core.keep_trace();
    for entry in &driven.journal {
        core.apply(entry);
    }
    let tokens: Vec<String> = core.take_trace().iter().map(|token| format!("{} {}", token.step, token.node)).collect();
    let place = |text: &str| {
        let found = tokens.iter().position(|token| token == text);
        found.unwrap_or_else(|| panic!("no {text} in {tokens:#?}"))
    };
    assert!(place("S double") < place("E double"));
    assert!(place("E double") < place("X double"));
    assert!(place("X double") < place("T double/out"));
    assert_eq!(tokens.last().map(String::as_str), Some("Q choose"));
    assert!(!tokens.iter().any(|token| token.ends_with(" increment")), "the other branch has no token: {tokens:#?}");
}
