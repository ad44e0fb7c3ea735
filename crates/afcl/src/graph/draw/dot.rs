//! Writes a drawing for Graphviz (the language of `dot`).

use std::fmt::Write as _;

use super::{Drawing, Shape, Style};

pub(super) fn write(drawing: &Drawing) -> String {
    let mut text = String::new();
    let name = quoted(&drawing.name);
    let _ = writeln!(text, "digraph {name} {{");
    text.push_str("  rankdir=TB;\n  node [fontname=\"sans-serif\", fontsize=11];\n  edge [fontname=\"sans-serif\", fontsize=9];\n");
    write_area(drawing, 0, 1, &mut text);
    for arrow in &drawing.arrows {
        let style = match arrow.style {
            Style::Data => "solid",
            Style::Next => "dashed",
            Style::Order => "dotted",
        };
        let label = quoted(&arrow.label);
        let _ = writeln!(text, "  n{} -> n{} [label={label}, style={style}];", arrow.from, arrow.to);
    }
    text.push_str("}\n");
    text
}

/// One scope and what stands in it; scopes are not nested deeper than the limit on graphs.
fn write_area(drawing: &Drawing, area: usize, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    for index in &drawing.nodes_in[area] {
        let node = &drawing.nodes[*index];
        let shape = match node.shape {
            Shape::Data => "shape=ellipse",
            Shape::Function => "shape=box, style=filled, fillcolor=\"#dce9f7\"",
            Shape::Helper => "shape=box, style=rounded",
            Shape::Decision => "shape=diamond",
        };
        let _ = writeln!(text, "{indent}n{index} [label={}, {shape}];", quoted(&node.lines.join("\n")));
    }
    for index in &drawing.scopes_in[area] {
        let inner = &drawing.scopes[*index];
        let _ = writeln!(text, "{indent}subgraph cluster_{index} {{\n{indent}  label={};", quoted(&inner.title));
        write_area(drawing, *index, depth + 1, text);
        let _ = writeln!(text, "{indent}}}");
    }
}

fn quoted(label: &str) -> String {
    format!("\"{}\"", label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
