//! Documents that mean harm end in a clear error, or compile; never in a stack that overflows, or in memory that fills.

use lyra_afcl::{compile, limits};
use proptest::prelude::*;

use crate::golden::documents;

fn refusal(text: &str) -> String {
    let refused = compile(text).expect_err("must be refused");
    let first = &refused.errors[0];
    format!("{}: {}", first.code.as_str(), first.message)
}

fn functions(count: usize) -> String {
    let mut text = "name: wf\nworkflowBody:\n".to_owned();
    for index in 0..count {
        text.push_str(&format!("- function: {{name: f{index}, type: F}}\n"));
    }
    text
}

#[test]
fn a_document_beyond_the_limits_on_size_is_refused() {
    let long = format!("name: wf\ndescription: {}\n", "x".repeat(limits::MAX_DOCUMENT_BYTES));
    assert!(refusal(&long).starts_with("too_large: the document has"));
    let many = format!("name: wf\nworkflowBody: [{}]", "{},".repeat(limits::MAX_VALUES));
    assert!(refusal(&many).contains("more than 1000000 values"));
    assert!(refusal(&functions(limits::MAX_TASKS + 1)).contains("more than 100000 tasks"));
    assert_eq!(compile(&functions(1000)).unwrap().graph.tasks.len(), 1000);
}

#[test]
fn aliases_unfold_within_limits() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{},", level - 1).repeat(10);
        laughs.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    assert!(refusal(&laughs).starts_with("too_large"), "{}", refusal(&laughs));
    let long = format!("a: &a \"{}\\n\"\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(1000));
    assert!(refusal(&long).contains("unfold to more than 10 MiB"));
    assert!(refusal("a: &a [*a]").starts_with("syntax"));
    assert!(refusal("a: *b").starts_with("syntax"));
    let shared = "name: wf\ndataIns: [{name: x, type: number, source: x}]\nworkflowBody:\n\
                  - function: {name: f, type: F, dataIns: &ins [{name: a, type: number, source: wf/x}]}\n\
                  - function: {name: g, type: F, dataIns: *ins}\n";
    assert_eq!(compile(shared).unwrap().graph.tasks[1].inputs.len(), 1);
}

fn nested(depth: usize) -> String {
    let mut text = "{\"function\": {\"name\": \"f\", \"type\": \"F\"}}".to_owned();
    for level in 0..depth {
        text = format!("{{\"parallelFor\": {{\"name\": \"p{level}\", \"iterators\": [2], \"loopBody\": [{text}]}}}}");
    }
    format!("{{\"name\": \"wf\", \"workflowBody\": [{text}]}}")
}

#[test]
fn nesting_has_a_limit() {
    let deepest = limits::MAX_NESTING - 1;
    let compiled = compile(&nested(deepest)).unwrap();
    compiled.graph.validate().unwrap();
    assert!(refusal(&nested(deepest + 1)).contains("nested deeper than 64"));
    assert!(refusal(&"[".repeat(100_000)).starts_with("syntax"));
    assert!(refusal(&"- ".repeat(100_000)).starts_with("syntax"));
    assert!(refusal(&"{a: ".repeat(100_000)).starts_with("syntax"));
    let deep = format!("a: &a {}{}\nb: {}*a{}", "[".repeat(200), "]".repeat(200), "[".repeat(200), "]".repeat(200));
    assert!(refusal(&deep).contains("nested deeper than 256 levels"));
}

#[test]
fn sub_choreographies_that_unfold_without_end_are_refused() {
    let mut text = "name: wf\nworkflowBody: [{function: {name: f, type: S0}}]\nsubFCs:\n".to_owned();
    for level in 0..40 {
        let call = |name| format!("{{function: {{name: {name}, type: S{}}}}}", level + 1);
        text.push_str(&format!("- {{name: S{level}, subFCBody: [{}, {}]}}\n", call("a"), call("b")));
    }
    assert!(refusal(&text).contains("more than 100000 tasks") || refusal(&text).contains("nested deeper"));
    let circle = "name: wf\nworkflowBody: [{function: {name: f, type: A}}]\nsubFCs:\n\
                  - {name: A, subFCBody: [{function: {name: f, type: B}}]}\n\
                  - {name: B, subFCBody: [{function: {name: f, type: A}}]}\n";
    assert!(refusal(circle).starts_with("recursion"));
}

