//! Every compound inside every other: the full matrix, which the original does not have.

use super::*;

/// A compound named `name`, with a number `in` and a number `out` as seen from outside, around `body`.
fn wrap(kind: &str, name: &str, source: &str, body: &str, made: &str) -> String {
    let indent =
        |text: &str, by: usize| text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect::<String>();
    match kind {
        "function" => format!(
            "- function:\n    name: {name}\n    type: Increment\n    dataIns: [{{ name: in, type: number, source: {source} }}]\n    dataOuts: [{{ name: out, type: number }}]\n"
        ),
        "if" => format!(
            "- if:\n    name: {name}\n    dataIns: [{{ name: n, type: number, source: {source} }}]\n    condition:\n      - {{ data1: {name}/n, data2: \"1000\", type: number, operator: \"<\", negation: false, combinedWith: and }}\n    then:\n{}    else:\n      - function:\n          name: {name} other\n          type: Double\n          dataIns: [{{ name: in, type: number, source: {name}/n }}]\n          dataOuts: [{{ name: out, type: number }}]\n    dataOuts: [{{ name: out, type: number, source: \"{made},{name} other/out\" }}]\n",
            indent(body, 6)
        ),
        "while" => format!(
            "- while:\n    name: {name}\n    dataIns: [{{ name: out, type: number, source: {source} }}]\n    loopBody:\n{}    condition:\n      - {{ data1: {name}/counter, data2: \"3\", type: number, operator: \"<\", negation: false, combinedWith: and }}\n    dataOuts: [{{ name: out, type: number, source: {made} }}]\n",
            indent(body, 6)
        ),
        // Three iterations over a count; the second value is taken.
        "parallelFor" => format!(
            "- parallelFor:\n    name: {name}\n    dataIns: [{{ name: n, type: number, source: {source} }}]\n    iterators: [3]\n    loopBody:\n{}    dataOuts: [{{ name: all, type: collection, source: {made} }}]\n- function:\n    name: {name} pick\n    type: Echo\n    dataIns: [{{ name: out, type: number, source: {name}/all, constraints: [{{ name: element-index, value: \"1\" }}] }}]\n    dataOuts: [{{ name: out, type: number }}]\n",
            indent(body, 6)
        ),
        other => panic!("no compound {other}"),
    }
}

/// Where the body of a compound reads its number.
fn inner_source(kind: &str, name: &str) -> String {
    match kind {
        "while" => format!("{name}/out"),
        _ => format!("{name}/n"),
    }
}

fn made(kind: &str, name: &str) -> String {
    if kind == "parallelFor" { format!("{name} pick/out") } else { format!("{name}/out") }
}

fn document(kinds: &[&str]) -> String {
    let names: Vec<String> = (0..kinds.len()).map(|n| format!("c{n}")).collect();
    let mut body = String::new();
    for at in (0..kinds.len()).rev() {
        let source = if at == 0 { "w/n".to_owned() } else { inner_source(kinds[at - 1], &names[at - 1]) };
        let inner = kinds.get(at + 1).map_or_else(String::new, |kind| made(kind, &names[at + 1]));
        body = wrap(kinds[at], &names[at], &source, &body, &inner);
    }
    format!(
        "name: w\ndataIns: [{{ name: n, type: number, source: n }}]\nworkflowBody:\n{body}dataOuts: [{{ name: out, type: number, source: {} }}]\n",
        made(kinds[0], &names[0])
    )
}

/// What the document computes, by hand: each function adds one.
fn expected(kinds: &[&str], n: i64) -> i64 {
    let Some((kind, rest)) = kinds.split_first() else { return n };
    match *kind {
        "function" => n + 1,
        "while" => (0..3).fold(n, |n, _| expected(rest, n)),
        _ => expected(rest, n),
    }
}

#[test]
fn each_compound_works_inside_of_each_other_three_deep() {
    let compounds = ["if", "while", "parallelFor"];
    for a in compounds {
        for b in compounds {
            for c in compounds {
                let kinds = [a, b, c, "function"];
                let document = document(&kinds);
                let driver = Driver { seed: 7, crashes: 10, failures: 10, ..Driver::default() };
                let driven = drive(&document, json!({"n": 5}), &driver);
                let expected = Outcome::Succeeded(object(json!({"out": expected(&kinds, 5)})));
                assert_eq!(driven.outcome, expected, "{a} around {b} around {c}:\n{document}");
                for (task, input) in &driven.inputs {
                    let names: Vec<&str> = input.keys().map(String::as_str).collect();
                    let declared = if task.contains("pick") { ["out"] } else { ["in"] };
                    assert_eq!(names, declared, "{task} gets what it declares and nothing else");
                }
            }
        }
    }
}
