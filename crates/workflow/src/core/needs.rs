//! Which data a run looks into itself, and which it only hands on.
//!
//! A condition compares values, a parallelFor counts elements, a constraint takes arrays apart: what leads to them must be
//! here. What goes from a function to functions, or to the run's output, through whatever branches and loops, may be left in
//! the blob store, with a reference in its place (`engine/values.rs`).

use lyra_afcl::Graph;
use lyra_afcl::graph::{CUT_TYPE, DataId, DataKind, Gather, Over, ScopeKind, TaskKind};

/// How far a value is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Depth {
    Not,
    /// Whether it is an array, and how long.
    Shape,
    /// All of it.
    All,
}

/// For each datum whether it must be here.
pub(super) fn looked_into(graph: &Graph) -> Vec<bool> {
    let mut depth = vec![Depth::Not; graph.data.len()];
    let mut open: Vec<(DataId, Depth)> = Vec::new();
    for task in &graph.tasks {
        let of = |index: usize| match &task.kind {
            TaskKind::Condition(_) | TaskKind::While(_) => Depth::All,
            TaskKind::Multiplexer if index == 0 => Depth::All,
            TaskKind::Distribution { over: Over::Elements, .. } => Depth::Shape,
            TaskKind::Distribution { .. } => Depth::All,
            TaskKind::CollectionOperation(_) if index == 0 => Depth::Shape,
            TaskKind::CollectionOperation(_) => Depth::All,
            TaskKind::Gather(Gather::Elements) => Depth::Shape,
            // Lyra's own types show their input to people; a result is kept under what the input is.
            TaskKind::Function { function_type, settings }
                if settings.memo.is_some()
                    || (function_type.starts_with("lyra:") && !function_type.starts_with(CUT_TYPE)) =>
            {
                Depth::All
            }
            TaskKind::Function { .. }
            | TaskKind::Multiplexer
            | TaskKind::Aggregation { .. }
            | TaskKind::Gather(Gather::Values) => Depth::Not,
        };
        open.extend(task.inputs.iter().enumerate().map(|(index, input)| (input.data, of(index))));
    }
    for data in &graph.data {
        if let DataKind::Counter { start, step } = &data.kind {
            open.extend(start.iter().chain(step).map(|data| (*data, Depth::All)));
        }
    }
    while let Some((data, wanted)) = open.pop() {
        let known = &mut depth[data.0 as usize];
        if wanted <= *known {
            continue;
        }
        *known = wanted;
        sources(graph, data, wanted, &mut open);
    }
    depth.into_iter().map(|depth| depth != Depth::Not).collect()
}

/// What has to be looked into where this datum is.
fn sources(graph: &Graph, data: DataId, wanted: Depth, open: &mut Vec<(DataId, Depth)>) {
    let datum = graph.datum(data);
    match &datum.kind {
        DataKind::Computed { task } => {
            let task = graph.task(*task);
            let inputs = task.inputs.iter().map(|input| input.data);
            match &task.kind {
                TaskKind::Multiplexer => open.extend(inputs.skip(1).map(|data| (data, wanted))),
                // They make an array, of whatever.
                TaskKind::Aggregation { .. } | TaskKind::Gather(_) if wanted == Depth::Shape => {}
                _ => open.extend(inputs.map(|data| (data, Depth::All))),
            }
        }
        DataKind::Element { iterator } => {
            if let ScopeKind::Iterations { distribution, .. } = graph.scope(datum.scope).kind {
                let source = graph.task(distribution).inputs.get(*iterator as usize);
                open.extend(source.map(|input| (input.data, Depth::All)));
            }
        }
        DataKind::Carried { initial, next } => open.extend([(*initial, wanted), (*next, wanted)]),
        DataKind::Final { of, .. } => open.push((*of, wanted)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(document: &str) -> Vec<String> {
        let graph = lyra_afcl::compile(document).unwrap_or_else(|found| panic!("{found:?}")).graph;
        let needed = looked_into(&graph);
        let named = graph
            .data
            .iter()
            .zip(needed)
            .filter(|(data, needed)| *needed && matches!(data.kind, DataKind::Output { .. }));
        named.map(|(data, _)| data.name.clone()).collect()
    }

    #[test]
    fn what_conditions_loops_and_constraints_read_is_looked_into_and_nothing_else() {
        let document = r#"
name: w
dataIns: [{ name: n, type: number, source: n }]
workflowBody:
  - function: { name: big, type: F, dataIns: [{ name: x, type: number, source: w/n }], dataOuts: [{ name: y, type: string }, { name: small, type: number }] }
  - function: { name: list, type: F, dataIns: [{ name: x, type: string, source: big/y }], dataOuts: [{ name: y, type: collection }] }
  - if:
      name: choose
      dataIns: [{ name: s, type: number, source: big/small }]
      condition: [{ data1: choose/s, data2: "3", type: number, operator: "<", negation: "false", combinedWith: and }]
      then:
        - function: { name: yes, type: F, dataIns: [{ name: x, type: string, source: big/y }], dataOuts: [{ name: y, type: string }] }
      else:
        - function: { name: no, type: F, dataIns: [{ name: x, type: string, source: big/y }], dataOuts: [{ name: y, type: string }] }
      dataOuts: [{ name: y, type: string, source: "yes/y,no/y" }]
  - parallelFor:
      name: each
      dataIns: [{ name: e, type: string, source: list/y }]
      iterators: [e]
      loopBody:
        - function: { name: inner, type: F, dataIns: [{ name: x, type: string, source: each/e }], dataOuts: [{ name: y, type: string }] }
      dataOuts: [{ name: ys, type: collection, source: inner/y }]
  - parallelFor:
      name: again
      dataIns: [{ name: e, type: string, source: each/ys }]
      iterators: [e]
      loopBody:
        - function: { name: last, type: F, dataIns: [{ name: x, type: string, source: again/e }], dataOuts: [{ name: y, type: string }] }
      dataOuts: [{ name: ys, type: collection, source: last/y }]
dataOuts:
  - { name: chosen, type: string, source: choose/y }
  - { name: ys, type: collection, source: again/ys }
"#;
        assert_eq!(needed(document), ["big/small", "list/y"]);
    }

    #[test]
    fn what_people_are_shown_is_here() {
        let document = r#"
name: w
workflowBody:
  - function: { name: big, type: F, dataOuts: [{ name: y, type: string }] }
  - function: { name: ask, type: "lyra:callback", dataIns: [{ name: x, type: string, source: big/y }], dataOuts: [{ name: ok, type: boolean }] }
dataOuts: [{ name: ok, type: boolean, source: ask/ok }]
"#;
        assert_eq!(needed(document), ["big/y"]);
    }
}
