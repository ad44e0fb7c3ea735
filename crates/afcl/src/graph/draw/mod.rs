//! Draws a graph: tasks as boxes in the boxes of their scopes, and what flows between them.
//!
//! A drawing shows less than the graph: no constants, and data as the arrows that they are. The formats differ only in
//! how they write [`Drawing`].

mod dot;
mod mermaid;
mod svg;

use super::{DataId, DataKind, Graph, Over, ScopeKind, TaskKind};

/// How a drawing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For Graphviz.
    Dot,
    /// For Markdown.
    Mermaid,
    /// For a browser.
    Svg,
}

/// Draws a graph, which must keep its rules ([`Graph::validate`]).
pub fn draw(graph: &Graph, format: Format) -> String {
    let drawing = Drawing::of(graph);
    match format {
        Format::Dot => dot::write(&drawing),
        Format::Mermaid => mermaid::write(&drawing),
        Format::Svg => svg::write(&drawing),
    }
}

/// What is drawn.
struct Drawing {
    name: String,
    scopes: Vec<Area>,
    nodes: Vec<Node>,
    arrows: Vec<Arrow>,
    /// The nodes in each scope.
    nodes_in: Vec<Vec<usize>>,
    /// The scopes in each scope.
    scopes_in: Vec<Vec<usize>>,
}

/// The box of a scope.
struct Area {
    parent: Option<usize>,
    title: String,
}

struct Node {
    scope: usize,
    shape: Shape,
    /// One or two lines.
    lines: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// An input or output of the workflow.
    Data,
    Function,
    /// A task of the engine's own.
    Helper,
    /// A decision.
    Decision,
}

struct Arrow {
    from: usize,
    to: usize,
    label: String,
    style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Style {
    /// Data flow.
    Data,
    /// To the next iteration.
    Next,
    /// Order without data.
    Order,
}

impl Drawing {
    fn of(graph: &Graph) -> Drawing {
        let areas = graph.scopes.iter().map(|scope| Area {
            parent: scope.parent.map(|parent| parent.0 as usize),
            title: title(graph, &scope.name, &scope.kind),
        });
        let mut drawing = Drawing {
            name: graph.name.clone(),
            scopes: areas.collect(),
            nodes: Vec::new(),
            arrows: Vec::new(),
            nodes_in: vec![Vec::new(); graph.scopes.len()],
            scopes_in: vec![Vec::new(); graph.scopes.len()],
        };
        for task in &graph.tasks {
            drawing.nodes.push(node(task));
        }
        let mut inputs = vec![None; graph.data.len()];
        for (index, datum) in graph.data.iter().enumerate() {
            if let DataKind::Input { key } = &datum.kind {
                inputs[index] = Some(drawing.nodes.len());
                drawing.nodes.push(Node { scope: 0, shape: Shape::Data, lines: vec![format!("in: {key}")] });
            }
        }
        for (to, task) in graph.tasks.iter().enumerate() {
            for input in &task.inputs {
                drawing.flow(graph, &inputs, input.data, to, &input.name, Style::Data);
            }
            for before in &task.after {
                drawing.arrow(before.0 as usize, to, "", Style::Order);
            }
            for scope in &task.after_scopes {
                let last = graph.tasks.iter().rposition(|task| task.scope == *scope);
                if let Some(last) = last {
                    drawing.arrow(last, to, "", Style::Order);
                }
            }
        }
        for output in &graph.outputs {
            let to = drawing.nodes.len();
            drawing.nodes.push(Node { scope: 0, shape: Shape::Data, lines: vec![format!("out: {}", output.name)] });
            drawing.flow(graph, &inputs, output.data, to, "", Style::Data);
        }
        for (index, node) in drawing.nodes.iter().enumerate() {
            drawing.nodes_in[node.scope].push(index);
        }
        for (index, area) in drawing.scopes.iter().enumerate() {
            if let Some(parent) = area.parent {
                drawing.scopes_in[parent].push(index);
            }
        }
        drawing
    }

    fn arrow(&mut self, from: usize, to: usize, label: &str, style: Style) {
        self.arrows.push(Arrow { from, to, label: label.to_owned(), style });
    }

    /// Arrows from where a datum comes from. What only stands for other data leads on to those.
    fn flow(&mut self, graph: &Graph, inputs: &[Option<usize>], data: DataId, to: usize, label: &str, style: Style) {
        let mut seen = std::collections::HashSet::new();
        let mut open = vec![(data, style)];
        while let Some((data, style)) = open.pop() {
            if !seen.insert((data, style)) {
                continue;
            }
            let datum = graph.datum(data);
            match datum.kind {
                DataKind::Input { .. } => {
                    if let Some(from) = inputs[data.0 as usize] {
                        self.arrow(from, to, label, style);
                    }
                }
                DataKind::Constant(_) => {}
                DataKind::Output { task } | DataKind::Decision { task } | DataKind::Computed { task } => {
                    self.arrow(task.0 as usize, to, label, style);
                }
                DataKind::Element { .. } => {
                    if let ScopeKind::Iterations { distribution, .. } = graph.scope(datum.scope).kind {
                        self.arrow(distribution.0 as usize, to, label, style);
                    }
                }
                DataKind::Counter { start, .. } => open.extend(start.map(|start| (start, style))),
                DataKind::Carried { initial, next } => open.extend([(initial, style), (next, Style::Next)]),
                DataKind::Final { of, .. } => open.push((of, style)),
            }
        }
    }
}

fn title(graph: &Graph, name: &str, kind: &ScopeKind) -> String {
    match kind {
        ScopeKind::Workflow => name.to_owned(),
        ScopeKind::Branch { decision, taken_when } => {
            let by = &graph.datum(*decision).name;
            let by = by.strip_suffix("--decisionVariable").unwrap_or(by);
            let side = if *taken_when { "yes" } else { "no" };
            format!("{by}: {side}")
        }
        ScopeKind::Iterations { concurrency: None, .. } => format!("{name}: each, side by side"),
        ScopeKind::Iterations { concurrency: Some(most), .. } => format!("{name}: each, {most} at a time"),
        ScopeKind::Loop { .. } => format!("{name}: again and again"),
    }
}

fn node(task: &super::Task) -> Node {
    let scope = task.scope.0 as usize;
    let (shape, second) = match &task.kind {
        TaskKind::Function { function_type, .. } => (Shape::Function, function_type.clone()),
        TaskKind::Condition(_) => (Shape::Decision, "if".to_owned()),
        TaskKind::While(_) => (Shape::Decision, "go on?".to_owned()),
        TaskKind::Multiplexer => (Shape::Helper, "choose".to_owned()),
        TaskKind::Distribution { over: Over::Elements, .. } => (Shape::Helper, "take apart".to_owned()),
        TaskKind::Distribution { .. } => (Shape::Helper, "count".to_owned()),
        TaskKind::Aggregation { .. } | TaskKind::Gather(_) => (Shape::Helper, "collect".to_owned()),
        TaskKind::CollectionOperation(_) => (Shape::Helper, "constraint".to_owned()),
    };
    let first = task.name.clone();
    Node { scope, shape, lines: if first == second { vec![first] } else { vec![first, second] } }
}
