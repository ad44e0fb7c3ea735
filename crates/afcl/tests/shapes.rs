//! Documents in which each construct takes a number and gives a number, so that any can stand in any other; and what
//! they give.

use serde_json::{Value, json};

/// A construct, and what the next one stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    Function,
    Then,
    Else,
    While,
    ParallelFor,
    Times,
    Sequence,
    Parallel,
    Switch,
    For,
    Range,
    Call,
}

impl Shape {
    pub const ALL: [Shape; 12] = [
        Shape::Function,
        Shape::Then,
        Shape::Else,
        Shape::While,
        Shape::ParallelFor,
        Shape::Times,
        Shape::Sequence,
        Shape::Parallel,
        Shape::Switch,
        Shape::For,
        Shape::Range,
        Shape::Call,
    ];
}

/// What stands in what, outermost first; a function is innermost.
#[derive(Default)]
pub struct Builder {
    next: usize,
    sub: Vec<Value>,
}

/// The document of a nesting, as JSON.
pub fn document(nesting: &[Shape]) -> String {
    let mut builder = Builder::default();
    let (body, out) = builder.build(nesting, "wf/x");
    let mut document = json!({
        "name": "wf",
        "dataIns": [{"name": "x", "type": "number", "source": "x"}],
        "workflowBody": body,
        "dataOuts": [{"name": "y", "type": "number", "source": out}],
    });
    if !builder.sub.is_empty() {
        document["subFCs"] = json!(builder.sub);
    }
    serde_json::to_string_pretty(&document).unwrap()
}

/// What the document gives for `x`.
pub fn expected(nesting: &[Shape], x: i64) -> i64 {
    let Some((shape, rest)) = nesting.split_first() else { return x + 1 };
    let inner = |x: i64| expected(rest, x);
    match shape {
        Shape::Function => inner(x + 1),
        Shape::Then => {
            if x > 0 {
                inner(x)
            } else {
                x
            }
        }
        Shape::Else => {
            if x < 0 {
                x + 1
            } else {
                inner(x)
            }
        }
        Shape::While => inner(inner(inner(x))),
        Shape::ParallelFor => inner(x) + inner(x + 1) + inner(x + 2),
        Shape::Times => 2 * inner(x),
        Shape::Sequence => inner(x + 1),
        Shape::Parallel => inner(x) + x + 1,
        Shape::Switch => {
            if x == 1 {
                x + 1
            } else {
                inner(x)
            }
        }
        Shape::For => inner(inner(x)),
        Shape::Range => inner(3) + inner(5),
        Shape::Call => inner(x),
    }
}

fn function(name: &str, function_type: &str, input: (&str, &str, &str), output: (&str, &str)) -> Value {
    json!({"function": {
        "name": name,
        "type": function_type,
        "dataIns": [{"name": input.0, "type": input.1, "source": input.2}],
        "dataOuts": [{"name": output.0, "type": output.1}],
    }})
}

fn inc(name: &str, source: &str) -> Value {
    function(name, "Inc", ("x", "number", source), ("y", "number"))
}