#[test]
fn long_chains_of_names_need_no_stack() {
    let mut text = "name: wf\ndataIns: [{name: x, type: number, source: x}]\nworkflowBody:\n".to_owned();
    for index in 0..30_000 {
        let source = if index == 29_999 { "wf/x".to_owned() } else { format!("f{}/a", index + 1) };
        text.push_str(&format!("- function: {{name: f{index}, type: F, dataIns: [{{name: a, type: number, passing: true, source: {source}}}]}}\n"));
    }
    text.push_str("dataOuts: [{name: y, type: number, source: f0/a}]\n");
    assert_eq!(compile(&text).unwrap().graph.outputs[0].data.0, 0);
    let circle =
        text.replace("source: wf/x", "source: f0/a").replace("dataIns: [{name: x, type: number, source: x}]\n", "");
    assert!(refusal(&circle).starts_with("cycle"));
    let mut waits = "name: wf\nworkflowBody:\n".to_owned();
    for index in 0..30_000 {
        let source = format!("f{}/b", (index + 1) % 30_000);
        waits.push_str(&format!("- function: {{name: f{index}, type: F, dataIns: [{{name: a, type: number, source: {source}}}], dataOuts: [{{name: b, type: number}}]}}\n"));
    }
    assert!(refusal(&waits).starts_with("cycle"));
}

#[test]
fn many_errors_are_counted_and_not_explained() {
    let mut text = "name: wf\nworkflowBody:\n".to_owned();
    for index in 0..20_000 {
        text.push_str(&format!(
            "- function: {{name: f{index}, type: F, dataIns: [{{name: a, type: number, source: g{index}/b}}]}}\n"
        ));
    }
    let found = compile(&text).unwrap_err();
    assert_eq!((found.errors.len(), found.more), (limits::MAX_FINDINGS, 20_000 - limits::MAX_FINDINGS));
    assert!(found.errors[7].message.contains("did you mean `f7/b`?"), "{}", found.errors[7]);
}

#[test]
fn wide_orders_are_limited() {
    let section = |prefix: &str| -> String {
        let functions = (0..2000).map(|index| format!("{{function: {{name: {prefix}{index}, type: F}}}}"));
        functions.collect::<Vec<_>>().join(",")
    };
    let text = format!(
        "name: wf\nworkflowBody: [{{sequence: {{name: s, sequenceBody: [\
         {{parallel: {{name: p, parallelBody: [{{section: [{}]}}]}}}},\
         {{parallel: {{name: q, parallelBody: [{{section: [{}]}}]}}}}]}}}}]\n",
        section("a"),
        section("b")
    );
    assert!(refusal(&text).contains("orders between two tasks"));
}

#[test]
fn wide_lists_of_ports_are_looked_up_and_not_searched() {
    let ports = |kind: &str| -> String {
        let ports = (0..60_000).map(|index| match kind {
            "in" => format!("{{name: p{index}, type: number, value: 1}}"),
            _ => format!("{{name: p{index}, type: number, source: w/p{index}}}"),
        });
        ports.collect::<Vec<_>>().join(",")
    };
    let text = format!(
        "name: wf\nworkflowBody: [{{while: {{name: w, dataIns: [{}], dataOuts: [{}], \
         condition: [{{data1: w/counter, data2: '1', type: number, operator: <}}], loopBody: [{{function: {{name: f, type: F}}}}]}}}}]\n",
        ports("in"),
        ports("out")
    );
    assert!(text.len() < limits::MAX_DOCUMENT_BYTES);
    compile(&text).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_refused_or_compiles(text in "\\PC{0,200}") {
        let _ = compile(&text);
    }

    #[test]
    fn a_document_with_faults_is_refused_or_gives_a_graph_that_keeps_its_rules(
        which in any::<prop::sample::Index>(),
        faults in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_u8..4), 1..6),
    ) {
        let documents = documents();
        let mut words: Vec<String> =
            which.get(&documents).1.split_inclusive(&[' ', '\n', ':', ',', '/', '"']).map(str::to_owned).collect();
        for (one, other, fault) in faults {
            let (one, other) = (one.index(words.len()), other.index(words.len()));
            match fault {
                0 => words.swap(one, other),
                1 => words[one] = words[other].clone(),
                2 => words[one].clear(),
                _ => words[one] = format!("{}{}", words[one], words[other]),
            }
        }
        if let Ok(compiled) = compile(&words.concat()) {
            prop_assert!(compiled.graph.validate().is_ok(), "{:?}\n{}", compiled.graph.validate(), words.concat());
        }
    }
}
