//! Drawings of graphs in each format, kept beside the graphs.

use std::path::Path;

use lyra_afcl::graph::draw::{Format, draw};

use crate::golden::{documents, snapshots};

fn example(name: &str) -> lyra_afcl::Graph {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/workflows").join(format!("{name}.yaml"));
    lyra_afcl::compile(&std::fs::read_to_string(path).unwrap()).unwrap().graph
}

#[test]
fn examples_are_drawn_in_each_format() {
    let graph = example("image-pipeline");
    for (name, format) in [("dot", Format::Dot), ("mermaid", Format::Mermaid), ("svg", Format::Svg)] {
        snapshots().bind(|| insta::assert_snapshot!(format!("drawing-{name}"), draw(&graph, format)));
    }
}

#[test]
fn every_graph_is_drawn_with_each_task_once_and_no_arrow_to_nowhere() {
    for (name, text) in documents() {
        let graph = lyra_afcl::compile(&text).unwrap().graph;
        let dot = draw(&graph, Format::Dot);
        let nodes = dot.lines().filter(|line| line.contains("shape=")).count();
        let inputs = graph.data.iter().filter(|datum| matches!(datum.kind, lyra_afcl::graph::DataKind::Input { .. }));
        assert_eq!(nodes, graph.tasks.len() + inputs.count() + graph.outputs.len(), "{name}");
        let svg = draw(&graph, Format::Svg);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}");
        assert!(draw(&graph, Format::Mermaid).starts_with("flowchart TB\n"), "{name}");
    }
}

#[test]
fn names_can_not_break_out_of_a_drawing() {
    let text = "name: 'a\"]; <script>&'\nworkflowBody: [{function: {name: 'x\"<b>\\', type: '</svg>\"'}}]";
    let graph = lyra_afcl::compile(text).unwrap().graph;
    let svg = draw(&graph, Format::Svg);
    assert!(!svg.contains("<script>") && !svg.contains("<b>") && svg.matches("</svg>").count() == 1, "{svg}");
    let mermaid = draw(&graph, Format::Mermaid);
    assert!(!mermaid.contains("<b>") && mermaid.contains("&quot;"), "{mermaid}");
    assert!(draw(&graph, Format::Dot).contains("x\\\"<b>\\\\"), "{}", draw(&graph, Format::Dot));
}