impl Builder {
    /// The constructs of a nesting that reads `source`, and the source of what they give.
    fn build(&mut self, nesting: &[Shape], source: &str) -> (Vec<Value>, String) {
        self.next += 1;
        let id = self.next;
        let Some((shape, rest)) = nesting.split_first() else {
            return (vec![inc(&format!("f{id}"), source)], format!("f{id}/y"));
        };
        let name = format!("c{id}");
        let helper = format!("h{id}");
        let data_in =
            |name: &str, data_type: &str, source: &str| json!([{"name": name, "type": data_type, "source": source}]);
        match shape {
            Shape::Function => {
                let (mut body, out) = self.build(rest, &format!("{helper}/y"));
                body.insert(0, inc(&helper, source));
                (body, out)
            }
            Shape::Then => {
                let (body, out) = self.build(rest, &format!("{name}/x"));
                let construct = json!({"if": {
                    "name": name,
                    "dataIns": data_in("x", "number", source),
                    "condition": [{"data1": format!("{name}/x"), "data2": "0", "type": "number", "operator": ">",
                        "negation": false, "combinedWith": "and"}],
                    "then": body,
                    "dataOuts": data_in("y", "number", &format!("{out},{source}")),
                }});
                (vec![construct], format!("{name}/y"))
            }
            Shape::Else => {
                let (body, out) = self.build(rest, source);
                let construct = json!({"if": {
                    "name": name,
                    "condition": [{"data1": source, "data2": "0", "type": "number", "operator": "<"}],
                    "then": [inc(&helper, source)],
                    "else": body,
                    "dataOuts": data_in("y", "number", &format!("{helper}/y,{out}")),
                }});
                (vec![construct], format!("{name}/y"))
            }
            Shape::While => {
                let (body, out) = self.build(rest, &format!("{name}/v"));
                let construct = json!({"while": {
                    "name": name,
                    "dataIns": data_in("v", "number", source),
                    "loopBody": body,
                    "condition": [{"data1": format!("{name}/counter"), "data2": "3", "type": "number", "operator": "<"}],
                    "dataOuts": data_in("v", "number", &out),
                }});
                (vec![construct], format!("{name}/v"))
            }
            Shape::ParallelFor => {
                let (body, out) = self.build(rest, &format!("{name}/e"));
                let list = function(&helper, "Range", ("x", "number", source), ("l", "collection"));
                let construct = json!({"parallelFor": {
                    "name": name,
                    "dataIns": data_in("e", "number", &format!("{helper}/l")),
                    "iterators": ["e"],
                    "loopBody": body,
                    "dataOuts": data_in("ys", "collection", &out),
                }});
                let sum =
                    function(&format!("s{id}"), "Sum", ("l", "collection", &format!("{name}/ys")), ("s", "number"));
                (vec![list, construct, sum], format!("s{id}/s"))
            }
            Shape::Times => {
                let (body, out) = self.build(rest, source);
                let construct = json!({"parallelFor": {
                    "name": name, "iterators": [2], "loopBody": body, "dataOuts": data_in("ys", "collection", &out),
                }});
                let sum =
                    function(&format!("s{id}"), "Sum", ("l", "collection", &format!("{name}/ys")), ("s", "number"));
                (vec![construct, sum], format!("s{id}/s"))
            }
            Shape::Sequence => {
                let (mut body, out) = self.build(rest, &format!("{helper}/y"));
                body.insert(0, inc(&helper, &format!("{name}/x")));
                let construct = json!({"sequence": {
                    "name": name,
                    "dataIns": data_in("x", "number", source),
                    "sequenceBody": body,
                    "dataOuts": data_in("y", "number", &out),
                }});
                (vec![construct], format!("{name}/y"))
            }
            Shape::Parallel => {
                let (body, out) = self.build(rest, &format!("{name}/x"));
                let construct = json!({"parallel": {
                    "name": name,
                    "dataIns": data_in("x", "number", source),
                    "parallelBody": [{"section": body}, {"section": [inc(&helper, &format!("{name}/x"))]}],
                    "dataOuts": [{"name": "both", "type": "collection", "source": format!("{out},{helper}/y"),
                        "constraints": [{"name": "aggregation", "value": "+"}]}],
                }});
                let sum =
                    function(&format!("s{id}"), "Sum", ("l", "collection", &format!("{name}/both")), ("s", "number"));
                (vec![construct, sum], format!("s{id}/s"))
            }
            Shape::Switch => {
                let (body, out) = self.build(rest, source);
                let construct = json!({"switch": {
                    "name": name,
                    "dataEval": {"name": "x", "type": "number", "source": source},
                    "cases": [{"value": 1, "break": true, "functions": [inc(&helper, source)]}],
                    "default": body,
                    "dataOuts": data_in("y", "number", &format!("{helper}/y,{out}")),
                }});
                (vec![construct], format!("{name}/y"))
            }
            Shape::For => {
                let (body, out) = self.build(rest, &format!("{name}/v"));
                let construct = json!({"for": {
                    "name": name,
                    "loopCounter": {"name": "i", "type": "number", "from": 0, "to": 2, "step": 1},
                    "dataLoops": [{"name": "v", "type": "number", "initSource": source, "loopSource": out}],
                    "loopBody": body,
                    "dataOuts": data_in("y", "number", &format!("{name}/v")),
                }});
                (vec![construct], format!("{name}/y"))
            }
            Shape::Range => {
                let (body, out) = self.build(rest, &format!("{name}/i"));
                // What goes in is only used up, so that there is no data that nobody reads.
                let echo = function(&helper, "Echo", ("x", "number", source), ("out", "object"));
                let construct = json!({"parallelFor": {
                    "name": name,
                    "loopCounter": {"name": "i", "from": "3", "to": "6", "step": "2"},
                    "loopBody": body,
                    "dataOuts": data_in("ys", "collection", &out),
                }});
                let sum =
                    function(&format!("s{id}"), "Sum", ("l", "collection", &format!("{name}/ys")), ("s", "number"));
                (vec![echo, construct, sum], format!("s{id}/s"))
            }
            Shape::Call => {
                let sub = format!("Sub{id}");
                let (body, out) = self.build(rest, &format!("{sub}/x"));
                self.sub.push(json!({
                    "name": sub,
                    "dataIns": [{"name": "x", "type": "number"}],
                    "subFCBody": body,
                    "dataOuts": data_in("y", "number", &out),
                }));
                (vec![function(&name, &sub, ("x", "number", source), ("y", "number"))], format!("{name}/y"))
            }
        }
    }
}
