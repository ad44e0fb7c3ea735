//! What crosses a cut, how cuts nest, and where to cut.

use std::collections::BTreeSet;

use lyra_afcl::graph::optimise::{Costs, EXACT_UNITS, local_cut};
use lyra_afcl::graph::{Cut, DataKind, ScopeId, TaskKind, cut};
use lyra_afcl::{Graph, compile};
use proptest::prelude::*;

use crate::golden::{documents, lines, snapshots};

fn document(name: &str) -> Graph {
    let documents = documents();
    let (_, text) = documents.iter().find(|(found, _)| found == name).unwrap();
    compile(text).unwrap().graph
}

#[test]
fn cuts_nest_and_only_their_data_cross() {
    let graph = document("cuts");
    let names = |graph: &Graph| graph.cuts.iter().map(|cut| cut.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&graph), ["edge", "iteration", "tail"]);
    assert_eq!(graph.cuts[2].members, ["b", "c"]);
    let (parent, sub) = cut(&graph, &graph.cuts[0]).unwrap();
    assert_eq!((names(&parent), names(&sub)), (vec!["tail".to_owned()], vec!["iteration".to_owned()]));
    let task = parent.tasks.iter().find(|task| task.name == "edge").unwrap();
    assert!(matches!(&task.kind, TaskKind::Function { function_type, .. } if function_type == "lyra:cut/edge"));
    let members =
        |members: &[lyra_afcl::graph::Member]| members.iter().map(|member| member.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (members(&task.inputs), members(&task.outputs)),
        (vec!["apart/x".to_owned()], vec!["each/ys".to_owned()])
    );
    let (inner_parent, iteration) = cut(&sub, &sub.cuts[0]).unwrap();
    assert_eq!(members(&iteration.outputs), ["after/y"]);
    let mut text = String::new();
    for (name, graph) in
        [("parent", &parent), ("edge", &sub), ("edge without iteration", &inner_parent), ("iteration", &iteration)]
    {
        graph.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
        text.push_str(&format!("# {name}\n{}\n", lines(graph)));
    }
    // The inner cut first: then the outer one has its task as a member.
    let (without_iteration, _) = cut(&graph, &graph.cuts[1]).unwrap();
    let (_, edge) = cut(&without_iteration, &without_iteration.cuts[0]).unwrap();
    assert!(edge.tasks.iter().any(|task| task.name == "iteration"));
    edge.validate().unwrap();
    snapshots().bind(|| insta::assert_snapshot!("cutting", text));
}

#[test]
fn orders_go_over_a_cut() {
    let graph = document("one-zero-sequence");
    let members = ["left", "right", "maybe", "again"].map(str::to_owned).to_vec();
    let (parent, sub) = cut(&graph, &Cut { name: "middle".to_owned(), members, url: None }).unwrap();
    parent.validate().unwrap();
    sub.validate().unwrap();
    let number = parent.tasks.iter().position(|task| task.name == "middle").unwrap();
    let name = |id: &lyra_afcl::graph::TaskId| parent.task(*id).name.as_str();
    assert_eq!(parent.tasks[number].after.iter().map(name).collect::<Vec<_>>(), ["reads first"]);
    let after: Vec<&str> = parent
        .tasks
        .iter()
        .filter(|task| task.after.iter().any(|id| id.0 as usize == number))
        .map(|task| task.name.as_str())
        .collect();
    assert_eq!(after, ["each--Distribution"]);
}

/// A workflow of functions, each of which reads from some before it.
fn functions(reads: &[Vec<prop::sample::Index>]) -> Graph {
    let mut text = "name: wf\ndataIns: [{name: x, type: number, source: x}]\nworkflowBody:\n".to_owned();
    for (index, reads) in reads.iter().enumerate() {
        let sources: BTreeSet<usize> = reads.iter().map(|read| read.index(index + 1)).collect();
        let mut inputs = vec!["{name: x, type: number, source: wf/x}".to_owned()];
        inputs.extend(
            sources
                .iter()
                .filter(|source| **source < index)
                .map(|source| format!("{{name: r{source}, type: number, source: f{source}/y}}")),
        );
        if index > 0 && inputs.len() > 1 {
            inputs.remove(0);
        }
        text.push_str(&format!(
            "- function: {{name: f{index}, type: F, dataIns: [{}], dataOuts: [{{name: y, type: number}}]}}\n",
            inputs.join(", ")
        ));
    }
    text.push_str(&format!("dataOuts: [{{name: y, type: number, source: f{}/y}}]\n", reads.len() - 1));
    compile(&text).unwrap().graph
}

