//! Writes a drawing as a Mermaid flowchart, which many Markdown viewers show.

use std::fmt::Write as _;

use super::{Drawing, Shape, Style};

pub(super) fn write(drawing: &Drawing) -> String {
    let mut text = "flowchart TB\n".to_owned();
    write_area(drawing, 0, 1, &mut text);
    for arrow in &drawing.arrows {
        let line = match arrow.style {
            Style::Data => "-->",
            Style::Next | Style::Order => "-.->",
        };
        let label = match (arrow.label.as_str(), arrow.style) {
            ("", Style::Order) => "|then|".to_owned(),
            ("", _) => String::new(),
            (label, _) => format!("|{}|", quoted(label)),
        };
        let _ = writeln!(text, "  n{} {line}{label} n{}", arrow.from, arrow.to);
    }
    text
}

/// One scope and what stands in it; scopes are not nested deeper than the limit on graphs.
fn write_area(drawing: &Drawing, area: usize, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    for index in &drawing.nodes_in[area] {
        let node = &drawing.nodes[*index];
        let (open, close) = match node.shape {
            Shape::Data => ("([", "])"),
            Shape::Function => ("[", "]"),
            Shape::Helper => ("(", ")"),
            Shape::Decision => ("{", "}"),
        };
        let _ = writeln!(text, "{indent}n{index}{open}{}{close}", quoted(&node.lines.join("<br>")));
    }
    for index in &drawing.scopes_in[area] {
        let inner = &drawing.scopes[*index];
        let _ = writeln!(text, "{indent}subgraph s{index} [{}]", quoted(&inner.title));
        write_area(drawing, *index, depth + 1, text);
        let _ = writeln!(text, "{indent}end");
    }
}

/// Mermaid takes the character entities of HTML.
fn quoted(label: &str) -> String {
    let breaks = label.split("<br>").map(|line| {
        line.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;").replace('\n', " ")
    });
    format!("\"{}\"", breaks.collect::<Vec<_>>().join("<br>"))
}
