//! Every construct stands in every other, and gives what it should.

use std::fmt::Write as _;

use lyra_afcl::Graph;
use lyra_afcl::graph::Cut;
use serde_json::json;

use crate::golden::{lines, snapshots};
use crate::interpreter::Interpreter;
use crate::shapes::{Shape, document, expected};

fn graph(nesting: &[Shape]) -> Graph {
    let text = document(nesting);
    let compiled = lyra_afcl::compile(&text).unwrap_or_else(|errors| panic!("{nesting:?}:\n{errors}\n{text}"));
    compiled.graph.validate().unwrap_or_else(|error| panic!("{nesting:?}: {error}\n{}", lines(&compiled.graph)));
    compiled.graph
}

fn all_of_depth(depth: usize) -> Vec<Vec<Shape>> {
    let mut all = vec![Vec::new()];
    for _ in 0..depth {
        let longer = |nesting: &Vec<Shape>| Shape::ALL.map(|shape| [&nesting[..], &[shape]].concat());
        all = all.iter().flat_map(longer).collect();
    }
    all
}

#[test]
fn each_pair_of_constructs_gives_its_graph() {
    for outer in Shape::ALL {
        let mut text = String::new();
        for inner in Shape::ALL {
            writeln!(text, "# {outer:?} around {inner:?}\n{}", lines(&graph(&[outer, inner]))).unwrap();
        }
        snapshots().bind(|| insta::assert_snapshot!(format!("nesting-{outer:?}").to_lowercase(), text));
    }
}

#[test]
fn constructs_nested_three_deep_compute_what_they_say() {
    for nesting in all_of_depth(3) {
        let graph = graph(&nesting);
        for x in [-2, 0, 1, 2] {
            let mut run = Interpreter::new(&graph, json!({"x": x}));
            assert_eq!(run.run(), json!({"y": expected(&nesting, x)}), "{nesting:?} of {x}\n{}", lines(&graph));
            for (function, _, input) in &run.calls {
                let keys: Vec<&String> = input.as_object().unwrap().keys().collect();
                assert_eq!(keys.len(), 1, "{function} gets exactly what it declares, not {keys:?}");
            }
        }
    }
}

#[test]
fn a_graph_stays_itself_as_json() {
    for nesting in all_of_depth(2) {
        let graph = graph(&nesting);
        let text = serde_json::to_string(&graph).unwrap();
        assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), graph);
    }
}

#[test]
fn each_function_or_compound_can_be_cut_out_and_the_result_stays_the_same() {
    for nesting in all_of_depth(3) {
        let whole = graph(&nesting);
        let functions = whole.tasks.iter().filter(|task| task.kind.is_function()).map(|task| task.name.clone());
        let mut members: Vec<String> =
            functions.chain(whole.scopes.iter().skip(1).map(|scope| scope.name.clone())).collect();
        members.dedup();
        for member in members {
            let cut = Cut { name: "edge".to_owned(), members: vec![member.clone()], url: None };
            let (parent, sub) = lyra_afcl::graph::cut(&whole, &cut).unwrap();
            for (part, name) in [(&parent, "parent"), (&sub, "sub")] {
                part.validate().unwrap_or_else(|error| {
                    panic!("{name} of {nesting:?} without {member}: {error}\n{}\n{}", lines(&whole), lines(part))
                });
            }
            for x in [-2, 1, 2] {
                let mut run = Interpreter::new(&parent, json!({"x": x})).with_cut("edge", sub.clone());
                assert_eq!(run.run(), json!({"y": expected(&nesting, x)}), "{nesting:?} without {member} of {x}");
            }
        }
    }
}