/// Bytes that go over the border of a set of functions, counted from the graph's edges alone; none where the set is not
/// convex.
fn bytes_of(graph: &Graph, sent: &[bool], bytes: &[u64]) -> Option<u64> {
    let maker = |data: usize| match graph.data[data].kind {
        DataKind::Output { task } => Some(task.0 as usize),
        _ => None,
    };
    // Reached from the set without being in it; functions stand in the order in which they read.
    let mut left = vec![false; sent.len()];
    for (index, task) in graph.tasks.iter().enumerate() {
        for from in task.inputs.iter().filter_map(|input| maker(input.data.0 as usize)) {
            if left[from] && sent[index] {
                return None;
            }
            left[index] |= !sent[index] && (sent[from] || left[from]);
        }
    }
    let mut crossing = BTreeSet::new();
    for (index, task) in graph.tasks.iter().enumerate() {
        for input in &task.inputs {
            let from = maker(input.data.0 as usize).is_some_and(|from| sent[from]);
            if from != sent[index] {
                crossing.insert((input.data.0 as usize, from));
            }
        }
    }
    for output in &graph.outputs {
        if maker(output.data.0 as usize).is_some_and(|from| sent[from]) {
            crossing.insert((output.data.0 as usize, true));
        }
    }
    Some(crossing.iter().map(|(data, _)| bytes[*data]).sum())
}

fn best_of_all(graph: &Graph, costs: &Costs<'_>) -> u64 {
    let count = graph.tasks.len();
    let each = (0..1_u32 << count).filter_map(|number| {
        let sent: Vec<bool> = (0..count).map(|index| number & (1 << index) != 0).collect();
        let stays: u64 = (0..count).filter(|index| !sent[*index]).map(|index| costs.loads[index]).sum();
        (stays <= costs.capacity).then(|| bytes_of(graph, &sent, costs.bytes)).flatten()
    });
    each.min().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_cut_of_a_small_graph_is_the_best_there_is(
        reads in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..8),
        sizes in prop::collection::vec(0_u64..100, 16),
        loads in prop::collection::vec(0_u64..10, 8),
        capacity in 0_u64..30,
    ) {
        let graph = functions(&reads);
        let costs = Costs { bytes: &sizes[..graph.data.len()], loads: &loads[..graph.tasks.len()], capacity };
        let found = local_cut(&graph, ScopeId::WORKFLOW, &costs);
        prop_assert_eq!(found.bytes, best_of_all(&graph, &costs), "{}", lines(&graph));
    }

    #[test]
    fn the_cut_of_a_larger_graph_fits_and_is_no_worse_than_sending_everything(
        reads in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), EXACT_UNITS + 1..EXACT_UNITS + 4),
        sizes in prop::collection::vec(0_u64..100, 32),
        loads in prop::collection::vec(1_u64..10, 16),
        capacity in 0_u64..60,
    ) {
        let graph = functions(&reads);
        let costs = Costs { bytes: &sizes[..graph.data.len()], loads: &loads[..graph.tasks.len()], capacity };
        let found = local_cut(&graph, ScopeId::WORKFLOW, &costs);
        let sent: Vec<bool> = graph.tasks.iter().map(|task| found.members.contains(&task.name)).collect();
        let stays: u64 = graph.tasks.iter().zip(&sent).enumerate().filter(|(_, (_, sent))| !**sent).map(|(index, _)| costs.loads[index]).sum();
        prop_assert!(stays <= capacity);
        prop_assert_eq!(bytes_of(&graph, &sent, costs.bytes), Some(found.bytes));
        let everything = bytes_of(&graph, &vec![true; sent.len()], costs.bytes).unwrap();
        prop_assert!(found.bytes <= everything && found.bytes >= best_of_all(&graph, &costs));
    }
}
