//! A workflow gives the same graph whether it is written in AFCL 1.0 or in 1.1.

use lyra_afcl::{Graph, compile};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::golden::lines;

/// What can be said in both dialects: from one number to one number.
#[derive(Debug, Clone)]
enum Tree {
    Function,
    /// One after the other.
    Chain(Vec<Tree>),
    /// Side by side; the first one's number goes on.
    Beside(Vec<Tree>),
    If(Box<Tree>),
    While(Box<Tree>),
    Each(Box<Tree>),
}

fn tree() -> impl Strategy<Value = Tree> {
    Just(Tree::Function).prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Tree::Chain),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Tree::Beside),
            inner.clone().prop_map(|tree| Tree::If(Box::new(tree))),
            inner.clone().prop_map(|tree| Tree::While(Box::new(tree))),
            inner.prop_map(|tree| Tree::Each(Box::new(tree))),
        ]
    })
}

struct Writer {
    one_zero: bool,
    next: usize,
}

impl Writer {
    fn write(&mut self, tree: &Tree, source: &str) -> (Vec<Value>, String) {
        self.next += 1;
        let id = self.next;
        let name = format!("c{id}");
        let port =
            |name: &str, data_type: &str, source: &str| json!([{"name": name, "type": data_type, "source": source}]);
        match tree {
            Tree::Function => {
                let constant = if self.one_zero {
                    json!({"name": "b", "type": "number", "value": 5})
                } else {
                    json!({"name": "b", "type": "number", "source": "5"})
                };
                let function = json!({"function": {"name": name, "type": "F",
                    "dataIns": [{"name": "a", "type": "number", "source": source}, constant],
                    "dataOuts": [{"name": "y", "type": "number"}]}});
                (vec![function], format!("{name}/y"))
            }
            Tree::Chain(steps) => {
                let mut body = Vec::new();
                let mut out = source.to_owned();
                // Of functions only, so that the order follows from data alone.
                for step in vec![Tree::Function; steps.len()].iter() {
                    let (constructs, next) = self.write(step, &out);
                    body.extend(constructs);
                    out = next;
                }
                if !self.one_zero {
                    return (body, out);
                }
                let sequence =
                    json!({"sequence": {"name": name, "sequenceBody": body, "dataOuts": port("y", "number", &out)}});
                (vec![sequence], format!("{name}/y"))
            }
            Tree::Beside(parts) => {
                let written: Vec<(Vec<Value>, String)> = parts.iter().map(|part| self.write(part, source)).collect();
                let out = written[0].1.clone();
                if !self.one_zero {
                    return (written.into_iter().flat_map(|(body, _)| body).collect(), out);
                }
                let sections: Vec<Value> = written.into_iter().map(|(body, _)| json!({"section": body})).collect();
                let parallel = json!({"parallel": {"name": name, "parallelBody": sections, "dataOuts": port("y", "number", &out)}});
                (vec![parallel], format!("{name}/y"))
            }
            Tree::If(inner) => {
                let (body, out) = self.write(inner, &format!("{name}/x"));
                let comparison =
                    |operator: &str| json!({"data1": format!("{name}/x"), "data2": "3", "operator": operator});
                let condition = match self.one_zero {
                    true => json!({"combinedWith": "or", "conditions": [comparison("<"), comparison("==")]}),
                    false => {
                        let mut terms = [comparison("<"), comparison("==")];
                        for term in &mut terms {
                            term["type"] = json!("number");
                            term["combinedWith"] = json!("or");
                        }
                        json!(terms)
                    }
                };
                let construct = json!({"if": {"name": name, "dataIns": port("x", "number", source), "condition": condition,
                    "then": body, "dataOuts": port("y", "number", &format!("{out},{source}"))}});
                (vec![construct], format!("{name}/y"))
            }
            Tree::While(inner) => {
                let (body, out) = self.write(inner, &format!("{name}/v"));
                let condition =
                    json!([{"data1": format!("{name}/counter"), "data2": "3", "type": "number", "operator": "<"}]);
                let construct = match self.one_zero {
                    true => json!({"while": {"name": name, "loopBody": body, "condition": condition,
                        "dataLoops": [{"name": "v", "type": "number", "initSource": source, "loopSource": out}],
                        "dataOuts": port("v", "number", &format!("{name}/v"))}}),
                    false => json!({"while": {"name": name, "loopBody": body, "condition": condition,
                        "dataIns": port("v", "number", source), "dataOuts": port("v", "number", &out)}}),
                };
                (vec![construct], format!("{name}/v"))
            }
            Tree::Each(inner) => {
                let (body, out) = self.write(inner, &format!("{name}/e"));
                let mut construct = json!({"name": name, "dataIns": port("e", "number", "wf/c"), "loopBody": body,
                    "dataOuts": port("ys", "collection", &out)});
                match self.one_zero {
                    true => {
                        construct["dataIns"][0]["constraints"] = json!([{"name": "distribution", "value": "BLOCK(1)"}])
                    }
                    false => construct["iterators"] = json!(["e"]),
                }
                let take = json!({"function": {"name": format!("t{id}"), "type": "F",
                    "dataIns": [{"name": "a", "type": "number", "source": format!("{name}/ys"),
                        "constraints": [{"name": "element-index", "value": "0"}]},
                        {"name": "b", "type": "number", "source": source}],
                    "dataOuts": [{"name": "y", "type": "number"}]}});
                (vec![json!({"parallelFor": construct}), take], format!("t{id}/y"))
            }
        }
    }
}

fn document(tree: &Tree, one_zero: bool) -> String {
    let mut writer = Writer { one_zero, next: 0 };
    let (mut body, out) = writer.write(tree, "wf/x");
    let use_all = json!({"function": {"name": "use", "type": "F", "dataIns": [
        {"name": "x", "type": "number", "source": "wf/x"}, {"name": "c", "type": "collection", "source": "wf/c"}]}});
    body.push(use_all);
    json!({
        "name": "wf",
        "dataIns": [{"name": "x", "type": "number", "source": "x"}, {"name": "c", "type": "collection", "source": "c"}],
        "workflowBody": body,
        "dataOuts": [{"name": "y", "type": "number", "source": out}],
    })
    .to_string()
}

/// A multiplexer is named for its sources, which 1.0 writes in another way.
fn named_alike(mut graph: Graph) -> Graph {
    for (index, task) in graph.tasks.iter_mut().enumerate() {
        if task.name.contains("|or|") {
            task.name = format!("multiplexer {index}");
        }
    }
    graph
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_dialects_give_one_graph(tree in tree()) {
        let compiled = |one_zero| {
            let text = document(&tree, one_zero);
            compile(&text).unwrap_or_else(|errors| panic!("{errors}\n{text}")).graph
        };
        let (old, new) = (compiled(true), compiled(false));
        prop_assert_eq!(lines(&named_alike(old)), lines(&named_alike(new)));
    }
}
