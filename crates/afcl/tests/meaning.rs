//! What constructs mean where a nesting of them does not show it.

use serde_json::{Value, json};

use crate::interpreter::Interpreter;

fn run(text: &str, input: Value) -> Value {
    let compiled = lyra_afcl::compile(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    compiled.graph.validate().unwrap();
    Interpreter::new(&compiled.graph, input).run()
}

#[test]
fn a_for_counts_and_gives_what_its_last_iteration_made() {
    let text = "name: wf
dataIns: [{name: n, type: number, source: n}]
workflowBody:
- for:
    name: f
    loopCounter: {name: i, from: 0, to: wf/n, step: 2}
    dataLoops: [{name: v, type: number, value: 10, loopSource: inc/y}]
    loopBody:
    - function: {name: inc, type: Inc, dataIns: [{name: x, type: number, source: f/v}], dataOuts: [{name: y, type: number}]}
    - function: {name: see, type: Inc, dataIns: [{name: x, type: number, source: f/i}], dataOuts: [{name: y, type: number}]}
    dataOuts:
    - {name: v, type: number, source: f/v}
    - {name: i, type: number, source: f/i}
    - {name: seen, type: number, source: see/y}
dataOuts:
- {name: v, type: number, source: f/v}
- {name: i, type: number, source: f/i}
- {name: seen, type: number, source: f/seen}
";
    assert_eq!(run(text, json!({"n": 5})), json!({"v": 13, "i": 4, "seen": 5}));
    assert_eq!(run(text, json!({"n": 1})), json!({"v": 11, "i": 0, "seen": 1}));
    assert_eq!(run(text, json!({"n": 0})), json!({"v": 10, "i": null, "seen": null}));
    let down = text.replace("from: 0, to: wf/n, step: 2", "from: wf/n, to: 0, step: -1");
    assert_eq!(run(&down, json!({"n": 3})), json!({"v": 13, "i": 1, "seen": 2}));
    let by_data = text.replace("from: 0, to: wf/n, step: 2", "from: 0, to: 4, step: wf/n");
    assert_eq!(run(&by_data, json!({"n": 3})), json!({"v": 12, "i": 3, "seen": 4}));
    assert_eq!(run(&by_data, json!({"n": 0})), json!({"v": 10, "i": null, "seen": null}));
}

#[test]
fn a_switch_runs_on_until_something_breaks_off() {
    let function = |name: &str, plus: i64| {
        format!(
            "[{{function: {{name: {name}, type: Echo, dataIns: [{{name: x, type: number, value: {plus}}}], dataOuts: [{{name: out, type: object}}]}}}}]"
        )
    };
    let text = format!(
        "name: wf
dataIns: [{{name: n, type: number, source: n}}]
workflowBody:
- switch:
    name: s
    dataEval: {{type: number, source: wf/n}}
    cases:
    - {{value: 1, functions: {}}}
    - {{value: 2, break: true, functions: {}}}
    - {{value: 3, functions: {}}}
    default: {}
    dataOuts: [{{name: out, type: object, source: 'a/out,b/out,c/out,d/out'}}]
dataOuts: [{{name: out, type: object, source: s/out}}]
",
        function("a", 1),
        function("b", 2),
        function("c", 3),
        function("d", 4)
    );
    for (n, out) in [(1, 2), (2, 2), (3, 4), (9, 4)] {
        assert_eq!(run(&text, json!({"n": n})), json!({"out": {"x": out}}), "of {n}");
    }
}

#[test]
fn a_while_of_1_0_looks_at_what_the_iteration_made() {
    let text = |style: &str| {
        format!(
            "name: wf
dataIns: [{{name: n, type: number, source: n}}]
workflowBody:
- while:
    name: w
    {style}
    loopBody:
    - function: {{name: inc, type: Inc, dataIns: [{{name: x, type: number, source: w/v}}], dataOuts: [{{name: y, type: number}}]}}
    condition: [{{data1: w/v, data2: '5', type: number, operator: <, negation: false, combinedWith: and}}]
    dataOuts: [{{name: v, type: number, source: inc/y}}]
dataOuts: [{{name: v, type: number, source: w/v}}]
"
        )
    };
    let old = text("dataLoops: [{name: v, type: number, initSource: wf/n, loopSource: inc/y}]");
    let new = text("dataIns: [{name: v, type: number, source: wf/n}]");
    assert_eq!(run(&old, json!({"n": 0})), json!({"v": 5}));
    assert_eq!(run(&new, json!({"n": 0})), json!({"v": 6}));
    assert_eq!((run(&old, json!({"n": 7})), run(&new, json!({"n": 7}))), (json!({"v": 8}), json!({"v": 8})));
}

#[test]
fn conditions_fold_from_the_left_and_a_side_may_be_any_data() {
    let text = "name: wf
dataIns: [{name: a, type: number, source: a}, {name: t, type: string, source: t}, {name: none, type: object, source: none}]
workflowBody:
- if:
    name: i
    condition:
    - {data1: wf/a, data2: '1', type: number, operator: ==, negation: false, combinedWith: or}
    - {data1: wf/a, data2: '2', type: number, operator: ==, negation: false, combinedWith: and}
    - {data1: wf/t, data2: '\"x/y\"', type: string, operator: startsWith, negation: true, combinedWith: and}
    then: [{function: {name: f, type: Echo, dataIns: [{name: t, type: string, source: wf/t}], dataOuts: [{name: out, type: object}]}}]
    dataOuts: [{name: out, type: object, source: 'f/out,wf/none'}]
dataOuts: [{name: out, type: object, source: i/out}]
";
    let no = json!({"out": {"no": [1, 2]}});
    let of = |a: i64, t: &str| run(text, json!({"a": a, "t": t, "none": {"no": [1, 2]}}));
    // (a == 1 or a == 2) and not …, without precedence.
    assert_eq!(of(1, "x/yz"), no);
    assert_eq!(of(2, "z"), json!({"out": {"t": "z"}}));
    assert_eq!(of(1, "z"), json!({"out": {"t": "z"}}));
    assert_eq!(of(3, "z"), no);
}

#[test]
fn pieces_of_collections_are_as_the_reference_says() {
    let each = |constraints: &str| {
        format!(
            "name: wf
dataIns: [{{name: c, type: collection, source: c}}]
workflowBody:
- function: {{name: f, type: Echo, dataIns: [{{name: x, type: collection, source: wf/c, constraints: [{constraints}]}}], dataOuts: [{{name: out, type: object}}]}}
dataOuts: [{{name: out, type: object, source: f/out}}]
"
        )
    };
    let of = |constraints: &str| run(&each(constraints), json!({"c": [0, 1, 2, 3, 4]}))["out"]["x"].clone();
    assert_eq!(of("{name: element-index, value: '4,0:2,::3'}"), json!([4, 0, 1, 2, 0, 3]));
    assert_eq!(of("{name: block, value: '3,1'}"), json!([[0, 1, 2], [2, 3, 4]]));
    assert_eq!(of("{name: block, value: '2,0'}"), json!([[0, 1], [2, 3], [4]]));
    assert_eq!(of("{name: split, value: 2}"), json!([[0, 1, 2], [3, 4]]));
    assert_eq!(of("{name: replicate, value: 2}, {name: element-index, value: '0:3'}"), json!([0, 0, 1, 1]));
}

#[test]
fn no_element_gives_an_empty_collection() {
    let text = "name: wf
dataIns: [{name: c, type: collection, source: c}]
workflowBody:
- parallelFor:
    name: p
    dataIns: [{name: e, type: number, source: wf/c}]
    iterators: [e]
    loopBody: [{function: {name: inc, type: Inc, dataIns: [{name: x, type: number, source: p/e}], dataOuts: [{name: y, type: number}]}}]
    dataOuts: [{name: ys, type: collection, source: inc/y}]
dataOuts: [{name: ys, type: collection, source: p/ys}]
";
    assert_eq!(run(text, json!({"c": []})), json!({"ys": []}));
    assert_eq!(run(text, json!({"c": [3, 1, 2]})), json!({"ys": [4, 2, 3]}));
}
